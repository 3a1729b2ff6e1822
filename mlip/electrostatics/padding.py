"""Values of atoms as rows of one size for each structure, and matrices of such rows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Padding:
    """Where the items of each owner are among rows of one size.

    Args:
        place: (items,) index into the flattened rows.
        size: Of a row: the most items of an owner.
        owners: Number of rows.
    """

    place: Int[Tensor, " items"]
    size: int
    owners: int

    @classmethod
    def of(cls, owner: Int[Tensor, " items"], owners: int) -> "Padding":
        """Return the padding of sorted items."""
        counts = torch.bincount(owner, minlength=owners)
        starts = counts.cumsum(0) - counts
        size = int(counts.max())
        within = torch.arange(len(owner), device=owner.device) - starts[owner]
        return cls(owner * size + within, size, owners)

    def rows(self, values: Float[Tensor, " items"]) -> Float[Tensor, "owners size"]:
        """Return values as rows, padded with zeros."""
        padded = values.new_zeros(self.owners * self.size)
        return padded.index_copy(0, self.place, values).view(self.owners, self.size)

    def diagonal(self, values: Float[Tensor, " items"]) -> Float[Tensor, "owners size size"]:
        """Return diagonal matrices of values, padded with zeros."""
        return torch.diag_embed(self.rows(values))

    def symmetric(
        self,
        values: Float[Tensor, " pairs"],
        first: Int[Tensor, " pairs"],
        second: Int[Tensor, " pairs"],
    ) -> Float[Tensor, "owners size size"]:
        """Return the sum of values at both orders of pairs of items of one owner."""
        row, column = self.place[first.long()], self.place[second.long()] % self.size
        flat = values.new_zeros(self.owners * self.size**2)
        matrix = flat.index_add(0, row * self.size + column, values)
        matrix = matrix.view(self.owners, self.size, self.size)
        return matrix + matrix.transpose(1, 2)

    def columns(
        self, product: Callable[[Tensor], Tensor], like: Float[Tensor, " items"]
    ) -> Float[Tensor, "owners size size"]:
        """Return the matrices of a product, each call giving one column of all of them."""
        found = []
        for column in range(self.size):
            unit = (self.place % self.size == column).to(like.dtype)
            found.append(self.rows(product(unit)))
        return torch.stack(found, 2)
