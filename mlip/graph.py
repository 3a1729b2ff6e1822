"""AtomGraph: structures and neighbours as tensors; the only file that knows torch-geometric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Data

from mlip.keys import FIELDS, LABELS
from mlip.neighbors import neighbor_list


class AtomGraph(Data):
    """One structure, or (from :func:`collate`) a batch of them.

    Positions, cells and labels are float64 whatever the precision of the model: edge vectors are
    formed in float64 and rounded afterwards. Fields as in ``mlip.keys.FIELDS``, and
    ``edge_index`` (2, edges), ``edge_shift`` (edges, 3), ``edge_pair`` (edges,),
    in a batch also ``batch`` (atoms,) and ``ptr`` (graphs + 1,); in that of a compiled step also
    ``most``, the largest number of neighbours of an atom.
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


@dataclass(frozen=True)
class Surroundings:
    """What acts on structures from outside, and what is known of their charges beforehand.

    Args:
        total_charge: (graphs,) e, NaN where it is not stated; None states none.
        spin: (graphs,) unpaired electrons, NaN where not stated.
        field: (graphs, 3) external electric field, V/Å.
        electrode: (atoms,) electric potential at which the charge of an atom flows in and out, V,
            NaN for atoms that are no electrode.
        plan: Plan of the Coulomb sums that still holds for these positions.
        guess: (atoms,) charges to start from, e.
    """

    total_charge: Float[Tensor, " graphs"] | None = None
    spin: Float[Tensor, " graphs"] | None = None
    field: Float[Tensor, "graphs 3"] | None = None
    electrode: Float[Tensor, " atoms"] | None = None
    plan: Any = None
    guess: Float[Tensor, " atoms"] | None = None


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
        surroundings: What acts from outside.
        most: Largest number of neighbours of an atom where no shape may follow from values, as in
            a compiled step; else None.
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
    surroundings: Surroundings = Surroundings()
    most: int | None = None

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
    return from_arrays(
        {
            "positions": atoms.positions.copy(),
            "atomic_numbers": atoms.numbers.copy(),
            "cell": atoms.cell.array.copy(),
            "pbc": atoms.pbc.copy(),
            **{name: np.array(value, dtype=float) for name, value in (labels or {}).items()},
        },
        r_max,
        expect,
    )


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    r_max: float,
    expect: Sequence[str] = (),
    edges: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> AtomGraph:
    """Turn arrays into a graph; those of float64 are shared with it, not copied.

    Args:
        arrays: ``positions``, ``atomic_numbers``, ``cell``, ``pbc`` and labels, internal units.
        r_max: Cutoff, Å.
        expect: Labels that the graph must carry, as for :func:`from_atoms`.
        edges: What :func:`mlip.neighbors.neighbor_list` gave for this cutoff; None to compute it.

    Raises:
        ValueError: For an impossible cell or cutoff, or a label of the wrong shape.
    """
    edge_index, shift, pair = edges or neighbor_list(
        arrays["positions"], arrays["cell"], arrays["pbc"], r_max
    )
    atoms = len(arrays["positions"])
    tensors = {
        "positions": torch.as_tensor(arrays["positions"], dtype=torch.float64),
        "atomic_numbers": torch.as_tensor(arrays["atomic_numbers"]).long(),
        "cell": torch.as_tensor(arrays["cell"], dtype=torch.float64)[None],
        "pbc": torch.as_tensor(arrays["pbc"], dtype=torch.bool)[None],
        "edge_index": torch.as_tensor(edge_index).long(),
        "edge_shift": torch.as_tensor(shift).to(torch.float64),
        "edge_pair": torch.as_tensor(pair).long(),
    }
    for name in [*arrays, *(key for key in expect if key not in arrays)]:
        if name not in tensors:
            tensors[name] = _label(name, arrays.get(name), atoms)
    return AtomGraph(**tensors, num_nodes=atoms)


def collate(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Join structures into one batch, with ``batch`` (atoms,) and ``ptr`` (graphs + 1,).

    The known fields are joined directly, which takes a fraction of the time of torch-geometric's
    general ``Batch``; the result is the same.

    Raises:
        ValueError: If there is no structure, or one lacks a label that another has.
    """
    if not graphs:
        raise ValueError("there is no structure to join; give at least one")
    stores = [graph.to_dict() for graph in graphs]
    atoms = torch.tensor([store["positions"].shape[0] for store in stores])
    pairs = torch.tensor([store["edge_pair"].shape[0] // 2 for store in stores])
    edges = torch.tensor([store["edge_pair"].shape[0] for store in stores])
    ptr = torch.cat([atoms.new_zeros(1), atoms.cumsum(0)])
    names = [name for name in stores[0] if name not in ("num_nodes", "batch", "ptr")]
    for store in stores:
        if missing := set(names) ^ (set(store) - {"num_nodes", "batch", "ptr"}):
            raise ValueError(
                f"{', '.join(sorted(missing))} is in some structures of a batch and not in others; "
                "name it in expect, so that the others hold NaN"
            )
    joined = {
        name: torch.cat([store[name] for store in stores], 1 if name == "edge_index" else 0)
        for name in names
    }
    joined["edge_index"] += torch.repeat_interleave(ptr[:-1], edges)
    joined["edge_pair"] += torch.repeat_interleave(pairs.cumsum(0) - pairs, edges)
    joined["batch"] = torch.repeat_interleave(torch.arange(len(stores)), atoms)
    return AtomGraph(**joined, ptr=ptr, num_nodes=int(ptr[-1]))


def take(batch: AtomGraph, start: int, stop: int) -> AtomGraph:
    """Return the structures ``start`` to ``stop - 1`` of a batch as a batch of their own.

    Args:
        batch: What :func:`collate` gave.
        start: First structure.
        stop: The one after the last.
    """
    store = batch.to_dict()
    ptr = store["ptr"]
    first, last = int(ptr[start]), int(ptr[stop])
    owner = store["batch"][store["edge_index"][0]].contiguous()  # structure of each edge, in order
    low, high = (int((owner < number).sum()) for number in (start, stop))
    rows = {"graph": slice(start, stop), "atom": slice(first, last), "edge": slice(low, high)}
    kept = {
        name: value[rows[FIELDS[name].level if name in FIELDS else "edge"]]
        for name, value in store.items()
        if name not in ("edge_index", "batch", "ptr", "num_nodes")
    }
    kept["edge_index"] = store["edge_index"][:, low:high] - first
    kept["edge_pair"] = kept["edge_pair"] - low // 2
    kept["batch"] = store["batch"][first:last] - start
    return AtomGraph(**kept, ptr=ptr[start : stop + 1] - first, num_nodes=last - first)


def _label(name: str, value: np.ndarray | None, atoms: int) -> Tensor:
    if name not in LABELS:
        raise ValueError(f"{name!r} is not a label; labels are {', '.join(LABELS)}")
    field = FIELDS[name]
    shape = ((atoms if field.level == "atom" else 1), *field.shape)
    if value is None:
        return torch.full(shape, torch.nan, dtype=torch.float64)
    tensor = torch.as_tensor(np.asarray(value, dtype=np.float64))
    if tensor.numel() != int(np.prod(shape)):
        raise ValueError(f"label {name!r} has shape {tuple(tensor.shape)}; expected {shape}")
    return tensor.reshape(shape)
