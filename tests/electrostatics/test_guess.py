"""Guesses of the next charges: exact weights, and what they save along a trajectory."""

import numpy as np
import pytest
import torch

from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.guess import ChargeHistory, predictor
from mlip.electrostatics.parameters import (
    LEAST_HARDNESS,
    LEAST_WIDTH,
    hardness_of,
    split_hardness,
    width_of,
)
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of


def test_weights_are_those_of_the_paper():
    assert predictor(1) == [1.0]
    assert predictor(2) == [2.0, -1.0]
    assert predictor(3) == pytest.approx([2.5, -2.0, 0.5])
    assert predictor(4) == pytest.approx([2.8, -2.8, 1.2, -0.2])


def test_a_straight_line_is_continued_and_other_atoms_are_forgotten():
    history = ChargeHistory(2)
    assert history.guess() is None
    for time in range(4):
        history.add(torch.tensor([1.0, 2.0]) + 0.1 * time)
    assert torch.allclose(history.guess(), torch.tensor([1.4, 2.4]))
    history.add(torch.tensor([3.0]))
    assert torch.equal(history.guess(), torch.tensor([3.0]))
    history.clear()
    assert history.guess() is None
    with pytest.raises(ValueError, match="give at least 1"):
        ChargeHistory(0)


@pytest.mark.parametrize(("length", "share"), [(1, 0.95), (4, 0.7)])
def test_extrapolation_saves_iterations(rock_salt, length, share):
    """Atoms that move like in dynamics of 1 fs: smooth, about 0.005 Å a step."""
    case = rock_salt(3, rattle=0.05)
    case.atoms.calc = None
    velocities = 0.005 * np.random.default_rng(0).normal(size=(len(case.atoms), 3))
    bend = 0.0002 * np.random.default_rng(1).normal(size=(len(case.atoms), 3))
    history, cold, warm = ChargeHistory(length), 0, 0
    for step in range(8):
        atoms = case.atoms.copy()
        atoms.positions += step * velocities + step**2 * bend
        system = system_of([atoms], [case.width])
        plan = plan_coulomb(system, 1e-5)
        chi, hardness = torch.as_tensor(case.chi), torch.as_tensor(case.hardness)
        constraint = total_charge(system, torch.zeros(1).double())
        settings = Settings("conjugate_gradient", 1e-6)
        inputs = (plan, system, chi, hardness, constraint, settings)
        fresh = equilibrate(*inputs)
        found = equilibrate(*inputs, guess=history.guess())
        assert float((fresh.charges - found.charges).abs().max()) < 1e-5
        history.add(found.charges)
        if step >= 4:
            cold, warm = cold + int(fresh.iterations), warm + int(found.iterations)
    assert warm <= share * cold


def test_parameters_are_positive_whatever_a_model_learns():
    raw = torch.linspace(-50, 50, 101).double()
    assert float(hardness_of(raw).min()) >= LEAST_HARDNESS
    assert float(width_of(raw).min()) >= LEAST_WIDTH


def test_a_tabulated_hardness_is_shared_out():
    """``σ = k_e/(√π J_G)``: half of 8.124 eV/e² makes a width of 2 Å."""
    whole = torch.tensor([8.1242, 4.592, 13.890]).double()
    hardness, width = split_hardness(whole, 0.5)
    assert hardness.tolist() == pytest.approx([4.0621, 2.296, 6.945])
    assert float(width[0]) == pytest.approx(2.0, abs=1e-4)
    hardness, width = split_hardness(whole, 0.9)
    assert (hardness + 14.3996454784 / (np.sqrt(np.pi) * width)).tolist() == pytest.approx(
        whole.tolist()
    )
    with pytest.raises(ValueError, match=r"the smallest hardness is 0\.0"):
        split_hardness(torch.tensor([3.0, 0.0]), 0.5)
    with pytest.raises(ValueError, match=r"gaussian_share is 1\.0: give a part between 0 and 1"):
        split_hardness(whole, 1.0)
