"""The manifest of a store: what its shards hold, in which units, from where, with checksums."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlip.data.store.layout import SCHEMA, TOLD
from mlip.keys import FIELDS, LABELS

NAME = "manifest.json"
_FORMAT = "mlip-store"
_REPAIR = "convert the data again (mlip data convert INPUT OUTPUT), or fetch the store again"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file in the store's folder, SHA-256, size in bytes, split, and counts."""

    file: str
    sha256: str
    bytes: int
    split: str
    frames: int
    atoms: int
    edges: int


@dataclass(frozen=True)
class Manifest:
    """What a store holds.

    Args:
        origin: What was converted: input, files, field map, card.
        cutoff: Cutoff of edge counts and of stored neighbour lists, Å.
        neighbors: Whether neighbour lists are stored.
        shards: Shards in the order of the frames.
        elements: Number of frames that hold each element, in the order of the periodic table.
        labels: Number of frames that hold each label.
        told: Number of frames of each functional, energy kind and kind of corrections, where the
            source says so.
    """

    origin: Mapping[str, Any]
    cutoff: float
    neighbors: bool
    shards: tuple[ShardEntry, ...]
    elements: Mapping[str, int]
    labels: Mapping[str, int]
    told: Mapping[str, Mapping[str, int]]

    @property
    def frames(self) -> int:
        """Number of frames in all shards."""
        return sum(shard.frames for shard in self.shards)

    @property
    def atoms(self) -> int:
        """Number of atoms in all shards."""
        return sum(shard.atoms for shard in self.shards)

    @property
    def edges(self) -> int:
        """Number of directed edges shorter than the cutoff in all shards."""
        return sum(shard.edges for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write the manifest, complete or not at all."""
        content = {
            "format": _FORMAT,
            "schema": SCHEMA,
            "units": {name: FIELDS[name].unit for name in ("positions", "cell", *LABELS)},
            "frames": self.frames,
            "atoms": self.atoms,
            "edges": self.edges,
            **asdict(self),
        }
        write_atomic(folder / NAME, json.dumps({**content, "sha256": _digest(content)}, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Return the manifest of a folder.

        Raises:
            FileNotFoundError: If there is none: the folder is no store, or unfinished.
            ValueError: If it is damaged, or of another version of the layout.
        """
        path = folder / NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is not a finished store: it has no {NAME}; run mlip data convert INPUT "
                f"{folder} (again: it goes on where it stopped)"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content.pop("sha256")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); {_REPAIR}") from error
        if content.get("format") != _FORMAT or content.get("schema") != SCHEMA:
            raise ValueError(
                f"{path} is of format {content.get('format')!r}, schema {content.get('schema')!r}; "
                f"this version reads {_FORMAT!r}, schema {SCHEMA}: convert the data again"
            )
        if found != _digest(content):
            raise ValueError(f"{path} was changed or is damaged (checksum); {_REPAIR}")
        shards = tuple(ShardEntry(**entry) for entry in content["shards"])
        keys = ("origin", "cutoff", "neighbors", "elements", "labels", "told")
        return cls(shards=shards, **{key: content[key] for key in keys})


def merge(
    parts: Iterable[Mapping[str, Any]], origin: Mapping[str, Any], cutoff: float, neighbors: bool
) -> Manifest:
    """Return the manifest of shards from what the writer said of each."""
    from ase.data import atomic_numbers

    shards: list[ShardEntry] = []
    totals: dict[str, dict[str, int]] = {"elements": {}, "labels": {}, **{key: {} for key in TOLD}}
    for part in parts:
        shards.append(ShardEntry(**{k: part[k] for k in ShardEntry.__dataclass_fields__}))
        for group, counts in part["counts"].items():
            for name, count in counts.items():
                totals[group][name] = totals[group].get(name, 0) + count
    elements = dict(sorted(totals["elements"].items(), key=lambda item: atomic_numbers[item[0]]))
    labels = {name: totals["labels"][name] for name in LABELS if name in totals["labels"]}
    told = {key: totals[key] for key in TOLD if totals[key]}
    return Manifest(origin, cutoff, neighbors, tuple(shards), elements, labels, told)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file under a temporary name, flush it to the disk, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
