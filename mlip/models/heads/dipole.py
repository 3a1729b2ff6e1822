"""Dipole and Born effective charges of the charges that an earlier head gives."""

import torch
from torch import Tensor, nn

from mlip.electrostatics.response import dipole
from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.charged import system_of_geometry
from mlip.models.head import Head


class Dipole(Head):
    """``μ = s Σ q_i r_i`` about the origin; Born effective charges are its derivatives.

    Args:
        screened: Whether the factor s is learned. Charges that are taught by energies and forces
            are those of a medium, ``q/√ε∞``, while polarisation is of the whole charge, so that s
            stands for ``√ε∞`` (Zhong, Cheng, arXiv 2503.15455); charges taught by labels need none.
    """

    gives = ("dipole",)
    needs = ()
    reads = ("charges",)

    def __init__(self, screened: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=screened)

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``dipole`` (graphs, 3), e·Å; of periodic structures for the images as given."""
        charges = self.scale.double() * outputs["charges"].double()
        return {
            "dipole": dipole(system_of_geometry(geometry, torch.ones_like(charges)), charges),
            "polar_charges": charges,
        }
