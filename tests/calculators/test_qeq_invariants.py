"""QEq as a calculator: tight derivatives, charged slabs, batches, kept plans, wrong options."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc100, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from scipy.spatial.transform import Rotation

from mlip import config
from mlip.calculators.build import build_calculator
from mlip.calculators.qeq import QEq

FORCE = 1e-6
STRESS = 1e-7
CHARGE = 1e-6
SYMMETRY = 1e-9


def qeq(**options):
    """Return the calculator of the config, tightly converged."""
    content = config.compose("label", ["calculator=qeq_rappe"]).calculator.build
    return build_calculator({**content, "tolerance": 1e-10, "residual": 1e-11, **options})


def rock_salt(net=0.0, repeat=(1, 2, 2)):
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(repeat)
    random = np.random.default_rng(1)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * random.normal(size=(3, 3))), True)
    atoms.positions += 0.1 * random.normal(size=(len(atoms), 3))
    atoms.info["total_charge"] = net
    return atoms


def slab(net=0.0):
    atoms = fcc100("Na", (2, 2, 2), a=5.64, vacuum=8.0, periodic=False)
    atoms.symbols[::2] = "Cl"
    atoms.rattle(0.1, seed=2)
    atoms.info["total_charge"] = net
    return atoms


def tilted_slab():
    """In no direction along an axis: an oblique layer, its open vector not along the normal."""
    atoms = slab(0.5)
    cell = atoms.cell.array.copy()
    cell[1] += [0.9, 0.2, 0.0]
    cell[2] += [2.0, -1.0, 0.0]
    atoms.set_cell(cell)
    atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    return atoms


def ion(net=1.0):
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=3)
    atoms.info["total_charge"] = net
    return atoms


CASES = {
    "triclinic": rock_salt,
    "triclinic, charged": lambda: rock_salt(0.5),
    "slab": slab,
    "slab, charged": lambda: slab(0.5),
    "tilted slab, charged": tilted_slab,
    "open, charged": ion,
}


def energy(atoms):
    atoms = atoms.copy()
    atoms.calc = qeq()
    return atoms.get_potential_energy()


@pytest.mark.parametrize("name", CASES)
def test_charges_add_up(name):
    atoms = CASES[name]()
    atoms.calc = qeq()
    assert atoms.get_charges().sum() == pytest.approx(atoms.info["total_charge"], abs=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_forces_are_central_differences(name):
    atoms = CASES[name]()
    atoms.calc = qeq()
    forces, step = atoms.get_forces(), 1e-3
    assert np.abs(forces.sum(0)).max() < 1e-8
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        # Richardson: the fourth order of the difference.
        slopes = []
        for size in (step, 2 * step):
            up, down = atoms.copy(), atoms.copy()
            up.positions[atom, axis] += size
            down.positions[atom, axis] -= size
            slopes.append((energy(down) - energy(up)) / (2 * size))
        expected = (4 * slopes[0] - slopes[1]) / 3
        assert forces[atom, axis] == pytest.approx(expected, abs=FORCE)


@pytest.mark.parametrize("name", [name for name in CASES if "open" not in name])
def test_stress_is_the_strain_derivative(name):
    atoms = CASES[name]()
    atoms.calc = qeq()
    stress, step = atoms.get_stress(voigt=False), 1e-3
    for row, column in ((0, 0), (1, 1), (0, 1), (1, 2)):
        if not atoms.pbc[[row, column]].all():
            continue
        slopes = []
        for size in (step, 2 * step):
            values = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[row, column] += 0.5 * sign * size
                strain[column, row] += 0.5 * sign * size
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ strain, scale_atoms=False)
                moved.positions = atoms.positions @ strain
                values.append(energy(moved))
            slopes.append((values[0] - values[1]) / (2 * size * atoms.get_volume()))
        expected = (4 * slopes[0] - slopes[1]) / 3
        assert stress[row, column] == pytest.approx(expected, abs=STRESS)


@pytest.mark.parametrize("name", CASES)
def test_vectors_and_tensors_turn_with_the_structure(name):
    atoms = CASES[name]()
    atoms.calc = qeq()
    turn = Rotation.from_rotvec([0.3, -0.8, 1.1]).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.positions = atoms.positions @ turn.T
    turned.calc = qeq()
    assert turned.get_potential_energy() == pytest.approx(
        atoms.get_potential_energy(), abs=SYMMETRY
    )
    assert turned.get_charges() == pytest.approx(atoms.get_charges(), abs=SYMMETRY)
    assert turned.get_forces() == pytest.approx(atoms.get_forces() @ turn.T, abs=SYMMETRY)
    if atoms.pbc.any():
        stress = turn @ atoms.get_stress(voigt=False) @ turn.T
        assert turned.get_stress(voigt=False) == pytest.approx(stress, abs=SYMMETRY)
    if not atoms.pbc.all():
        expected = turn @ atoms.get_dipole_moment()
        assert turned.get_dipole_moment() == pytest.approx(expected, abs=SYMMETRY)


def test_open_structures_have_a_dipole_and_no_stress():
    atoms = ion(0.0)
    atoms.calc = qeq()
    dipole = atoms.get_dipole_moment()
    assert dipole == pytest.approx(atoms.get_charges() @ atoms.positions)
    atoms.positions += [3.0, -1.0, 2.0]
    assert atoms.get_dipole_moment() == pytest.approx(dipole, abs=1e-9)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    atoms.center(5.0)
    assert np.abs(atoms.get_stress()).max() == 0.0
    crystal = rock_salt()
    crystal.calc = qeq()
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_dipole_moment()


def test_tabulated_charges_are_of_the_right_size():
    """Between the neutral atom and the formal charge, with the sign of electronegativity."""
    for name, structure, lattice in (("NaCl", "rocksalt", 5.64), ("LiF", "rocksalt", 4.03)):
        atoms = bulk(name, structure, a=lattice)
        atoms.calc = qeq(charge=0)
        assert 0.6 < atoms.get_charges()[0] < 1.0
    water = molecule("H2O")
    water.calc = qeq(charge=0)
    assert -1.0 < water.get_charges()[0] < -0.3


def test_charge_leaks_between_distant_atoms():
    """Expected of charge equilibration without fragments: (χ_Cl - χ_Na)/(J_Cl + J_Na - 2k/R)."""
    atoms = Atoms("NaCl", [[0, 0, 0], [50, 0, 0]], info={"total_charge": 0})
    atoms.calc = qeq()
    expected = (8.564 - 2.843) / (4.592 + 9.892 - 2 * units._e / (4e-10 * np.pi * units._eps0 * 50))
    assert atoms.get_charges()[0] == pytest.approx(expected, abs=CHARGE)
    assert atoms.get_charges()[0] == pytest.approx(0.41, abs=0.01)


def test_a_batch_is_its_structures_one_by_one():
    structures = [make() for make in CASES.values()]
    for atoms, row in zip(structures, qeq().predict(structures), strict=True):
        atoms.calc = qeq()
        assert row["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert row["charges"] == pytest.approx(atoms.get_charges(), abs=1e-9)
        assert row["forces"] == pytest.approx(atoms.get_forces(), abs=1e-8)


def moved(atoms, size, seed=5):
    atoms.positions += size * np.random.default_rng(seed).normal(size=(len(atoms), 3))


@pytest.mark.parametrize("make", [lambda: rock_salt(repeat=(5, 5, 5)), slab, ion])
def test_plans_and_guesses_of_earlier_steps_change_nothing(make):
    """Small moves keep the plan; large ones, another cell and other atoms do not.

    The crystal is large enough for charges to be iterated from those before.
    """
    atoms = make()
    calculator = qeq()
    atoms.calc = calculator
    plans = []
    for size, stretch in ((0.0, 1.0), (0.02, 1.0), (0.3, 1.0), (0.02, 1.01)):
        moved(atoms, size)
        atoms.set_cell(stretch * atoms.cell.array, scale_atoms=True)
        fresh = atoms.copy()
        fresh.calc = qeq()
        assert atoms.get_charges() == pytest.approx(fresh.get_charges(), abs=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-7)
        assert atoms.get_forces() == pytest.approx(fresh.get_forces(), abs=1e-7)
        plans.append(calculator._trajectory._plan)
    assert plans[0] is plans[1]
    assert plans[1] is not plans[2]
    other = ion(0.0)
    other.calc = calculator
    assert other.get_potential_energy() == energy(other)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "H2O states no total charge: put total_charge"),
        ({"total_charge": "one"}, "total_charge of H2O is 'one': give a finite number"),
        ({"total_charge": float("nan")}, "give a finite number"),
    ],
)
def test_charges_that_are_refused(info, message):
    atoms = molecule("H2O")
    atoms.info = info
    atoms.calc = qeq()
    with pytest.raises(ValueError, match=message):
        atoms.get_charges()


def test_structures_that_are_refused():
    gold = Atoms("AuCl", [[0, 0, 0], [2.2, 0, 0]], info={"total_charge": 0})
    gold.calc = qeq()
    with pytest.raises(
        ValueError, match=r"AuCl: no electronegativity and hardness of Au; known: H, Li, .*Zr\. Add"
    ):
        gold.get_charges()
    close = Atoms("NaCl", [[0, 0, 0], [0, 0, 0]], info={"total_charge": 0})
    close.calc = qeq()
    with pytest.raises(ValueError, match="atoms 0 and 1"):
        close.get_charges()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": {"Xx": [1.0, 2.0]}}, "'Xx', which is none"),
        ({"elements": {"Na": [2.8, -1.0]}}, "Na has the parameters"),
        ({"elements": {"Na": [2.8]}}, "give its electronegativity"),
        ({"gaussian_share": 1.0}, "gaussian_share is 1.0"),
        ({"residual": 0.0}, "relative residual"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QEq(**{"elements": {"Na": [2.843, 4.592]}, **options})
