"""NequIP: equivariant messages, built from the modules of the package nequip."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from mlip.graph import Geometry
from mlip.models.backbone import Backbone, Features
from mlip.models.channel_product import ChannelProduct
from mlip.runtime import import_extra, quiet_third_party


class Nequip(Backbone):
    """Batzner et al., Nat. Commun. 13, 2453 (2022); Tan et al., arXiv 2504.16068 (the package).

    Args:
        elements: Symbols that the potential knows.
        r_max: Cutoff of one layer, Å.
        channels: Channels of the hidden features: one number for all degrees, or one for each.
        max_l: Highest degree of the hidden features and of the spherical harmonics on the edges.
        layers: Number of message-passing layers.
        parity: Whether there are features of both parities, or only those of the harmonics.
        type_channels: Width of the embedding of the elements; None takes that of the scalars.
        radial_functions: Number of Bessel functions.
        radial_depth: Hidden layers of the network on the radial functions.
        radial_width: Their width.
        radial_trainable: Whether the wave numbers of the Bessel functions are trained.
        cutoff_power: Exponent of the polynomial envelope.
        average_neighbors: Mean number of neighbours over the training set, which normalises the
            messages; None is refused here, training fills it in.

    Raises:
        ModuleNotFoundError: If the package nequip is not installed.
        ValueError: If ``average_neighbors`` is missing or the numbers of channels do not fit.
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
        type_channels: int | None = None,
        radial_functions: int = 8,
        radial_depth: int = 1,
        radial_width: int = 64,
        radial_trainable: bool = False,
        cutoff_power: int = 6,
        average_neighbors: float | None = None,
    ) -> None:
        super().__init__()
        if average_neighbors is None:
            raise ValueError("average_neighbors is not set: give the mean number of neighbours")
        widths = [channels] * (max_l + 1) if isinstance(channels, int) else list(channels)
        if len(widths) != max_l + 1:
            raise ValueError(f"channels is {widths}: give {max_l + 1} numbers, or one, for max_l")
        module = import_extra("nequip", "nequip", "nequip.model.nequip_models")
        with quiet_third_party():
            model: Any = module.FullNequIPGNNModel.__wrapped__(
                r_max=float(r_max),
                type_names=list(elements),
                irreps_edge_sh=max_l,
                feature_irreps_hidden=_hidden(widths, layers, parity),
                type_embed_num_features=type_channels or widths[0],
                radial_mlp_depth=[radial_depth] * layers,
                radial_mlp_width=[radial_width] * layers,
                num_bessels=radial_functions,
                bessel_trainable=radial_trainable,
                polynomial_cutoff_p=cutoff_power,
                avg_num_neighbors=float(average_neighbors),
                per_type_energy_scales=1.0,
                per_type_energy_shifts=0.0,
                do_derivatives=False,
            ).func
        self.r_max = float(r_max)
        self.channels = (int(widths[0]),) * layers
        # The names of the parts are those of the package, by which its weights are found; the
        # read-out, which comes behind them, is a head here.
        self.network = nn.ModuleDict(
            {name: part for name, part in model.named_children() if not name.startswith(_OURS)}
        )
        layers_of = [part for name, part in self.network.items() if name.endswith("convnet")]
        self.irreps = tuple(str(part.irreps_out["node_features"]) for part in layers_of)  # type: ignore[index]
        for part in layers_of:
            _speed_up(part.conv)

    def forward(self, geometry: Geometry) -> Features:
        """Return invariant and equivariant features of every layer; those of atoms alone are 0."""
        data: dict[str, Any] = {
            "edge_index": geometry.edge_index.flip(0).contiguous(),
            "edge_vectors": -geometry.edge_vectors,  # from the receiver, which comes first
            "edge_lengths": geometry.edge_lengths[:, None],
            "atom_types": geometry.species,
        }
        features = Features([], [])
        for name, part in self.network.items():
            if hasattr(part, "_output_dtype"):  # fixed when it was built
                part._output_dtype = geometry.edge_vectors.dtype  # type: ignore[assignment]
            data = part(data)
            if name.endswith("convnet"):
                features.invariant.append(data["node_features"][:, : self.channels[0]])
                features.equivariant.append(data["node_features"])
        return features


def _speed_up(block: Any) -> None:
    """Replace the tensor product of a layer."""
    old = block.tp_scatter
    old.tp = ChannelProduct(
        old.feature_irreps_in, old.irreps_edge_attr, old.irreps_mid, old.instructions
    )


_OURS = ("per_atom", "per_type", "total_energy")


def _hidden(widths: Sequence[int], layers: int, parity: bool) -> list[str]:
    """Return the irreps of each layer, even parity first; the last layer has scalars only."""
    parts = []
    for degree, width in enumerate(widths):
        natural = "eo"[degree % 2]
        parts += [f"{width}x{degree}{kind}" for kind in ("eo" if parity else natural)]
    return ["+".join(parts)] * (layers - 1) + [f"{widths[0]}x0e"]
