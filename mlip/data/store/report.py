"""What a store holds, and what is wrong with it, told in the words of inspect and doctor."""

import shlex
from pathlib import Path

import numpy as np

from mlip.data.inspect import Inspection, Property
from mlip.data.store.reader import Store
from mlip.data.store.shard import Shard
from mlip.data.store.view import StoreView
from mlip.keys import FIELDS


def inspect_store(path: str | Path) -> Inspection:
    """Return what a store holds, read from its columns without making frames.

    Raises:
        FileNotFoundError: If the folder holds no finished store.
        ValueError: If it is damaged.
    """
    store = Store(path)
    manifest = store.manifest
    atoms = store.atom_counts
    neighbours = "with" if manifest.neighbors else "without"
    told = {key: list(values) for key, values in manifest.told.items()}
    splits = sorted({shard.split for shard in manifest.shards} - {""})
    return Inspection(
        path=str(path),
        format=f"mlip store, {neighbours} neighbour lists, cutoff {manifest.cutoff:g} Å",
        frames=len(store),
        atoms=(int(atoms.min()), float(np.median(atoms)), int(atoms.max())),
        elements=dict(manifest.elements),
        pbc=_periodic(store),
        properties=[_property(store, name) for name in manifest.labels],
        info={
            **told,
            **({"split": splits} if splits else {}),
            "input": [str(manifest.origin.get("input", ""))],
            "edges per atom": [f"{manifest.edges / max(manifest.atoms, 1):.1f}"],
        },
        constrained=0,
        following=f"mlip data doctor {shlex.quote(str(path))}",
    )


def splits_of(store: Store) -> dict[str, StoreView]:
    """Return the frames of each split of a store, made when asked for; "store" where unnamed."""
    names = np.asarray(store.splits)
    return {
        str(name) or "store": StoreView(store, np.flatnonzero(names == name))
        for name in sorted(set(names.tolist()))
    }


def _shards(store: Store) -> list[Shard]:
    return [store.shard(number) for number in range(len(store.manifest.shards))]


def _periodic(store: Store) -> dict[str, int]:
    codes = np.zeros(8, dtype=int)
    for shard, entry in zip(_shards(store), store.manifest.shards, strict=True):
        codes += np.bincount(shard.values["pbc"][: entry.frames], minlength=8)
    return {
        "".join("T" if code >> axis & 1 else "F" for axis in range(3)): int(codes[code])
        for code in np.flatnonzero(codes)
    }


def _property(store: Store, name: str) -> Property:
    low, high = np.inf, -np.inf
    for shard in _shards(store):
        values = shard.values.get(name, np.zeros(0))
        known = values[np.isfinite(values)]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    field = FIELDS[name]
    frames = store.manifest.labels[name]
    return Property(name, field.level, field.shape, frames, low, high, f"{name} [{field.unit}]", "")
