"""Many frames of a store at once: one vectorised copy a column instead of views frame by frame."""

from collections.abc import Sequence

import numpy as np

from mlip.data.store.reader import Store
from mlip.data.store.shard import Shard
from mlip.keys import FIELDS, LABELS

_OF_ATOMS = {"positions", "atomic_numbers"} | {
    name for name in LABELS if FIELDS[name].level == "atom"
}


def gather(
    store: Store, indices: Sequence[int] | np.ndarray, labels: Sequence[str] = LABELS
) -> dict[str, np.ndarray]:
    """Return structures and labels of some frames, joined in the order of ``indices``.

    Args:
        store: The store.
        indices: (frames,) numbers of the frames.
        labels: Labels to return; NaN where a frame has none.

    Returns:
        ``counts`` (frames,) number of atoms of each frame, ``positions`` (atoms, 3),
        ``atomic_numbers`` (atoms,), ``cell`` (frames, 3, 3), and the labels: those of atoms
        joined as the positions are, those of structures stacked. Internal units.

    Raises:
        IndexError: If there is no such frame.
        ValueError: If a shard is damaged.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(store)):
        raise IndexError(f"{store.folder} has {len(store)} frames; give numbers of these")
    counts = store.atom_counts[chosen].astype(np.int64)
    ends = np.cumsum(counts)
    found = _empty(len(chosen), int(counts.sum()), labels)
    shards, rows = store.places(chosen)
    for number in np.unique(shards):
        here = np.flatnonzero(shards == number)
        atoms = _ranges((ends - counts)[here], counts[here])
        _copy(store.shard(int(number)), rows[here], counts[here], found, (here, atoms))
    return {"counts": counts, **found}


def _empty(frames: int, atoms: int, labels: Sequence[str]) -> dict[str, np.ndarray]:
    found = {
        "positions": np.empty((atoms, 3)),
        "atomic_numbers": np.empty(atoms, np.uint8),
        "cell": np.empty((frames, 3, 3)),
    }
    for name in labels:
        field = FIELDS[name]
        first = atoms if field.level == "atom" else frames
        found[name] = np.full((first, *field.shape), np.nan)
    return found


def _copy(
    shard: Shard,
    rows: np.ndarray,
    counts: np.ndarray,
    found: dict[str, np.ndarray],
    to: tuple[np.ndarray, np.ndarray],
) -> None:
    """Copy some rows of a shard to where their frames, and their atoms, belong in the arrays."""
    for name, out in found.items():
        column = "numbers" if name == "atomic_numbers" else name
        if name == "cell":
            out[to[0]] = shard.cells[rows]
        elif column in shard.offsets:
            per_atom = name in _OF_ATOMS
            _copy_lists(shard, column, rows, counts if per_atom else None, out, to[per_atom])


def _copy_lists(
    shard: Shard,
    column: str,
    rows: np.ndarray,
    counts: np.ndarray | None,
    out: np.ndarray,
    to: np.ndarray,
) -> None:
    offsets = shard.offsets[column]
    width = int(np.prod(out.shape[1:]))
    starts = offsets[rows] // width
    lengths = np.ones_like(rows) if counts is None else counts
    held = offsets[rows + 1] > offsets[rows]
    values = shard.values[column][: offsets[-1]].reshape(-1, *out.shape[1:])
    if held.all():
        out[to] = values[_ranges(starts, lengths)]
    else:
        out[to[np.repeat(held, lengths)]] = values[_ranges(starts[held], lengths[held])]


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers from each start on, as many as its length, joined."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
