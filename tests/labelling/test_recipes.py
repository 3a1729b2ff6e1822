"""The sets with charges are made for real: charges add up, and respond to the protonation."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tblite")

from mlip import config
from mlip.calculators.xtb import XTB
from mlip.cli import main
from mlip.data.readers import read
from mlip.labelling.sample import load_recipe, write_sample

CHARGES = {
    "carbon_chain": {"C10H2": 0, "C10H3_plus": 1},
    "sodium_chloride": {"Na9Cl8_plus": 1, "Na8Cl8_plus": 1},
    "silver_trimer": {"Ag3_plus": 1, "Ag3_minus": -1},
}


def short(name):
    """The recipe with hardly any relaxation and few steps, which a test can wait for."""
    return replace(load_recipe(name), relax_fmax=1.0, equilibration=3, interval=2, frames=2)


def test_the_verb(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mlip.labelling.sample.load_recipe", short)
    main(["data", "sample", "silver_trimer", str(tmp_path / "a.extxyz"), "frames=1"])
    assert "2 structures" in capsys.readouterr().out


def test_every_recipe_is_tested():
    assert set(CHARGES) == set(config.options("recipe"))


@pytest.fixture(scope="module", params=CHARGES)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_sample(short(request.param), folder / "in.extxyz")
    command = [str(folder / "in.extxyz"), str(folder / "out.extxyz"), "calculator=gfn2_xtb"]
    main(["data", "label", *command, "workers=1"])
    return request.param, folder, list(read(folder / "out.extxyz", "ase"))


def test_charges_add_up_to_the_total_charge(made):
    recipe, _, frames = made
    assert len(frames) == 4
    for frame in frames:
        total = CHARGES[recipe][frame.info["group"]]
        assert float(frame.labels["total_charge"]) == total
        assert frame.labels["charges"].sum() == pytest.approx(total, abs=1e-5)
        assert {"energy", "forces", "dipole"} <= frame.labels.keys()
        assert "stress" not in frame.labels


def test_forces_are_minus_the_gradient(made):
    _, _, frames = made
    for frame in (frames[0], frames[-1]):
        energies, step = [], 1e-3
        for sign in (1, -1):
            atoms = frame.atoms.copy()
            atoms.info["total_charge"] = int(frame.labels["total_charge"])
            atoms.positions[0, 0] += sign * step
            atoms.calc = XTB()
            energies.append(atoms.get_potential_energy())
        numeric = -(energies[0] - energies[1]) / (2 * step)
        assert frame.labels["forces"][0, 0] == pytest.approx(numeric, abs=2e-3)


def test_the_same_seed_makes_the_same_structures(made, tmp_path):
    recipe, folder, _ = made
    write_sample(short(recipe), tmp_path / "again.extxyz")
    assert (tmp_path / "again.extxyz").read_text() == (folder / "in.extxyz").read_text()


def test_the_far_end_of_the_chain_feels_the_proton(made):
    recipe, _, frames = made
    if recipe != "carbon_chain":
        pytest.skip("the carbon chain only")
    # Atoms 5 to 9 are the half of the chain away from the added proton; the last atom its hydrogen.
    far = {
        name: np.mean([
            f.labels["charges"][5:10].sum() + f.labels["charges"][-1]
            for f in frames if f.info["group"] == name
        ])
        for name in CHARGES[recipe]
    }  # fmt: skip
    assert far["C10H3_plus"] - far["C10H2"] > 0.1


def test_a_calculator_that_needs_the_charge_refuses_before_any_work(tmp_path, capsys):
    (tmp_path / "in.extxyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    with pytest.raises(SystemExit):
        main([
            "data", "label", str(tmp_path / "in.extxyz"), str(tmp_path / "out.extxyz"),
            "calculator=gfn2_xtb",
        ])  # fmt: skip
    assert "the calculator needs it" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_a_sampling_that_was_stopped_goes_on(tmp_path, monkeypatch):
    from mlip.labelling import sample

    recipe, run, begun = short("silver_trimer"), sample._run, []

    def stopped(atoms, name, *rest):
        begun.append(name)
        if begun == ["Ag3_plus", "Ag3_minus"]:
            raise KeyboardInterrupt
        yield from run(atoms, name, *rest)

    monkeypatch.setattr(sample, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_sample(recipe, tmp_path / "a.extxyz")
    assert not (tmp_path / "a.extxyz").exists()
    assert write_sample(recipe, tmp_path / "a.extxyz") == 4
    assert begun == ["Ag3_plus", "Ag3_minus", "Ag3_minus"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.extxyz"]
    monkeypatch.undo()
    write_sample(recipe, tmp_path / "b.extxyz")
    assert (tmp_path / "a.extxyz").read_text() == (tmp_path / "b.extxyz").read_text()
