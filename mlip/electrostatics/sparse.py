"""Products of a sparse matrix and a vector, differentiable to any order in its entries."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor


@dataclass(frozen=True)
class SparsePattern:
    """Where the entries of a matrix stand, row by row; two entries of one place are summed.

    Args:
        offsets: (rows + 1,) where the entries of each row begin.
        indices: (entries,) column of each entry.
        columns: Number of columns.
    """

    offsets: Int[Tensor, " rows_plus_one"]
    indices: Int[Tensor, " entries"]
    columns: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.offsets.shape[0] - 1

    @cached_property
    def row_of_entry(self) -> Int[Tensor, " entries"]:
        """Row of each entry."""
        rows = torch.arange(self.rows, device=self.indices.device, dtype=self.indices.dtype)
        return torch.repeat_interleave(rows, self.offsets.diff(), output_size=len(self.indices))

    def product(
        self, entries: Float[Tensor, " entries"], vector: Float[Tensor, " columns"]
    ) -> Float[Tensor, " rows"]:
        """Return the matrix times a vector, differentiable in both."""
        return _Product.apply(entries, vector, self, False)  # type: ignore[return-value]

    def transposed_product(
        self, entries: Float[Tensor, " entries"], vector: Float[Tensor, " rows"]
    ) -> Float[Tensor, " columns"]:
        """Return the transposed matrix times a vector, differentiable in both."""
        return _Product.apply(entries, vector, self, True)  # type: ignore[return-value]


def index_type(*sizes: int) -> torch.dtype:
    """Return the narrowest integer that numbers so many entries, rows or columns."""
    return torch.int32 if max(sizes) < 2**31 else torch.int64


class _Product(torch.autograd.Function):
    """The derivatives of a sparse product are sparse products: nothing is made dense."""

    @staticmethod
    def forward(
        ctx: Any, entries: Tensor, vector: Tensor, pattern: SparsePattern, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(entries, vector)
        ctx.pattern, ctx.transposed = pattern, transposed
        compute = _compiled if entries.device.type == "cpu" else _accumulated
        return compute(entries, vector, pattern, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        entries, vector = ctx.saved_tensors
        pattern, transposed = ctx.pattern, ctx.transposed
        of_entries = of_vector = None
        if ctx.needs_input_grad[0]:
            left, right = (vector, gradient) if transposed else (gradient, vector)
            of_entries = left.index_select(0, pattern.row_of_entry) * right.index_select(
                0, pattern.indices
            )
        if ctx.needs_input_grad[1]:
            of_vector = _Product.apply(entries, gradient, pattern, not transposed)
        return of_entries, of_vector, None, None


def _compiled(entries: Tensor, vector: Tensor, pattern: SparsePattern, transposed: bool) -> Tensor:
    """SciPy's loops are five to ten times faster than indexed sums of torch on a CPU."""
    matrix = csr_array(
        (entries.numpy(), pattern.indices.numpy(), pattern.offsets.numpy()),
        shape=(pattern.rows, pattern.columns),
    )
    return torch.from_numpy((matrix.T if transposed else matrix) @ vector.contiguous().numpy())


def _accumulated(
    entries: Tensor, vector: Tensor, pattern: SparsePattern, transposed: bool
) -> Tensor:
    rows, columns = pattern.row_of_entry, pattern.indices
    size = pattern.columns if transposed else pattern.rows
    source, target = (rows, columns) if transposed else (columns, rows)
    return entries.new_zeros(size).index_add(0, target, entries * vector.index_select(0, source))
