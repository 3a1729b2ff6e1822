"""Errors of known size come out as what they are; failures are counted, not dropped."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mlip.data.frame import Frame
from mlip.evaluation.evaluate import evaluate
from mlip.evaluation.metrics import align, summarise
from mlip.evaluation.pages import error_rows, group_rows, worst
from mlip.units import GPA_PER_EV_A3


def frames(count=5, energy_shift=0.0, force_shift=0.0, stress_shift=0.0):
    made = []
    for index in range(count):
        atoms = bulk("Cu", cubic=True) * (1, 1, 1 + index % 2)
        atoms.rattle(0.05, seed=index)
        atoms.calc = EMT()
        labels = {
            "energy": np.asarray(atoms.get_potential_energy() + energy_shift * len(atoms)),
            "forces": atoms.get_forces() + force_shift,
            "stress": atoms.get_stress(voigt=False) + stress_shift,
        }
        atoms.calc = None
        made.append(Frame(atoms, labels, f"cu.extxyz#{index}"))
    return made


def test_a_perfect_potential_has_no_error():
    errors = evaluate(EMT(), frames(), progress=False).errors
    assert errors.values["energy_per_atom_mae_meV"] == pytest.approx(0.0, abs=1e-9)
    assert errors.values["forces_max_meV_per_A"] == pytest.approx(0.0, abs=1e-9)
    assert errors.values["stress_rmse_GPa"] == pytest.approx(0.0, abs=1e-9)
    assert errors.used["forces"] == 3 * (4 + 8 + 4 + 8 + 4)
    others = dict.fromkeys(("charges", "dipole", "born_effective_charges", "magmoms"), 5)
    assert errors.missing == {**dict.fromkeys(errors.missing, 0), **others}


def test_known_errors_are_found_with_their_units():
    found = evaluate(EMT(), frames(5, 0.01, 0.1, 0.02), progress=False).errors.values
    assert found["energy_per_atom_mae_meV"] == pytest.approx(10.0)
    assert found["energy_per_atom_aligned_rmse_meV"] == pytest.approx(0.0, abs=1e-6)
    assert found["forces_mae_meV_per_A"] == pytest.approx(100.0)
    assert found["stress_rmse_GPa"] == pytest.approx(0.02 * GPA_PER_EV_A3)


def test_missing_labels_are_counted():
    some = frames(4)
    forces = np.array(some[1].labels["forces"])
    forces[0] = np.nan
    partial = {"energy": some[1].labels["energy"], "forces": forces + 0.05}
    some[1] = Frame(some[1].atoms, partial, "x")
    errors = evaluate(EMT(), some, progress=False).errors
    assert errors.missing["stress"] == 1
    assert errors.used["forces"] == 3 * (4 + 8 + 4 + 8) - 3
    assert errors.values["forces_max_meV_per_A"] == pytest.approx(50.0)


def test_stress_counts_only_where_the_volume_means_something():
    slab = frames(2)
    slab[0].atoms.pbc = (True, True, False)
    errors = evaluate(EMT(), slab, progress=False).errors
    assert errors.used["stress"] == 9
    assert errors.missing["stress"] == 1


class EnergyOnly(Calculator):
    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": EMT().get_potential_energy(atoms)}


def test_a_potential_without_forces_is_compared_by_its_energy():
    evaluation = evaluate(EnergyOnly(), frames(2), progress=False)
    assert evaluation.failures == {}
    assert evaluation.errors.used == {
        "energy_per_atom": 2,
        "energy_per_atom_aligned": 2,
        "forces": 0,
        "stress": 0,
        "charges": 0,
        "dipole": 0,
        "born_effective_charges": 0,
        "magmoms": 0,
    }


def test_groups_have_errors_of_their_own(tmp_path):
    good, bad = frames(3), frames(2, 0.0, 0.1)
    named = [replace(frame, info={"group": "bulk"}) for frame in good]
    named += [replace(frame, info={"group": "surface"}) for frame in bad]
    evaluation = evaluate(EMT(), named, progress=False)
    found = evaluation.group_errors()
    assert found["bulk"].values["forces_mae_meV_per_A"] == pytest.approx(0.0, abs=1e-9)
    assert found["surface"].values["forces_mae_meV_per_A"] == pytest.approx(100.0)
    assert [row["frames"] for row in group_rows(evaluation)] == [3, 2]
    text = evaluation.write(tmp_path).read_text()
    assert "RMSE by group" in text
    assert evaluate(EMT(), good, progress=False).group_errors() == {}


class Moody(Calculator):
    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if len(atoms) == 8:
            raise RuntimeError("too many atoms")
        self.results = {
            "energy": np.nan,
            "forces": np.zeros((len(atoms), 3)),
            "stress": np.zeros(6),
        }


def test_failures_are_kept_with_their_message():
    evaluation = evaluate(Moody(), frames(4), progress=False)
    assert evaluation.failures == {
        0: "energy not finite",
        1: "RuntimeError: too many atoms",
        2: "energy not finite",
        3: "RuntimeError: too many atoms",
    }
    assert evaluation.errors.values == {}
    assert evaluation.errors.missing["forces"] == 4


class Batched(EMT):
    calls = 0

    def predict(self, structures):
        Batched.calls += 1
        if any(len(atoms) == 8 for atoms in structures) and len(structures) > 1:
            raise ValueError("one of them is bad")
        results = []
        for atoms in structures:
            if len(atoms) == 8:
                raise ValueError("bad")
            atoms.calc = EMT()
            results.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()})
        return results


def test_one_bad_frame_does_not_spoil_its_batch():
    evaluation = evaluate(Batched(), frames(4), progress=False)
    assert sorted(evaluation.failures) == [1, 3]
    assert evaluation.errors.values["forces_mae_meV_per_A"] == pytest.approx(0.0, abs=1e-9)


def test_alignment_removes_a_shift_of_each_element_only():
    structures = [bulk("CuAu", "rocksalt", 5.0), bulk("Cu"), bulk("Au")]
    shifts = [np.array(0.5 * 0.3 - 0.5 * 0.1), np.array(0.3), np.array(-0.1)]
    assert max(abs(float(part)) for part in align(structures, shifts)) < 1e-12
    shifts[0] = shifts[0] + 0.06
    assert max(abs(float(part)) for part in align(structures, shifts)) > 0.01
    assert align(structures, [None, None, None]) == [None, None, None]


def test_alignment_that_could_explain_anything_says_nothing():
    structures = [bulk("Cu"), bulk("Au"), bulk("Cu")]
    assert align(structures[:2], [np.array(0.3), np.array(-0.1)]) == [None, None]
    known = align(structures, [np.array(0.3), np.array(-0.1), np.array(0.1)])
    assert [float(part) for part in known] == pytest.approx([0.1, 0.0, -0.1])


def test_summary_of_hand_made_numbers():
    found = summarise("forces", [np.array([0.003, -0.004]), None, np.array([np.nan])])
    assert found == pytest.approx(
        {
            "forces_mae_meV_per_A": 3.5,
            "forces_rmse_meV_per_A": 12.5**0.5,
            "forces_max_meV_per_A": 4.0,
        }
    )
    assert summarise("forces", [None]) == {}


def test_the_folder(tmp_path):
    evaluation = evaluate(EMT(), frames(6, 0.002, 0.01), label="EMT", progress=False)
    page = evaluation.write(tmp_path / "out")
    text = page.read_text()
    assert "http" not in text
    assert "Forces RMSE" in text
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["errors"]["forces_mae_meV_per_A"] == pytest.approx(10.0)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [f"cu.extxyz#{i}" for i in range(6)]
    assert float(rows[0]["energy_error_meV_per_atom"]) == pytest.approx(-2.0)
    for name in ("energy", "forces", "stress"):
        assert (tmp_path / "out" / f"parity_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(worst(evaluation)) == 6
    assert [row["unit"] for row in error_rows(evaluation)] == [
        "meV/atom",
        "meV/atom",
        "meV/Å",
        "GPa",
    ]


def run(*arguments, cwd):
    command = [sys.executable, "-c", "from mlip.cli import main; main()", "evaluate", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def file(tmp_path):
    images = []
    for frame in frames(3):
        atoms = frame.atoms.copy()
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(frame.labels["energy"]), forces=frame.labels["forces"]
        )
        images.append(atoms)
    ase.io.write(tmp_path / "cu.extxyz", images)
    ase.io.write(tmp_path / "bare.extxyz", [frame.atoms for frame in frames(2)])
    return tmp_path


def test_the_command(file):
    result = run("calculator=emt", "frames=cu.extxyz", "units=ase", "output=out", cwd=file)
    assert result.returncode == 0, result.stderr
    assert "Forces" in result.stdout
    assert (file / "out" / "report.html").is_file()


def test_a_potential_that_always_fails_is_an_error_with_a_report(file):
    result = run("calculator=raising", "frames=cu.extxyz", "units=ase", "output=out", cwd=file)
    assert result.returncode == 2
    assert "failed on each of the 3 frames" in result.stderr
    assert "CalculatorError" in (file / "out" / "report.html").read_text()


BAD = {
    "no potential": (["frames=cu.extxyz", "units=ase"], "neither was given"),
    "two potentials": (["frames=cu.extxyz", "calculator=emt", "checkpoint=x"], "both were given"),
    "no frames": (["calculator=emt"], "frames is missing"),
    "unknown calculator": (
        ["frames=cu.extxyz", "calculator=chgnet_0_30"],
        "did you mean 'chgnet_0_3_0'",
    ),
    "missing file": (["calculator=emt", "frames=no.extxyz", "units=ase"], "no.extxyz"),
    "undeclared units": (["calculator=emt", "frames=cu.extxyz"], "units"),
    "no labels": (["calculator=emt", "frames=bare.extxyz", "units=ase"], "bare.extxyz"),
    "unknown data set": (["calculator=emt", "frames=mlearn_lii"], "mlearn_li"),
    "unknown elements": (["calculator=emt", "frames=mlearn_li"], "Li"),
    "a GPU that is not there": (["calculator=emt", "frames=cu.extxyz", "device=cuda:7"], "cuda:7"),
    "unknown device": (["calculator=emt", "frames=cu.extxyz", "device=gpuu"], "gpuu"),
    "text for threads": (["calculator=emt", "frames=cu.extxyz", "threads=abc"], "threads"),
    "missing checkpoint": (["checkpoint=no.safetensors", "frames=mlearn_li"], "no.safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, file):
    arguments, message = BAD[case]
    result = run(*arguments, "output=out", cwd=file)
    assert result.returncode == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (file / "out").exists()


def test_magnetic_moments_are_compared_by_their_size():
    class Magnetic(EMT):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            self.results["magmoms"] = np.full(len(self.atoms), 2.0)

    signed = [
        Frame(f.atoms, {**f.labels, "magmoms": np.full(len(f), -1.5)}, f.source) for f in frames(2)
    ]
    found = evaluate(Magnetic(), signed, progress=False).errors.values
    assert found["magmoms_mae_muB"] == pytest.approx(0.5)
