"""The content of benchmarks/ and its configs agree with each other and with themselves."""

import csv
import json
from collections import Counter

import ase.io
import numpy as np
import pytest
import spglib
import yaml
from omegaconf import OmegaConf

from mlip import paths
from mlip.benchmarks.task import load_task, read_card
from mlip.config import compose, options
from mlip.properties.excess import check_stoichiometry, normal_axis, plane_area

TASKS = ("surface_energy", "grain_boundary_energy")
ALL = (*TASKS, "work_of_separation", "softening", "bulk_modulus")
ROOT = paths.content("benchmarks")


def task_of(name):
    return load_task(OmegaConf.to_container(compose("benchmark", [f"task={name}"]).task))


@pytest.mark.parametrize("name", TASKS)
def test_reference_values_follow_from_the_stored_energies(name):
    """(E − N e_bulk)/2A from the bulk file, the energies of the frames and the cells."""
    task = task_of(name)
    rows = list(csv.DictReader((ROOT / name / "reference.csv").open(encoding="utf-8")))
    assert len(rows) == len(task.cases)
    for case, row in zip(task.cases, rows, strict=True):
        energy = case.structure.get_potential_energy()
        bulk = case.partner.info["e_bulk_dft_eV_per_atom"]
        area = plane_area(case.structure, normal_axis(case.structure))
        value = (energy - len(case.structure) * bulk) / (2 * area) * 16.02176634
        assert value == pytest.approx(case.reference, abs=2e-5), case.name
        assert energy == pytest.approx(float(row["energy_eV"]), abs=1e-6)
        assert bulk == pytest.approx(float(row["bulk_energy_eV_per_atom"]), abs=1e-9)
        assert area == pytest.approx(float(row["area_A2"]), abs=1e-5)
        assert len(case.structure) == int(row["atoms"])


@pytest.mark.parametrize("name", TASKS)
def test_every_case_is_stoichiometric_and_sane(name):
    for case in task_of(name).cases:
        check_stoichiometry(case.structure, dict(Counter(case.partner.get_chemical_symbols())))
        assert case.structure.pbc.all()
        assert np.isfinite(case.structure.positions).all()
        assert set(case.tiers.values()) <= {"smoke", "core", "full"}
        assert not case.structure.constraints


def test_work_of_separation_follows_from_the_stored_energies_and_from_the_other_tasks():
    """W = (2 E_slab − E_gb)/2A for every pair; and 2γ − σ where both are cases of their tasks."""
    task = task_of("work_of_separation")
    gamma = {case.name: case.reference for case in task_of("surface_energy").cases}
    sigma = {case.name: case.reference for case in task_of("grain_boundary_energy").cases}
    compared = 0
    for case in task.cases:
        cell, slab = case.structure, case.partner
        assert Counter(cell.symbols) == {k: 2 * n for k, n in Counter(slab.symbols).items()}
        area = plane_area(cell, normal_axis(cell))
        parted = 2 * slab.get_potential_energy() - cell.get_potential_energy()
        assert parted / (2 * area) * 16.02176634 == pytest.approx(case.reference, abs=2e-5)
        strain = area / plane_area(slab, normal_axis(slab)) - 1
        assert (abs(strain) <= 0.01) == case.scored
        if case.name in gamma and case.name in sigma:
            compared += 1
            expected = 2 * gamma[case.name] - sigma[case.name]
            tolerance = 2e-4 if abs(strain) < 1e-6 else 0.01  # γ is per area of the slab
            assert case.reference == pytest.approx(expected, abs=tolerance), case.name
    assert compared > 150


def test_softening_frames_are_off_equilibrium_and_come_from_the_data_sets():
    task = task_of("softening")
    published = {}
    for name in ("li", "cu", "ni", "mo", "ge"):
        path = paths.content("datasets") / f"mlearn_{name}" / "test.extxyz.gz"
        frames = ase.io.read(path, ":", format="extxyz")
        published[name.capitalize()] = [frame.get_forces() for frame in frames]
    for case in task.cases:
        forces = case.structure.arrays["reference_forces"]
        assert np.sqrt((forces**2).sum(axis=1).mean()) >= 0.5
        assert (case.reference, case.partner, set(case.tiers)) == (1.0, None, {"static"})
        if case.material in published:
            assert case.tags["source_split"] == "test"
            same = [f for f in published[case.material] if f.shape == forces.shape]
            assert min(abs(f - forces).max() for f in same) < 1e-7


