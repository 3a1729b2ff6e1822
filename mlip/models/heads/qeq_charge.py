"""Fourth generation: charges equilibrated over the whole structure."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.constraints import ChargeConstraint, total_charge
from mlip.electrostatics.equilibrate import Equilibrium, Settings, equilibrate
from mlip.electrostatics.response import field_term
from mlip.electrostatics.system import ChargedSystem
from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.charge_head import ChargeHead
from mlip.models.charged import Network, net_charges, summed


class QeqCharge(ChargeHead):
    """Charges that minimise ``½ qᵀ A q + Σ χ_i q_i + ½ J_Z q_i²`` at the total charge.

    ``χ_i = χ_Z + f(h_i)`` depends on the environment, hardness J and width σ on the element (Ko,
    Finkler, Goedecker, Behler, Nat. Commun. 12, 398 (2021)). Charge moves between atoms however
    distant. The energy is

    * ``variational``: that minimum itself, whose forces need no second solve;
    * ``ko``: ``½ qᵀ A q``, as in the paper, differentiated through one more solve; list the head
      ``charge_features`` after this one, so that the short-range energy knows the charges.

    Args:
        elements: Symbols that the potential knows.
        channels: Invariants after each layer of the backbone.
        mode: ``variational`` or ``ko``.
        hidden: Width of the hidden layer of ``f``.
        neutral: Whether structures that state no total charge are neutral; false refuses them.
        tolerance: Error of the Coulomb sums for charges of 1 e, eV and eV/Å.
        residual: Of iterative solves (large structures), relative.

    Raises:
        ValueError: For another mode.
    """

    gives = (*ChargeHead.gives, "electronegativities")

    def __init__(
        self,
        elements: Sequence[str],
        channels: Sequence[int],
        mode: Literal["variational", "ko"] = "variational",
        hidden: int = 32,
        neutral: bool = False,
        tolerance: float = 1e-6,
        residual: float = 1e-8,
    ) -> None:
        super().__init__(elements, neutral, tolerance)
        if mode not in ("variational", "ko"):
            raise ValueError(f"mode is {mode!r}: give variational or ko")
        self.mode, self.settings = mode, Settings(tolerance=residual)
        self.electronegativity = Network(channels, hidden)

    def solve_to(self, residual: float) -> None:
        """Set the residual of iterative solves, relative."""
        self.settings = Settings(tolerance=residual)

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return charges, e, potentials and electronegativities, V, and energies, eV, float64."""
        elements = self.element_parameters
        own = elements.electronegativity[geometry.species]
        chi = (own + self.electronegativity(features.invariant)).double()
        hardness = elements.hardness(geometry.species).double()
        system, plan = self.system(geometry)
        total = net_charges(geometry, self.neutral, "charge")
        constraint, acting = _held(system, total, chi, geometry)
        guess = geometry.surroundings.guess
        found = equilibrate(plan, system, acting, hardness, constraint, self.settings, guess)
        charges = found.charges
        level = constraint.spread(found.chemical_potential)
        potentials = level - acting - hardness * charges
        if self.mode == "ko":
            coulomb = plan.operator(system.double()).potential(charges)
            energies = 0.5 * charges * coulomb + (acting - chi) * charges
        else:
            energies = _shares(found, acting, level, geometry)
        return {
            "charges": charges,
            "potentials": potentials,
            "electronegativities": chi,
            "charge_energies": energies,
            "energies": energies,
        }


def _held(
    system: ChargedSystem, total: Tensor, chi: Tensor, geometry: Geometry
) -> tuple[ChargeConstraint, Float[Tensor, " atoms"]]:
    """Return what the charges add up to, and χ with field and electrodes in it.

    Electrodes of open and periodic structures exchange charge with a reservoir; those of slabs
    have a voltage against the rest, which together keep their charge.
    """
    constraint = total_charge(system, total)
    field, electrode = geometry.surroundings.field, geometry.surroundings.electrode
    if field is not None:
        chi = chi + field_term(system, field)
    if electrode is None:
        return constraint, chi
    held = torch.isfinite(electrode)
    chi = chi - torch.where(held, electrode, 0.0).to(chi)
    slab = (system.pbc.sum(1) == 2)[system.batch]
    group = torch.where(held & ~slab, -1, constraint.group)
    kept = torch.bincount(group[group >= 0], minlength=system.graphs) > 0
    number = torch.where(kept, kept.cumsum(0) - 1, -1)
    group = torch.where(group < 0, -1, number[group])
    return ChargeConstraint(group, constraint.charges[kept]), chi


def _shares(
    found: Equilibrium, chi: Tensor, level: Tensor, geometry: Geometry
) -> Float[Tensor, " atoms"]:
    """Share the energy of the minimum out, ``½ q_i (χ_i + μ)``, differentiable as a whole.

    Only the minimum as a whole has derivatives without another solve: the shares are constants,
    and what the sum of them lacks, zero but with a derivative, is spread evenly.
    """
    with torch.no_grad():
        shares = 0.5 * found.charges * (chi + level)
        atoms = summed(torch.ones_like(shares), geometry)
    rest = (found.energies - summed(shares, geometry)) / atoms
    return shares + rest[geometry.batch]
