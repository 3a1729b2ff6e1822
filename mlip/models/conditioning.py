"""What a head is that gives no output but other features to the heads after it."""

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.head import Head


class Conditioning(Head):
    """Adds to the invariants of every layer what the backbone could not know.

    It works on any backbone, weights of published ones included, and changes nothing before it is
    trained: the last matrices are zero at first.

    Args:
        channels: Invariants after each layer of the backbone.
        width: Of what is added, before the last matrices.
    """

    gives = ()

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.last = nn.ModuleList([nn.Linear(width, layer, bias=False) for layer in channels])
        for layer in self.last:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]

    @abstractmethod
    def condition(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> Float[Tensor, "atoms width"]:
        """Return what is added, before the last matrices."""

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return nothing: the features are changed in place of those of the backbone."""
        added = self.condition(features, geometry, outputs)
        features.invariant = [
            invariant + layer(added)
            for invariant, layer in zip(features.invariant, self.last, strict=True)
        ]
        return {}
