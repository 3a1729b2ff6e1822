"""Energy of each atom from the invariants of every layer."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mlip.models.energy_head import EnergyHead


class Energy(EnergyHead):
    """Sum of a linear read-out of each early layer and a small network on the last one.

    ``f(h) = Σ_l w_l·h^l + MLP(h^L)`` (Batatia et al., MACE, NeurIPS 2022, eqs. 12 and 13), without
    biases.

    Args:
        channels: Invariants after each layer of the backbone.
        hidden: Width of the network on the last layer.
    """

    def __init__(self, channels: Sequence[int], hidden: int = 16) -> None:
        super().__init__()
        *early, last = channels
        self.linear = nn.ModuleList([nn.Linear(width, 1, bias=False) for width in early])
        self.network = nn.Sequential(
            nn.Linear(last, hidden, bias=False), nn.SiLU(), nn.Linear(hidden, 1, bias=False)
        )
        for layer in [*self.linear, self.network[0], self.network[2]]:
            nn.init.normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)  # type: ignore[arg-type]

    def read_out(
        self, invariant: Sequence[Float[Tensor, "atoms channels"]]
    ) -> Float[Tensor, " atoms"]:
        """Return the sum over the layers."""
        *early, last = invariant
        energies = self.network(last)
        for layer, features in zip(self.linear, early, strict=True):
            energies = energies + layer(features)
        return energies.squeeze(-1)
