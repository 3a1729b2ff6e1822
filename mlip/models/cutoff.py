"""Smooth cutoff functions."""

from jaxtyping import Float
from torch import Tensor


def polynomial_cutoff(x: Float[Tensor, "*edges"], power: int) -> Float[Tensor, "*edges"]:
    """Return the envelope that falls from 1 at x = 0 to 0 at x = 1 with two smooth derivatives.

    Gasteiger, Groß and Günnemann, Directional message passing, ICLR 2020, eq. 8.

    Args:
        x: Distance over cutoff.
        power: Exponent p, at least 2.
    """
    p = float(power)
    envelope = (
        1.0
        - (p + 1.0) * (p + 2.0) / 2.0 * x**p
        + p * (p + 2.0) * x ** (p + 1.0)
        - p * (p + 1.0) / 2.0 * x ** (p + 2.0)
    )
    return envelope * (x < 1.0)
