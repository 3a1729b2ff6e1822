"""Padded matrices: those of products, of every kind of sum and for structures of mixed size."""

import pytest
import torch

from mlip.electrostatics.padding import Padding
from mlip.electrostatics.plan import plan_coulomb

SAME = 1e-10


def test_rows_and_columns_of_two_owners():
    padding = Padding.of(torch.tensor([0, 0, 0, 1]), 2)
    assert padding.size == 3
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert padding.rows(values).tolist() == [[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]
    whole = padding.symmetric(torch.tensor([5.0, 7.0]), torch.tensor([0, 3]), torch.tensor([2, 3]))
    assert whole[0].tolist() == [[0.0, 0.0, 5.0], [0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]
    assert whole[1, 0, 0] == 14.0


@pytest.mark.parametrize("method", ["auto", "pme", "direct"])
def test_matrices_are_those_of_the_products(batch, cases, method):
    system, *_ = batch(*(one for one in cases if method != "direct" or not one.atoms.pbc.any()))
    operator = plan_coulomb(system, 1e-8, method).operator(system)
    padding = Padding.of(system.batch, system.graphs)
    expected = padding.columns(operator.potential, system.widths)
    found = operator.matrix()
    assert found.shape == (system.graphs, padding.size, padding.size)
    assert torch.allclose(found, expected, rtol=0, atol=SAME)


def test_derivatives_of_matrices_are_those_of_energies(batch, one):
    system, *_ = batch(one)
    positions = system.positions.requires_grad_()
    operator = plan_coulomb(system, 1e-8).operator(system)
    charges = torch.linspace(-1.0, 1.0, system.atoms).double()
    energies = 0.5 * charges @ operator.matrix()[0] @ charges, operator.energies(charges)[0]
    found, expected = (torch.autograd.grad(own, positions, retain_graph=True) for own in energies)
    assert torch.allclose(found[0], expected[0], rtol=0, atol=SAME)
