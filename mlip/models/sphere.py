"""Invariant products of fields on the sphere: values are multiplied, not coefficients."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from scipy.integrate import lebedev_rule
from torch import Tensor, nn

from mlip.runtime import import_e3nn


class SphereProducts(nn.Module):
    """``∫ f_l1 f_l2 … dΩ/4π`` for ``f_l(r) = Σ_m a_lm Y_lm(r)``, all products of two or three.

    An integral over the sphere is invariant, and a Lebedev rule of the right order gives it
    exactly. This takes two small matrix products where contracting coefficients (Batatia et al.,
    MACE, eq. 10) takes one for every path (cf. Luo, Chen and Krishnapriyan, Gaunt tensor products,
    ICLR 2024, arXiv 2401.10216). Only products even in space are there, so half a sphere suffices.

    Args:
        max_l: Highest degree; degree 0 is a constant, and no product is made of it here.
    """

    weights: Tensor

    def __init__(self, max_l: int) -> None:
        super().__init__()
        self.max_l = max_l
        self.products = [
            degrees
            for factors in (2, 3)
            for degrees in combinations_with_replacement(range(1, max_l + 1), factors)
            if sum(degrees) % 2 == 0 and not _vanishes(degrees)
        ]
        points, weights = _half_sphere(max((sum(d) for d in self.products), default=0))
        o3 = import_e3nn()
        for degree in range(1, max_l + 1):
            values = o3.spherical_harmonics(degree, points, True, "component")
            # Sums of random coefficients then have values of order one, whatever the degree.
            self.register_buffer(f"at{degree}", values / (2 * degree + 1) ** 0.5, persistent=False)
        self.register_buffer("weights", weights[None], persistent=False)

    def forward(
        self, fields: Sequence[Float[Tensor, "components width"]]
    ) -> Float[Tensor, "products width"]:
        """Return the integrals, in the order of ``products``.

        Args:
            fields: Coefficients of degree 1, 2, …; the width holds atoms and channels.
        """
        values: dict[tuple[int, ...], Tensor] = {
            (degree,): self.get_buffer(f"at{degree}") @ coefficients
            for degree, coefficients in enumerate(fields, 1)
        }
        for degrees in self.products:
            for end in range(2, len(degrees) + 1):
                if degrees[:end] not in values:
                    values[degrees[:end]] = (
                        values[degrees[: end - 1]] * values[degrees[end - 1 : end]]
                    )
        return torch.cat([self.weights @ values[degrees] for degrees in self.products])


def _vanishes(degrees: Sequence[int]) -> bool:
    """Whether the integral is zero: of two degrees that differ, or outside the triangle."""
    largest = max(degrees)
    rest = sum(degrees) - largest
    return rest < largest


def _half_sphere(order: int) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
    """Return points and weights, of sum 1, exact for even polynomials up to an order."""
    points, weights = lebedev_rule(order + 1 - order % 2)  # rules exist for odd orders
    x, y, z = points.round(12)
    upper = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    weights = torch.tensor(weights[upper])
    return torch.tensor(points[:, upper].T), weights / weights.sum()
