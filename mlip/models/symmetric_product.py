"""MACE's products of up to three features of an atom, as polynomials with few terms."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

ELEMENTS, CORRELATION = 4, 3
"""The most elements and factors for which this is less work than the general code."""


class SymmetricProduct(nn.Module):
    """Drop-in for ``SymmetricContraction`` of mace-torch, with its weights and names.

    Batatia et al., MACE (arXiv 2206.07697), eqs. 10 and 11:
    ``B = Σ_i a_i (Σ_j≤k C_ijk a_j a_k + Σ_j C_ij a_j + C_i)`` for each channel. The general code
    keeps the products of every atom with all paths or with all components of two factors; here
    paths and weights are joined to ``C`` first, ``a_j a_k`` is formed once for each pair and for
    all outputs, and what is left is one matrix product a channel.

    Args:
        product: The module to stand in for.
    """

    first: Tensor
    second: Tensor

    def __init__(self, product: Any) -> None:
        super().__init__()
        self.contractions = product.contractions
        self.correlation = int(self.contractions[0].correlation)
        size = self.contractions[0].U_matrix_1.shape[-2]
        first, second = torch.triu_indices(size, size)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)

    @staticmethod
    def serves(product: Any) -> bool:
        """Whether a module of mace-torch has few enough elements and factors."""
        return all(
            one.correlation <= CORRELATION and one.weights_max.shape[0] <= ELEMENTS
            for one in product.contractions
        )

    def forward(
        self,
        features: Float[Tensor, "atoms channels components"],
        kinds: Float[Tensor, "atoms elements"],
    ) -> Float[Tensor, "atoms irreps"]:
        """Return the products, laid out as e3nn does: channel before component."""
        a = features.transpose(0, 1)
        terms = [torch.ones_like(a[..., :1])]
        if self.correlation > 1:
            terms.append(a)
        if self.correlation > 2:
            terms.append(a[..., self.first] * a[..., self.second])
        monomials = torch.cat(terms, dim=2)
        inner = sum(
            torch.bmm(monomials, coefficients) * kinds[:, element, None]
            for element, coefficients in enumerate(self._coefficients())
        )
        inner = inner.view(*a.shape, -1)  # type: ignore[union-attr]
        found = (a[..., None] * inner).sum(2).transpose(0, 1)
        widths = [int(self._width(one)) for one in self.contractions]
        return torch.cat([part.flatten(1) for part in found.split(widths, dim=2)], dim=1)

    def _coefficients(self) -> Float[Tensor, "elements channels monomials columns"]:
        """Return ``C`` of every element and channel; columns are component, then output."""
        outputs = []
        for one in self.contractions:
            weights = [*reversed(list(one.weights)), one.weights_max]
            rows = [
                torch.einsum("rimk,ekc->ecrim", self._table(one, factors), weights[factors - 1])
                for factors in range(1, self.correlation + 1)
            ]
            outputs.append(torch.cat(rows, dim=2))
        return torch.cat(outputs, dim=4).flatten(3)

    def _table(self, one: Any, factors: int) -> Float[Tensor, "monomials components outputs paths"]:
        """Return the coupling coefficients, those of ``a_j a_k`` and ``a_k a_j`` added up."""
        table = getattr(one, f"U_matrix_{factors}")
        table = table.view(self._width(one), *table.shape[-factors - 1 :])
        if factors == 1:
            return table.permute(1, 0, 2)[None]
        if factors == 2:
            return table.permute(1, 2, 0, 3)
        both = table[:, self.first, self.second] + table[:, self.second, self.first]
        share = torch.where(self.first == self.second, 0.5, 1.0).to(table.dtype)
        return (both * share[:, None, None]).permute(1, 2, 0, 3)

    @staticmethod
    def _width(one: Any) -> int:
        return one.U_matrix_1.shape[0] if one.U_matrix_1.dim() == 3 else 1
