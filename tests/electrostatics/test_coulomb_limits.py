"""Values that are known: lattices, far sheets, molecules in growing boxes, another code."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torchpme import CoulombPotential, EwaldCalculator
from vesin import NeighborList

from mlip.electrostatics.energy import electrostatics, energies
from mlip.electrostatics.ewald import plan_ewald
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of
from mlip.electrostatics.tuning import Splitting
from mlip.units import COULOMB

MADELUNG = 1e-9
SPLIT_INDEPENDENCE = 1e-9
PARITY = 1e-7


def points(atoms):
    return system_of([atoms], [np.zeros(len(atoms))])


def energy(system, charges, plan=None):
    return float(energies(system, charges, plan or plan_coulomb(system, 1e-10)))


def tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=float))


def crystal(repeat=(2, 2, 2), rattle=0.15, seed=0):
    """A rattled, sheared rock salt, its charges and its widths."""
    random = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat(repeat)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * random.normal(size=(3, 3))), True)
    atoms.positions += rattle * random.normal(size=atoms.positions.shape)
    charges = np.where(atoms.numbers == 11, 1.0, -1.0) + 0.1 * random.normal(size=len(atoms))
    return atoms, charges, random.uniform(0.4, 1.3, len(atoms))


@pytest.mark.parametrize(
    ("name", "structure", "a", "constant"),
    [
        ("NaCl", "rocksalt", 5.64, 1.747564594633182),
        ("CsCl", "cesiumchloride", 4.12, 1.762674773070988),
        ("ZnS", "zincblende", 5.41, 1.638055053388789),
    ],
)
def test_madelung_constants(name, structure, a, constant):
    atoms = bulk(name, structure, a=a)
    system = points(atoms)
    plan = plan_coulomb(system, 1e-11)
    nearest = float(plan.real.pairs.distances(system.positions, system.cell).min())
    found = -energy(system, tensor([1, -1]), plan) * nearest / COULOMB
    assert found == pytest.approx(constant, abs=MADELUNG)


def test_point_charges_are_the_limit_of_narrow_ones():
    atoms, charges, _ = crystal()
    q = tensor(charges)
    exact = energy(points(atoms), q)
    narrow = system_of([atoms], [np.full(len(atoms), 0.05)])
    own = COULOMB / (0.05 * math.sqrt(math.pi)) * float(q.square().sum()) / 2
    total, volume = float(q.sum()), atoms.cell.volume
    uniform = 2 * math.pi / volume * COULOMB * total**2 * 0.05**2  # of the charged cell
    assert energy(narrow, q) == pytest.approx(exact + own + uniform, abs=1e-8)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_charged_structures_do_not_depend_on_the_split(pbc):
    atoms, charges, widths = crystal()
    atoms.pbc = pbc
    atoms.cell[2] *= 1.0 if all(pbc) else 2.0
    system, q = system_of([atoms], [widths]), tensor(charges + 0.3)
    found = []
    for eta in (0.8, 1.1, 1.6):
        splitting = Splitting(np.array([eta]), np.array([8.5 * eta]), np.array([8.5 / eta]))
        found.append(energy(system, q, plan_ewald(system, 1e-12, splitting=splitting)))
    assert max(found) - min(found) < SPLIT_INDEPENDENCE


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("height", [0.0, 40.0, 90.0])
def test_the_height_of_a_charged_slab_does_not_matter(axis, height):
    atoms, charges, widths = crystal()
    q = tensor(charges + 0.2)
    reference = atoms.copy()
    reference.pbc = (True, True, False)
    reference.cell[2] *= 10
    rows = np.roll(atoms.cell.array, axis + 1, axis=0)
    rows[axis] *= height / np.linalg.norm(rows[axis])
    atoms.set_cell(rows)
    atoms.pbc = np.arange(3) != axis
    expected = energy(system_of([reference], [widths]), q)
    assert energy(system_of([atoms], [widths]), q) == pytest.approx(expected, abs=1e-8)


def test_slab_is_the_limit_of_large_vacuum():
    """Without the dipole term the error falls as 1/L; with it, exactly, nothing is left."""
    atoms, charges, widths = crystal()
    atoms.pbc = (True, True, False)
    atoms.cell[2] = 0
    q = tensor(charges - charges.mean())
    slab = energy(system_of([atoms], [widths]), q)
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    area = np.linalg.norm(normal)
    dipole = float(q.numpy() @ atoms.positions @ normal / area)
    for height in (50.0, 100.0):
        box = atoms.copy()
        box.cell[2] = height * normal / area
        box.pbc = True
        periodic = energy(system_of([box], [widths]), q)
        correction = 2 * math.pi * COULOMB * dipole**2 / (area * height)
        assert periodic + correction == pytest.approx(slab, abs=1e-8)
        assert abs(correction) > 1e-3


def test_far_charged_sheets_attract_by_their_charge_density():
    sheet = Atoms("H2", positions=[[0, 0, 0], [1.2, 0.4, 25]], cell=[3, 4, 0], pbc=(1, 1, 0))
    system = system_of([sheet], [[0.3, 0.6]])
    for first, second in ((1.0, -1.0), (1.0, 0.5)):
        found = electrostatics(system, tensor([first, second]), plan_coulomb(system, 1e-10))
        force = 2 * math.pi * COULOMB * first * second / 12
        assert found.forces is not None
        assert float(found.forces[1, 2]) == pytest.approx(force, abs=1e-8)


def test_molecule_is_the_limit_of_a_large_box():
    """The error of a neutral molecule falls with the volume: 2π d²/3V in a cubic box."""
    water = molecule("H2O")
    q, widths = tensor([-0.8, 0.4, 0.4]), np.array([0.6, 0.3, 0.3])
    alone = energy(system_of([water], [widths]), q)
    dipole = float((q.numpy() @ water.positions)[2])
    for side, accuracy in ((30.0, 1e-2), (60.0, 3e-3)):
        box = water.copy()
        box.cell, box.pbc = np.eye(3) * side, True
        error = alone - energy(system_of([box], [widths]), q)
        leading = 2 * math.pi * COULOMB * dipole**2 / (3 * side**3)
        assert error == pytest.approx(leading, rel=accuracy)


def test_two_gaussians_by_hand():
    pair = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1.5]])
    system = system_of([pair], [[0.5, 0.9]])
    q = tensor([0.7, -0.4])
    gamma = math.hypot(0.5, 0.9)
    cross = COULOMB * math.erf(1.5 / (math.sqrt(2) * gamma)) / 1.5
    own = [COULOMB / (width * math.sqrt(math.pi)) for width in (0.5, 0.9)]
    expected = 0.7 * -0.4 * cross + 0.5 * (0.49 * own[0] + 0.16 * own[1])
    assert energy(system, q) == pytest.approx(expected, abs=1e-12)
    operator = plan_coulomb(system).operator(system)
    assert operator.diagonal().tolist() == pytest.approx(own)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_torch_pme_agrees(pbc):
    atoms, charges, _ = crystal()
    atoms.pbc = pbc
    if not all(pbc):  # the peer takes slabs in a right-angled cell
        atoms.set_cell([*atoms.cell.lengths()[:2], 60.0])
    q = tensor(charges - charges.mean())
    first, second, distances = NeighborList(cutoff=8.0, full_list=False).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=list(pbc), quantities="ijd"
    )
    potential = CoulombPotential(smearing=1.0).double()
    half = EwaldCalculator(potential, lr_wavelength=0.35).double()(
        q[:, None],
        tensor(atoms.cell.array),
        tensor(atoms.positions),
        torch.as_tensor(np.stack([first, second], axis=1).astype(np.int64)),
        tensor(distances),
        periodic=torch.tensor(pbc),
    )[:, 0]
    system = points(atoms)
    found = electrostatics(system, q, plan_coulomb(system, 1e-10))
    assert float((found.potential - 2 * half * COULOMB).abs().max()) < PARITY


def test_diagonal_is_that_of_the_matrix():
    atoms, _, widths = crystal((1, 1, 2))
    slab = atoms.copy()
    slab.pbc = (True, False, True)
    slab.cell[1] = 0
    open_ = atoms.copy()
    open_.pbc = False
    system = system_of([atoms, slab, open_], [widths] * 3)
    operator = plan_coulomb(system, 1e-8).operator(system)
    matrix = torch.stack([operator.potential(unit) for unit in torch.eye(system.atoms).double()])
    assert torch.allclose(matrix, matrix.T, atol=1e-10)
    assert torch.allclose(matrix.diagonal(), operator.diagonal(), atol=1e-10)
    same = system.batch[:, None] == system.batch
    assert float(matrix[~same].abs().max()) == 0.0
    for graph, neutral_only in ((0, False), (1, True), (2, False)):
        block = matrix[system.batch == graph][:, system.batch == graph]
        basis = torch.eye(len(block)).double()
        if neutral_only:  # of a slab the potential of a net charge has no lower bound
            basis = torch.linalg.qr(torch.cat([torch.ones(len(block), 1).double(), basis], 1))[0]
            basis = basis[:, 1:]
        assert float(torch.linalg.eigvalsh(basis.T @ block @ basis)[0]) > 0


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("gaussian", [False, True])
def test_measured_errors_are_within_the_tolerance(tolerance, gaussian):
    """From 1 to 500 atoms: neutral, charged, crystals, random charges, molecules, slabs."""
    random = np.random.default_rng(3)
    structures, charges = _sizes(random)
    widths = [random.uniform(0.3, 1.5, len(a)) * gaussian for a in structures]
    system, q = system_of(structures, widths), tensor(np.concatenate(charges))
    exact = electrostatics(system, q, plan_coulomb(system, 1e-12))
    found = electrostatics(system, q, plan_coulomb(system, tolerance))
    atoms = torch.bincount(system.batch)
    assert float(((found.energies - exact.energies) / atoms).abs().max()) <= tolerance
    assert exact.forces is not None
    assert found.forces is not None
    forces = (found.forces - exact.forces).norm(dim=1)
    assert float(forces.max()) <= tolerance
    assert float(forces.max()) >= 1e-4 * tolerance  # and not by waste


def _sizes(random):
    one = Atoms("H", cell=[3, 3.3, 4], pbc=True)
    salt = [crystal(repeat, rattle)[0] for repeat, rattle in (((1,) * 3, 0.0), ((3, 3, 4), 0.1))]
    copper = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(5)
    thin = crystal((1, 2, 7))[0]
    box = Atoms("H2O", positions=molecule("H2O").positions[[1, 2, 0]], cell=[25] * 3, pbc=True)
    slab = crystal((3, 3, 2))[0]
    slab.pbc = (True, True, False)
    slab.cell[2] = 0
    signs = [np.where(atoms.numbers == 11, 1.0, -1.0) for atoms in salt]
    charges = [
        np.ones(1),
        *signs,
        np.ones(500),
        random.choice([-1.0, 1.0], len(thin)),
        np.array([0.5, 0.5, -1.0]),
        np.where(slab.numbers == 11, 1.2, -1.0),
    ]
    return [one, *salt, copper, thin, box, slab], charges


def test_a_skin_lists_more_pairs_and_changes_nothing_else():
    atoms, charges, widths = crystal()
    system, q = system_of([atoms], [widths]), tensor(charges)
    plan, wider = (plan_coulomb(system, 1e-8, "ewald", skin=skin) for skin in (0.0, 1.0))
    assert len(wider.real.pairs.first) > len(plan.real.pairs.first)
    assert energy(system, q, wider) == pytest.approx(energy(system, q, plan), abs=1e-7)
    moved = replace(system, positions=system.positions + 0.25 * torch.rand(16, 3).double())
    assert energy(moved, q, wider) == pytest.approx(energy(moved, q), abs=1e-6)
