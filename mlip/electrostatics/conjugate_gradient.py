"""Large structures: projected conjugate gradients, matrix-free, for a whole batch at once."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

from mlip.electrostatics.linear import Matrix, Solution
from mlip.electrostatics.preconditioner import Preconditioner

ROUNDING = 2e-14
"""Residuals are not asked to be smaller than this part of the right-hand side."""


@dataclass
class _State:
    """Charges, residual and direction of every structure."""

    values: Float[Tensor, " atoms"]
    residual: Float[Tensor, " atoms"]
    direction: Float[Tensor, " atoms"]
    steepness: Float[Tensor, " graphs"]


class ConjugateGradientSolver:
    """Conjugate gradients in the space of charges that keep ``C q``.

    Every structure has its own step lengths and stops by itself.

    Args:
        matrix: The problem.
        preconditioner: An approximate inverse of A + J, symmetric and positive definite.
        diagonal: (atoms,) of A + J.
        tolerance: Root mean square of the residual, relative to that of the right-hand side.
        max_iterations: After which it gives up.
    """

    def __init__(
        self,
        matrix: Matrix,
        preconditioner: Preconditioner,
        diagonal: Float[Tensor, " atoms"],
        tolerance: float,
        max_iterations: int,
    ) -> None:
        self.matrix = matrix
        self.preconditioner = preconditioner
        self.diagonal = diagonal
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self._weights = matrix.constraint.sums(1 / diagonal)
        self._members = matrix.constraint.sums(torch.ones_like(diagonal))

    @torch.no_grad()
    def solve(
        self,
        right: Float[Tensor, " atoms"],
        charges: Float[Tensor, " groups"],
        guess: Float[Tensor, " atoms"] | None = None,
    ) -> Solution:
        """Return the solution, started from a guess.

        Raises:
            RuntimeError: If a structure has not converged, with its residual and an estimate of
                the condition number; or if a matrix turns out not to be positive definite.
        """
        values = self._feasible(torch.zeros_like(right) if guess is None else guess, charges)
        limit = self._limit(right, charges)
        state = self._start(values, right)
        active = self.matrix.rms(self._project(state.residual)) > limit
        iterations = torch.zeros_like(active, dtype=torch.long)
        history: list[tuple[Tensor, Tensor]] = []
        while active.any():
            if len(history) == self.max_iterations:
                self._give_up(self._project(state.residual), limit, history)
            history.append(self._step(state, active))
            iterations += active
            active &= self.matrix.rms(self._project(state.residual)) > limit
        return self._finish(state.values, right, iterations)

    def _start(self, values: Tensor, right: Tensor) -> _State:
        residual = right - self.matrix.product(values)
        direction = self._precondition(residual)
        return _State(values, residual, direction, self.matrix.sums(residual * direction))

    def _step(self, state: _State, active: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the active structures; return the coefficients of the step."""
        product = self.matrix.product(state.direction)
        curvature = self.matrix.sums(state.direction * product)
        self._require_positive(curvature, state, active)
        length = torch.where(active, state.steepness / torch.where(active, curvature, 1.0), 0.0)
        state.values = state.values + length[self.matrix.batch] * state.direction
        state.residual = state.residual - length[self.matrix.batch] * product
        next_direction = self._precondition(state.residual)
        steepness = self.matrix.sums(state.residual * next_direction)
        turn = torch.where(active, steepness / torch.where(active, state.steepness, 1.0), 0.0)
        state.direction = next_direction + turn[self.matrix.batch] * state.direction
        state.steepness = steepness
        return length, turn

    def _finish(self, values: Tensor, right: Tensor, iterations: Tensor) -> Solution:
        """Take the multipliers from the true residual, not from the one that was updated."""
        constraint = self.matrix.constraint
        residual = right - self.matrix.product(values)
        multipliers = constraint.sums(residual) / self._members
        left = self.matrix.rms(residual - constraint.spread(multipliers))
        return Solution(values, multipliers, iterations, left)

    def _feasible(self, guess: Tensor, charges: Tensor) -> Tensor:
        """Return the guess with the missing charge of each group shared out, soft atoms first."""
        missing = (charges - self.matrix.constraint.sums(guess)) / self._weights
        return guess + self.matrix.constraint.spread(missing) / self.diagonal

    def _precondition(self, residual: Tensor) -> Tensor:
        """Return the direction that keeps ``C q``: exact for the diagonal, symmetric for all."""
        constraint = self.matrix.constraint
        level = constraint.spread(constraint.sums(residual / self.diagonal) / self._weights)
        direction = self.preconditioner(residual - level)
        excess = constraint.spread(constraint.sums(direction) / self._weights)
        return direction - excess / self.diagonal

    def _project(self, residual: Tensor) -> Tensor:
        constraint = self.matrix.constraint
        return residual - constraint.spread(constraint.sums(residual) / self._members)

    def _limit(self, right: Tensor, charges: Tensor) -> Float[Tensor, " graphs"]:
        rms = self.matrix.rms
        shared = rms(self.matrix.constraint.spread(charges / self._weights))
        scale = rms(self._project(right)) + shared
        return self.tolerance * scale + ROUNDING * (rms(right) + shared)

    def _require_positive(self, curvature: Tensor, state: _State, active: Tensor) -> None:
        bad = active & ~((curvature > 0) & (state.steepness > 0))
        if bad.any():
            graph = int(bad.long().argmax())
            length = float(self.matrix.sums(state.direction.square())[graph])
            raise RuntimeError(
                f"structure {graph}: the matrix of charge equilibration is not positive definite: "
                f"a direction has the curvature {float(curvature[graph]) / (length or 1.0):.3g} "
                "eV/e²; raise the hardness J, or tighten the tolerance of the Coulomb plan"
            )

    def _give_up(
        self, residual: Tensor, limit: Tensor, history: list[tuple[Tensor, Tensor]]
    ) -> None:
        left = self.matrix.rms(residual)
        graph = int((left / limit).argmax())
        steps = np.array([[float(x[graph]) for x in step] for step in history])
        estimate = condition(*steps[steps[:, 0] > 0].T)
        raise RuntimeError(
            f"structure {graph}: charge equilibration has not converged in {self.max_iterations} "
            f"iterations: the residual is {float(left[graph]):.3g} V, the limit "
            f"{float(limit[graph]):.3g} V, the condition number about "
            f"{estimate:.3g}; raise max_iterations, loosen the tolerance, or make "
            "the problem better conditioned: larger hardness J, smaller widths"
        )


def condition(lengths: Float[np.ndarray, " steps"], turns: Float[np.ndarray, " steps"]) -> float:
    """Estimate the condition number of the preconditioned matrix from the steps taken.

    They hold the tridiagonal matrix of Lanczos (Golub and Van Loan, Matrix Computations, 11.3).

    Args:
        lengths: Step lengths.
        turns: How much of the last direction was kept in each new one.
    """
    inverse = 1 / lengths
    diagonal = inverse + np.append(0.0, turns[:-1] * inverse[:-1])
    beside = np.sqrt(turns[:-1]) * inverse[:-1]
    values = eigvalsh_tridiagonal(diagonal, beside) if len(beside) else diagonal
    return float(values[-1] / max(values[0], np.finfo(float).tiny))
