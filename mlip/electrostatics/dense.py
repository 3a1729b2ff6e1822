"""Small structures: the matrix of each, padded to one size, factorised by Cholesky, once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.linear import Matrix, Solution


class DenseSolver:
    """Cholesky factors of a batch of matrices, for any number of right-hand sides.

    With ``u = H⁻¹ b`` and ``V = H⁻¹ Cᵀ`` of ``H = A + J``, the multipliers are
    ``λ = (C V)⁻¹ (C u - Q)`` and the charges ``u - V λ``.

    The matrix of a slab is positive only among charges of a given sum. Where all n atoms of a
    structure belong to groups, the problem is solved for what is added to equal charges, with
    ``P H P + c 11ᵀ/n`` in the place of H: ``P = 1 - 11ᵀ/n`` takes out the constant vector, and c
    is the mean hardness, on which nothing depends but rounding.

    Args:
        matrix: The problem.

    Raises:
        RuntimeError: If a matrix is not positive definite, with its smallest eigenvalue.
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.place, self.size = _places(matrix.batch, matrix.graphs)
        self.dense = dense_matrix(matrix)
        ones = self._pad(torch.ones_like(matrix.hardness))
        free = matrix.sums((matrix.constraint.group < 0).double()) > 0
        self._constant = torch.where(free[:, None], 0.0, ones / ones.sum(1, keepdim=True))
        projected = _project(self.dense, self._constant, self._pad(matrix.hardness))
        self._factor = _cholesky(projected + torch.diag_embed(1.0 - ones))
        self._group_place, self._constraints = self._pad_constraints()
        self._columns = torch.cholesky_solve(self._constraints, self._factor)
        schur = self._constraints.transpose(1, 2) @ self._columns
        empty = schur.diagonal(dim1=1, dim2=2) == 0
        self._schur = torch.linalg.cholesky(schur + torch.diag_embed(empty.double()))

    def solve(
        self,
        right: Float[Tensor, " atoms"],
        charges: Float[Tensor, " groups"],
        guess: Float[Tensor, " atoms"] | None = None,
    ) -> Solution:
        """Return the solution; a guess is of no use here."""
        wanted = charges.new_zeros(self._schur.shape[:2])
        wanted.view(-1)[self._group_place] = charges
        equal = wanted.sum(1, keepdim=True) * self._constant
        rest = self._pad(right) - _times(self.dense, equal)
        free = torch.cholesky_solve(rest[..., None], self._factor)
        missing = wanted - _times(self._constraints.transpose(1, 2), equal)
        excess = self._constraints.transpose(1, 2) @ free - missing[..., None]
        padded = free - self._columns @ torch.cholesky_solve(excess, self._schur)
        values = (equal + padded[..., 0]).flatten()[self.place]
        product = _times(self.dense, equal + padded[..., 0]).flatten()[self.place]
        constraint = self.matrix.constraint
        groups = constraint.sums(right - product) / constraint.sums(torch.ones_like(right))
        residual = self.matrix.rms(product + constraint.spread(groups) - right)
        iterations = torch.zeros_like(residual, dtype=torch.long)
        return Solution(values, groups, iterations, residual)

    def _pad(self, values: Float[Tensor, " atoms"]) -> Float[Tensor, "graphs size"]:
        padded = values.new_zeros(self.matrix.graphs * self.size)
        return padded.index_copy(0, self.place, values).view(-1, self.size)

    def _pad_constraints(self) -> tuple[Int[Tensor, " groups"], Float[Tensor, "graphs size own"]]:
        """Return where the groups are among the padded ones of all structures, and Cᵀ."""
        constraint, graphs = self.matrix.constraint, self.matrix.graphs
        held = constraint.group >= 0
        owner = self.matrix.owners
        order = owner.argsort(stable=True)
        place, size = _places(owner[order], graphs)
        places = torch.empty_like(place)
        places[order] = place
        columns = self.dense.new_zeros(graphs * self.size, size)
        columns[self.place[held], places[constraint.group[held]] % max(size, 1)] = 1.0
        return places, columns.view(graphs, self.size, size)


def dense_matrix(matrix: Matrix) -> Float[Tensor, "graphs size size"]:
    """Return ``A + J`` of each structure, padded with zeros, eV/e².

    Each product gives one column of every structure at once.
    """
    place, size = _places(matrix.batch, matrix.graphs)
    columns = matrix.hardness.new_zeros(size, matrix.graphs * size)
    with torch.no_grad():
        for column in range(size):
            unit = (place % size == column).to(matrix.hardness.dtype)
            columns[column, place] = matrix.product(unit)
    dense = columns.view(size, matrix.graphs, size).transpose(0, 1)
    return 0.5 * (dense + dense.transpose(1, 2))


def _places(owner: Int[Tensor, " items"], graphs: int) -> tuple[Int[Tensor, " items"], int]:
    """Return where sorted items are when each owner has the same number of places, and that."""
    counts = torch.bincount(owner, minlength=graphs)
    starts = counts.cumsum(0) - counts
    size = int(counts.max())
    within = torch.arange(len(owner), device=owner.device) - starts[owner]
    return owner * size + within, size


def _times(matrices: Tensor, vectors: Float[Tensor, "graphs size"]) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]


def _project(
    matrices: Tensor, constant: Float[Tensor, "graphs size"], hardness: Float[Tensor, "graphs size"]
) -> Float[Tensor, "graphs size size"]:
    """Return ``P H P + c 11ᵀ/n`` for the constant 1/n, H where it is zero."""
    mean = _times(matrices, constant)
    level = (constant * (mean + constant * hardness)).sum(1, keepdim=True)
    inside = (constant > 0).double()
    row = inside * (0.5 * level - mean)
    return matrices + row[:, :, None] * inside[:, None] + inside[:, :, None] * row[:, None]


def _cholesky(matrices: Float[Tensor, "graphs size size"]) -> Float[Tensor, "graphs size size"]:
    factor, info = torch.linalg.cholesky_ex(matrices)
    if info.any():
        graph = int((info != 0).long().argmax())
        lowest = float(torch.linalg.eigvalsh(matrices[graph])[0])
        raise RuntimeError(
            f"structure {graph}: the matrix of charge equilibration is not positive definite, its "
            f"smallest eigenvalue is {lowest:.3g} eV/e²; raise the hardness J, or tighten the "
            "tolerance of the Coulomb plan"
        )
    return factor
