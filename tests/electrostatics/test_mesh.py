"""B-splines against SciPy's; meshes against sums over wave vectors written out."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mlip.electrostatics.mesh import bind
from mlip.electrostatics.spline import ORDERS, spline_deconvolution, spline_weights

EXACT = 1e-13
ETA = 1.5


@pytest.fixture
def scene():
    """Atoms in and far outside a triclinic cell, with charges."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.eye(3).double() * 7 + 0.7 * torch.randn(3, 3, generator=generator).double()
    positions = 8 * torch.randn(10, 3, generator=generator).double()
    return positions, cell, torch.randn(10, generator=generator).double()


def gaussian(squared):
    return torch.exp(-(ETA**2) / 2 * squared) / squared


def waves(positions, cell, radial):
    """The matrix ``(1/V) Σ_{k≠0} w(k) cos k·(r_i - r_j)``, term by term."""
    integers = torch.cartesian_prod(*[torch.arange(-16, 17).double()] * 3)
    k = 2 * math.pi * integers[(integers != 0).any(1)] @ torch.linalg.inv(cell).T
    phases = k @ positions.T
    weights = radial(k.square().sum(1))[:, None] / torch.linalg.det(cell).abs()
    return sum((f(phases) * weights).T @ f(phases) for f in (torch.cos, torch.sin))


@pytest.mark.parametrize("order", ORDERS)
def test_weights_are_cardinal_splines(order):
    fraction = torch.linspace(0, 1, 21, dtype=torch.float64)[:-1]
    spline = BSpline.basis_element(np.arange(order + 1), extrapolate=False)
    expected = spline(fraction.numpy()[:, None] + np.arange(order)[::-1])
    weights = spline_weights(fraction, order)
    assert np.abs(weights.numpy() - np.nan_to_num(expected)).max() < EXACT
    assert (weights.sum(1) - 1).abs().max() < EXACT


@pytest.mark.parametrize("order", ORDERS)
def test_weights_are_smooth_where_an_atom_meets_a_point(order):
    below, above = torch.tensor([1.0, 0.0], dtype=torch.float64).requires_grad_()
    left, right = spline_weights(below, order)[1:], spline_weights(above, order)[:-1]
    for left_weight, right_weight in zip(left, right, strict=True):
        for _ in range(order - 1):
            assert abs((left_weight - right_weight).item()) < 1e-11
            (left_weight,) = torch.autograd.grad(left_weight, below, create_graph=True)
            (right_weight,) = torch.autograd.grad(right_weight, above, create_graph=True)


def test_no_kernel_is_lost_in_the_middle_of_a_fine_mesh():
    for order in ORDERS:
        factor = spline_deconvolution(64, order)
        assert factor[0] == pytest.approx(1.0, abs=EXACT)
        assert factor[32] == 0.0
        assert (factor[1:32] > 1).any()


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match=r"order is 5: .* 4, 6, 8"):
        spline_weights(torch.zeros(1), 5)


def test_charge_is_conserved_and_gather_transposes_spread(scene):
    positions, cell, charges = scene
    mesh = bind(positions, cell, (12, 15, 10), 6)
    field = torch.rand(12, 15, 10, dtype=torch.float64)
    density = mesh.spread(charges)
    assert abs(density.sum() - charges.sum()) < EXACT
    assert abs((density * field).sum() - (charges * mesh.gather(field)).sum()) < 1e-12


@pytest.mark.parametrize(
    ("order", "points", "error"), [(4, 24, 1e-4), (6, 24, 1e-6), (8, 24, 1e-8), (8, 40, 1e-10)]
)
def test_a_filter_is_the_sum_over_waves(scene, order, points, error):
    positions, cell, charges = scene
    exact = waves(positions, cell, gaussian) @ charges
    mesh = bind(positions, cell, (points, points + 1, points), order)
    assert (mesh.filter(gaussian)(charges) - exact).norm() < error * exact.norm()


@pytest.mark.parametrize("shape", [(24, 20, 24), (25, 24, 27)])
def test_the_diagonal_of_a_filter(scene, shape):
    positions, cell, _ = scene
    exact = waves(positions, cell, gaussian).diagonal()
    assert (bind(positions, cell, shape).diagonal(gaussian) - exact).abs().max() < 1e-12


def test_a_filter_is_symmetric_and_positive(scene):
    positions, cell, _ = scene
    apply = bind(positions, cell, (12, 12, 12)).filter(gaussian)
    matrix = torch.stack([apply(row) for row in torch.eye(10, dtype=torch.float64)])
    assert (matrix - matrix.T).abs().max() < EXACT
    assert torch.linalg.eigvalsh(matrix).min() > -EXACT


def test_atoms_outside_the_cell_are_those_inside(scene):
    positions, cell, charges = scene
    inside = (positions @ torch.linalg.inv(cell) % 1.0) @ cell
    results = [bind(r, cell, (16, 16, 16)).filter(gaussian)(charges) for r in (positions, inside)]
    assert (results[0] - results[1]).abs().max() < EXACT


def test_derivatives_in_positions_and_cell(scene):
    positions, cell, charges = (value[:4] for value in scene)

    def potential(positions, cell, charges):
        return bind(positions, cell, (6, 7, 6), 4).filter(gaussian)(charges)

    inputs = [value.clone().requires_grad_() for value in (positions, cell, charges)]
    assert torch.autograd.gradcheck(potential, inputs)
    assert torch.autograd.gradgradcheck(potential, inputs)


def test_a_mesh_with_fewer_points_than_the_spline_reaches_is_refused(scene):
    positions, cell, _ = scene
    with pytest.raises(ValueError, match=r"mesh \(12, 4, 12\).*order 6.*'ewald'"):
        bind(positions, cell, (12, 4, 12), 6)
