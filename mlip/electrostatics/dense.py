"""Small structures: the matrix of each, padded to one size, factorised by Cholesky, once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.linear import Matrix, Solution
from mlip.electrostatics.padding import Padding


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
        self._padding = Padding.of(matrix.batch, matrix.graphs)
        self.dense = matrix.coulomb.matrix() + self._padding.diagonal(matrix.hardness)
        ones = self._padding.rows(torch.ones_like(matrix.hardness))
        free = matrix.sums((matrix.constraint.group < 0).double()) > 0
        self._constant = torch.where(free[:, None], 0.0, ones / ones.sum(1, keepdim=True))
        projected = _project(self.dense, self._constant, self._padding.rows(matrix.hardness))
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
        rest = self._padding.rows(right) - _times(self.dense, equal)
        free = torch.cholesky_solve(rest[..., None], self._factor)
        missing = wanted - _times(self._constraints.transpose(1, 2), equal)
        excess = self._constraints.transpose(1, 2) @ free - missing[..., None]
        padded = free - self._columns @ torch.cholesky_solve(excess, self._schur)
        values = (equal + padded[..., 0]).flatten()[self._padding.place]
        product = _times(self.dense, equal + padded[..., 0]).flatten()[self._padding.place]
        constraint = self.matrix.constraint
        groups = constraint.sums(right - product) / constraint.sums(torch.ones_like(right))
        residual = self.matrix.rms(product + constraint.spread(groups) - right)
        iterations = torch.zeros_like(residual, dtype=torch.long)
        return Solution(values, groups, iterations, residual)

    def _pad_constraints(self) -> tuple[Int[Tensor, " groups"], Float[Tensor, "graphs size own"]]:
        """Return where the groups are among the padded ones of all structures, and Cᵀ."""
        constraint, graphs = self.matrix.constraint, self.matrix.graphs
        held = constraint.group >= 0
        owner = self.matrix.owners
        order = owner.argsort(stable=True)
        groups = Padding.of(owner[order], graphs)
        places = torch.empty_like(groups.place)
        places[order] = groups.place
        columns = self.dense.new_zeros(self.dense.shape[:2].numel(), groups.size)
        own = places[constraint.group[held]] % max(groups.size, 1)
        columns[self._padding.place[held], own] = 1.0
        return places, columns.view(*self.dense.shape[:2], groups.size)


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
