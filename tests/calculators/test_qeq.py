"""QEq as a calculator: derivatives, charge states, what it refuses, evaluate."""

import csv
import json
import math

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc100, molecule
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.io import write

from mlip import config
from mlip.calculators.build import build_calculator
from mlip.evaluation.command import cli_run


def rappe(**changes):
    content = config.compose("evaluate", ["calculator=qeq_rappe"]).calculator
    build = dict(content.build)
    return build_calculator({**build, **changes})


def with_charge(atoms, charge):
    atoms.info["total_charge"] = charge
    atoms.rattle(0.1, seed=3)
    return atoms


def slab():
    atoms = bulk("LiF", "rocksalt", a=4.03, cubic=True)
    atoms.pbc = [True, True, False]
    atoms.center(vacuum=6.0, axis=2)
    return atoms


STRUCTURES = {
    "molecule": lambda: with_charge(molecule("CH3OH"), 0),
    "cation": lambda: with_charge(molecule("CH3OH"), 1),
    "crystal": lambda: with_charge(bulk("NaCl", "rocksalt", a=5.64, cubic=True), 0),
    "charged crystal": lambda: with_charge(bulk("NaCl", "rocksalt", a=5.64, cubic=True), 0.5),
    "slab": lambda: with_charge(slab(), 0),
}


@pytest.fixture(params=list(STRUCTURES))
def atoms(request):
    atoms = STRUCTURES[request.param]()
    atoms.calc = rappe(tolerance=1e-9)
    return atoms


def test_forces_and_stress_are_derivatives_and_charges_add_up(atoms):
    assert atoms.get_charges().sum() == pytest.approx(atoms.info["total_charge"], abs=1e-8)
    forces = atoms.get_forces()
    numeric = calculate_numerical_forces(atoms, eps=1e-4)
    assert forces == pytest.approx(numeric, abs=1e-6)
    if atoms.pbc.any():
        stress = atoms.get_stress()
        numeric = calculate_numerical_stress(atoms, eps=1e-5)
        assert stress == pytest.approx(numeric, abs=1e-6)


def test_elements_are_charged_in_the_order_of_their_electronegativity():
    atoms = with_charge(bulk("NaCl", "rocksalt", a=5.64, cubic=True), 0)
    atoms.calc = rappe()
    charges = atoms.get_charges()
    assert (charges[atoms.numbers == 11] > 0.3).all()
    assert (charges[atoms.numbers == 17] < -0.3).all()


def test_dipole_of_water_is_the_closed_form():
    """One unknown, the charge of a hydrogen; the dipole points from oxygen to the hydrogens."""
    atoms = molecule("H2O", info={"total_charge": 0}, calculator=rappe())
    width = {z: units.Hartree * units.Bohr / math.sqrt(math.pi) / (0.5 * whole)
             for z, whole in ((1, 13.890), (8, 13.364))}  # fmt: skip

    def coulomb(first, second):
        gamma = math.hypot(*(width[z] for z in atoms.numbers[[first, second]]))
        r = atoms.get_distance(first, second)
        return units.Hartree * units.Bohr * math.erf(r / (math.sqrt(2) * gamma)) / r

    whole = 13.890 + 2 * 13.364 + coulomb(1, 2) - 4 * coulomb(0, 1)
    charge = (8.741 - 4.528) / whole
    assert atoms.get_charges() == pytest.approx([-2 * charge, charge, charge], abs=1e-5)
    expected = charge * (atoms.positions[1] + atoms.positions[2] - 2 * atoms.positions[0])
    assert atoms.get_dipole_moment() == pytest.approx(expected, abs=1e-5)


def test_a_new_charge_is_a_new_calculation():
    atoms = with_charge(molecule("H2O"), 0)
    atoms.calc = rappe()
    neutral = atoms.get_potential_energy()
    atoms.info["total_charge"] = 1
    assert atoms.get_charges().sum() == pytest.approx(1.0, abs=1e-8)
    assert atoms.get_potential_energy() > neutral + 1.0


def test_missing_charge_and_unknown_elements_are_refused():
    water = molecule("H2O", calculator=rappe())
    with pytest.raises(ValueError, match="H2O states no total charge"):
        water.get_potential_energy()
    water.calc = rappe(charge=0)
    assert water.get_charges().sum() == pytest.approx(0.0, abs=1e-10)
    gold = fcc100("Au", (1, 1, 2), vacuum=8.0) + Atoms("Pt", [[0, 0, 1]])
    gold.info["total_charge"] = 0
    gold.calc = rappe()
    with pytest.raises(ValueError, match=r"no electronegativity and hardness of Au, Pt; .* Zr"):
        gold.get_potential_energy()


def test_bad_structures_are_refused():
    atoms = with_charge(molecule("H2O"), 0)
    atoms.positions[1] = atoms.positions[0]
    atoms.calc = rappe()
    with pytest.raises(ValueError, match="atoms 0 and 1 are"):
        atoms.get_potential_energy()
    thick = with_charge(slab(), 0)
    thick.positions[0, 2] += 100.0
    thick.calc = rappe()
    with pytest.raises(ValueError, match="wrap the slab into one piece"):
        thick.get_potential_energy()


def test_atoms_outside_the_cell_do_not_matter(atoms):
    energy, forces, charges = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_charges()
    moved = atoms.copy()
    steps = np.random.default_rng(0).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    moved.positions += steps @ atoms.cell.array
    moved.calc = rappe(tolerance=1e-9)
    assert moved.get_potential_energy() == pytest.approx(energy, abs=1e-7)
    assert moved.get_forces() == pytest.approx(forces, abs=1e-7)
    assert moved.get_charges() == pytest.approx(charges, abs=1e-7)


def test_evaluate_gives_charges_and_compares_them(tmp_path):
    """A file with charges of its own, written by ASE, and one of bare structures."""
    frames = [STRUCTURES[name]() for name in ("molecule", "cation", "crystal")]
    for atoms in frames:
        atoms.calc = rappe()
        atoms.get_potential_energy()
        labels = atoms.get_charges()
        labels[:2] += [0.1, -0.1]
        atoms.arrays["charges"] = labels
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.calc = None
    write(tmp_path / "bare.xyz", [STRUCTURES["slab"]()], format="extxyz")
    bare = tmp_path / "bare"
    cli_run(["calculator=qeq_rappe", f"frames={tmp_path / 'bare.xyz'}", f"output={bare}"])
    assert len((bare / "charges.csv").read_text().splitlines()) == 1 + len(STRUCTURES["slab"]())
    write(tmp_path / "labelled.xyz", frames, format="extxyz")
    out = tmp_path / "labelled"
    fields = (
        "units={energy: {key: energy, unit: eV}, charges: {key: charges, unit: e}, "
        "total_charge: {key: total_charge, unit: e}}"
    )
    labelled = f"frames={tmp_path / 'labelled.xyz'}"
    cli_run(["calculator=qeq_rappe", labelled, f"output={out}", fields])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["errors"]["charges_rmse_me"] == pytest.approx(
        100.0 * math.sqrt(2 * len(frames) / sum(len(atoms) for atoms in frames)), abs=1e-3
    )
    with (out / "charges.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(atoms) for atoms in frames)
    assert [row["element"] for row in rows[:6]] == list(frames[0].symbols)
    total = sum(float(row["charge_e"]) for row in rows if row["frame"] == "1")
    assert total == pytest.approx(1.0, abs=1e-6)
    assert (out / "parity_charges.png").stat().st_size > 1000