def test_bulk_moduli_are_those_of_cubic_crystals_without_freedom():
    task = task_of("bulk_modulus")
    cases = {case.label: case for case in task.cases}
    assert cases["MgO@mp-1265"].reference == pytest.approx(151.45)  # GPa
    for case in task.cases:
        cell = (case.structure.cell.array, case.structure.get_scaled_positions())
        found = spglib.get_symmetry_dataset((*cell, case.structure.numbers), symprec=1e-2)
        assert found.number >= 195, case.name
        assert set(case.tiers) == {"static"}


def test_lithium_values_are_those_of_the_source():
    cases = {case.name: case for case in task_of("surface_energy").cases}
    for label, value in {"100": 0.458, "110": 0.492, "111": 0.543}.items():
        assert cases[f"Li/{label}"].reference == pytest.approx(value, abs=6e-4)
        assert cases[f"Li/{label}"].tiers == {"static": "smoke", "relaxed": "smoke"}
    held_out = {name for name, case in cases.items() if case.tags.get("source_split") == "test"}
    assert held_out == {"Li/111", "Li/310", "Mo/211", "Mo/322"}


def test_doubtful_bulks_are_shown_but_not_scored():
    for name in TASKS:
        for case in task_of(name).cases:
            doubtful = case.material == "Li3YCl6"
            assert case.scored != doubtful
            assert (case.tags["confidence"] == "doubtful") == doubtful


def test_the_boundary_stored_along_a_has_its_area_from_b_and_c():
    case = next(c for c in task_of("grain_boundary_energy").cases if c.name == "Li2S/100@0.12")
    assert normal_axis(case.structure) == 0
    assert case.reference == pytest.approx(0.002089, abs=2e-5)


@pytest.mark.parametrize("name", TASKS)
def test_tiers(name):
    task = task_of(name)
    smoke, core, full = (task.select(tier, ["static"]) for tier in ("smoke", "core", "full"))
    assert len(full) == len(task.cases) > len(core) > len(smoke) > 5
    assert {case.name for case, _ in smoke} < {case.name for case, _ in core}
    assert {case.material for case, _ in core} == {case.material for case in task.cases}
    assert sum(len(case.structure) for case, _ in core) < 6000
    assert 2 <= len(task.select("smoke", ["relaxed"])) <= 6
    assert len(task.select("full", ["static", "relaxed"], limit=3)) == 3
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        task.select("smok", ["static"])
    with pytest.raises(ValueError, match="limit is 0"):
        task.select("smoke", ["static"], limit=0)


def test_names_of_files_and_contents_agree():
    assert set(options("task")) == set(ALL)
    for group in ("task", "calculator"):
        for name in options(group):
            text = (paths.content("configs") / group / f"{name}.yaml").read_text(encoding="utf-8")
            assert text.startswith("#"), name
            assert yaml.safe_load(text)["name"] == name
    for name in ALL:
        assert read_card(ROOT / name / "card.yaml")["name"] == name


def test_no_large_file_and_no_code_in_benchmarks():
    for path in ROOT.rglob("*"):
        assert path.suffix != ".py", path
        assert path.is_dir() or path.stat().st_size <= 2**20, path


def test_calculator_cards_are_complete():
    needed = {
        "label",
        "functional",
        "training_sets",
        "parameters",
        "dtype",
        "code_licence",
        "weights_licence",
        "source",
        "citation",
        "requirements",
    }
    for name in options("calculator"):
        card = compose("benchmark", [f"calculator={name}"]).calculator.card
        assert needed <= set(card), name


def test_a_card_that_breaks_the_schema_names_the_field(tmp_path):
    (tmp_path / "card.schema.json").write_text((ROOT / "card.schema.json").read_text())
    card = yaml.safe_load((ROOT / "surface_energy" / "card.yaml").read_text(encoding="utf-8"))
    card["reference"]["functional"] = "pbe"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "card.yaml").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"reference\.functional: 'pbe' is not one of"):
        read_card(tmp_path / "odd" / "card.yaml")
