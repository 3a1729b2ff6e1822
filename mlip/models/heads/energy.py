"""Energy of each atom from the invariants of every layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.head import Head


class Energy(Head):
    """Sum of a linear read-out of each early layer and a small network on the last one.

    ``E_i = scale · (Σ_l w_l·h_i^l + MLP(h_i^L)) + shift`` (Batatia et al., MACE, NeurIPS 2022,
    eqs. 12 and 13), without biases, so that an atom without neighbours keeps its reference energy.

    Args:
        channels: Invariants after each layer of the backbone.
        hidden: Width of the network on the last layer.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, channels: Sequence[int], hidden: int = 16) -> None:
        super().__init__()
        *early, last = channels
        self.linear = nn.ModuleList([nn.Linear(width, 1, bias=False) for width in early])
        self.network = nn.Sequential(
            nn.Linear(last, hidden, bias=False), nn.SiLU(), nn.Linear(hidden, 1, bias=False)
        )
        for layer in [*self.linear, self.network[0], self.network[2]]:
            nn.init.normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)  # type: ignore[arg-type]
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``energies`` (atoms,), eV."""
        *early, last = features.invariant
        energies = self.network(last)
        for layer, invariant in zip(self.linear, early, strict=True):
            energies = energies + layer(invariant)
        return {"energies": self.scale * energies.squeeze(-1) + self.shift}
