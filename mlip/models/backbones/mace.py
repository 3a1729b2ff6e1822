"""MACE: higher-order equivariant messages, built from the modules of mace-torch."""

from collections.abc import Sequence
from typing import Any

import torch
from ase.data import atomic_numbers
from jaxtyping import Float
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Backbone, Features
from mlip.models.harmonics import Harmonics
from mlip.models.slot_convolution import SlotConvolution
from mlip.models.slots import NeighborSlots
from mlip.models.symmetric_product import SymmetricProduct
from mlip.runtime import import_mace, quiet_third_party


class Mace(Backbone):
    """Batatia et al., MACE, NeurIPS 2022 (arXiv 2206.07697).

    Args:
        elements: Symbols that the potential knows.
        r_max: Cutoff of one layer, Å.
        channels: Channels of every irrep of the hidden features.
        max_l: Highest degree of the hidden features (0: invariant messages between layers).
        max_ell: Highest degree of the spherical harmonics on the edges.
        correlation: Body order of the products minus one.
        layers: Number of message-passing layers.
        radial_functions: Number of Bessel functions.
        cutoff_power: Exponent of the polynomial envelope.
        radial_network: Widths of the network on the radial functions.
        average_neighbors: Mean number of neighbours over the training set, which normalises the
            messages; None is refused here, training fills it in.
        interaction_first: Name of the first interaction block of mace-torch.
        interaction: Name of the later interaction blocks.
        distance_transform: ``None``, ``Agnesi`` or ``Soft``.
        apply_cutoff: Whether the envelope multiplies the radial functions (else the messages).
        reduced_products: Whether redundant products are left out; older models have them.

    Raises:
        ValueError: If ``average_neighbors`` is missing or a name is unknown to mace-torch.
    """

    parity: Tensor

    def __init__(  # noqa: PLR0913 - the published hyper-parameters of the architecture
        self,
        elements: Sequence[str],
        *,
        r_max: float,
        channels: int,
        max_l: int,
        max_ell: int,
        correlation: int,
        layers: int,
        radial_functions: int = 8,
        cutoff_power: int = 5,
        radial_network: Sequence[int] = (64, 64, 64),
        average_neighbors: float | None = None,
        interaction_first: str = "RealAgnosticInteractionBlock",
        interaction: str = "RealAgnosticResidualInteractionBlock",
        distance_transform: str = "None",
        apply_cutoff: bool = True,
        reduced_products: bool = True,
    ) -> None:
        super().__init__()
        if average_neighbors is None:
            raise ValueError("average_neighbors is not set: give the mean number of neighbours")
        modules = import_mace()
        from e3nn import o3

        hidden = o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(max_l + 1)])
        numbers = [atomic_numbers[symbol] for symbol in elements]
        with quiet_third_party():
            network = modules.MACE(
                r_max=r_max,
                num_bessel=radial_functions,
                num_polynomial_cutoff=cutoff_power,
                max_ell=max_ell,
                num_interactions=layers,
                num_elements=len(numbers),
                interaction_cls_first=_block(modules, interaction_first),
                interaction_cls=_block(modules, interaction),
                hidden_irreps=hidden,
                MLP_irreps=o3.Irreps("1x0e"),
                atomic_numbers=numbers,
                atomic_energies=torch.zeros(len(numbers)),
                avg_num_neighbors=float(average_neighbors),
                correlation=correlation,
                gate=torch.nn.functional.silu,
                radial_MLP=list(radial_network),
                radial_type="bessel",
                distance_transform=distance_transform,
                apply_cutoff=apply_cutoff,
                use_reduced_cg=reduced_products,
            )
        self.r_max = float(r_max)
        self.channels = (channels,) * layers
        self.elements = len(numbers)
        self.node_embedding: nn.Module = network.node_embedding
        self.spherical_harmonics = Harmonics(max_ell)
        self.radial_embedding: nn.Module = network.radial_embedding
        self.interactions: nn.ModuleList = network.interactions
        self.shares_pairs = all(_is_plain(block) for block in self.interactions)
        if self.shares_pairs:
            for block in self.interactions:
                _speed_up(block)
        self.products: nn.ModuleList = network.products
        for product in self.products:
            if SymmetricProduct.serves(product.symmetric_contractions):
                product.symmetric_contractions = SymmetricProduct(product.symmetric_contractions)
        self.irreps = tuple(str(product.linear.irreps_out) for product in network.products)
        self.register_buffer("atomic_numbers", torch.tensor(numbers), persistent=False)
        parity = [(-1) ** degree for degree in range(max_ell + 1) for _ in range(2 * degree + 1)]
        self.register_buffer("parity", torch.tensor(parity), persistent=False)

    def forward(self, geometry: Geometry) -> Features:
        """Return invariant and equivariant features of every layer."""
        species = nn.functional.one_hot(geometry.species, self.elements).to(
            geometry.edge_vectors.dtype
        )
        lengths, edge_index, ends = geometry.edge_lengths, geometry.edge_index, geometry.edge_index
        unit = geometry.edge_vectors / lengths[:, None]
        if self.shares_pairs:  # radial functions are the same for an edge and its reverse
            edges, slots = geometry.pair_edges, NeighborSlots.of(geometry)
            lengths, ends = lengths[edges], edge_index[:, edges]
            edge_index = torch.stack([slots.sender, slots.pair])
            edge_attributes = self._in_slots(unit[edges], slots, geometry.atoms)
        else:
            edge_attributes = self.spherical_harmonics(unit)
        edge_features, cutoff = self.radial_embedding(
            lengths[:, None], species, ends, self.atomic_numbers
        )
        nodes = self.node_embedding(species)
        features = Features([], [])
        for layer, (interaction, product, width) in enumerate(
            zip(self.interactions, self.products, self.channels, strict=True)
        ):
            message, skip = interaction(
                node_attrs=species,
                node_feats=nodes,
                edge_attrs=edge_attributes,
                edge_feats=edge_features,
                edge_index=edge_index,
                cutoff=cutoff,
                first_layer=layer == 0,
            )
            nodes = product(node_feats=message, sc=skip, node_attrs=species)
            features.invariant.append(nodes[:, :width])
            features.equivariant.append(nodes)
        return features

    def _in_slots(
        self, unit: Float[Tensor, "pairs 3"], slots: NeighborSlots, atoms: int
    ) -> Float[Tensor, "atoms most components"]:
        """Return the harmonics in every slot; those of odd degree change sign with the edge."""
        sign = torch.where(slots.sign[:, None] < 0, self.parity, 1) * slots.filled[:, None]
        harmonics = self.spherical_harmonics(unit)[slots.pair] * sign
        return harmonics.view(atoms, slots.most, harmonics.shape[1])


def _is_plain(block: Any) -> bool:
    """Whether the weights of a block follow from the radial functions only."""
    return type(block).__name__ in (
        "RealAgnosticInteractionBlock",
        "RealAgnosticResidualInteractionBlock",
    )


def _speed_up(block: Any) -> None:
    """Replace the convolution through mace-torch's own hook for fused kernels."""
    block.conv_tp = SlotConvolution(block.conv_tp)
    block.conv_fusion = True


def _block(modules: Any, name: str) -> type:
    from mlip.errors import suggest

    known = modules.interaction_classes
    if name not in known:
        raise ValueError(f"mace-torch has no interaction block {name!r}{suggest(name, known)}")
    return known[name]
