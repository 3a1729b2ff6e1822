"""Third generation: charges from the environment, and their Coulomb energy."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import softplus

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.charged import (
    Network,
    coulomb_energies,
    net_charges,
    plan_for,
    summed,
    system_of_geometry,
)
from mlip.models.elements import ElementParameters, guessed_charges
from mlip.models.head import Head


class Charge(Head):
    """``q_i = q̃_i + w_i (Q - Σ q̃)/Σ w`` with ``q̃_i = q_Z + f(h_i)`` and ``w_i > 0``.

    What the charges of the environments miss of the total charge is shared out by learned weights
    ``w_i = softplus(g(h_i))``, as Fukui functions would, so that the sum is exact. The energy is that of Gaussian charges in open,
    slab and periodic structures. No equation is solved: charge cannot move between distant atoms
    but through that share.

    Args:
        elements: Symbols that the potential knows.
        channels: Invariants after each layer of the backbone.
        hidden: Width of the hidden layer of ``f`` and ``g``.
        neutral: Whether structures that state no total charge are neutral; false refuses them.
        tolerance: Error of the Coulomb sums for charges of 1 e, eV and eV/Å.
    """

    gives = ("charges",)
    needs = ("elements", "channels")
    inputs = ("total_charge",)

    def __init__(
        self,
        elements: Sequence[str],
        channels: Sequence[int],
        hidden: int = 32,
        neutral: bool = False,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        self.neutral, self.tolerance = neutral, tolerance
        self.parameters_of_elements = ElementParameters(elements)
        self.element_charges = nn.Parameter(guessed_charges(elements))
        self.charge = Network(channels, hidden)
        self.share = Network(channels, hidden)

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``charges`` (atoms,), e, and their ``energies`` (atoms,), eV, float64."""
        total = net_charges(geometry, self.neutral, "charge")
        free = (self.element_charges[geometry.species] + self.charge(features.invariant)).double()
        weights = softplus(self.share(features.invariant)).double()
        missing = (total - summed(free, geometry)) / summed(weights, geometry)
        charges = free + weights * missing[geometry.batch]
        widths = self.parameters_of_elements.widths(geometry.species)
        system = system_of_geometry(geometry, widths)
        plan = plan_for(geometry, system, self.tolerance)
        return {"charges": charges, "energies": coulomb_energies(plan, system, charges)}
