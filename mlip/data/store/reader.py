"""Random access to a store: frames, arrays, tensors and counts, without reading it into memory."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from ase import Atoms

from mlip.data.findings import Finding
from mlip.data.frame import Frame
from mlip.data.store.layout import EDGES, info_of
from mlip.data.store.manifest import NAME, Manifest
from mlip.data.store.shard import Shard, checksum
from mlip.keys import FIELDS, LABELS

_OPEN_SHARDS = 512
_SHAPES = {name: (FIELDS[name].level == "atom", FIELDS[name].shape) for name in LABELS}
_PLACES = {name: 1 << place for place, name in enumerate(LABELS)}
_PBC = [np.array([code & 1, code & 2, code & 4], dtype=bool) for code in range(8)]


class Store(Sequence[Frame]):
    """A store opened for reading; a sequence of frames, which are made when asked for.

    It can be sent to other processes: they map the same files and share their pages.

    Args:
        folder: Folder that ``mlip data convert`` wrote.

    Raises:
        FileNotFoundError: If the folder holds no finished store.
        ValueError: If the manifest is damaged or a shard is missing or truncated.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self._starts = [0, *accumulate(shard.frames for shard in self.manifest.shards)]
        self._open: OrderedDict[int, Shard] = OrderedDict()
        for entry in self.manifest.shards:
            path = self.folder / entry.file
            size = path.stat().st_size if path.is_file() else None
            if size != entry.bytes:
                told = "is missing" if size is None else f"has {size} bytes, not {entry.bytes}"
                raise ValueError(
                    f"{path} {told}: the store is incomplete or truncated; delete it and convert "
                    "the data again, or fetch this file again"
                )

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shard, row = self.locate(index)
        arrays = self._arrays(shard, row, LABELS)
        atoms = Atoms(
            arrays.pop("atomic_numbers"),
            positions=arrays.pop("positions"),
            cell=arrays.pop("cell"),
            pbc=arrays.pop("pbc"),
        )
        return Frame(atoms, arrays, shard.text("source", row), info_of(shard.text("info", row)))

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the files itself: a mapping does not travel.
        return {**self.__dict__, "_open": OrderedDict()}

    def arrays(self, index: int, labels: Sequence[str] = LABELS) -> dict[str, np.ndarray]:
        """Return structure and labels of one frame as views of the mapped file.

        Args:
            index: Number of the frame.
            labels: Labels to return, where the frame has them.

        Returns:
            ``positions`` (atoms, 3), ``atomic_numbers`` (atoms,), ``cell`` (3, 3), ``pbc`` (3,),
            and labels with the shapes of ``mlip.keys.FIELDS``, all in internal units.

        Raises:
            IndexError: If there is no such frame.
            ValueError: If the shard is damaged.
        """
        return self._arrays(*self.locate(index), labels)

    def edges(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the stored ``edge_index``, shifts and pairs of a frame, at the store's cutoff.

        Raises:
            ValueError: If the store was written without neighbour lists.
        """
        if not self.manifest.neighbors:
            raise ValueError(
                f"{self.folder} holds no neighbour lists; convert with neighbors=true, or let them "
                "be computed"
            )
        shard, row = self.locate(index)
        edge_index, shift, pair = (shard.item(name, row) for name in EDGES)
        return edge_index.reshape(2, -1), shift.reshape(-1, 3), pair

    def fingerprints(self) -> np.ndarray:
        """Return (frames, 16) bytes that identify each structure."""
        return self._column("fingerprint").reshape(-1, 16)

    @cached_property
    def atom_counts(self) -> np.ndarray:
        """(frames,) number of atoms."""
        return self._column("atoms")

    @cached_property
    def edge_counts(self) -> np.ndarray:
        """(frames,) number of directed edges shorter than the store's cutoff."""
        return self._column("edges")

    @cached_property
    def splits(self) -> np.ndarray:
        """(frames,) name of the split of each frame; empty where the source has none."""
        shards = self.manifest.shards
        names = np.array([shard.split for shard in shards], dtype=object)
        return np.repeat(names, [shard.frames for shard in shards])

    def verify(self) -> Iterator[Finding]:
        """Yield an error for every shard whose content is not what was written."""
        for entry in self.manifest.shards:
            path = self.folder / entry.file
            if (found := checksum(path)) != entry.sha256:
                yield Finding(
                    "error",
                    f"{path} has SHA-256 {found[:12]}…, but {NAME} says {entry.sha256[:12]}…: the "
                    "file was changed or is damaged; convert the data again, or fetch it again",
                )

    def locate(self, index: int) -> tuple[Shard, int]:
        """Return the shard of a frame and its row there."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder} has {len(self)} frames; there is no number {index}")
        number = bisect_right(self._starts, index) - 1
        return self.shard(number), index - self._starts[number]

    def places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the shard of each frame, and its row there."""
        starts = np.array(self._starts)
        numbers = np.searchsorted(starts, indices, side="right") - 1
        return numbers, indices - starts[numbers]

    def shard(self, number: int) -> Shard:
        """Return one shard, mapped; the least recently used one is closed beyond a limit."""
        shard = self._open.get(number)
        if shard is None:
            entry = self.manifest.shards[number]
            shard = self._open[number] = Shard(self.folder / entry.file, entry)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        return shard

    def _arrays(self, shard: Shard, row: int, labels: Sequence[str]) -> dict[str, np.ndarray]:
        values = shard.values
        found = {
            "positions": shard.rows("positions", row, (3,)),
            "atomic_numbers": shard.rows("numbers", row, ()),
            "cell": shard.cells[row],
            "pbc": _PBC[values["pbc"].item(row)],
        }
        held = values["labels"].item(row)
        for name in labels:
            if held & _PLACES[name]:
                per_atom, shape = _SHAPES[name]
                rows = shard.rows(name, row, shape)
                found[name] = rows if per_atom else rows[0] if shape else rows.reshape(())
        return found

    def _column(self, name: str) -> np.ndarray:
        columns = [self.shard(k).values[name] for k in range(len(self.manifest.shards))]
        width = 16 if name == "fingerprint" else 1
        rows = [entry.frames * width for entry in self.manifest.shards]
        # Arrow pads a column to eight bytes.
        parts = [column[:row] for column, row in zip(columns, rows, strict=True)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def is_store(path: str | Path) -> bool:
    """Whether a folder holds a finished store."""
    return (Path(path) / NAME).is_file()
