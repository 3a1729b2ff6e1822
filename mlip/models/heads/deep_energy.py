"""Energy of each atom by a network of several layers on the last invariants."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from mlip.models.energy_head import EnergyHead


class DeepEnergy(EnergyHead):
    """``f(h) = MLP(h^L)`` with biases, as CHGNet reads its features out (Deng et al. 2023).

    Args:
        channels: Invariants after each layer of the backbone.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, channels: Sequence[int], hidden: Sequence[int] = (64, 64, 64)) -> None:
        super().__init__()
        widths = [channels[-1], *hidden]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.SiLU()]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def read_out(
        self, invariant: Sequence[Float[Tensor, "atoms channels"]]
    ) -> Float[Tensor, " atoms"]:
        """Return the network's output."""
        return self.network(invariant[-1]).squeeze(-1)
