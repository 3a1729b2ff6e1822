"""CHGNet: messages along bonds and angles, built from the modules of the package chgnet."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Backbone, Features

_ELEMENTS = 94  # rows of the embedding, H to Pu


class Chgnet(Backbone):
    """Crystal Hamiltonian graph network (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)).

    Features of atoms, bonds and angles are updated in turn. Bonds shorter than ``r_bond`` meet in
    angles; all within ``r_max`` carry messages. Edges are those of our graph: each pair of atoms is
    one bond, and the angles are found from the edges that share an atom.

    Args:
        elements: Symbols, in the order of the species.
        r_max: Cutoff of the messages, Å.
        r_bond: Cutoff of the bonds that form angles, Å.
        channels: Width of all features.
        layers: Number of message passing steps.
        radial_functions: Bessel functions of a distance.
        angular_functions: Fourier functions of an angle, an odd number.
        cutoff_power: Power of the polynomial that takes messages to zero at the cutoff.
        normalize: Whether layers of features are normalised; version 0.2.0 has none.
        output_biases: Whether sums of messages get a bias, as in version 0.2.0, whose energy
            jumps where the first angle of a structure appears.

    Raises:
        ModuleNotFoundError: If the package chgnet is not installed.
    """

    embedded: Tensor

    def __init__(  # noqa: PLR0913 - the published hyper-parameters of the architecture
        self,
        elements: Sequence[str],
        r_max: float = 6.0,
        r_bond: float = 3.0,
        channels: int = 64,
        layers: int = 4,
        radial_functions: int = 31,
        angular_functions: int = 31,
        cutoff_power: int = 8,
        normalize: bool = True,
        output_biases: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < r_bond <= r_max:
            raise ValueError(f"r_bond is {r_bond} Å: give at most r_max, {r_max} Å, and above 0")
        parts = _parts()
        self.r_max, self.r_bond = float(r_max), float(r_bond)
        self.channels = (channels,) * layers
        # The names of the parts are those of the package, by which published weights are found.
        self.atom_embedding: nn.Module = parts.AtomEmbedding(channels, _ELEMENTS)
        self.bond_basis_expansion: Any = parts.BondEncoder(
            atom_graph_cutoff=r_max,
            bond_graph_cutoff=r_bond,
            num_radial=radial_functions,
            cutoff_coeff=cutoff_power,
            learnable=True,
        )
        self.bond_embedding = nn.Linear(radial_functions, channels, bias=False)
        self.bond_weights_ag = nn.Linear(radial_functions, channels, bias=False)
        self.bond_weights_bg = nn.Linear(radial_functions, channels, bias=False)
        self.angle_basis_expansion: nn.Module = parts.AngleEncoder(
            num_angular=angular_functions, learnable=True
        )
        self.angle_embedding = nn.Linear(angular_functions, channels, bias=False)
        norm = "layer" if normalize else None
        widths = {"atom_fea_dim": channels, "bond_fea_dim": channels, "gMLP_norm": norm}
        sums = {"hidden_dim": channels, "mlp_out_bias": output_biases}
        self.atom_conv_layers = nn.ModuleList(
            [parts.AtomConv(**widths, **sums) for _ in range(layers)]
        )
        widths["angle_fea_dim"] = channels
        self.bond_conv_layers = nn.ModuleList(
            [parts.BondConv(**widths, **sums) for _ in range(layers - 1)]
        )
        self.angle_layers = nn.ModuleList(  # the package has one more, which reaches no output
            [parts.AngleUpdate(**widths, hidden_dim=0) for _ in range(layers - 2)]
        )
        self.readout_norm = nn.LayerNorm(channels) if normalize else nn.Identity()
        self.output_biases = output_biases
        numbers = torch.tensor([_number(symbol) for symbol in elements])
        self.register_buffer("embedded", numbers - 1, persistent=False)

    def forward(self, geometry: Geometry) -> Features:
        """Return the invariants of each layer, those of the last normalised, and of atoms alone."""
        bonds = _Bonds(geometry, self.r_bond)
        lengths = geometry.edge_lengths[geometry.pair_edges]
        basis = self.bond_basis_expansion.rbf_expansion_ag(lengths)
        near = self.bond_basis_expansion.rbf_expansion_bg(lengths)
        weights, near_weights = self.bond_weights_ag(basis), self.bond_weights_bg(near)
        bond = self.bond_embedding(basis)
        angle = self.angle_embedding(
            self.angle_basis_expansion(*bonds.directions(geometry.edge_vectors))
        )
        lone = self.atom_embedding(self.embedded)
        atom = lone[geometry.species]
        found: list[Tensor] = []
        alone: list[Tensor] = []
        for layer, message in enumerate(self.atom_conv_layers):
            atom = message(atom, bond, weights, bonds.ends, geometry.edge_pair)
            if self.output_biases:  # without neighbours, messages are zero but for these
                lone = lone + message.mlp_out(torch.zeros_like(lone))  # type: ignore[operator]
            if layer < len(self.bond_conv_layers):
                found.append(atom)
                alone.append(lone)
                new = self.bond_conv_layers[layer](atom, bond, near_weights, angle, bonds.graph)
                # The package leaves the bonds of a structure that has no angle as they are.
                bond = torch.where(bonds.angled(geometry), new, bond) if self.output_biases else new
            if layer < len(self.angle_layers):
                angle = self.angle_layers[layer](atom, bond, angle, bonds.graph)
        found.append(self.readout_norm(atom))
        alone.append(self.readout_norm(lone))
        return Features(found, [], alone)


class _Bonds:
    """Which edges meet in angles.

    ``ends`` (edges, 2) are center and neighbour of each edge, ``graph`` (angles, 3) the atom in the
    middle of an angle and its two bonds; each two bonds make two angles, one for each bond first.
    """

    def __init__(self, geometry: Geometry, r_bond: float) -> None:
        sender, receiver = geometry.edge_index
        self.ends = torch.stack([receiver, sender], dim=1)
        near = torch.nonzero(geometry.edge_lengths.detach() < r_bond).squeeze(1)
        first, second = _ordered_pairs(receiver[near], geometry.atoms)
        self.first, self.second = near[first], near[second]
        self.graph = torch.stack(
            [receiver[self.first], geometry.edge_pair[self.first], geometry.edge_pair[self.second]],
            dim=1,
        )

    def directions(
        self, vectors: Float[Tensor, "edges 3"]
    ) -> tuple[Float[Tensor, "angles 3"], Float[Tensor, "angles 3"]]:
        """Return the unit vectors of the two bonds of each angle."""
        one, two = vectors[self.first], vectors[self.second]
        return nn.functional.normalize(one, dim=1), nn.functional.normalize(two, dim=1)

    def angled(self, geometry: Geometry) -> Bool[Tensor, "bonds 1"]:
        """Return whether the structure of each bond has an angle."""
        has = torch.zeros(geometry.graphs, dtype=torch.bool, device=self.graph.device)
        has[geometry.batch[self.graph[:, 0]]] = True
        return has[geometry.batch[self.ends[geometry.pair_edges, 0]]][:, None]


def _ordered_pairs(
    owners: Int[Tensor, " items"], count: int
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return all (first, second) of different items that have the same owner."""
    order = torch.argsort(owners, stable=True)
    held = torch.bincount(owners, minlength=count)
    partners = held[owners[order]]  # of each item, itself included
    first = torch.repeat_interleave(torch.arange(len(owners), device=owners.device), partners)
    starts = torch.cumsum(held, 0) - held
    begun = torch.cumsum(partners, 0) - partners
    within = torch.arange(len(first), device=owners.device) - begun[first]
    second = starts[owners[order]][first] + within
    different = first != second
    return order[first[different]], order[second[different]]


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    if not 1 <= atomic_numbers[symbol] <= _ELEMENTS:
        raise ValueError(f"the chgnet backbone knows the elements H to Pu, not {symbol}")
    return atomic_numbers[symbol]


def _parts():  # noqa: ANN202  a namespace of classes
    """Return the modules of the package."""
    from importlib.util import find_spec
    from types import SimpleNamespace

    if find_spec("chgnet") is None:
        raise ModuleNotFoundError(
            "the backbone chgnet needs the package chgnet: pip install 'mlip-suite[chgnet]'",
            name="chgnet",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.model import encoders, layers
    return SimpleNamespace(**vars(encoders), **{
        name: getattr(layers, name) for name in ("AtomConv", "BondConv", "AngleUpdate")
    })  # fmt: skip
