"""From frames to batches of graphs."""

from collections.abc import Sequence

import numpy as np

from mlip.data.frame import Frame
from mlip.graph import AtomGraph, from_atoms


def to_graphs(frames: Sequence[Frame], r_max: float, expect: Sequence[str]) -> list[AtomGraph]:
    """Return one graph a frame, each with every label of ``expect``, NaN where it is missing.

    Args:
        frames: Frames with labels in internal units.
        r_max: Cutoff, Å.
        expect: Labels that the loss and the metrics will look for.

    Raises:
        ValueError: If a structure cannot be turned into a graph, naming the frame.
    """
    graphs = []
    for frame in frames:
        labels = {name: frame.labels[name] for name in expect if name in frame.labels}
        try:
            graphs.append(from_atoms(frame.atoms, r_max, labels, expect))
        except ValueError as error:
            raise ValueError(f"{frame.source}: {error}") from error
    return graphs


def average_neighbors(graphs: Sequence[AtomGraph]) -> float:
    """Return the mean number of neighbours of an atom."""
    atoms = sum(graph.num_nodes or 0 for graph in graphs)
    return sum(graph.edge_index.shape[1] for graph in graphs) / max(atoms, 1)


def force_scale(frames: Sequence[Frame]) -> float:
    """Return the root mean square of all known force components, eV/Å; 1 if there are none.

    It scales the interaction energies at the start (Batatia et al., arXiv 2401.00096, sec. A).
    """
    forces = [np.ravel(frame.labels["forces"]) for frame in frames if "forces" in frame.labels]
    known = np.concatenate(forces) if forces else np.zeros(0)
    known = known[np.isfinite(known)]
    scale = float(np.sqrt(np.mean(known**2))) if len(known) else 0.0
    return scale if scale > 0 else 1.0
