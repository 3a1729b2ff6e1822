"""Hardnesses and widths for which charge equilibration always has one minimum."""

import math

import torch
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
    whole: Float[Tensor, " n"], least: float = LEAST_HARDNESS
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return J and σ that share out a tabulated hardness, which is the whole diagonal.

    The Gaussian repels itself with ``k_e/(σ√π)``; J is what remains.

    Args:
        whole: ``J + k_e/(σ√π)`` of each atom or element, eV/e².
        least: J, eV/e², positive.

    Raises:
        ValueError: If a hardness is not larger than the least one.
    """
    if not bool((whole > least).all()) or least <= 0:
        raise ValueError(
            f"the smallest hardness is {float(whole.min())} eV/e² and its part beyond the Gaussian "
            f"{least}: give larger hardnesses, or a smaller, positive part"
        )
    width = COULOMB / (math.sqrt(math.pi) * (whole - least))
    return torch.full_like(whole, least), width
