"""Hardnesses and widths for which charge equilibration always has one minimum."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from mlip.units import COULOMB

LEAST_HARDNESS = 0.5
"""eV/e², beyond the self energy of the Gaussian: it bounds the smallest eigenvalue."""
LEAST_WIDTH = 0.1
"""Å."""


def hardness_of(raw: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return hardnesses J from unbounded numbers, eV/e².

    ``q·A q >= 0`` holds for Gaussians of any width, so that with ``J >= LEAST_HARDNESS`` no
    eigenvalue of ``A + J`` is smaller than that, whatever a model learns.
    """
    return LEAST_HARDNESS + softplus(raw)


def width_of(raw: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return widths σ from unbounded numbers, Å."""
    return LEAST_WIDTH + softplus(raw)


def split_hardness(
    whole: Float[Tensor, " n"], gaussian_share: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return J and σ that share out a tabulated hardness, which is the whole diagonal.

    The Gaussian repels itself with ``k_e/(σ√π)``, which is its share; J is the rest. The same share
    for all keeps soft elements wide and hard ones narrow.

    Args:
        whole: ``J + k_e/(σ√π)`` of each atom or element, eV/e².
        gaussian_share: Of the whole, between 0 and 1; it sets σ, Å.

    Raises:
        ValueError: If a hardness is not positive or the share not between 0 and 1.
    """
    if not 0 < gaussian_share < 1:
        raise ValueError(
            f"gaussian_share is {gaussian_share}: give a part between 0 and 1, both excluded"
        )
    if not bool((whole > 0).all()):
        raise ValueError(f"the smallest hardness is {float(whole.min())} eV/e²: give positive ones")
    width = COULOMB / (math.sqrt(math.pi) * gaussian_share * whole)
    return (1 - gaussian_share) * whole, width
