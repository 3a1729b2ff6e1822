"""What an energy head is: invariants in, the energy of each atom relative to the atom alone out."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.head import Head


class EnergyHead(Head):
    """``E_i = scale · (f(h_i) - f(h_alone)) + shift``; subclasses implement ``f``.

    ``h_alone`` are the features of an atom of the same element without neighbours, zero for most
    backbones, so that an atom alone keeps its reference energy.
    """

    gives = ("energies",)
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    @abstractmethod
    def read_out(
        self, invariant: Sequence[Float[Tensor, "atoms channels"]]
    ) -> Float[Tensor, " atoms"]:
        """Return ``f`` of the invariants after each layer."""

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``energies`` (atoms,), eV."""
        energies = self.read_out(features.invariant)
        if features.alone is not None:
            energies = energies - self.read_out(features.alone)[geometry.species]
        return {"energies": self.scale * energies + self.shift}
