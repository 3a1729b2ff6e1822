"""Energies, forces, stress, potential and field of given charges."""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.operator import CoulombOperator, CoulombPlan
from mlip.electrostatics.plan import MixedPlan, plan_coulomb
from mlip.electrostatics.system import ChargedSystem

DERIVATIVES = ("forces", "stress", "field")
PER_STRUCTURE = ("energies", "stress")


@dataclass(frozen=True)
class Electrostatics:
    """The electrostatics of a batch, in the precision of the charges; None was not asked for.

    Attributes:
        energies: (graphs,) eV, self energies of the Gaussians included.
        atom_energies: (atoms,) ``½ q_i V_i``, eV.
        potential: (atoms,) at each atom, its own Gaussian's included, V.
        forces: (atoms, 3) at fixed charges, eV/Å.
        stress: (graphs, 3, 3) at fixed charges, eV/Å³, positive in tension; zero for open
            structures, NaN for slabs whose cell has no height.
        field: (atoms, 3) of all other charges at each atom, V/Å.
    """

    energies: Float[Tensor, " graphs"]
    atom_energies: Float[Tensor, " atoms"]
    potential: Float[Tensor, " atoms"]
    forces: Float[Tensor, "atoms 3"] | None = None
    stress: Float[Tensor, "graphs 3 3"] | None = None
    field: Float[Tensor, "atoms 3"] | None = None


def energies(
    system: ChargedSystem, charges: Float[Tensor, " atoms"], plan: CoulombPlan
) -> Float[Tensor, " graphs"]:
    """Return the energy of each structure, eV, differentiable twice in all that is given."""
    return plan.operator(system.double()).energies(charges.double())


def electrostatics(
    system: ChargedSystem,
    charges: Float[Tensor, " atoms"],
    plan: CoulombPlan | None = None,
    derivatives: Collection[str] = ("forces",),
    create_graph: bool = False,
) -> Electrostatics:
    """Return the electrostatics of given charges, computed in float64.

    Args:
        system: The structures, in any precision.
        charges: q, e, in any precision; that of the result.
        plan: What :func:`mlip.electrostatics.plan.plan_coulomb` gave for this batch; None plans
            with its defaults.
        derivatives: Any of ``forces``, ``stress`` and ``field``.
        create_graph: Whether the result is to be differentiated again, for a loss on forces.

    Raises:
        ValueError: For an unknown derivative, charges that do not match the atoms or are not
            finite, or as the plan.
    """
    _require(system, charges, derivatives)
    plan = plan or plan_coulomb(system)
    keep = create_graph or (not derivatives and torch.is_grad_enabled())
    if isinstance(plan, MixedPlan) and not keep:
        plan.made_for.require(system)
        return _by_parts(system, charges, plan, derivatives)
    leaves = _Leaves(system.double(), "stress" in derivatives)
    q = charges.double()
    with torch.set_grad_enabled(keep or bool(derivatives)):
        operator = plan.operator(leaves.strained)
        values = {"energies": operator.energies(q)}
        if "forces" in derivatives or "stress" in derivatives:
            again = keep or "field" in derivatives
            values |= leaves.derivatives(values["energies"].sum(), derivatives, create_graph, again)
        if "field" in derivatives:
            values["field"] = leaves.field(operator, q, create_graph)
    with torch.set_grad_enabled(keep):
        values["potential"] = operator.potential(q)
        values["atom_energies"] = 0.5 * q * values["potential"]
    if not keep:
        values = {name: value.detach() for name, value in values.items()}
    return Electrostatics(**{name: value.to(charges.dtype) for name, value in values.items()})


def _by_parts(
    system: ChargedSystem, charges: Tensor, plan: MixedPlan, derivatives: Collection[str]
) -> Electrostatics:
    """Compute one part after the other, so that only one is held in memory."""
    found = [
        (part, electrostatics(part.take(system), charges[part.atoms], own, derivatives))
        for part, own in plan.parts
    ]
    graphs = torch.cat([part.graphs for part, _ in found]).argsort()
    atoms = torch.cat([part.atoms for part, _ in found]).argsort()
    joined: dict[str, Tensor] = {}
    for field in fields(Electrostatics):
        if getattr(found[0][1], field.name) is not None:
            values = torch.cat([getattr(own, field.name) for _, own in found])
            joined[field.name] = values[graphs if field.name in PER_STRUCTURE else atoms]
    return Electrostatics(**joined)


class _Leaves:
    """Positions and a zero symmetric strain, of positions and cell together."""

    def __init__(self, system: ChargedSystem, strained: bool) -> None:
        self.system = system
        positions = system.positions
        self.positions = positions if positions.requires_grad else positions.clone()
        self.positions.requires_grad_()
        self.strain = torch.zeros_like(system.cell).requires_grad_()
        self.strained = replace(system, positions=self.positions)
        if strained:
            symmetric = 0.5 * (self.strain + self.strain.transpose(1, 2))
            moved = torch.einsum("ai,aij->aj", self.positions, symmetric[system.batch])
            self.strained = replace(
                system, positions=self.positions + moved, cell=system.cell + system.cell @ symmetric
            )

    def field(self, operator: CoulombOperator, charges: Tensor, create_graph: bool) -> Tensor:
        """Return ``-Σ_j q_j ∂A_ij/∂r_i``: of ``1ᵀAq``, without what i does to the others."""
        from_all = self._gradient(operator.potential(charges).sum(), create_graph)
        to_others = self._gradient(operator.energies(torch.ones_like(charges)).sum(), create_graph)
        return charges[:, None] * to_others - from_all

    def _gradient(self, value: Tensor, create_graph: bool) -> Tensor:
        (gradient,) = torch.autograd.grad(
            value, self.positions, create_graph=create_graph, retain_graph=True
        )
        return gradient

    def derivatives(
        self, energy: Tensor, wanted: Collection[str], create_graph: bool, keep: bool
    ) -> dict[str, Tensor]:
        inputs = {"forces": self.positions, "stress": self.strain}
        names = [name for name in inputs if name in wanted]
        gradients = torch.autograd.grad(
            energy, [inputs[n] for n in names], create_graph=create_graph, retain_graph=keep
        )
        found = dict(zip(names, gradients, strict=True))
        if "forces" in found:
            found["forces"] = -found["forces"]
        if "stress" in found:
            found["stress"] = self._stress(found["stress"])
        return found

    def _stress(self, gradient: Tensor) -> Tensor:
        volume = torch.linalg.det(self.system.cell).abs()[:, None, None]
        is_open = ~self.system.pbc.any(1)[:, None, None]
        known = torch.where(volume > 0, gradient / torch.where(volume > 0, volume, 1.0), torch.nan)
        return torch.where(is_open, torch.zeros_like(gradient), known)


def _require(system: ChargedSystem, charges: Tensor, derivatives: Collection[str]) -> None:
    if unknown := set(derivatives) - set(DERIVATIVES):
        raise ValueError(
            f"unknown derivatives {sorted(unknown)}: give any of {', '.join(DERIVATIVES)}"
        )
    if charges.shape != (system.atoms,):
        raise ValueError(
            f"charges have shape {tuple(charges.shape)} and the batch has {system.atoms} atoms: "
            "give one charge for each atom"
        )
    bad = ~torch.isfinite(charges.detach())
    if bad.any():
        raise ValueError(
            f"the charge of atom {int(bad.long().argmax())} of the batch is not finite"
        )
