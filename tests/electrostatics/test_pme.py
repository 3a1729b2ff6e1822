"""Mesh sums against Ewald sums over many cells, and their derivatives up to the second."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.data import covalent_radii
from ase.io import iread

from mlip import paths
from mlip.electrostatics import pairs
from mlip.electrostatics.energy import electrostatics
from mlip.electrostatics.ewald import plan_ewald
from mlip.electrostatics.plan import MESH_ATOMS, MixedPlan, plan_coulomb
from mlip.electrostatics.pme import PmePlan, plan_pme
from mlip.electrostatics.pme_tuning import choose_meshes
from mlip.electrostatics.slab import boxes_of
from mlip.electrostatics.system import system_of

POTENTIAL = 1e-6
ENERGY = 1e-8
FORCE = 1e-6
STRESS = 1e-7
SAME = 1e-10


def rattled(atoms, seed=0, shear=0.05):
    random = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear * random.normal(size=(3, 3))), True)
    atoms.positions += 0.15 * random.normal(size=atoms.positions.shape)
    return atoms


def crystal(points=False):
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64).repeat((3, 2, 2)))
    widths = np.zeros(len(atoms)) if points else np.where(atoms.numbers == 11, 1.3, 0.8)
    return atoms, widths, np.where(atoms.numbers == 11, 0.9, -0.9)


def charged():
    atoms, widths, charges = crystal()
    return atoms, widths, charges + np.random.default_rng(1).uniform(0.0, 0.3, len(atoms))


def perfect():
    atoms = bulk("CsCl", "cesiumchloride", a=4.12).repeat((4, 4, 4))
    return atoms, np.full(len(atoms), 0.7), np.where(atoms.numbers == 55, 1.0, -1.0)


def needle():
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((5, 1, 1)), shear=0.0)
    return atoms, np.full(len(atoms), 0.5), np.where(atoms.numbers == 11, 1.0, -1.0)


def slab():
    atoms = rattled(fcc111("Ag", (3, 2, 3), a=4.09, vacuum=6.0, periodic=False), shear=0.0)
    charges = np.random.default_rng(2).normal(size=len(atoms))
    return atoms, np.full(len(atoms), 0.7), charges


def wide_slab():
    """Wider than high: its box leaves the images out by itself."""
    atoms = fcc111("Ag", (12, 8, 2), a=4.09, vacuum=6.0, periodic=False)
    random = np.random.default_rng(3)
    atoms.positions += 0.15 * random.normal(size=atoms.positions.shape)
    atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    return atoms, np.full(len(atoms), 0.7), random.normal(size=len(atoms)) + 0.1


CELLS = {
    "triclinic": crystal,
    "charged": charged,
    "points": lambda: crystal(points=True),
    "perfect crystal": perfect,
    "thin cell": needle,
    "charged slab": slab,
    "wide charged slab": wide_slab,
}


def build(*cases):
    structures, widths, charges = zip(*cases, strict=True)
    return system_of(structures, widths), torch.as_tensor(np.concatenate(charges))


def evaluate(system, charges, plan):
    return electrostatics(system, charges, plan, derivatives=("forces", "stress"))


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("name", CELLS)
def test_the_error_is_within_the_tolerance(name, tolerance):
    system, charges = build(CELLS[name]())
    exact = evaluate(system, charges, plan_ewald(system, 1e-12))
    mesh = evaluate(system, charges, plan_pme(system, tolerance))
    scale = float(charges.square().mean())
    forces = (mesh.forces - exact.forces).square().sum(1).mean().sqrt()
    assert forces < tolerance * scale
    assert (mesh.energies - exact.energies).abs().max() < tolerance * scale * system.atoms


@pytest.mark.parametrize("name", CELLS)
def test_mesh_and_ewald_agree_at_tight_settings(name):
    system, charges = build(CELLS[name]())
    exact = evaluate(system, charges, plan_ewald(system, 1e-12))
    mesh = evaluate(system, charges, plan_pme(system, 1e-10))
    assert (mesh.potential - exact.potential).norm() < POTENTIAL * exact.potential.norm()
    assert (mesh.energies - exact.energies).abs().max() < ENERGY * system.atoms
    assert (mesh.forces - exact.forces).abs().max() < FORCE
    assert (mesh.stress - exact.stress).abs().max() < STRESS
    diagonals = [plan(system, 1e-10).operator(system).diagonal() for plan in (plan_pme, plan_ewald)]
    assert (diagonals[0] - diagonals[1]).abs().max() < ENERGY


def test_tolerance_in_the_cells_of_published_crystals():
    random = np.random.default_rng(0)
    sample = paths.content("datasets") / "alexandria" / "sample.extxyz.gz"
    tried = 0
    for atoms in iread(sample, index="::7"):
        charges = random.normal(size=len(atoms))
        system, charges = build((atoms, 0.5 * covalent_radii[atoms.numbers], charges))
        exact = evaluate(system, charges, plan_ewald(system, 1e-10))
        mesh = evaluate(system, charges, plan_pme(system, 1e-5))
        scale = float(charges.square().mean())
        error = (mesh.forces - exact.forces).square().sum(1).mean().sqrt()
        assert error < 1e-5 * scale, atoms.get_chemical_formula()
        tried += 1
    assert tried >= 5


@pytest.mark.parametrize("name", ["charged", "charged slab"])
def test_forces_and_stress_by_finite_differences(name):
    system, charges = build(CELLS[name]())
    plan = plan_pme(system, 1e-8)
    found = evaluate(system, charges, plan)
    volume = float(torch.linalg.det(system.cell[0]).abs())

    def energy(positions, cell):
        moved = replace(system, positions=positions, cell=cell)
        return 0.5 * float(charges @ plan.operator(moved).potential(charges))

    def slope(step, change):
        return (energy(*change(step)) - energy(*change(-step))) / (2 * step)

    for atom, axis in ((0, 0), (3, 1), (5, 2)):

        def move(step, atom=atom, axis=axis):
            positions = system.positions.clone()
            positions[atom, axis] += step
            return positions, system.cell

        assert slope(1e-4, move) == pytest.approx(-float(found.forces[atom, axis]), abs=FORCE)
    for i, j in ((0, 0), (1, 1), (0, 1), (0, 2), (2, 2)):

        def strain(step, i=i, j=j):
            matrix = torch.eye(3, dtype=torch.float64)
            matrix[i, j] += step / 2
            matrix[j, i] += step / 2
            return system.positions @ matrix, system.cell @ matrix

        expected = float(found.stress[0, i, j])
        assert slope(1e-4, strain) / volume == pytest.approx(expected, abs=STRESS)


@pytest.mark.parametrize("vacuum", [False, True])
def test_second_derivatives_in_positions_strain_widths_and_charges(vacuum, monkeypatch):
    random = np.random.default_rng(0)
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1)), shear=0.1)
    if vacuum:
        atoms.pbc = (True, True, False)
        atoms.positions[:, 2] *= 0.5
    system, charges = build((atoms, random.uniform(0.4, 0.8, 4), random.normal(size=4)))
    plan = plan_pme(system, 1e-1)
    if vacuum:  # many pieces, computed again for derivatives
        monkeypatch.setattr(pairs, "CHUNK", 20)
        assert len(plan.real.pairs.first) > 20

    def potential(positions, strain, widths, charges):
        matrix = torch.eye(3, dtype=torch.float64) + strain
        moved = replace(
            system, positions=positions @ matrix, cell=system.cell @ matrix, widths=widths
        )
        return plan.operator(moved).potential(charges)

    strain = torch.zeros(3, 3, dtype=torch.float64)
    inputs = [
        value.clone().requires_grad_()
        for value in (system.positions, strain, system.widths, charges)
    ]
    assert torch.autograd.gradcheck(potential, inputs)
    assert torch.autograd.gradgradcheck(potential, inputs)


@pytest.mark.parametrize("case", [crystal, wide_slab])
def test_second_derivatives_of_strain_are_those_of_ewald(case):
    system, charges = build(case())
    seconds = []
    for plan in (plan_pme(system, 1e-9), plan_ewald(system, 1e-11)):
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        q = charges.clone().requires_grad_()
        matrix = torch.eye(3, dtype=torch.float64) + strain
        moved = replace(system, positions=system.positions @ matrix, cell=system.cell @ matrix)
        energy = 0.5 * q @ plan.operator(moved).potential(q)
        (first,) = torch.autograd.grad(energy, strain, create_graph=True)
        seconds.append(torch.autograd.grad((first**2).sum(), [strain, q]))
    for mesh, exact in zip(*seconds, strict=True):
        assert torch.isfinite(mesh).all()
        assert (mesh - exact).norm() < POTENTIAL * exact.norm()


def test_a_batch_is_its_structures_one_by_one():
    cases = [crystal(), needle(), slab(), charged()]
    batch, charges = build(*cases)
    together = evaluate(batch, charges, plan_pme(batch, 1e-6))
    for graph, case in enumerate(cases):
        system, own = build(case)
        alone = evaluate(system, own, plan_pme(system, 1e-6))
        atoms = batch.batch == graph
        assert (together.potential[atoms] - alone.potential).abs().max() < SAME
        assert (together.forces[atoms] - alone.forces).abs().max() < SAME
        assert (together.stress[graph] - alone.stress[0]).abs().max() < SAME


def test_atoms_outside_the_cell_and_translations_change_nothing():
    atoms, widths, charges = crystal()
    system, charges = build((atoms, widths, charges))
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
    elsewhere, _ = build((moved, widths, charges))
    results = [evaluate(s, charges, plan_pme(s, 1e-6)) for s in (system, elsewhere)]
    assert (results[0].potential - results[1].potential).abs().max() < SAME
    assert (results[0].forces - results[1].forces).abs().max() < SAME
    shifted = replace(system, positions=system.positions + 0.37)
    off = evaluate(shifted, charges, plan_pme(system, 1e-9))
    exact = evaluate(system, charges, plan_pme(system, 1e-9))
    assert (off.forces - exact.forces).abs().max() < 1e-8


def test_pieces_of_pairs_are_the_whole(monkeypatch):
    system, charges = build(charged())
    plan = plan_pme(system, 1e-6)
    whole = evaluate(system, charges, plan)
    monkeypatch.setattr(pairs, "CHUNK", 100)
    pieces = evaluate(system, charges, plan)
    with torch.no_grad():
        again = plan.operator(system).potential(charges)
    assert (pieces.forces - whole.forces).abs().max() < SAME
    assert (pieces.stress - whole.stress).abs().max() < SAME
    assert (again - whole.potential).abs().max() < SAME


def test_large_structures_are_summed_on_a_mesh():
    repeat = int(np.ceil((MESH_ATOMS / 8) ** (1 / 3)))
    large = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat + 1)
    cases = [crystal(), (large, np.full(len(large), 0.7), np.where(large.numbers == 11, 1.0, -1.0))]
    system, charges = build(*cases)
    plan = plan_coulomb(system, 1e-5)
    assert isinstance(plan, MixedPlan)
    assert [type(own).__name__ for _, own in plan.parts] == ["WavePlan", "WaveMeshPlan"]
    assert isinstance(plan_coulomb(system, 1e-5, "pme"), PmePlan)
    mixed = plan.operator(system).potential(charges)
    mesh = plan_coulomb(system, 1e-5, "pme").operator(system).potential(charges)
    assert (mixed - mesh).abs().max() < 1e-4


def test_wide_gaussians_are_summed_on_meshes_without_pairs():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(3)
    atoms.rattle(0.1, seed=0)
    widths = np.where(atoms.numbers == 11, 1.7, 1.3)
    system, charges = build((atoms, widths, np.random.default_rng(0).normal(size=len(atoms))))
    mesh, pairs = (plan_coulomb(system, 1e-6, method) for method in ("wave_mesh", "pme"))
    for name in ("potential", "energies"):
        own, other = (getattr(plan.operator(system), name)(charges) for plan in (mesh, pairs))
        assert (own - other).abs().max() < 1e-5
    own, other = (plan.operator(system).diagonal() for plan in (mesh, pairs))
    assert (own - other).abs().max() < 1e-5
    narrow = replace(system, widths=torch.full_like(system.widths, 0.3))
    large = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(6)
    crowd = system_of([large], [np.full(len(large), 0.3)])
    assert isinstance(plan_coulomb(crowd, 1e-4), PmePlan)
    assert not isinstance(plan_coulomb(narrow, 1e-4), PmePlan)


def test_the_box_of_a_slab_does_not_grow_with_its_width():
    """But for the logarithm of what all its atoms add up to."""
    heights = []
    for width in (12, 48):
        atoms = fcc111("Ag", (width, width, 2), a=4.09, vacuum=6.0, periodic=False)
        plan = plan_pme(system_of([atoms], [np.full(len(atoms), 0.7)]), 1e-5)
        heights.append(float(plan.real.boxes.height))
        (own,) = plan.meshes
        assert own.layer is not None
        assert own.layer.height == pytest.approx(heights[-1])
    assert heights[1] < 1.1 * heights[0]


def test_a_mesh_is_never_coarser_than_its_spline():
    system, _ = build(needle())
    for tolerance in (1e-1, 1e-4, 1e-8):
        (mesh,), _ = choose_meshes(system, boxes_of(system, tolerance), tolerance)
        assert min(mesh.shape) >= mesh.order


def test_a_tolerance_without_meaning_is_refused():
    system, _ = build(crystal())
    with pytest.raises(ValueError, match="tolerance is 0"):
        plan_pme(system, 0.0)
