"""Dipoles, polarisation, Born charges, fields: against differences, limits and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc100, molecule

from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.response import (
    born_charges,
    dipole,
    field_term,
    polarisability,
    polarisation,
)
from mlip.electrostatics.system import system_of
from mlip.units import COULOMB

CHARGE = 1e-6
EXACT = 1e-9
STEP = 1e-3
CHI = {1: 4.5, 8: 8.7, 11: 2.8, 17: 8.6}
HARD = {1: 6.9, 8: 6.7, 11: 2.3, 17: 4.9}


def system(atoms):
    """Return a structure whose positions require gradients."""
    atoms = atoms.copy()
    widths = [8.124 / HARD[z] / 2 for z in atoms.numbers]
    batch = system_of([atoms], [widths])
    batch.positions.requires_grad_()
    return batch, tensor([CHI[z] for z in atoms.numbers]), tensor([HARD[z] for z in atoms.numbers])


def tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=float))


def charges_of(batch, chi, hardness, net=0.0, field=None):
    plan = plan_coulomb(batch, 1e-11)
    if field is not None:
        chi = chi + field_term(batch, field)
    constraint = total_charge(batch, tensor([net]))
    return equilibrate(plan, batch, chi, hardness, constraint, Settings(tolerance=1e-11))


def water(net=0.0):
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms, net


def salt(repeat=1):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=2)
    return atoms


def layer():
    atoms = fcc100("Na", (2, 2, 2), a=5.64, vacuum=6.0, periodic=False)
    atoms.symbols[::2] = "Cl"
    atoms.rattle(0.1, seed=3)
    return atoms


def moved(batch, atom, axis, size):
    positions = batch.positions.detach().clone()
    positions[atom, axis] += size
    return replace(batch, positions=positions)


def differences(batch, chi, hardness, atom, axis, net=0.0):
    """Return ∂μ/∂r of one coordinate by central differences of the equilibrated dipole."""
    slopes = []
    for size in (STEP, 2 * STEP):
        ends = []
        for sign in (1, -1):
            here = moved(batch, atom, axis, sign * size)
            ends.append(dipole(here, charges_of(here, chi, hardness, net).charges)[0])
        slopes.append((ends[0] - ends[1]) / (2 * size))
    return (4 * slopes[0] - slopes[1]) / 3


@pytest.mark.parametrize("net", [0.0, 1.0])
def test_born_charges_of_a_molecule_are_differences_of_its_dipole(net):
    atoms, _ = water()
    batch, chi, hardness = system(atoms)
    found = born_charges(batch, charges_of(batch, chi, hardness, net).charges)
    for atom, axis in ((0, 2), (1, 0), (2, 1)):
        expected = differences(batch, chi, hardness, atom, axis, net)
        assert torch.allclose(found[atom, :, axis], expected, rtol=0, atol=CHARGE)


@pytest.mark.parametrize("net", [0.0, 1.0])
def test_born_charges_of_a_molecule_add_up_to_its_charge(net):
    """A translation moves the dipole by the net charge."""
    atoms, _ = water()
    batch, chi, hardness = system(atoms)
    total = born_charges(batch, charges_of(batch, chi, hardness, net).charges).sum(0)
    assert torch.allclose(total, net * torch.eye(3).double(), rtol=0, atol=EXACT)


def test_the_normal_of_a_slab_is_an_open_direction():
    batch, chi, hardness = system(layer())
    found = born_charges(batch, charges_of(batch, chi, hardness).charges)
    for atom, axis in ((0, 2), (3, 0), (5, 2)):
        expected = differences(batch, chi, hardness, atom, axis)
        assert torch.allclose(found[atom, 2, axis], expected[2], rtol=0, atol=CHARGE)


def test_charges_held_fixed_are_their_own_born_charges():
    for atoms in (salt(), layer(), water()[0]):
        batch, chi, hardness = system(atoms)
        charges = charges_of(batch, chi, hardness).charges.detach()
        found = born_charges(batch, charges)
        expected = charges[:, None, None] * torch.eye(3).double()
        assert torch.allclose(found, expected, rtol=0, atol=EXACT)


def test_a_molecule_in_a_large_periodic_box_has_the_born_charges_of_an_open_one():
    """The phases of the box differ from positions by a term in the square of size over box."""
    atoms, _ = water()
    batch, chi, hardness = system(atoms)
    exact = born_charges(batch, charges_of(batch, chi, hardness).charges)
    errors = []
    for length in (20.0, 40.0):
        boxed = atoms.copy()
        boxed.set_cell([length] * 3)
        boxed.pbc = True
        periodic, chi, hardness = system(boxed)
        found = born_charges(periodic, charges_of(periodic, chi, hardness).charges)
        errors.append(float((found - exact).abs().max()))
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 5e-3


def test_the_image_of_an_atom_does_not_matter():
    atoms = salt()
    batch, chi, hardness = system(atoms)
    charges = charges_of(batch, chi, hardness).charges
    found = born_charges(batch, charges)
    other = atoms.copy()
    other.positions += np.random.default_rng(1).integers(-2, 3, (8, 3)) @ atoms.cell.array
    wrapped, chi, hardness = system(other)
    again = charges_of(wrapped, chi, hardness).charges
    assert torch.allclose(born_charges(wrapped, again), found, rtol=0, atol=CHARGE)
    # The polarisation differs by whole quanta q_i a/V, the same for all three directions here.
    shift = torch.as_tensor(np.rint((other.positions - atoms.positions) / 5.64))
    quanta = (charges[:, None] * shift).sum(0) * 5.64 / 5.64**3
    change = polarisation(wrapped, again)[0] - polarisation(batch, charges)[0]
    assert torch.allclose(change, quanta, rtol=0, atol=EXACT)


def test_born_charges_can_be_learnt_from():
    """The gradient of a loss on Born charges is the central difference of the loss."""
    batch, chi, hardness = system(salt())
    chi.requires_grad_()

    def loss(values):
        charges = charges_of(batch, values, hardness).charges
        return born_charges(batch, charges, create_graph=True).square().sum()

    (gradient,) = torch.autograd.grad(loss(chi), chi)
    assert torch.isfinite(gradient).all()
    for atom in (0, 5):
        change = torch.zeros_like(chi)
        change[atom] = 1e-4
        ends = [float(loss(chi.detach() + sign * change).detach()) for sign in (1, -1)]
        assert float(gradient[atom]) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)


def test_the_dipole_is_minus_the_slope_of_the_energy_in_a_field():
    """Hellmann and Feynman, and with it the polarisability as the second derivative."""
    batch, chi, hardness = system(water()[0])
    field = tensor([[0.02, -0.03, 0.01]]).requires_grad_()
    found = charges_of(batch, chi, hardness, field=field)
    moments = dipole(batch, found.charges)
    (slope,) = torch.autograd.grad(found.energies.sum(), field, retain_graph=True)
    assert torch.allclose(-slope, moments, rtol=0, atol=EXACT)
    alpha = polarisability(moments, field)[0]
    assert torch.allclose(alpha, alpha.T, rtol=0, atol=EXACT)
    assert float(torch.linalg.eigvalsh(alpha)[0]) > -EXACT
    for axis in range(3):
        ends = []
        for sign in (1, -1):
            step = field.detach().clone()
            step[0, axis] += sign * 1e-3
            ends.append(dipole(batch, charges_of(batch, chi, hardness, field=step).charges)[0])
        assert torch.allclose(alpha[:, axis], (ends[0] - ends[1]) / 2e-3, rtol=0, atol=CHARGE)


def test_polarisability_of_two_atoms_by_hand():
    """α = R²/(H_11 + H_22 - 2 H_12), along their axis only."""
    distance = 2.5
    batch, chi, hardness = system(Atoms("NaCl", [[0, 0, 0], [0, 0, distance]]))
    field = torch.zeros(1, 3).double().requires_grad_()
    moments = dipole(batch, charges_of(batch, chi, hardness, field=field).charges)
    sigma = batch.widths
    wide = torch.sqrt(2 * sigma.square().sum())
    cross = COULOMB * torch.erf(distance / wide) / distance
    diagonal = (hardness + COULOMB / (sigma * np.sqrt(np.pi))).sum()
    expected = torch.zeros(3, 3).double()
    expected[2, 2] = distance**2 / (diagonal - 2 * cross)
    assert torch.allclose(polarisability(moments, field)[0], expected, rtol=0, atol=EXACT)


def test_forces_in_a_field_are_central_differences():
    atoms = layer()
    batch, chi, hardness = system(atoms)
    field = tensor([[0.0, 0.0, 0.05]])
    found = charges_of(batch, chi, hardness, 0.25, field)
    (slope,) = torch.autograd.grad(found.energies.sum(), batch.positions)
    # The net force of a charged slab is q E: the field does not know the slab.
    assert torch.allclose(slope.sum(0), -0.25 * field[0], rtol=0, atol=1e-7)
    for atom, axis in ((0, 2), (3, 0)):
        ends = [
            float(
                charges_of(moved(batch, atom, axis, s * STEP), chi, hardness, 0.25, field).energies
            )
            for s in (1, -1)
        ]
        assert float(slope[atom, axis]) == pytest.approx((ends[0] - ends[1]) / (2 * STEP), abs=1e-5)


def test_two_plates_in_a_field_are_a_capacitor():
    """``q = E d / [2 J + 4π k_e (d - 2σ/√π)/A]`` of Gaussian sheets with one atom per area A."""
    distance, side, strength = 12.0, 3.0, 0.1
    atoms = Atoms("Na2", [[0, 0, 0], [0, 0, distance]], cell=[side, side, 40], pbc=(1, 1, 0))
    batch, chi, hardness = system(atoms)
    field = tensor([[0.0, 0.0, strength]])
    charges = charges_of(batch, chi, hardness, field=field).charges
    apart = distance - 2 * float(batch.widths[0]) / np.sqrt(np.pi)
    stiffness = 2 * HARD[11] + 4 * np.pi * COULOMB / side**2 * apart
    assert float(charges[1].detach()) == pytest.approx(strength * distance / stiffness, rel=1e-4)


def refused(name):
    atoms = salt()
    batch, chi, _ = system(atoms)
    if name == "charged":
        return lambda: polarisation(batch, torch.ones(8).double())
    if name == "molecule":
        return lambda: polarisation(system(water()[0])[0], torch.zeros(3).double())
    if name == "no gradients":
        return lambda: born_charges(replace(batch, positions=batch.positions.detach()), chi)
    return lambda: field_term(system(layer())[0], tensor([[0.1, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("charged", "structure 0 has the net charge 8 e"),
        ("molecule", "ask for its dipole"),
        ("no gradients", "requires_grad_"),
        ("field in the plane", "component along a periodic direction"),
    ],
)
def test_what_has_no_meaning_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        refused(name)()
