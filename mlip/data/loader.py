"""From frames to batches of graphs."""

import signal
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlip.data.batching import Budget, BudgetLoader, BudgetSampler
from mlip.data.frame import Frame
from mlip.data.mixture import Mixture, MixtureGraphs
from mlip.data.store.gather import gather
from mlip.data.store.view import StoreView, sample
from mlip.graph import AtomGraph, collate, from_arrays, from_atoms

_SAMPLE = 5000


class StoreGraphs(Sequence[AtomGraph]):
    """Graphs of the frames of a store, made when asked for: in the workers of a loader.

    Args:
        frames: The frames.
        r_max: Cutoff, Å; equal to that of a store with neighbour lists, those are used.
        expect: Labels that each graph carries, NaN where they are missing.
    """

    def __init__(self, frames: StoreView, r_max: float, expect: Sequence[str]) -> None:
        self.frames, self.r_max, self.expect = frames, r_max, tuple(expect)
        manifest = frames.store.manifest
        self.stored_edges = manifest.neighbors and manifest.cutoff == r_max

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> AtomGraph:  # type: ignore[override]
        store, number = self.frames.store, int(self.frames.indices[index])
        edges = store.edges(number) if self.stored_edges else None
        try:
            return from_arrays(store.arrays(number, self.expect), self.r_max, self.expect, edges)
        except ValueError as error:
            raise ValueError(f"{store[number].source}: {error}") from error

    @property
    def edge_counts(self) -> np.ndarray:
        """(frames,) edges of each graph; of another cutoff than the store's, an estimate by r³."""
        store = self.frames.store
        counts = store.edge_counts[self.frames.indices]
        ratio = self.r_max / store.manifest.cutoff
        return counts if ratio == 1 else np.ceil(counts * ratio**3).astype(np.int64)

    @property
    def atom_counts(self) -> np.ndarray:
        """(frames,) atoms of each graph."""
        return self.frames.store.atom_counts[self.frames.indices]


def batches(
    graphs: Sequence[AtomGraph], data: Mapping[str, Any], *, shuffle: bool = False, seed: int = 0
) -> BudgetLoader:
    """Return the loader that a ``data`` config asks for.

    Args:
        graphs: Graphs in memory, or those of a store.
        data: ``workers`` (0 makes graphs in this process) and ``batch_size`` or, instead,
            ``batch``: ``{edges: 20000}``, ``{atoms: 500}``, ``{frames: 8}`` or several of these.
        shuffle: Another order in each epoch.
        seed: Seed of the order.

    Raises:
        ValueError: If ``batch`` is not such a mapping.
    """
    budget = Budget.from_config(data.get("batch") or {"frames": data["batch_size"]})
    workers = data["workers"]
    edges, atoms = counts(graphs)
    sampler = BudgetSampler(edges, atoms, budget, seed=seed, shuffle=shuffle)
    return BudgetLoader(
        graphs,
        sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals if workers else None,
    )


def _leave_signals(_: int) -> None:
    """A worker must not answer the signals by which a queue tells a training to save."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def to_graphs(frames: Sequence[Frame], r_max: float, expect: Sequence[str]) -> Sequence[AtomGraph]:
    """Return one graph a frame, each with every label of ``expect``, NaN where it is missing.

    Those of a store are made when asked for, others now.

    Args:
        frames: Frames with labels in internal units.
        r_max: Cutoff, Å.
        expect: Labels that the loss and the metrics will look for.

    Raises:
        ValueError: If a structure cannot be turned into a graph, naming the frame.
    """
    if isinstance(frames, StoreView):
        return StoreGraphs(frames, r_max, expect)
    if isinstance(frames, Mixture):
        graphs = [to_graphs(part.frames, r_max, expect) for part in frames.parts]
        edges, atoms = zip(*map(counts, graphs), strict=True)
        return MixtureGraphs(frames, graphs, edges, atoms)
    graphs = []
    for frame in frames:
        labels = {name: frame.labels[name] for name in expect if name in frame.labels}
        try:
            graphs.append(from_atoms(frame.atoms, r_max, labels, expect))
        except ValueError as error:
            raise ValueError(f"{frame.source}: {error}") from error
    return graphs


def counts(graphs: Sequence[AtomGraph]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of edges and atoms of each graph, (graphs,); of a store, as it says."""
    if isinstance(graphs, StoreGraphs | MixtureGraphs):
        return graphs.edge_counts, graphs.atom_counts
    edges = np.array([graph.edge_index.shape[1] for graph in graphs], dtype=np.int64)
    return edges, np.array([graph.positions.shape[0] for graph in graphs], dtype=np.int64)


def average_neighbors(graphs: Sequence[AtomGraph]) -> float:
    """Return the mean number of neighbours of an atom."""
    edges, atoms = counts(graphs)
    return float(edges.sum()) / max(int(atoms.sum()), 1)


def _forces(frames: Sequence[Frame]) -> np.ndarray:
    """Return the components of all forces, in one read of each shard where they are stored."""
    if isinstance(frames, StoreView):
        return gather(frames.store, frames.indices, ("forces",))["forces"].ravel()
    forces = [np.ravel(frame.labels["forces"]) for frame in frames if "forces" in frame.labels]
    return np.concatenate(forces) if forces else np.zeros(0)


def force_scale(frames: Sequence[Frame]) -> float:
    """Return the root mean square of all known force components, eV/Å; 1 if there are none.

    It scales the interaction energies at the start (Batatia et al., arXiv 2401.00096, sec. A). Of
    a store, frames spread evenly are taken.
    """
    known = _forces(sample(frames, _SAMPLE))
    known = known[np.isfinite(known)]
    scale = float(np.sqrt(np.mean(known**2))) if len(known) else 0.0
    return scale if scale > 0 else 1.0
