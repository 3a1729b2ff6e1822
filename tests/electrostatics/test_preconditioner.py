"""The approximate inverse of ``A + J``: symmetric, positive, and nearer to the inverse."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from mlip.electrostatics.kernels import self_interaction
from mlip.electrostatics.padding import Padding
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.preconditioner import jacobi, screened

SAME = 1e-12


def crystal(rock_salt):
    return rock_salt((9, 3, 2), hardness=0.1, width=0.8)


def slab(rock_salt):
    """Of two heights: one end is a layer of cells thick, the other two."""
    case = rock_salt((12, 3, 2), hardness=0.1, width=0.8)
    kept = (case.atoms.positions[:, 2] < 5.0) | (case.atoms.positions[:, 0] < 20.0)
    for name in ("atoms", "chi", "hardness", "width"):
        setattr(case, name, getattr(case, name)[kept])
    case.atoms.pbc = [True, True, False]
    case.atoms.center(vacuum=8.0, axis=2)
    case.atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    return case


def inverse(system, apply):
    padding = Padding.of(system.batch, system.graphs)
    return padding.columns(apply, system.widths)[0].numpy()


@pytest.mark.parametrize("make", [crystal, slab])
def test_it_is_symmetric_and_positive_and_screens_what_the_diagonal_does_not(
    batch, rock_salt, make
):
    system, _, hardness, _ = batch(make(rock_salt))
    diagonal = hardness + self_interaction(system.widths)
    approximate = inverse(system, screened(system, diagonal))
    assert np.abs(approximate - approximate.T).max() < SAME
    assert np.linalg.eigvalsh(approximate)[0] > 0
    whole = plan_coulomb(system, 1e-8).operator(system).matrix()[0] + torch.diag(hardness)
    basis = np.linalg.qr(np.eye(system.atoms) - 1 / system.atoms)[0][:, :-1]
    inner = basis.T @ whole.numpy() @ basis
    conditions = []
    for one in (approximate, inverse(system, jacobi(diagonal))):
        values = eigh(inner, np.linalg.inv(basis.T @ one @ basis), eigvals_only=True)
        conditions.append(values[-1] / values[0])
    assert conditions[0] < 0.1 * conditions[1]
