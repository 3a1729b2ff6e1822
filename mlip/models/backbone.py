"""What a backbone is: a graph in, features of every atom out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mlip.graph import Geometry


@dataclass
class Features:
    """Features of the atoms after each layer.

    Args:
        invariant: One (atoms, channels) tensor a layer: what every head can read.
        equivariant: One (atoms, irreps) tensor a layer, laid out as ``Backbone.irreps`` says; empty
            for backbones without.
        alone: Invariants of an atom without neighbours, (elements, channels) a layer; None where
            they are zero.
    """

    invariant: list[Float[Tensor, "atoms channels"]]
    equivariant: list[Float[Tensor, "atoms irreps"]]
    alone: list[Float[Tensor, "elements channels"]] | None = None


class Backbone(nn.Module, ABC):
    """Maps a graph to features.

    Subclasses set ``r_max`` (Å) and ``channels`` (number of invariants after each layer), where
    they have equivariant features also ``irreps`` (those of each layer, as e3nn writes and orders
    them), and implement :meth:`forward`.
    """

    r_max: float
    channels: tuple[int, ...]
    irreps: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, geometry: Geometry) -> Features:
        """Return the features of every atom."""
