"""Columns of a shard: what is stored for each frame, and how large arrays become Arrow lists."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.keys import FIELDS, LABELS
from mlip.neighbors import count_edges, neighbor_list

SCHEMA = 1
"""Version of the layout; a reader refuses another one."""
EDGES = {"edge_index": np.int32, "edge_shift": np.int16, "edge_pair": np.int32}
"""Columns of stored neighbour lists, (2, edges), (edges, 3) and (edges,), flattened."""
TOLD = (
    "functional", "energy_kind", "charge_partition", "converged", "corrections",
    "data",
)  # fmt: skip
"""Info keys whose values the manifest counts."""


@dataclass(frozen=True)
class Layout:
    """How frames are stored.

    Args:
        cutoff: Cutoff of the edge counts, and of the neighbour lists, Å.
        neighbors: Store the neighbour lists as well (about ten times the space).
        shard_frames: Largest number of frames in a shard.
    """

    cutoff: float = 5.0
    neighbors: bool = False
    shard_frames: int = 5000

    def __post_init__(self) -> None:
        if not 0 < self.cutoff < float("inf"):
            raise ValueError(f"cutoff is {self.cutoff}: give a positive length in Å")
        if self.shard_frames < 1:
            raise ValueError(f"shard_frames is {self.shard_frames}: give a whole number from 1")


def encode(frames: Sequence[Frame], layout: Layout) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """Return the frames as one record batch, and what the manifest says of them.

    Labels that no frame has take no column; where some frames lack a label, those hold an empty
    list. Everything is float64, so that a store reads back what was written, bit by bit.

    Raises:
        ValueError: If a structure has no neighbour list (no volume, coordinates not finite), or a
            label has the wrong shape, naming the frame.
    """
    edges = [_edges(frame, layout) for frame in frames]
    counts = np.array([count for count, _ in edges], dtype=np.int32)
    columns: dict[str, pa.Array] = {
        "atoms": pa.array(np.array([len(frame) for frame in frames], dtype=np.int32)),
        "edges": pa.array(counts),
        "labels": pa.array(np.array([_bits(frame) for frame in frames], dtype=np.uint16)),
        "pbc": pa.array(np.array([_packed(f.atoms.pbc) for f in frames], dtype=np.uint8)),
        "cell": _fixed([frame.atoms.cell.array for frame in frames]),
        "fingerprint": pa.array([fingerprint(f.atoms) for f in frames], pa.binary(16)),
        "numbers": _lists([frame.atoms.numbers for frame in frames], np.uint8),
        "positions": _lists([frame.atoms.positions for frame in frames], np.float64),
    }
    present = [name for name in LABELS if any(name in frame.labels for frame in frames)]
    for name in present:
        columns[name] = _lists([_label(frame, name) for frame in frames], np.float64)
    if layout.neighbors:
        for place, (name, dtype) in enumerate(EDGES.items()):
            columns[name] = _lists([lists[place] for _, lists in edges], dtype)
    columns["source"] = pa.array([frame.source for frame in frames], pa.large_string())
    columns["info"] = pa.array([_dump(frame.info) for frame in frames], pa.large_string())
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return batch, _summary(frames, counts)


def info_of(text: str) -> dict[str, Any]:
    """Return the info of a frame from its column; arrays come back as arrays."""
    return json.loads(text, object_hook=_revive)


def _edges(frame: Frame, layout: Layout) -> tuple[int, tuple[np.ndarray, ...]]:
    atoms = frame.atoms
    if not len(atoms) or atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        raise ValueError(f"{frame.source}: a frame needs atoms of elements 1 to 118; remove it")
    structure = (atoms.positions, atoms.cell.array, atoms.pbc, layout.cutoff)
    try:
        if not layout.neighbors:
            return count_edges(*structure), ()
        lists = neighbor_list(*structure)
    except ValueError as error:
        raise ValueError(f"{frame.source}: {error}") from error
    return lists[0].shape[1], lists


def _bits(frame: Frame) -> int:
    if unknown := set(frame.labels) - set(LABELS):
        raise ValueError(f"{frame.source}: {sorted(unknown)} are not labels: {', '.join(LABELS)}")
    return sum(1 << place for place, name in enumerate(LABELS) if name in frame.labels)


def _packed(pbc: np.ndarray) -> int:
    return int(pbc[0]) | int(pbc[1]) << 1 | int(pbc[2]) << 2


def _label(frame: Frame, name: str) -> np.ndarray | None:
    if name not in frame.labels:
        return None
    value = np.asarray(frame.labels[name], dtype=np.float64)
    field = FIELDS[name]
    shape = (len(frame), *field.shape) if field.level == "atom" else field.shape
    if value.size != int(np.prod(shape)):
        raise ValueError(
            f"{frame.source}: {name} has shape {value.shape}, but {shape} is needed; correct it"
        )
    return value


def _lists(values: Sequence[np.ndarray | None], dtype: Any) -> pa.Array:
    """Return a list column; None is an empty list, since ``labels`` says what is missing."""
    flat = [np.ravel(value) for value in values if value is not None]
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum([0 if value is None else value.size for value in values], out=offsets[1:])
    joined = np.concatenate(flat).astype(dtype, copy=False) if flat else np.zeros(0, dtype)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(joined))


def _fixed(cells: Sequence[np.ndarray]) -> pa.Array:
    flat = np.ascontiguousarray(np.stack(cells), dtype=np.float64).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), 9)


def _dump(info: Mapping[str, Any]) -> str:
    return json.dumps({str(key): value for key, value in info.items()}, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return {"__array__": value.tolist(), "dtype": value.dtype.str}
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def _revive(value: dict[str, Any]) -> Any:
    if set(value) == {"__array__", "dtype"}:
        return np.array(value["__array__"], dtype=value["dtype"])
    return value


def _summary(frames: Sequence[Frame], edges: np.ndarray) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {"elements": {}, "labels": {}}
    for frame in frames:
        told = {key: str(frame.info[key]) for key in TOLD if key in frame.info}
        for group, names in (
            ("elements", dict.fromkeys(frame.atoms.symbols)),
            ("labels", frame.labels),
        ):
            for name in names:
                counts[group][name] = counts[group].get(name, 0) + 1
        for key, value in told.items():
            group = counts.setdefault(key, {})
            group[value] = group.get(value, 0) + 1
    return {
        "frames": len(frames),
        "atoms": int(sum(map(len, frames))),
        "edges": int(edges.sum(dtype=np.int64)),
        "counts": counts,
    }
