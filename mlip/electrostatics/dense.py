"""Small structures: the matrix of each, padded to one size, factorised by Cholesky, once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.linear import Matrix, Solution


class DenseSolver:
    """Cholesky factors of a batch of matrices, for any number of right-hand sides.

    With ``u = H⁻¹ b`` and ``V = H⁻¹ Cᵀ`` of ``H = A + J``, the multipliers are
    ``λ = (C V)⁻¹ (C u - Q)`` and the charges ``u - V λ``.

    The matrix of a slab is positive only among charges of a given sum. Where all atoms belong to
    groups, a constant c is added to all elements, which changes λ alone, by ``-c Σ Q``.

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
        self._raise = self._constant()
        raised = self.dense + self._raise[:, None, None] * ones[:, :, None] * ones[:, None]
        self._factor = _cholesky(raised + torch.diag_embed(1.0 - ones))
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
        free = torch.cholesky_solve(self._pad(right)[..., None], self._factor)
        wanted = charges.new_zeros(self._schur.shape[:2])
        wanted.view(-1)[self._group_place] = charges
        excess = self._constraints.transpose(1, 2) @ free - wanted[..., None]
        multipliers = torch.cholesky_solve(excess, self._schur)
        padded = free - self._columns @ multipliers
        values = padded.flatten()[self.place]
        total = self._raise * wanted.sum(1)
        groups = multipliers.flatten()[self._group_place] + total[self.matrix.owners]
        product = (self.dense @ padded).flatten()[self.place]
        residual = self.matrix.rms(product + self.matrix.constraint.spread(groups) - right)
        iterations = torch.zeros_like(residual, dtype=torch.long)
        return Solution(values, groups, iterations, residual)

    def _constant(self) -> Float[Tensor, " graphs"]:
        """Return twice the largest element of each structure of fixed charge, eV/e²."""
        free = self.matrix.sums((self.matrix.constraint.group < 0).double()) > 0
        return torch.where(free, 0.0, 2 * self.dense.abs().flatten(1).amax(1))

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
