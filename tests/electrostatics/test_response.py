"""Dipoles, Born effective charges, fields and polarisabilities, by differences and exact limits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule

from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import equilibrate
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.response import (
    born_charges,
    dipole,
    field_term,
    polarisability,
    polarisation,
)
from mlip.electrostatics.system import system_of

STEP = 1e-4
TIGHT = 1e-11


def charges_of(tensors, positions=None, field=None):
    system, chi, hardness, net = tensors
    system = system if positions is None else replace(system, positions=positions)
    if field is not None:
        chi = chi + field_term(system, field)
    plan = plan_coulomb(system, TIGHT)
    return system, equilibrate(plan, system, chi, hardness, total_charge(system, net))


def born(tensors):
    system, found = charges_of(tensors, tensors[0].positions.clone().requires_grad_())
    return born_charges(system, found.charges)


def water(length=None):
    atoms = molecule("H2O")
    atoms.positions += 3.0
    if length:
        atoms.set_cell([length] * 3)
        atoms.pbc = True
    system = system_of([atoms], [[0.61, 0.6, 0.6]])
    chi = torch.tensor([8.741, 4.528, 4.528]).double()
    return system, chi, torch.full((3,), 2.0).double(), torch.zeros(1).double()


def test_born_charges_of_open_structures_are_differences_of_dipoles(batch, one):
    if one.atoms.pbc.any():
        pytest.skip("dipoles of periodic structures jump")
    tensors = batch(one)
    found = born(tensors)
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        ends = []
        for sign in (1, -1):
            positions = tensors[0].positions.clone()
            positions[atom, axis] += sign * STEP
            system, moved = charges_of(tensors, positions)
            ends.append(dipole(system, moved.charges)[0])
        expected = (ends[0] - ends[1]) / (2 * STEP)
        assert torch.allclose(found[atom, :, axis], expected, atol=1e-6)
    total = found.sum(0)
    assert torch.allclose(total, one.net * torch.eye(3).double(), atol=1e-8)


def test_rigid_charges_are_their_own_born_charges(batch, cases):
    system, *_ = batch(*cases)
    charges = torch.linspace(-1, 1, system.atoms).double()
    moving = replace(system, positions=system.positions.clone().requires_grad_())
    found = born_charges(moving, charges)
    assert torch.allclose(found, charges[:, None, None] * torch.eye(3).double(), atol=1e-10)


def test_a_molecule_in_a_large_box_has_the_born_charges_of_an_open_one():
    """In a finite box phases bend: the error falls with the square of its length, or faster."""
    expected = born(water())
    errors = [float((born(water(length)) - expected).abs().max()) for length in (20.0, 40.0, 80.0)]
    assert errors[2] < 2e-3
    assert errors[0] / errors[1] > 3.5
    assert errors[1] / errors[2] > 3.5


def test_images_and_rotation(batch, one):
    tensors = system, chi, hardness, net = batch(one)
    expected = born(tensors)
    images = torch.randint(-2, 3, (system.atoms, 3)).double() * system.pbc
    wrapped = replace(system, positions=system.positions + images @ system.cell[0])
    assert torch.allclose(born((wrapped, chi, hardness, net)), expected, atol=1e-8)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[
        0
    ]
    turned = replace(system, positions=system.positions @ turn.T, cell=system.cell @ turn.T)
    rotated = turn @ expected @ turn.T
    assert torch.allclose(born((turned, chi, hardness, net)), rotated, atol=1e-8)


def test_forces_in_a_field_and_polarisability_are_differences():
    tensors = water()
    field = torch.tensor([[0.1, -0.2, 0.3]]).double().requires_grad_()
    positions = tensors[0].positions.clone().requires_grad_()
    system, found = charges_of(tensors, positions, field)
    moments = dipole(system, found.charges)
    alpha = polarisability(moments, field)[0]
    (by_field,) = torch.autograd.grad(found.energies.sum(), field, retain_graph=True)
    assert torch.allclose(by_field, -moments, atol=1e-9)
    assert torch.allclose(alpha, alpha.T, atol=1e-9)
    assert (torch.linalg.eigvalsh(alpha) > -1e-10).all()
    (gradient,) = torch.autograd.grad(found.energies.sum(), positions)
    # Without net charge the field pulls on no structure as a whole.
    assert torch.allclose(gradient.sum(0), torch.zeros(3).double(), atol=1e-8)
    for axis in range(3):
        step = torch.zeros(1, 3).double()
        step[0, axis] = STEP
        moved = positions.detach().clone()
        moved[1, axis] += STEP
        back = positions.detach().clone()
        back[1, axis] -= STEP
        ends = [charges_of(tensors, field=field.detach() + sign * step) for sign in (1, -1)]
        change = dipole(*_pair(ends[0]))[0] - dipole(*_pair(ends[1]))[0]
        assert torch.allclose(alpha[:, axis], change / (2 * STEP), atol=1e-6)
        up, down = (
            float(charges_of(tensors, where, field.detach())[1].energies) for where in (moved, back)
        )
        assert float(gradient[1, axis]) == pytest.approx((up - down) / (2 * STEP), abs=1e-6)


def _pair(found):
    return found[0], found[1].charges


def test_a_field_on_a_slab_acts_along_its_normal(batch, cases):
    slab = next(one for one in cases if one.atoms.pbc.sum() == 2 and not one.net)
    tensors = batch(slab)
    field = torch.tensor([[0.0, 0.0, 0.05]]).double()
    system, polarised = charges_of(tensors, field=field)
    before = dipole(system, charges_of(tensors)[1].charges)[0, 2]
    assert float(dipole(system, polarised.charges)[0, 2]) > float(before)
    with pytest.raises(ValueError, match="component along a periodic direction"):
        field_term(system, torch.tensor([[0.1, 0.0, 0.0]]))


def test_polarisation_is_of_neutral_periodic_structures(batch, cases):
    crystal, charged = (one for one in cases if one.atoms.pbc.all())
    system, found = charges_of(batch(crystal))
    expected = found.charges.numpy() @ crystal.atoms.positions / crystal.atoms.get_volume()
    assert polarisation(system, found.charges)[0].numpy() == pytest.approx(expected, abs=1e-12)
    image = system.positions.clone()
    image[2] += system.cell[0, 1]
    change = polarisation(replace(system, positions=image), found.charges)[0].numpy() - expected
    quantum = float(found.charges[2]) * crystal.atoms.cell[1] / crystal.atoms.get_volume()
    assert change == pytest.approx(np.asarray(quantum), abs=1e-12)
    system, found = charges_of(batch(charged))
    with pytest.raises(ValueError, match=r"structure 0 has the net charge 0\.5 e"):
        polarisation(system, found.charges)
    system, found = charges_of(batch(cases[0]))
    with pytest.raises(ValueError, match="ask for its dipole instead"):
        polarisation(system, found.charges)


def test_positions_without_gradients_are_refused(batch, one):
    system, found = charges_of(batch(one))
    with pytest.raises(ValueError, match="positions do not require gradients"):
        born_charges(system, found.charges)
