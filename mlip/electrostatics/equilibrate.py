"""Charge equilibration: the charges that minimise the energy of a batch of structures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.conjugate_gradient import ConjugateGradientSolver
from mlip.electrostatics.constraints import ChargeConstraint
from mlip.electrostatics.dense import DenseSolver
from mlip.electrostatics.implicit import Problem, minimum_energy, solve
from mlip.electrostatics.kernels import self_interaction
from mlip.electrostatics.linear import LinearSolver, Matrix
from mlip.electrostatics.operator import CoulombPlan
from mlip.electrostatics.preconditioner import screened
from mlip.electrostatics.system import ChargedSystem
from mlip.errors import suggest

METHODS = ("auto", "dense", "conjugate_gradient")
DENSE_ATOMS = 200
"""Batches whose largest structure has more atoms are solved iteratively.

Periodic, on one thread, dense and iterative: 32 and 35 ms (8 of 100 atoms), 55 and 49 (4 of 200),
134 and 73 (2 of 432) for charges alone; 91 and 128, 141 and 179, 259 and 259 with a loss on forces
of the minimum; 164 and 257, 233 and 364, 377 and 491 with one on forces of another energy of the
charges, which takes four solves. Open structures of 432 atoms are still faster dense, 17 and 26.
"""


@dataclass(frozen=True)
class Settings:
    """How the charges are found.

    Args:
        method: One of ``METHODS``; ``auto`` chooses by size.
        tolerance: Residual of conjugate gradients, relative to the right-hand side: 1e-8 for
            training, 1e-6 is enough for dynamics.
        max_iterations: Of conjugate gradients.
    """

    method: str = "auto"
    tolerance: float = 1e-8
    max_iterations: int = 500

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}{suggest(self.method, METHODS)}")
        if not 1e-14 <= self.tolerance <= 0.1 or self.max_iterations < 1:
            raise ValueError(
                f"tolerance of the residual is {self.tolerance} and max_iterations "
                f"{self.max_iterations}: give a relative residual between 1e-14 and 0.1, and at "
                "least one iteration"
            )


DEFAULTS = Settings()


@dataclass(frozen=True)
class Equilibrium:
    """Equilibrated charges, in the precision of the electronegativities.

    Attributes:
        charges: (atoms,) q, e. Anything computed from them is differentiated by one more solve.
        energies: (graphs,) ``½ qᵀ A q + Σ χ q + ½ J q²`` at its minimum, eV. Forces from these
            need no further solve. With atoms at fixed potential it is the grand potential.
        chemical_potential: (groups,) ``∂E/∂q`` of each group of the constraint, V.
        iterations: (graphs,) of conjugate gradients, 0 of a dense solve.
        residual: (graphs,) root mean square of what ``∂E/∂q`` differs by within a group, V.
    """

    charges: Float[Tensor, " atoms"]
    energies: Float[Tensor, " graphs"]
    chemical_potential: Float[Tensor, " groups"]
    iterations: Int[Tensor, " graphs"]
    residual: Float[Tensor, " graphs"]


def equilibrate(
    plan: CoulombPlan,
    system: ChargedSystem,
    electronegativity: Float[Tensor, " atoms"],
    hardness: Float[Tensor, " atoms"],
    constraint: ChargeConstraint | None,
    settings: Settings = DEFAULTS,
    guess: Float[Tensor, " atoms"] | None = None,
) -> Equilibrium:
    """Minimise ``½ qᵀ A q + Σ χ_i q_i + ½ J_i q_i²`` under a constraint on the charges.

    Charges and energies are differentiable, twice and more, in positions, cell, widths, χ, J and
    the charges of the constraint. The matrix ``A + J`` is positive definite for any J > 0, because
    Gaussians repel themselves enough (Ko et al., Nat. Commun. 12, 398 (2021), for the functional).

    Args:
        plan: What :func:`mlip.electrostatics.plan.plan_coulomb` gave for this batch.
        system: The structures, all widths positive.
        electronegativity: χ, V; of atoms at fixed potential μ it is ``χ - μ``. Add what
            :func:`mlip.electrostatics.response.field_term` gives for an external field.
        hardness: J beyond the self energy of the Gaussian, eV/e², positive.
        constraint: Total charges, fragment charges, or fixed potential.
        settings: How the charges are found.
        guess: (atoms,) charges to start from, e; not differentiated.

    Raises:
        ValueError: Without a constraint, for a slab at fixed potential, or for values that do not
            match the atoms, are not finite, or are not positive where they must be.
        RuntimeError: If conjugate gradients do not converge or the matrix is not positive
            definite.
    """
    if constraint is None:
        raise ValueError(
            "the constraint on the charges is missing: give total_charge(system, charges), "
            "fragment_charges(...) or fixed_potential(system)"
        )
    _require(system, electronegativity, hardness, constraint, guess)
    _require_reference(system, constraint)
    dtype = electronegativity.dtype
    system, right = system.double(), -electronegativity.double()
    wanted = constraint.charges.double()
    parameters = (hardness.double(), system.positions, system.cell, system.widths)
    solver = _solver(plan, system, hardness.detach().double(), constraint, settings)
    problem = Problem(plan, system.detach(), solver, None if guess is None else guess.double())
    charges, multipliers = solve(problem, right, wanted, parameters)
    energies = minimum_energy(problem, charges, multipliers, right, wanted, parameters)
    assert problem.iterations is not None
    assert problem.residual is not None
    return Equilibrium(
        charges=charges.to(dtype),
        energies=energies.to(dtype),
        chemical_potential=-multipliers.to(dtype),
        iterations=problem.iterations,
        residual=problem.residual.to(dtype),
    )


@torch.no_grad()
def _solver(
    plan: CoulombPlan,
    system: ChargedSystem,
    hardness: Tensor,
    constraint: ChargeConstraint,
    settings: Settings,
) -> LinearSolver:
    system = system.detach()
    operator = plan.operator(system)
    held = ChargeConstraint(constraint.group, constraint.charges.detach().double())
    matrix = Matrix(operator, hardness, held, system.batch, system.graphs)
    largest = int(torch.bincount(system.batch).max())
    if settings.method == "dense" or (settings.method == "auto" and largest <= DENSE_ATOMS):
        return DenseSolver(matrix)
    diagonal = hardness + self_interaction(system.widths)  # images hardly count in large cells
    return ConjugateGradientSolver(
        matrix,
        screened(system, diagonal),
        diagonal,
        settings.tolerance,
        settings.max_iterations,
    )


def _require(
    system: ChargedSystem,
    electronegativity: Tensor,
    hardness: Tensor,
    constraint: ChargeConstraint,
    guess: Tensor | None,
) -> None:
    named = {
        "electronegativity": electronegativity,
        "hardness": hardness,
        "width": system.widths,
        "group": constraint.group,
        "guess": electronegativity if guess is None else guess,
    }
    for name, values in named.items():
        if values.shape != (system.atoms,):
            raise ValueError(
                f"{name} has shape {tuple(values.shape)} and the batch has {system.atoms} atoms: "
                "give one value for each atom"
            )
        positive = name in ("hardness", "width")
        values = values.detach()
        bad = ~torch.isfinite(values) | ((values <= 0) & positive)
        if bad.any():
            atom = int(bad.long().argmax())
            graph = int(system.batch[atom])
            raise ValueError(
                f"structure {graph}, atom {atom - int((system.batch < graph).sum())}: its {name} "
                f"is {float(values[atom])}; it must be finite"
                + (
                    " and positive, or the charges have no minimum: point charges repel nothing"
                    if positive
                    else ""
                )
            )


def _require_reference(system: ChargedSystem, constraint: ChargeConstraint) -> None:
    """Refuse slabs that may take up charge: the potential of a charged plane has no zero."""
    free = system.pbc.sum(1)[system.batch] == 2
    free &= constraint.group < 0
    if free.any():
        raise ValueError(
            f"structure {int(system.batch[free][0])} is a slab with atoms in no group of fixed "
            "charge, and the potential of a charged slab has no reference: give total_charge, and "
            "shift the electronegativity of one electrode by the voltage against the other"
        )
