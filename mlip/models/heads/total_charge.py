"""Total charge and spin of the structure, told to every atom."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.charged import net_charges, summed
from mlip.models.conditioning import Conditioning


class TotalCharge(Conditioning):
    """Each atom gets its share of the total charge, ``w_i Q/Σ w`` with ``w_i = softplus(g(h_i))``.

    As the electronic embedding of SpookyNet (Unke et al., Nat. Commun. 12, 7273 (2021)), but on the
    features after the backbone. Two charge states of one structure differ by nothing else
    (Ag3+ and Ag3-). Neutral structures keep their features; so do those without unpaired electrons.

    Args:
        channels: Invariants after each layer of the backbone.
        hidden: Width of the hidden layers.
        neutral: Whether structures that state no total charge are neutral; false refuses them.
        spin: Whether the number of unpaired electrons is told as well; structures that state none
            have none.
    """

    inputs = ("total_charge",)

    def __init__(
        self,
        channels: Sequence[int],
        hidden: int = 32,
        neutral: bool = False,
        spin: bool = False,
    ) -> None:
        super().__init__(channels, hidden)
        self.neutral, self.spin = neutral, spin
        self.weights = nn.Sequential(
            nn.Linear(sum(channels), hidden), nn.SiLU(), nn.Linear(hidden, 4 if spin else 2)
        )
        self.states = nn.Linear(sum(channels) + (4 if spin else 2), hidden)
        if spin:
            self.inputs = ("total_charge", "spin")  # type: ignore[misc]  of this head alone

    def condition(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> Float[Tensor, "atoms hidden"]:
        """Return a network of invariants and shares, less its value without charge and spin."""
        invariant = torch.cat(list(features.invariant), dim=1)
        shares = self._shares(invariant, geometry)
        with_charge = torch.cat([invariant, shares], dim=1)
        without = torch.cat([invariant, torch.zeros_like(shares)], dim=1)
        silu = nn.functional.silu
        return silu(self.states(with_charge)) - silu(self.states(without))

    def _shares(self, invariant: Tensor, geometry: Geometry) -> Float[Tensor, "atoms states"]:
        """Return the shares of positive and of negative charge, and of spin."""
        charge = net_charges(geometry, self.neutral, "total_charge").to(invariant)
        states = [charge.clamp(min=0), charge.clamp(max=0)]
        if self.spin:
            spin = geometry.surroundings.spin
            spin = torch.zeros_like(charge) if spin is None else spin.nan_to_num(0.0).to(charge)
            states += [spin, spin.square()]
        weights = nn.functional.softplus(self.weights(invariant)) + 1e-6
        sums = torch.stack([summed(column, geometry) for column in weights.unbind(1)], dim=1)
        return weights * (torch.stack(states, dim=1) / sums)[geometry.batch]
