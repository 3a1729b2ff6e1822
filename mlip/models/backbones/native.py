"""Native: neighbours are summed by one matrix product an atom; the work is done on the atoms."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Backbone, Features
from mlip.models.cutoff import polynomial_cutoff
from mlip.models.harmonics import Harmonics
from mlip.models.slots import NeighborSlots
from mlip.models.sphere import SphereProducts


class Native(Backbone):
    """Our own light network: MACE's idea with its cost moved from the edges to the atoms.

    Each layer sends scalars of neighbours, ``A_i,lm = Σ_j (W h_j) (V B(r_ij)) Y_lm(r_ij)``, mixes
    the channels of each degree, and updates the scalars by a small network of invariant products
    of up to three ``A``. Radial functions are linear in the Bessel functions ``B``, so an edge
    costs one product a channel where MACE (Batatia et al., NeurIPS 2022, arXiv 2206.07697) runs a
    network; what that loses, the mixing after the sum and the network on the atom give back.

    Args:
        elements: Symbols that the potential knows.
        r_max: Cutoff of one layer, Å.
        channels: Scalars of an atom, and channels of the sums over neighbours.
        max_l: Highest degree of the spherical harmonics, at least 1.
        layers: Number of message-passing layers.
        radial_functions: Number of Bessel functions.
        hidden: Width of the network that updates the scalars.
        cutoff_power: Exponent of the polynomial envelope.
        average_neighbors: Mean number of neighbours over the training set, which normalises the
            sums; None is refused here, training fills it in.

    Raises:
        ValueError: If ``average_neighbors`` is missing or ``max_l`` is less than 1.
    """

    frequencies: Tensor
    parity: Tensor

    def __init__(  # noqa: PLR0913 - the hyper-parameters of the architecture
        self,
        elements: Sequence[str],
        *,
        r_max: float,
        channels: int,
        max_l: int,
        layers: int,
        radial_functions: int = 8,
        hidden: int = 64,
        cutoff_power: int = 5,
        average_neighbors: float | None = None,
    ) -> None:
        super().__init__()
        if average_neighbors is None:
            raise ValueError("average_neighbors is not set: give the mean number of neighbours")
        if max_l < 1:
            raise ValueError(f"max_l is {max_l}: give 1 or more, directions are needed")
        self.r_max = float(r_max)
        self.channels = (channels,) * layers
        self.cutoff_power = cutoff_power
        kinds = [f"{channels}x{degree}{'eo'[degree % 2]}" for degree in range(max_l + 1)]
        self.irreps = ("+".join(kinds),) * layers
        self.embedding = nn.Parameter(torch.randn(len(elements), channels))
        frequencies = torch.pi * torch.arange(1, radial_functions + 1) / r_max
        self.register_buffer("frequencies", frequencies, persistent=False)
        parity = [(-1) ** degree for degree in range(max_l + 1) for _ in range(2 * degree + 1)]
        self.register_buffer("parity", torch.tensor(parity), persistent=False)
        self.harmonics = Harmonics(max_l)
        sizes = {"channels": channels, "max_l": max_l, "hidden": hidden}
        self.layers = nn.ModuleList(
            [
                _Layer(len(elements), radial_functions, float(average_neighbors), **sizes)
                for _ in range(layers)
            ]
        )

    def forward(self, geometry: Geometry) -> Features:
        """Return scalars and sums of every layer, and the scalars of atoms alone."""
        slots = NeighborSlots.of(geometry)
        radial, harmonics = self._basis(geometry, slots)
        features = Features([], [], alone=[])
        scalars, alone = self.embedding[geometry.species], self.embedding
        kinds = torch.arange(len(alone), device=alone.device)
        layers = cast(Sequence[_Layer], self.layers)
        for number, layer in enumerate(layers):
            sums = layer.sums(radial, harmonics, scalars, slots) if number else (
                layer.first_sums(radial, harmonics, alone, geometry.species, slots)
            )  # fmt: skip
            scalars = layer.update(scalars, sums, geometry.species)
            alone = layer.update(alone, sums.new_zeros(len(sums), *alone.shape), kinds)
            features.invariant.append(scalars)
            features.equivariant.append(self._in_order_of_e3nn(sums))
            features.alone.append(alone)  # type: ignore[union-attr]
        return features

    def _basis(
        self, geometry: Geometry, slots: NeighborSlots
    ) -> tuple[Float[Tensor, "slots radial"], Float[Tensor, "atoms most components"]]:
        """Return radial functions and harmonics, computed once for an edge and its reverse."""
        edges = geometry.pair_edges
        lengths = geometry.edge_lengths[edges, None]
        envelope = polynomial_cutoff(lengths / self.r_max, self.cutoff_power)
        bessel = (2 / self.r_max) ** 0.5 * torch.sin(lengths * self.frequencies) / lengths
        harmonics = self.harmonics(geometry.edge_vectors[edges] / lengths)
        sign = torch.where(slots.sign[:, None] < 0, self.parity, 1) * slots.filled[:, None]
        harmonics = harmonics[slots.pair] * sign
        shape = (geometry.atoms, slots.most, harmonics.shape[1])
        return (envelope * bessel)[slots.pair], harmonics.view(shape)

    def _in_order_of_e3nn(
        self, sums: Float[Tensor, "components atoms channels"]
    ) -> Float[Tensor, "atoms irreps"]:
        parts = sums.split(self.harmonics.widths)
        return torch.cat([part.permute(1, 2, 0).flatten(1) for part in parts], dim=1)


class _Layer(nn.Module):
    """Sums over the neighbours of an atom, and new scalars from them."""

    def __init__(
        self,
        elements: int,
        radial_functions: int,
        neighbors: float,
        *,
        channels: int,
        max_l: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.widths = [2 * degree + 1 for degree in range(max_l + 1)]
        degrees = [degree for degree, width in enumerate(self.widths) for _ in range(width)]
        self.register_buffer("degrees", torch.tensor(degrees), persistent=False)
        self.send = nn.Parameter(torch.randn(channels, channels) * channels**-0.5)
        self.radial = nn.Parameter(torch.randn(radial_functions, channels))
        self.mix = nn.Parameter(torch.randn(max_l + 1, channels, channels))
        self.scale = (channels * neighbors) ** -0.5
        self.products = SphereProducts(max_l)
        invariants = 3 + 2 * len(self.products.products)
        self.first = nn.Linear(invariants * channels, hidden, bias=False)
        self.gate = nn.Parameter(torch.ones(elements, hidden))
        self.last = nn.Linear(hidden, channels, bias=False)
        self.keep = nn.Parameter(torch.randn(elements, channels))

    def sums(
        self,
        radial: Float[Tensor, "slots radial"],
        harmonics: Float[Tensor, "atoms most components"],
        scalars: Float[Tensor, "atoms channels"],
        slots: NeighborSlots,
    ) -> Float[Tensor, "components atoms channels"]:
        """Return ``A``."""
        sent = (scalars @ self.send)[slots.sender] * (radial @ self.radial)
        return self._summed(harmonics, sent, slots)

    def first_sums(
        self,
        radial: Float[Tensor, "slots radial"],
        harmonics: Float[Tensor, "atoms most components"],
        embedding: Float[Tensor, "elements channels"],
        species: Int[Tensor, " atoms"],
        slots: NeighborSlots,
    ) -> Float[Tensor, "components atoms channels"]:
        """Return the same for scalars that the element alone decides.

        With few elements the bare radial functions are summed for each, and widened afterwards.
        """
        elements, functions = len(embedding), radial.shape[1]
        if elements * functions > self.radial.shape[1]:
            return self.sums(radial, harmonics, embedding[species], slots)
        kinds = nn.functional.one_hot(species, elements).to(radial.dtype)[slots.sender]
        bare = radial if elements == 1 else (kinds[:, :, None] * radial[:, None, :]).flatten(1)
        widen = ((embedding @ self.send)[:, None, :] * self.radial).flatten(0, 1)
        return self._summed(harmonics, bare, slots, widen)

    def _summed(
        self, harmonics: Tensor, sent: Tensor, slots: NeighborSlots, widen: Tensor | None = None
    ) -> Tensor:
        sent = sent.view(harmonics.shape[0], slots.most, sent.shape[1])
        sums = torch.bmm(harmonics.transpose(1, 2), sent)
        mix = self.scale * self.mix
        return torch.bmm(
            sums.transpose(0, 1), (mix if widen is None else widen @ mix)[self.degrees]
        )

    def update(
        self,
        scalars: Float[Tensor, "atoms channels"],
        sums: Float[Tensor, "components atoms channels"],
        species: Int[Tensor, " atoms"],
    ) -> Float[Tensor, "atoms channels"]:
        """Return the next scalars."""
        density, *fields = sums.split(self.widths)
        products = self.products([field.flatten(1) for field in fields])
        products = products.view(-1, *scalars.shape[:1], sums.shape[2])
        found = torch.cat([density, density**2, density**3, products, density * products])
        hidden = self.first(found.transpose(0, 1).flatten(1)) * self.gate[species]
        return self.keep[species] * scalars + self.last(nn.functional.silu(hidden))
