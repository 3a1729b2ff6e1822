"""AtomGraph: structures and neighbours as tensors; the only file that knows torch-geometric."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from mlip.keys import FIELDS, LABELS
from mlip.neighbors import neighbor_list


class AtomGraph(Data):
    """One structure, or (from :func:`collate`) a batch of them.

    Positions, cells and labels are float64 whatever the precision of the model: edge vectors are
    formed in float64 and rounded afterwards. Fields as in ``mlip.keys.FIELDS``, and
    ``edge_index`` (2, edges), ``edge_shift`` (edges, 3), ``edge_pair`` (edges,),
    in a batch also ``batch`` (atoms,) and ``ptr`` (graphs + 1,).
    """

    positions: Tensor
    atomic_numbers: Tensor
    cell: Tensor
    pbc: Tensor
    edge_index: Tensor
    edge_shift: Tensor
    edge_pair: Tensor
    ptr: Tensor

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Indices of atoms and of pairs move when structures are joined."""
        if key == "edge_pair":
            return value.shape[0] // 2
        return self.num_nodes if key == "edge_index" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Everything but edge indices is joined along its first dimension."""
        return 1 if key == "edge_index" else 0


@dataclass
class Geometry:
    """What backbones, heads and terms see: the (strained) structure, differentiable.

    Args:
        atomic_numbers: (atoms,) proton numbers.
        species: (atoms,) index into the elements of the potential.
        positions: (atoms, 3) Å, float64.
        cell: (graphs, 3, 3) Å, rows are lattice vectors, float64.
        pbc: (graphs, 3) periodic directions.
        edge_index: (2, edges) sender and receiver.
        edge_vectors: (edges, 3) from sender to receiver, Å, in the precision of the model.
        edge_lengths: (edges,) Å, in the precision of the model.
        edge_pair: (edges,) an edge and its reverse share one number.
        batch: (atoms,) structure of each atom.
        graphs: Number of structures.
    """

    atomic_numbers: Int[Tensor, " atoms"]
    species: Int[Tensor, " atoms"]
    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "graphs 3 3"]
    pbc: Tensor
    edge_index: Int[Tensor, "2 edges"]
    edge_vectors: Float[Tensor, "edges 3"]
    edge_lengths: Float[Tensor, " edges"]
    edge_pair: Int[Tensor, " edges"]
    batch: Int[Tensor, " atoms"]
    graphs: int

    @property
    def atoms(self) -> int:
        """Number of atoms in all structures."""
        return self.atomic_numbers.shape[0]

    @property
    def pair_edges(self) -> Int[Tensor, " pairs"]:
        """One edge of every pair, in the order of the pair numbers."""
        edges = torch.arange(self.edge_pair.shape[0], device=self.edge_pair.device)
        return edges.new_empty(edges.shape[0] // 2).index_copy(0, self.edge_pair, edges)


def from_atoms(
    atoms: Atoms,
    r_max: float,
    labels: Mapping[str, np.ndarray] | None = None,
    expect: Sequence[str] = (),
) -> AtomGraph:
    """Turn a structure into a graph with every edge shorter than ``r_max``.

    Args:
        atoms: The structure; it is not modified.
        r_max: Cutoff, Å.
        labels: Labels in internal units, by the names of ``FIELDS``.
        expect: Labels that the graph must carry; a missing one is filled with NaN, so that graphs
            with and without it can share a batch.

    Raises:
        ValueError: For an impossible cell or cutoff, or a label of the wrong shape.
    """
    edge_index, shift, pair = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, r_max)
    graph = AtomGraph(
        positions=torch.tensor(atoms.positions, dtype=torch.float64),
        atomic_numbers=torch.tensor(atoms.numbers, dtype=torch.int64),
        cell=torch.tensor(atoms.cell.array, dtype=torch.float64)[None],
        pbc=torch.tensor(atoms.pbc, dtype=torch.bool)[None],
        edge_index=torch.from_numpy(edge_index),
        edge_shift=torch.from_numpy(shift).to(torch.float64),
        edge_pair=torch.from_numpy(pair),
        num_nodes=len(atoms),
    )
    labels = labels or {}
    for name in [*labels, *(key for key in expect if key not in labels)]:
        graph[name] = _label(name, labels.get(name), len(atoms))
    return graph


def collate(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Join structures into one batch."""
    return Batch.from_data_list(list(graphs))  # type: ignore[return-value]


class EpochSampler(Sampler[int]):
    """A shuffled order that depends on seed and epoch only, so that a resumed run repeats it."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this at its start."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())


def loader(
    graphs: Sequence[AtomGraph],
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
) -> DataLoader:
    """Return batches of graphs; a shuffled order is fixed by ``seed`` and epoch."""
    return DataLoader(
        list(graphs),  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=EpochSampler(len(graphs), seed) if shuffle else None,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _label(name: str, value: np.ndarray | None, atoms: int) -> Tensor:
    if name not in LABELS:
        raise ValueError(f"{name!r} is not a label; labels are {', '.join(LABELS)}")
    field = FIELDS[name]
    shape = ((atoms if field.level == "atom" else 1), *field.shape)
    if value is None:
        return torch.full(shape, torch.nan, dtype=torch.float64)
    tensor = torch.tensor(np.asarray(value, dtype=float), dtype=torch.float64)
    if tensor.numel() != int(np.prod(shape)):
        raise ValueError(f"label {name!r} has shape {tuple(tensor.shape)}; expected {shape}")
    return tensor.reshape(shape)
