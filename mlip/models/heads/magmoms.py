"""Size of the magnetic moment of each atom, which tells its charge state."""

from collections.abc import Sequence

from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.head import Head


class Magmoms(Head):
    """``|m_i| = |w·h_i^l + b|``, μB (Deng et al., CHGNet, Nat. Mach. Intell. 5, 1031 (2023)).

    Args:
        channels: Invariants after each layer of the backbone.
        layer: Whose invariants are read; CHGNet takes those before the last, -2.
    """

    gives = ("magmoms",)
    own_label = True

    def __init__(self, channels: Sequence[int], layer: int = -1) -> None:
        super().__init__()
        if not -len(channels) <= layer < len(channels):
            raise ValueError(
                f"layer is {layer}, but the backbone has {len(channels)} layers: give -1 to "
                f"{-len(channels)}, counted from the last"
            )
        self.layer = layer
        self.linear = nn.Linear(channels[layer], 1)

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``magmoms`` (atoms,), μB, not negative."""
        return {"magmoms": self.linear(features.invariant[self.layer]).squeeze(-1).abs()}
