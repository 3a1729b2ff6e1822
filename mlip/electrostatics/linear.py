"""The linear problem of charge equilibration, and what its solvers share.

The charges that minimise ``½ qᵀ A q + Σ χ_i q_i + ½ J_i q_i²`` under ``C q = Q`` solve

    [ A + J   Cᵀ ] [ q ]   [ -χ ]
    [   C     0  ] [ λ ] = [  Q ]

whose multipliers λ are minus the chemical potential ``∂E/∂q`` of each group.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.constraints import ChargeConstraint
from mlip.electrostatics.operator import CoulombOperator


@dataclass(frozen=True)
class Matrix:
    """``A + J`` with its constraints, outside any graph of derivatives.

    Args:
        coulomb: A.
        hardness: (atoms,) J, eV/e².
        constraint: C; its charges are not used.
        batch: (atoms,) structure of each atom.
        graphs: Number of structures.
    """

    coulomb: CoulombOperator
    hardness: Float[Tensor, " atoms"]
    constraint: ChargeConstraint
    batch: Int[Tensor, " atoms"]
    graphs: int

    def product(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``(A + J) q``, V."""
        return self.coulomb.potential(charges) + self.hardness * charges

    def sums(self, values: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return the sum of values over each structure."""
        return values.new_zeros(self.graphs).index_add(0, self.batch, values)

    @property
    def owners(self) -> Int[Tensor, " groups"]:
        """Return the structure of each group of the constraint."""
        held = self.constraint.group >= 0
        owner = torch.zeros_like(self.batch[:1]).expand(len(self.constraint.charges)).clone()
        owner[self.constraint.group[held]] = self.batch[held]
        return owner

    def rms(self, values: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return the root mean square of values over each structure."""
        return (self.sums(values.square()) / self.sums(torch.ones_like(values))).sqrt()


@dataclass(frozen=True)
class Solution:
    """The solution of the linear problem.

    Attributes:
        values: (atoms,) q.
        multipliers: (groups,) λ.
        iterations: (graphs,) steps of an iterative solver, 0 of a direct one.
        residual: (graphs,) root mean square of ``(A + J) q + Cᵀλ - b``, V.
    """

    values: Float[Tensor, " atoms"]
    multipliers: Float[Tensor, " groups"]
    iterations: Int[Tensor, " graphs"]
    residual: Float[Tensor, " graphs"]


class LinearSolver(Protocol):
    """Solves the problem for one matrix and any right-hand sides."""

    matrix: Matrix

    def solve(
        self,
        right: Float[Tensor, " atoms"],
        charges: Float[Tensor, " groups"],
        guess: Float[Tensor, " atoms"] | None = None,
    ) -> Solution:
        """Return the solution for ``b = right`` and ``Q = charges``."""
        ...
