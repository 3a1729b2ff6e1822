"""Cardinal B-splines: what an atom gives to the mesh points around it, and its Fourier factor."""

from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.interpolate import BSpline, PPoly
from torch import Tensor

ORDERS = (4, 6, 8)
"""Orders in use: even, so that no wave vector is lost; order p has p - 2 derivatives."""


def spline_weights(fraction: Float[Tensor, "*any"], order: int) -> Float[Tensor, "*any order"]:
    """Return the weights of the ``order`` points that a B-spline reaches.

    They are polynomials, hence differentiable without limit; they sum to one. Point ``j`` stands
    at ``j - order + 1`` from the point below the atom.

    Args:
        fraction: Position above the point below, in spacings, 0 to 1.
        order: One of ``ORDERS``.
    """
    first, *others = fraction.new_tensor(_coefficients(order)).unbind()
    weights = first.expand(*fraction.shape, order)
    for coefficients in others:
        weights = weights * fraction[..., None] + coefficients
    return weights


def spline_deconvolution(points: int, order: int) -> Float[np.ndarray, " points"]:
    """Return the factor of one axis of the kernel that undoes spreading and gathering.

    It is the one of least mean error over positions (Hockney & Eastwood, Computer Simulation
    Using Particles, 1988, eq. 8-22) for a kernel that the mesh resolves: sinc^2p over the square
    of the sum of its images; the sum is a B-spline of twice the order at the integers. The
    highest wave vector, whose sign a mesh cannot tell, is left out.

    Args:
        points: Mesh points along the axis.
        order: Order of the spline.
    """
    wave = np.fft.fftfreq(points)
    spline = BSpline.basis_element(np.arange(2 * order + 1) - order, extrapolate=False)
    shifts = np.arange(1 - order, order)
    images = np.cos(2 * np.pi * wave[:, None] * shifts) @ spline(shifts)
    return np.where(np.abs(wave) == 0.5, 0.0, np.sinc(wave) ** (2 * order) / images**2)


@cache
def _coefficients(order: int) -> Float[np.ndarray, "order order"]:
    """Coefficients of the pieces (columns: mesh points), highest power first."""
    if order not in ORDERS:
        raise ValueError(
            f"order is {order}: splines of a mesh have order {', '.join(map(str, ORDERS))}"
        )
    spline = BSpline.basis_element(np.arange(order + 1), extrapolate=False)
    pieces = PPoly.from_spline(spline)
    first = int(np.searchsorted(pieces.x, 0.0, side="right")) - 1
    return np.ascontiguousarray(pieces.c[:, first : first + order][:, ::-1])
