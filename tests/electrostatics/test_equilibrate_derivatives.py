"""Forces, stress and second derivatives of equilibrated charges, by differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlip.electrostatics.constraints import ChargeConstraint, total_charge
from mlip.electrostatics.energy import electrostatics, energies
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.plan import plan_coulomb

FORCE = 1e-6
STRESS = 1e-7
SOLVERS = {
    "dense": Settings("dense"),
    "conjugate gradients": Settings("conjugate_gradient", 1e-11),
}
TIGHT = 1e-11
STEP = 1e-4


def variational(system, found, plan):
    """The minimum itself."""
    return found.energies


def ko(system, found, plan):
    """An energy that is not stationary in the charges, as a fourth-generation potential has."""
    coulomb = energies(system, found.charges, plan)
    short = (found.charges**3 + torch.sin(system.positions).sum(1) * found.charges**2).sum()
    return coulomb + 0.3 * short


def strained(system, strain):
    matrix = torch.eye(3).double() + 0.5 * (strain + strain.transpose(-1, -2))
    return replace(system, positions=system.positions @ matrix, cell=system.cell @ matrix)


class Model:
    """Energy of positions and strain, with electronegativities that depend on both."""

    def __init__(self, tensors, settings, mode):
        self.system, self.chi, self.hardness, self.net = tensors
        self.plan = plan_coulomb(self.system, TIGHT)
        self.settings, self.mode = settings, mode

    def __call__(self, positions, strain):
        system = strained(replace(self.system, positions=positions), strain)
        distances = (system.positions[:, None] - system.positions).square().sum(-1)
        chi = self.chi + 0.1 * torch.exp(-distances / 8).sum(1)
        constraint = total_charge(system, self.net)
        found = equilibrate(self.plan, system, chi, self.hardness, constraint, self.settings)
        return self.mode(system, found, self.plan).sum()


@pytest.fixture(params=[variational, ko])
def mode(request):
    return request.param


@pytest.mark.parametrize("solver", SOLVERS)
def test_forces_and_stress_are_central_differences(batch, one, solver, mode):
    model = Model(batch(one), SOLVERS[solver], mode)
    positions = model.system.positions.clone().requires_grad_()
    strain = torch.zeros(3, 3).double().requires_grad_()
    gradients = torch.autograd.grad(model(positions, strain), (positions, strain))
    volume = float(torch.linalg.det(model.system.cell).abs()) or 1.0
    random = np.random.default_rng(0)
    for leaf, gradient, scale, limit in (
        (0, gradients[0], 1.0, FORCE),
        (1, gradients[1], volume, STRESS),
    ):
        for _ in range(4):
            index = tuple(random.integers(0, size) for size in gradient.shape)
            ends = []
            for sign in (1, -1):
                values = [positions.detach().clone(), strain.detach().clone()]
                values[leaf][index] += sign * STEP
                ends.append(float(model(*values)))
            expected = (ends[0] - ends[1]) / (2 * STEP * scale)
            assert float(gradient[index]) / scale == pytest.approx(expected, abs=limit)


def test_charges_held_fixed_give_the_forces_and_stress_of_the_minimum(batch, one):
    """Hellmann and Feynman; it fails if a part of the operator ignores positions or strain."""
    system, chi, hardness, net = batch(one)
    plan, constraint = plan_coulomb(system, TIGHT), total_charge(system, net)
    positions = system.positions.clone().requires_grad_()
    strain = torch.zeros(3, 3).double().requires_grad_()
    moved = strained(replace(system, positions=positions), strain)
    found = equilibrate(plan, moved, chi, hardness, constraint)
    gradients = torch.autograd.grad(found.energies.sum(), (positions, strain))
    held = electrostatics(system, found.charges.detach(), plan, ("forces", "stress"))
    assert held.forces is not None
    assert held.stress is not None
    assert torch.allclose(-gradients[0], held.forces, atol=1e-9)
    assert float(gradients[0].sum(0).abs().max()) < 1e-8
    if system.pbc.any():
        volume = torch.linalg.det(system.cell).abs()
        assert torch.allclose(gradients[1] / volume, held.stress[0], atol=1e-10)


def test_the_minimum_is_differentiated_without_another_solve(batch, rock_salt, monkeypatch):
    system, chi, hardness, net = batch(rock_salt(2))
    moved = replace(system, positions=system.positions.clone().requires_grad_())
    plan, constraint = plan_coulomb(system), total_charge(system, net)
    solves = []
    from mlip.electrostatics import conjugate_gradient

    solve = conjugate_gradient.ConjugateGradientSolver.solve

    def counted(self, *rest):
        solves.append(1)
        return solve(self, *rest)

    monkeypatch.setattr(conjugate_gradient.ConjugateGradientSolver, "solve", counted)
    settings = Settings("conjugate_gradient")
    found = equilibrate(plan, moved, chi, hardness, constraint, settings)
    torch.autograd.grad(found.energies.sum(), moved.positions, retain_graph=True)
    assert len(solves) == 1
    torch.autograd.grad(found.charges.square().sum(), moved.positions)
    assert len(solves) == 2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["charges and potential", "energy"])
def test_first_and_second_derivatives_in_everything(batch, one, solver, name):
    """Positions, strain, χ, J, σ and Q at once, along random directions (fast mode)."""
    system, chi, hardness, net = batch(one)
    plan = plan_coulomb(system, TIGHT)
    sample = torch.arange(min(4, system.atoms))

    def function(moved, strain, chi, hardness, widths, net):
        positions = system.positions.index_add(0, sample, moved)
        own = strained(replace(system, positions=positions, widths=widths), strain)
        constraint = ChargeConstraint(system.batch, net)
        found = equilibrate(plan, own, chi, hardness, constraint, SOLVERS[solver])
        return found.energies if name == "energy" else (found.charges, found.chemical_potential)

    moved = torch.zeros(len(sample), 3).double()
    inputs = (moved, torch.zeros(3, 3).double(), chi, hardness, system.widths, net)
    inputs = tuple(value.clone().requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-5, fast_mode=True)


def test_a_loss_on_forces_and_stress_has_finite_gradients(batch, cases, mode):
    """A whole batch: open, periodic, slab, charged; energy, forces, stress and charges."""
    system, chi, hardness, net = batch(*cases)
    plan = plan_coulomb(system, 1e-8)
    positions = system.positions.clone().requires_grad_()
    strain = torch.zeros_like(system.cell).requires_grad_()
    chi, hardness = chi.float().requires_grad_(), hardness.float().requires_grad_()
    turned = torch.einsum("ai,aij->aj", positions, strain[system.batch])
    moved = replace(system, positions=positions + turned, cell=system.cell + system.cell @ strain)
    found = equilibrate(plan, moved, chi, hardness, total_charge(system, net))
    energy = mode(moved, found, plan).sum()
    gradients = torch.autograd.grad(energy, (positions, strain), create_graph=True)
    loss = sum(value.square().sum() for value in gradients) + found.charges.square().sum()
    loss.backward()
    for leaf in (chi, hardness, positions):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert float(leaf.grad.abs().max()) > 0
