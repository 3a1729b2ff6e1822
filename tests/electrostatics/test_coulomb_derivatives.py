"""Forces, stress and fields against differences; symmetries; batches; second derivatives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc100, molecule
from scipy.spatial.transform import Rotation

from mlip.electrostatics.energy import electrostatics, energies
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of

FORCE = 1e-6
STRESS = 1e-7
SYMMETRY = 1e-10
TIGHT = 1e-11


def triclinic(net=0.0):
    random = np.random.default_rng(1)
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((1, 2, 2))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.08 * random.normal(size=(3, 3))), True)
    atoms.positions += 0.2 * random.normal(size=(8, 3))
    charges = random.normal(size=8)
    return atoms, charges - charges.mean() + net, random.uniform(0.3, 1.2, 8)


def slab(net=0.0):
    random = np.random.default_rng(2)
    atoms = fcc100("Ag", (2, 1, 3), a=4.09, vacuum=8.0, periodic=False)
    atoms.positions += 0.2 * random.normal(size=(6, 3))
    charges = random.normal(size=6)
    return atoms, charges - charges.mean() + net, random.uniform(0.3, 1.2, 6)


def tilted_slab():
    """In no direction along an axis: an oblique layer, its open vector not along the normal."""
    atoms, charges, widths = slab(0.25)
    cell = atoms.cell.array.copy()
    cell[1] += [0.9, 0.2, 0.0]
    cell[2] += [2.0, -1.0, 0.0]
    atoms.set_cell(cell)
    atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    return atoms, charges, widths


def ion():
    """Hydronium: water and a proton."""
    atoms = molecule("H2O") + Atoms("H", positions=[[0.2, 0.1, 1.1]])
    return atoms, np.array([-0.6, 0.5, 0.5, 0.6]), np.array([0.6, 0.3, 0.3, 0.3])


def points():
    atoms, charges, _ = triclinic(0.5)
    return atoms, charges, np.array([0.0, 0.0, 0.7, 0.0, 0.4, 0.0, 0.0, 1.0])


CASES = {
    "triclinic": triclinic,
    "triclinic, charged": lambda: triclinic(0.25),
    "slab": slab,
    "slab, charged": lambda: slab(0.25),
    "tilted slab, charged": tilted_slab,
    "open, charged": ion,
    "points among Gaussians": points,
}


def system(*cases):
    batch = system_of([case[0] for case in cases], [case[2] for case in cases])
    return batch, torch.as_tensor(np.concatenate([case[1] for case in cases]))


def everything(batch, q, tolerance=TIGHT):
    plan = plan_coulomb(batch, tolerance)
    return electrostatics(batch, q, plan, ("forces", "stress", "field"))


@pytest.mark.parametrize("name", CASES)
def test_forces_are_central_differences(name):
    batch, q = system(CASES[name]())
    plan, step = plan_coulomb(batch, TIGHT), 1e-4
    forces = electrostatics(batch, q, plan).forces
    assert forces is not None
    assert float(forces.sum(0).abs().max()) < 1e-9
    for atom in range(0, batch.atoms, 3):
        for axis in range(3):
            move = torch.zeros_like(batch.positions)
            move[atom, axis] = step
            up, down = (
                float(energies(replace(batch, positions=batch.positions + sign * move), q, plan))
                for sign in (1, -1)
            )
            assert float(forces[atom, axis]) == pytest.approx((down - up) / (2 * step), abs=FORCE)


@pytest.mark.parametrize("name", [name for name in CASES if "open" not in name])
def test_stress_at_fixed_charges_is_the_central_difference(name):
    batch, q = system(CASES[name]())
    plan, step = plan_coulomb(batch, TIGHT), 1e-4
    volume = float(torch.linalg.det(batch.cell).abs())
    stress = electrostatics(batch, q, plan, ("stress",)).stress
    assert stress is not None
    assert torch.allclose(stress[0], stress[0].T)
    for row in range(3):
        for column in range(row + 1):
            strain = torch.zeros(3, 3).double()
            strain[row, column] += step / 2
            strain[column, row] += step / 2

            def strained(sign, strain=strain):
                matrix = torch.eye(3).double() + sign * strain
                return replace(batch, positions=batch.positions @ matrix, cell=batch.cell @ matrix)

            up, down = (float(energies(strained(sign), q, plan)) for sign in (1, -1))
            expected = (up - down) / (2 * step * volume)
            assert float(stress[0, row, column]) == pytest.approx(expected, abs=STRESS)


def test_stress_is_that_of_a_plan_made_for_the_strained_cell():
    """What a plan keeps (box of a slab, k vectors) hides no part of the stress."""
    step = 1e-3
    for case in (triclinic(0.25), slab(0.25)):
        batch, q = system(case)
        volume = float(torch.linalg.det(batch.cell).abs())
        stress = everything(batch, q).stress
        assert stress is not None
        matrix = torch.diag(torch.tensor([0.3, -0.5, 1.0]).double() * step)
        up, down = (
            float(energies(moved, q, plan_coulomb(moved, TIGHT)))
            for moved in (
                replace(
                    batch,
                    positions=batch.positions @ (torch.eye(3) + sign * matrix),
                    cell=batch.cell @ (torch.eye(3) + sign * matrix),
                )
                for sign in (1, -1)
            )
        )
        expected = (up - down) / (2 * step * volume)
        found = float((stress[0] * matrix / step).sum())
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_open_structures_have_no_stress():
    batch, q = system(ion())
    stress = everything(batch, q).stress
    assert stress is not None
    assert float(stress.abs().max()) == 0.0


@pytest.mark.parametrize("name", CASES)
def test_field_is_the_force_on_a_unit_charge(name):
    batch, q = system(CASES[name]())
    found = everything(batch, q)
    assert found.field is not None
    assert found.forces is not None
    assert torch.allclose(q[:, None] * found.field, found.forces, atol=1e-9)


def test_field_at_an_atom_without_charge():
    batch, q = system(slab(0.25))
    q[2] = 0.0
    plan, step = plan_coulomb(batch, TIGHT), 1e-4
    field = electrostatics(batch, q, plan, ("field",)).field
    assert field is not None
    for axis in range(3):
        move = torch.zeros_like(batch.positions)
        move[2, axis] = step
        up, down = (
            float(plan.operator(replace(batch, positions=p)).potential(q)[2])
            for p in (batch.positions + move, batch.positions - move)
        )
        assert float(field[2, axis]) == pytest.approx((down - up) / (2 * step), abs=FORCE)


@pytest.mark.parametrize("name", CASES)
def test_rotation_translation_and_order_of_atoms(name):
    atoms, charges, widths = CASES[name]()
    matrix = Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix()
    order = np.random.default_rng(0).permutation(len(atoms))
    moved = atoms[order]
    moved.translate([0.3, -1.2, 0.7])
    moved.positions = moved.positions @ matrix
    moved.set_cell(atoms.cell.array @ matrix)
    here = everything(*system((atoms, charges, widths)))
    there = everything(*system((moved, charges[order], widths[order])))
    assert torch.allclose(here.energies, there.energies, atol=SYMMETRY, rtol=0)
    turn = torch.as_tensor(matrix)
    for vectors, turned in ((here.forces, there.forces), (here.field, there.field)):
        assert vectors is not None
        assert torch.allclose(vectors[order] @ turn, turned, atol=1e-9, rtol=0)
    assert here.stress is not None
    assert there.stress is not None
    assert torch.allclose(turn.T @ here.stress[0] @ turn, there.stress[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [name for name in CASES if "open" not in name])
def test_atoms_outside_the_cell_do_not_matter(name):
    atoms, charges, widths = CASES[name]()
    shifts = np.random.default_rng(0).integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
    outside = atoms.copy()
    outside.positions += shifts @ atoms.cell.array
    here = everything(*system((atoms, charges, widths)))
    there = everything(*system((outside, charges, widths)))
    assert torch.allclose(here.energies, there.energies, atol=SYMMETRY, rtol=0)
    assert torch.allclose(here.atom_energies, there.atom_energies, atol=SYMMETRY, rtol=0)
    assert here.forces is not None
    assert torch.allclose(here.forces, there.forces, atol=1e-9, rtol=0)
    assert here.stress is not None
    assert torch.allclose(here.stress, there.stress, atol=1e-9, rtol=0)


def test_a_mixed_batch_is_its_members():
    cases = [make() for make in CASES.values()]
    batch, q = system(*cases)
    together = everything(batch, q, 1e-7)
    assert torch.allclose(
        together.energies,
        torch.zeros(len(cases)).double().index_add(0, batch.batch, together.atom_energies),
    )
    for index, case in enumerate(cases):
        alone = everything(*system(case), 1e-7)
        own = batch.batch == index
        for name, tolerance in (("forces", 1e-10), ("field", 1e-9), ("potential", 1e-10)):
            found, expected = getattr(together, name)[own], getattr(alone, name)
            assert torch.allclose(found, expected, atol=tolerance, rtol=0), name
        assert together.stress is not None
        assert alone.stress is not None
        assert torch.allclose(together.stress[index], alone.stress[0], atol=1e-10, rtol=0)
        assert float(together.energies[index]) == pytest.approx(float(alone.energies), abs=1e-10)


def test_energy_of_a_supercell():
    atoms, charges, widths = triclinic(0.0)
    large = (atoms.repeat((2, 1, 3)), np.tile(charges, 6), np.tile(widths, 6))
    here, there = (everything(*system(c), 1e-10) for c in ((atoms, charges, widths), large))
    assert float(there.energies) / 6 == pytest.approx(float(here.energies), abs=1e-8)
    assert here.forces is not None
    assert there.forces is not None
    assert torch.allclose(there.forces[:8], here.forces, atol=1e-8, rtol=0)


def test_single_precision_is_computed_in_double():
    batch, q = system(triclinic(), slab(), ion())
    single = replace(
        batch,
        positions=batch.positions.float(),
        cell=batch.cell.float(),
        widths=batch.widths.float(),
    )
    found = electrostatics(single, q.float(), derivatives=("forces", "stress"))
    exact = electrostatics(single.double(), q.float().double(), derivatives=("forces", "stress"))
    for name in ("energies", "atom_energies", "potential", "forces", "stress"):
        value = getattr(found, name)
        assert value.dtype == torch.float32
        assert torch.equal(value, getattr(exact, name).float()), name


def small():
    """Two atoms each: periodic, slab, open; few enough for differences of every number."""
    positions = [[0.1, 0.2, 0.3], [1.3, 1.6, 1.2]]
    cell = [[3.1, 0.2, 0.1], [0.4, 3.4, -0.2], [0.3, -0.5, 3.6]]
    structures = [
        Atoms("H2", positions=positions, cell=cell, pbc=pbc)
        for pbc in ((1, 1, 1), (1, 1, 0), (0, 0, 0))
    ]
    structures[1].cell[2] = 0
    return system_of(structures, [[0.4, 0.9], [0.0, 0.6], [0.5, 0.7]])


def test_second_derivatives_of_energies():
    """In positions, strain, charges and widths, all at once."""
    batch = small()
    plan = plan_coulomb(batch, 1e-4)
    q = torch.tensor([1.0, -0.7, 0.9, -0.6, 0.5, 0.4]).double()

    def energy(positions, strain, charges, free):
        widths = torch.where(batch.widths > 0, free, 0.0)
        deform = torch.eye(3) + 0.5 * (strain + strain.transpose(1, 2))
        strained = replace(
            batch,
            positions=(positions[:, None] @ deform[batch.batch])[:, 0],
            cell=batch.cell @ deform,
            widths=widths,
        )
        return energies(strained, charges, plan)

    inputs = [
        value.clone().requires_grad_()
        for value in (batch.positions, torch.zeros(3, 3, 3).double(), q, batch.widths)
    ]
    assert torch.autograd.gradcheck(energy, inputs)
    assert torch.autograd.gradgradcheck(energy, inputs)


def test_a_loss_on_forces_and_stress_has_finite_gradients():
    cases = [make() for make in CASES.values()]
    batch, q = system(*cases)
    leaves = [batch.positions, batch.widths, q]
    for leaf in leaves:
        leaf.requires_grad_()
    found = electrostatics(batch, q, None, ("forces", "stress", "field"), create_graph=True)
    assert found.forces is not None
    assert found.stress is not None
    assert found.field is not None
    loss = found.forces.square().sum() + found.stress.square().sum() + found.field.square().sum()
    for gradient in torch.autograd.grad(loss, leaves):
        assert torch.isfinite(gradient).all()
        assert float(gradient.abs().max()) > 0
    assert not electrostatics(batch, q).energies.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pbc": (True, False, False)}, "structure 2: it is periodic in one direction only"),
        ({"overlap": True}, "structure 2: atoms 0 and 1 are .* apart"),
        ({"nan": True}, "structure 2: the position of atom 2 is .* must be finite"),
        ({"flat": True}, "structure 2: .* no volume"),
        ({"height": 1.0}, "structure 2: .* atoms span .* and the cell is 1.00 Å high"),
        ({"wrong_axis": True}, "Å of vacuum there but .* Å along vector 2, which is declared"),
    ],
)
def test_bad_structures_are_named(change, message):
    atoms, charges, widths = slab()
    if "pbc" in change:
        atoms.pbc = change["pbc"]
    if "overlap" in change:
        atoms.positions[1] = atoms.positions[0] + atoms.cell.array[1] + 1e-5
    if "nan" in change:
        atoms.positions[2, 1] = np.nan
    if "flat" in change:
        atoms.pbc = True
        atoms.cell[2] = atoms.cell[0] + atoms.cell[1]
    if "height" in change:
        atoms.cell[2, 2] = change["height"]
    if "wrong_axis" in change:
        atoms.pbc = (False, True, True)
    batch, _ = system(triclinic(), ion(), (atoms, charges, widths))
    with pytest.raises(ValueError, match=message):
        plan_coulomb(batch)


def test_other_bad_input():
    atoms, charges, widths = triclinic()
    batch, q = system((atoms, charges, widths))
    negative = replace(batch, widths=-batch.widths)
    with pytest.raises(ValueError, match=r"width of atom 0 is .* not negative"):
        plan_coulomb(negative)
    with pytest.raises(ValueError, match="batch is not sorted"):
        plan_coulomb(replace(small(), batch=small().batch.flip(0)))
    with pytest.raises(ValueError, match="structure 1: it has no atoms"):
        plan_coulomb(replace(small(), batch=2 * (small().batch // 2)))
    with pytest.raises(ValueError, match="unknown method 'ewlad'; did you mean 'ewald'"):
        plan_coulomb(batch, method="ewlad")
    with pytest.raises(ValueError, match="the direct sum is for open"):
        plan_coulomb(batch, method="direct")
    with pytest.raises(ValueError, match="tolerance is 0"):
        plan_coulomb(batch, tolerance=0)
    for skin in (-0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"skin is {skin}: give a finite length in Å"):
            plan_coulomb(batch, skin=skin)
    with pytest.raises(ValueError, match="8 atoms: give one charge"):
        electrostatics(batch, q[:3])
    with pytest.raises(ValueError, match="charge of atom 3 of the batch is not finite"):
        electrostatics(batch, torch.where(torch.arange(8) == 3, torch.nan, q))
    with pytest.raises(ValueError, match="unknown derivatives"):
        electrostatics(batch, q, derivatives=("force",))
    two = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1e-6]])
    with pytest.raises(ValueError, match="structure 0: atoms 0 and 1"):
        plan_coulomb(system_of([two], [[0.5, 0.5]]))
