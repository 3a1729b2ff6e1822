"""What a term is: an energy of each atom from the structure alone."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from mlip.graph import Geometry


class Term(nn.Module, ABC):
    """Adds a physical energy that needs no features."""

    @abstractmethod
    def forward(self, geometry: Geometry, outputs: dict[str, Tensor]) -> Float[Tensor, " atoms"]:
        """Return the energy of each atom, eV, in the precision of the model."""
