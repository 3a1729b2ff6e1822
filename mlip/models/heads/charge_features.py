"""Charges and local electrostatic potentials, told to the heads after the charges."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.electrostatics.kernels import coulomb
from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.conditioning import Conditioning
from mlip.models.cutoff import polynomial_cutoff


class ChargeFeatures(Conditioning):
    """The short-range energy reads the charge of its atom, as in 4G-HDNNP (Ko et al. 2021).

    With ``potential`` also ``V_i^Z = Σ_{j of Z} q_j erf(R_ij/2)/R_ij f_c(R_ij)``, the potential of
    the neighbours element by element, as in ee4G-HDNNP (Ko, Finkler, Goedecker, Behler, JCTC 2023,
    arXiv 2305.10692), here of Gaussians of 1 Å. Neutral atoms among neutral ones keep their
    features.

    Args:
        elements: Symbols that the potential knows.
        channels: Invariants after each layer of the backbone.
        r_max: Cutoff of the backbone, Å.
        hidden: Width of the hidden layer.
        potential: Whether the local potentials are told as well.
    """

    needs = ("elements", "channels", "r_max")
    reads = ("charges",)

    def __init__(
        self,
        elements: Sequence[str],
        channels: Sequence[int],
        r_max: float,
        hidden: int = 32,
        potential: bool = False,
    ) -> None:
        super().__init__(channels, hidden)
        self.r_max, self.elements, self.potential = r_max, len(elements), potential
        told = 1 + (len(elements) if potential else 0)
        self.first = nn.Linear(sum(channels) + told, hidden)

    def condition(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> Float[Tensor, "atoms hidden"]:
        """Return a hidden layer of features and charges, less that without charges."""
        invariant = torch.cat(list(features.invariant), dim=1)
        charges = outputs["charges"].to(invariant)
        told = charges[:, None]
        if self.potential:
            told = torch.cat([told, self._potentials(charges, geometry)], dim=1)
        with_charges = torch.cat([invariant, told], dim=1)
        without = torch.cat([invariant, torch.zeros_like(told)], dim=1)
        silu = nn.functional.silu
        return silu(self.first(with_charges)) - silu(self.first(without))

    def _potentials(self, charges: Tensor, geometry: Geometry) -> Float[Tensor, "atoms elements"]:
        sender, receiver = geometry.edge_index
        lengths = geometry.edge_lengths
        kernel = coulomb(lengths, torch.full_like(lengths, 2.0))
        values = charges[sender] * kernel * polynomial_cutoff(lengths / self.r_max, 5)
        place = receiver * self.elements + geometry.species[sender]
        sums = charges.new_zeros(geometry.atoms * self.elements).index_add(0, place, values)
        return sums.view(geometry.atoms, self.elements)
