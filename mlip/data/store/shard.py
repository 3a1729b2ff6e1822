"""One shard: an Arrow file, written complete or not at all, and mapped into memory."""

import hashlib
import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlip.data.store.manifest import ShardEntry

_LIST_VALUES = 3  # buffers of a list column: validity, offsets, validity of values, values


def write_shard(path: Path, batch: pa.RecordBatch) -> tuple[str, int]:
    """Write a record batch and return SHA-256 and size; a kill leaves no file of this name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    digest, size = checksum(partial), partial.stat().st_size
    partial.replace(path)
    return digest, size


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shard:
    """Views of the columns of one shard; nothing is copied, pages are shared between processes.

    The mapping is private: writing into a view changes this process's memory, never the file.

    Args:
        path: The Arrow file.
        entry: What the manifest says of it.

    Raises:
        ValueError: If the file is missing, truncated or damaged.
    """

    def __init__(self, path: Path, entry: ShardEntry) -> None:
        try:
            mapped = np.memmap(path, mode="c", dtype=np.uint8)
            if len(mapped) != entry.bytes:
                raise ValueError(f"it has {len(mapped)} bytes, not {entry.bytes}")
            self._memory = np.asarray(mapped)
            batch = pa.ipc.open_file(pa.py_buffer(self._memory)).get_batch(0)
            if batch.num_rows != entry.frames:
                raise ValueError(f"it has {batch.num_rows} frames, not {entry.frames}")
            batch.validate()
            if missing := {"positions", "numbers", "cell", "pbc"} - set(batch.schema.names):
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
            self.values: dict[str, np.ndarray] = {}
            self.offsets: dict[str, np.ndarray] = {}
            self._shaped: dict[str, tuple[np.ndarray, memoryview]] = {}
            self.texts = {name: batch.column(name) for name in ("source", "info")}
            for name in set(batch.schema.names) - set(self.texts):
                self._add(name, batch.column(name))
            self.cells = self.values["cell"][: 9 * entry.frames].reshape(-1, 3, 3)
        except (OSError, ValueError, KeyError, IndexError, pa.ArrowException) as error:
            raise ValueError(
                f"{path} is missing or damaged ({error}); delete the store and convert the data "
                "again, or fetch this file again"
            ) from error

    def item(self, name: str, row: int) -> np.ndarray:
        """Return the flat values of one frame in a list column, as a view."""
        offset = self.offsets[name].item  # several times faster than indexing
        return self.values[name][offset(row) : offset(row + 1)]

    def rows(self, name: str, row: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return the values of one frame in a list column as (items, *shape), as a view."""
        view = self._shaped.get(name)
        if view is None:
            offsets = self.offsets[name]
            values = self.values[name][: offsets[-1]].reshape(-1, *shape)
            # A number of a memoryview is read several times faster than one of an array.
            view = self._shaped[name] = values, (offsets // prod(shape)).data
        values, starts = view
        return values[starts[row] : starts[row + 1]]

    def text(self, name: str, row: int) -> str:
        """Return the text of one frame in a text column."""
        return self.texts[name][row].as_py()

    def _add(self, name: str, column: Any) -> None:
        buffers = column.buffers()
        kind = column.type
        if pa.types.is_large_list(kind):
            self.offsets[name] = self._view(buffers[1], np.dtype(np.int64))
            values = self._view(buffers[_LIST_VALUES], np.dtype(kind.value_type.to_pandas_dtype()))
        elif pa.types.is_fixed_size_list(kind):
            values = self._view(buffers[2], np.dtype(np.float64))
        elif pa.types.is_fixed_size_binary(kind):
            values = self._view(buffers[1], np.dtype(np.uint8))
        else:
            values = self._view(buffers[1], np.dtype(kind.to_pandas_dtype()))
        self.values[name] = values

    def _view(self, buffer: pa.Buffer | None, dtype: np.dtype) -> np.ndarray:
        """Return a buffer as an array of the mapping itself, which is writable (and private)."""
        if buffer is None or buffer.size == 0:
            return np.zeros(0, dtype)
        start = buffer.address - self._memory.ctypes.data
        size = buffer.size - buffer.size % dtype.itemsize
        if start < 0 or start + size > len(self._memory):
            raise ValueError("a column lies outside the file")
        return self._memory[start : start + size].view(dtype)
