"""Third generation: charges from the environment, and their Coulomb energy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from mlip.electrostatics.response import field_term
from mlip.electrostatics.system import ChargedSystem
from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.charge_head import ChargeHead
from mlip.models.charged import Network, net_charges, summed
from mlip.models.elements import guessed_charges


class Charge(ChargeHead):
    """``q_i = q̃_i + w_i (Q - Σ q̃)/Σ w`` with ``q̃_i = q_Z + f(h_i)`` and ``w_i > 0``.

    What the charges of the environments miss of the total charge is shared out by learned weights
    ``w_i = softplus(g(h_i))``, as Fukui functions would, so that the sum is exact. The energy is
    that of Gaussian charges in open, slab and periodic structures. No equation is solved: charge
    cannot move between distant atoms but through that share.

    Args:
        elements: Symbols that the potential knows.
        channels: Invariants after each layer of the backbone.
        hidden: Width of the hidden layer of ``f`` and ``g``.
        neutral: Whether structures that state no total charge are neutral; false refuses them.
        tolerance: Error of the Coulomb sums for charges of 1 e, eV and eV/Å.
    """

    def __init__(
        self,
        elements: Sequence[str],
        channels: Sequence[int],
        hidden: int = 32,
        neutral: bool = False,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(elements, neutral, tolerance)
        self.element_charges = nn.Parameter(guessed_charges(elements))
        self.charge = Network(channels, hidden)
        self.share = Network(channels, hidden)

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``charges``, e, ``potentials``, V, and ``energies``, eV: (atoms,), float64."""
        total = net_charges(geometry, self.neutral, "charge")
        free = (self.element_charges[geometry.species] + self.charge(features.invariant)).double()
        weights = softplus(self.share(features.invariant)).double()
        missing = (total - summed(free, geometry)) / summed(weights, geometry)
        charges = free + weights * missing[geometry.batch]
        system, plan = self.system(geometry)
        potentials = plan.operator(system.double()).potential(charges)
        energies = 0.5 * charges * potentials + charges * _outside(system, geometry)
        return {
            "charges": charges,
            "potentials": potentials,
            "charge_energies": energies,
            "energies": energies,
        }


def _outside(system: ChargedSystem, geometry: Geometry) -> Float[Tensor, " atoms"]:
    """Return the potential of an external field, V.

    Raises:
        ValueError: For electrodes: charges of the environment do not answer to a potential.
    """
    surroundings = geometry.surroundings
    if surroundings.electrode is not None and bool(torch.isfinite(surroundings.electrode).any()):
        raise ValueError(
            "electrode_potential is given, but this potential is of the third generation, whose "
            "charges do not answer to a potential: take one of the fourth"
        )
    if surroundings.field is None:
        return torch.zeros_like(system.widths)
    return field_term(system, surroundings.field)
