"""What a head is: features in, named outputs out."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Features


class Head(nn.Module, ABC):
    """Maps features to outputs named as in ``mlip.keys.FIELDS``.

    Heads run in the listed order; ``outputs`` holds what earlier heads gave. An output called
    ``energies`` is an energy of each atom, eV, and is added to the potential energy. Subclasses
    name their outputs in ``gives`` and what they must be told of the backbone in ``needs``.
    """

    gives: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ("channels",)
    own_label: ClassVar[bool] = False
    """Whether only a loss on its outputs teaches it: nothing else reads them."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Outputs of earlier heads that it cannot do without."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """Labels that it needs to be told of a structure, such as its total charge."""
    auxiliary: ClassVar[bool] = False
    """Whether it only helps a training: it runs when asked for, and no checkpoint keeps it."""

    @abstractmethod
    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the new outputs."""
