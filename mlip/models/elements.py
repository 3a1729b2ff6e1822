"""Electronegativity, hardness and width of each element, as a model starts to learn them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.electrostatics.element_table import ELEMENTS
from mlip.electrostatics.parameters import (
    LEAST_HARDNESS,
    LEAST_WIDTH,
    hardness_of,
    split_hardness,
    width_of,
)
from mlip.errors import UnsupportedElementError

GAUSSIAN_SHARE = 0.5
"""Part of the tabulated hardness that is the self energy of the Gaussian: it sets the widths.

With it untrained charges of rock salts are those of the calculator ``qeq_rappe``, NaCl 0.79 e.
"""


class ElementParameters(nn.Module):
    """χ_Z (V), J_Z (eV/e²) and σ_Z (Å) of every element, learned from tabulated values on.

    J and σ are kept above positive bounds, for which the charges always have one minimum.

    Args:
        elements: Symbols that the potential knows.

    Raises:
        UnsupportedElementError: For an element without tabulated values.
    """

    def __init__(self, elements: Sequence[str]) -> None:
        super().__init__()
        if unknown := [symbol for symbol in elements if symbol not in ELEMENTS]:
            raise UnsupportedElementError(
                f"no electronegativity and hardness of {', '.join(unknown)}, from which a "
                f"potential with charges starts: known are the elements to {list(ELEMENTS)[-1]}"
            )
        chosen = torch.tensor([ELEMENTS[symbol] for symbol in elements], dtype=torch.float64)
        hardness, widths = split_hardness(chosen[:, 1], GAUSSIAN_SHARE)
        self.electronegativity = nn.Parameter(chosen[:, 0])
        self.raw_hardness = nn.Parameter(_inverse_softplus(hardness - LEAST_HARDNESS))
        self.raw_width = nn.Parameter(_inverse_softplus(widths - LEAST_WIDTH))

    def widths(self, species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return σ of each atom, Å."""
        return width_of(self.raw_width)[species]

    def hardness(self, species: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return J of each atom beyond the self energy of its Gaussian, eV/e²."""
        return hardness_of(self.raw_hardness)[species]


def guessed_charges(elements: Sequence[str]) -> Float[Tensor, " elements"]:
    """Return ``(χ̄ - χ_Z)/η_Z``, e: what a share of each element of one mean potential would be."""
    table = torch.tensor([ELEMENTS[symbol] for symbol in elements], dtype=torch.float64)
    return (table[:, 0].mean() - table[:, 0]) / table[:, 1]


def _inverse_softplus(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return values.clamp(min=math.exp(-5)).expm1().log()
