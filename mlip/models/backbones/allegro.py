"""Allegro: strictly local equivariant features of pairs, from the package nequip-allegro."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mlip.graph import Geometry
from mlip.models.backbone import Backbone, Features
from mlip.runtime import import_extra, quiet_third_party


class Allegro(Backbone):
    """Musaelian et al., Nat. Commun. 14, 579 (2023).

    Features belong to ordered pairs and see only the neighbours of the first atom; there are no
    messages, so the potential reaches no farther than ``r_max``. Here the hidden layer of the
    published read-out is summed over the pairs of an atom, ``h_i = Σ_j φ(W x_ij) / √(2 N)``, so
    that any head can read it and a linear energy is the published one.

    Args:
        elements: Symbols that the potential knows.
        r_max: Cutoff, Å.
        channels: Width of the read-out, which is the number of invariants of an atom.
        scalar_channels: Scalars of a pair in each layer.
        tensor_channels: Tensors of a pair in each layer.
        max_l: Highest degree of the tensors and of the spherical harmonics.
        layers: Number of tensor products.
        parity: Whether there are tensors of both parities, or only those of the harmonics.
        network_depth: Hidden layers of the networks on the scalars.
        network_width: Their width.
        embedding_depth: Hidden layers of the network on the embedding of pairs.
        embedding_width: Their width.
        read_out_depth: Hidden layers of the read-out, at least one.
        coupled_paths: Whether the weights of the products differ between channels.
        radial_functions: Number of Bessel functions.
        radial_trainable: Whether the wave numbers of the Bessel functions are trained.
        cutoff_power: Exponent of the polynomial envelope.
        average_neighbors: Mean number of neighbours over the training set, which normalises the
            sums; None is refused here, training fills it in.

    Raises:
        ModuleNotFoundError: If the package nequip-allegro is not installed.
        ValueError: If ``average_neighbors`` is missing, or the read-out has no hidden layer.
    """

    def __init__(  # noqa: PLR0913 - the published hyper-parameters of the architecture
        self,
        elements: Sequence[str],
        *,
        r_max: float = 5.0,
        channels: int = 32,
        scalar_channels: int = 32,
        tensor_channels: int = 8,
        max_l: int = 1,
        layers: int = 2,
        parity: bool = True,
        network_depth: int = 1,
        network_width: int = 64,
        embedding_depth: int = 1,
        embedding_width: int = 64,
        read_out_depth: int = 1,
        coupled_paths: bool = True,
        radial_functions: int = 8,
        radial_trainable: bool = False,
        cutoff_power: int = 6,
        average_neighbors: float | None = None,
    ) -> None:
        super().__init__()
        if average_neighbors is None:
            raise ValueError("average_neighbors is not set: give the mean number of neighbours")
        if read_out_depth < 1:
            raise ValueError(f"read_out_depth is {read_out_depth}: give at least 1")
        module = import_extra("allegro", "allegro", "allegro.model.allegro_models")
        natural = [f"1x{degree}{'eo'[degree % 2]}" for degree in range(max_l + 1)]
        both = [f"1x{degree}{sign}" for degree in range(max_l + 1) for sign in "eo"]
        with quiet_third_party():
            model: Any = module.FullAllegroModel.__wrapped__(
                r_max=float(r_max),
                type_names=list(elements),
                irreps_edge_sh="+".join(natural),
                tensor_track_allowed_irreps="+".join(both if parity else natural),
                radial_chemical_embed={
                    "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
                    "num_bessels": radial_functions,
                    "bessel_trainable": radial_trainable,
                    "polynomial_cutoff_p": cutoff_power,
                },
                scalar_embed_mlp_hidden_layers_depth=embedding_depth,
                scalar_embed_mlp_hidden_layers_width=embedding_width,
                num_layers=layers,
                num_scalar_features=scalar_channels,
                num_tensor_features=tensor_channels,
                allegro_mlp_hidden_layers_depth=network_depth,
                allegro_mlp_hidden_layers_width=network_width,
                tp_path_channel_coupling=coupled_paths,
                readout_mlp_hidden_layers_depth=read_out_depth,
                readout_mlp_hidden_layers_width=channels,
                avg_num_neighbors=float(average_neighbors),
                do_derivatives=False,
            ).func
        self.r_max = float(r_max)
        self.channels = (channels,)
        self.normalization = (2.0 * float(average_neighbors)) ** -0.5
        # The names of the parts are those of the package, by which its weights are found.
        names = ("edge_norm", "radial_chemical_embed", "scalar_embed_mlp", "tensor_embed")
        self.network = nn.ModuleDict({name: getattr(model, name) for name in (*names, "allegro")})
        self.edge_readout: nn.Module = model.edge_readout.mlp_module.mlp[:-1]

    def forward(self, geometry: Geometry) -> Features:
        """Return the invariants of each atom; those of an atom alone are 0."""
        dtype = geometry.edge_vectors.dtype
        data: dict[str, Any] = {
            "edge_index": geometry.edge_index.flip(0).contiguous(),
            "edge_vectors": -geometry.edge_vectors,  # from the receiver, which comes first
            "edge_lengths": geometry.edge_lengths[:, None],
            "atom_types": geometry.species,
        }
        for part in self.network.modules():
            if hasattr(part, "_output_dtype"):  # fixed when it was built
                part._output_dtype = dtype  # type: ignore[assignment]
        for part in self.network.values():
            data = part(data)
        pairs = self.edge_readout(data["edge_features"])
        atoms = torch.zeros(geometry.atoms, pairs.shape[1], dtype=dtype, device=pairs.device)
        atoms = atoms.index_add(0, geometry.edge_index[1], pairs)
        return Features([self.normalization * atoms], [])
