"""Derivatives of equilibrated charges and energies, to any order, without unrolling a solver.

With the symmetric matrix K of :mod:`mlip.electrostatics.linear`, ``x = K⁻¹ b``, a gradient g with
respect to x gives ``u = K⁻¹ g`` with respect to b and ``-uᵀ ∂K x`` with respect to what K is made
of: one more solve with the same factors. That solve is differentiable in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from mlip.electrostatics.linear import LinearSolver, Solution
from mlip.electrostatics.operator import CoulombOperator, CoulombPlan
from mlip.electrostatics.system import ChargedSystem

Parameters = tuple[Tensor, Tensor, Tensor, Tensor]
"""Hardness, positions, cell and widths: what the matrix is made of."""


@dataclass
class Problem:
    """What does not change between the solves for one matrix.

    Args:
        plan: Of the Coulomb sums.
        system: Boundary conditions and batch; its positions, cell and widths are not used.
        solver: For the matrix at the present values.
        guess: (atoms,) where the first solve starts.
        iterations: (graphs,) that the first solve took, when there is one.
        residual: (graphs,) of the first solve, V. Its charges are not kept: autograd keeps this
            for their sake, and a circle through it would never be freed.
    """

    plan: CoulombPlan
    system: ChargedSystem
    solver: LinearSolver
    guess: Tensor | None = None
    iterations: Tensor | None = None
    residual: Tensor | None = None

    def solution(self, right: Tensor, charges: Tensor) -> Solution:
        """Return the solution outside any graph, from the guess if it is the first."""
        first = self.iterations is None
        found = self.solver.solve(right, charges, self.guess if first else None)
        if first:
            self.iterations, self.residual = found.iterations, found.residual
        return found

    def operator(self, parameters: Parameters) -> CoulombOperator:
        """Return A, differentiable in the parameters."""
        _, positions, cell, widths = parameters
        return self.plan.operator(
            replace(self.system, positions=positions, cell=cell, widths=widths)
        )


def solve(
    problem: Problem,
    right: Float[Tensor, " atoms"],
    charges: Float[Tensor, " groups"],
    parameters: Parameters,
) -> tuple[Float[Tensor, " atoms"], Float[Tensor, " groups"]]:
    """Return values and multipliers, differentiable in all tensors."""
    return _Solve.apply(problem, right, charges, *parameters)  # type: ignore[no-any-return]


def minimum_energy(
    problem: Problem,
    values: Float[Tensor, " atoms"],
    multipliers: Float[Tensor, " groups"],
    right: Float[Tensor, " atoms"],
    charges: Float[Tensor, " groups"],
    parameters: Parameters,
) -> Float[Tensor, " graphs"]:
    """Return ``½ xᵀHx - bᵀx`` at its constrained minimum x.

    Because x is stationary, the first derivatives need no solve (Hellmann and Feynman); second
    ones do, through x.
    """
    return _Minimum.apply(  # type: ignore[no-any-return]
        problem, values, multipliers, right, charges, *parameters
    )


class _Solve(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, problem: Problem, right: Tensor, charges: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = problem.solution(right, charges)
        ctx.problem = problem
        ctx.save_for_backward(found.values, *parameters)
        ctx.set_materialize_grads(False)
        return found.values, found.multipliers

    @staticmethod
    def backward(ctx: Any, values: Tensor | None, multipliers: Tensor | None) -> Any:  # type: ignore[override]
        if values is None and multipliers is None:  # stationary: what follows needs no solve
            return (None,) * len(ctx.needs_input_grad)
        charges, *parameters = ctx.saved_tensors
        right = torch.zeros_like(charges) if values is None else values
        groups = len(ctx.problem.solver.matrix.owners)
        levels = charges.new_zeros(groups) if multipliers is None else multipliers
        adjoint, level = solve(ctx.problem, right, levels, tuple(parameters))

        def form(problem: Problem, own: Parameters, u: Tensor, x: Tensor) -> Tensor:
            hardness, *_ = own
            return -(u * problem.operator(own).potential(x)).sum() - (u * hardness * x).sum()

        wanted = ctx.needs_input_grad[3:]
        gradients = _gradients(ctx.problem, form, tuple(parameters), (adjoint, charges), wanted)
        return None, adjoint, level, *gradients


class _Minimum(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, problem: Problem, values: Tensor, multipliers: Tensor, *rest: Tensor
    ) -> Tensor:
        right, _, *parameters = rest
        ctx.problem = problem
        ctx.save_for_backward(values, multipliers, *parameters)
        matrix = problem.solver.matrix
        linear = matrix.sums(values * (0.5 * matrix.hardness * values - right))
        return matrix.coulomb.energies(values) + linear

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:  # type: ignore[override]
        values, multipliers, *parameters = ctx.saved_tensors
        matrix = ctx.problem.solver.matrix

        def form(problem: Problem, own: Parameters, scale: Tensor, x: Tensor) -> Tensor:
            hardness, *_ = own
            local = 0.5 * matrix.sums(hardness * x.square())
            return (scale * (problem.operator(own).energies(x) + local)).sum()

        wanted = ctx.needs_input_grad[5:]
        gradients = _gradients(ctx.problem, form, tuple(parameters), (scale, values), wanted)
        right = -scale.index_select(0, matrix.batch) * values
        charges = -scale.index_select(0, matrix.owners) * multipliers
        return None, None, None, right, charges, *gradients


def _gradients(
    problem: Problem,
    form: Any,
    parameters: Parameters,
    vectors: tuple[Tensor, Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of a form that its explicit parameters cause, vectors held fixed.

    The result stays differentiable in both if gradients are recorded.
    """
    if not any(wanted):
        return [None] * len(parameters)
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # A view cuts off the way by which the vectors, too, depend on the parameters.
        own = tuple(
            (p.view_as(p) if again else p.detach()).requires_grad_() if want else p
            for p, want in zip(parameters, wanted, strict=True)
        )
        if not again:
            vectors = (vectors[0].detach(), vectors[1].detach())
        asked = [p for p, want in zip(own, wanted, strict=True) if want]
        found = iter(
            torch.autograd.grad(
                form(problem, own, *vectors), asked, create_graph=again, allow_unused=True
            )
        )
    return [next(found) if want else None for want in wanted]
