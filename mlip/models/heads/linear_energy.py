"""Energy of each atom, linear in the invariants of the last layer."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mlip.models.energy_head import EnergyHead


class LinearEnergy(EnergyHead):
    """``f(h) = w·h^L``, as NequIP and SevenNet read their features out (Batzner et al., 2022).

    Args:
        channels: Invariants after each layer of the backbone.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(channels[-1], 1, bias=False)
        nn.init.normal_(self.linear.weight, std=channels[-1] ** -0.5)

    def read_out(
        self, invariant: Sequence[Float[Tensor, "atoms channels"]]
    ) -> Float[Tensor, " atoms"]:
        """Return the weighted sum."""
        return self.linear(invariant[-1]).squeeze(-1)
