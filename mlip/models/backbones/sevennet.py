"""SevenNet: equivariant messages in the manner of NequIP, built from the modules of sevenn."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Backbone, Features
from mlip.models.channel_product import ChannelProduct
from mlip.runtime import import_extra, quiet_third_party


class Sevennet(Backbone):
    """Park et al., J. Chem. Theory Comput. 20, 4857 (2024), after NequIP (Batzner et al., 2022).

    Args:
        elements: Symbols that the potential knows.
        r_max: Cutoff of one layer, Å.
        channels: Channels of the hidden features: one number for all degrees, or one for each.
        max_l: Highest degree of the hidden features and of the spherical harmonics on the edges.
        layers: Number of message-passing layers.
        parity: Whether features know how they behave under inversion. The published models do
            without: their energy changes when a chiral structure is inverted.
        self_connection: ``nequip`` (a matrix for each element) or ``linear`` (one for all).
        radial_functions: Number of Bessel functions.
        radial_network: Widths of the network on the radial functions.
        cutoff_power: Exponent of the polynomial envelope.
        cutoff_on: Distance at which an XPLOR envelope begins, Å; None for the polynomial one.
        average_neighbors: Mean number of neighbours over the training set, which normalises the
            messages; None is refused here, training fills it in.

    Raises:
        ModuleNotFoundError: If the package sevenn is not installed.
        ValueError: If ``average_neighbors`` is missing or a size is impossible.
    """

    def __init__(  # noqa: PLR0913 - the published hyper-parameters of the architecture
        self,
        elements: Sequence[str],
        *,
        r_max: float = 5.0,
        channels: int | Sequence[int] = 32,
        max_l: int = 1,
        layers: int = 3,
        parity: bool = True,
        self_connection: str = "nequip",
        radial_functions: int = 8,
        radial_network: Sequence[int] = (64, 64),
        cutoff_power: int = 6,
        cutoff_on: float | None = None,
        average_neighbors: float | None = None,
    ) -> None:
        super().__init__()
        if average_neighbors is None:
            raise ValueError("average_neighbors is not set: give the mean number of neighbours")
        widths = [channels] * (max_l + 1) if isinstance(channels, int) else list(channels)
        if len(widths) != max_l + 1:
            raise ValueError(f"channels is {widths}: give {max_l + 1} numbers, or one, for max_l")
        self.r_max = float(r_max)
        self.channels = (int(widths[0]),) * layers
        self.elements = len(elements)
        parts = _parts()
        with quiet_third_party():
            edges = parts.EdgeEmbedding(
                parts.BesselBasis(r_max, radial_functions),
                parts.PolynomialCutoff(r_max, cutoff_power)
                if cutoff_on is None
                else parts.XPLORCutoff(r_max, cutoff_on),
                parts.SphericalEncoding(max_l, -1 if parity else 1),
            )
            blocks = _blocks(
                parts,
                widths,
                self.elements,
                harmonics=edges.spherical.irreps_out,
                sizes=[radial_functions, *radial_network],
                layers=layers,
                self_connection=self_connection,
                average_neighbors=float(average_neighbors),
            )
            # The names of the parts are those of the package, by which published weights are found.
            self.layers = nn.ModuleDict({"edge_embedding": edges, **blocks})
        gates: list[Any] = [part for name, part in blocks.items() if name.endswith(_GATE)]
        self.irreps = tuple(str(gate.gate.irreps_out) for gate in gates)

    def forward(self, geometry: Geometry) -> Features:
        """Return invariant and equivariant features of every layer, and those of atoms alone."""
        dtype = geometry.edge_vectors.dtype
        alone = torch.arange(self.elements, device=geometry.species.device)
        species = torch.cat([geometry.species, alone])  # one atom of each element has no edge
        attributes = nn.functional.one_hot(species, self.elements).to(dtype)
        data: dict[str, Tensor] = {
            "edge_vec": -geometry.edge_vectors,  # from the receiver, which comes first
            "edge_index": geometry.edge_index.flip(0),
            "x": attributes,
            "node_attr": attributes,
        }
        features = Features([], [], alone=[])
        for name, layer in self.layers.items():
            data = layer(data)
            if name.endswith(_GATE):
                width, found = self.channels[0], data["x"]
                features.invariant.append(found[: geometry.atoms, :width])
                features.equivariant.append(found[: geometry.atoms])
                features.alone.append(found[geometry.atoms :, :width])  # type: ignore[union-attr]
        return features


_GATE = "equivariant_gate"


def _blocks(
    parts: Any,
    widths: Sequence[int],
    elements: int,
    *,
    harmonics: Any,
    sizes: Sequence[int],
    layers: int,
    self_connection: str,
    average_neighbors: float,
) -> dict[str, nn.Module]:
    """Return the node embedding and the layers; the last one has scalars only."""
    from e3nn.o3 import Irreps

    connections = {"nequip": parts.SelfConnectionIntro, "linear": parts.SelfConnectionLinearIntro}
    if self_connection not in connections:
        raise ValueError(f"self_connection is {self_connection!r}: choose nequip or linear")
    scalars = Irreps([(widths[0], (0, 1))])
    hidden = Irreps([(w, ir) for w, (_, ir) in zip(widths, harmonics, strict=True)])
    found: dict[str, Any] = {
        "onehot_to_feature_x": parts.IrrepsLinear(Irreps(f"{elements}x0e"), scalars, "x")
    }
    before = scalars
    for layer in range(layers):
        after = scalars if layer == layers - 1 else hidden
        found |= parts.NequIP_interaction_block(
            irreps_x=before,
            irreps_filter=harmonics,
            irreps_out_tp=_messages(before, harmonics, after),
            irreps_out=after,
            weight_nn_layers=list(sizes),
            conv_denominator=average_neighbors,
            train_conv_denominator=False,
            self_connection_pair=(connections[self_connection], parts.SelfConnectionOutro),
            act_scalar={"e": nn.functional.silu, "o": torch.tanh},
            act_gate={"e": nn.functional.silu, "o": torch.tanh},
            act_radial=nn.functional.silu,
            bias_in_linear=False,
            num_species=elements,
            t=layer,
        )
        before = after
    for name, module in found.items():
        if name.endswith("_convolution"):
            module.convolution_cls = ChannelProduct
        if not getattr(module, "layer_instantiated", True):
            module.instantiate()
    return found


def _messages(before: Any, harmonics: Any, after: Any) -> Any:
    """Irreps of the messages: every product that the next features can use, sorted."""
    from e3nn.o3 import Irreps

    products = [
        (width, kind)
        for width, irrep in before
        for _, harmonic in harmonics
        for kind in irrep * harmonic
        if kind in after
    ]
    kinds: Any = Irreps(products)
    return kinds.sort().irreps.simplify()


def _parts():  # noqa: ANN202  a namespace of classes
    """Return the modules of the package."""
    from types import SimpleNamespace

    names = ("edge_embedding", "interaction_blocks", "linear", "self_connection")
    modules = [import_extra("sevennet", "sevenn", f"sevenn.nn.{name}") for name in names]
    return SimpleNamespace(**{k: v for module in modules for k, v in vars(module).items()})
