"""The journal of a long work: one line a frame, on the disk before the next one starts."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """An append-only file of JSON lines, the first of which says what the work is.

    Every line is flushed to the disk before ``add`` returns. A last line that a kill cut off is
    dropped when the file is opened again.

    Args:
        path: File; made if it does not exist.
        job: What is computed: input hash, calculator, options.

    Attributes:
        done: Offset of the line of each finished frame, by its index.
        failed: Message of each frame that failed.

    Raises:
        ValueError: If the file belongs to another job, is damaged before its last line, or another
            process has it.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[int, int] = {}
        self.failed: dict[int, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"another process writes {path}: wait for it, or name another output"
            ) from error
        self._load(json.loads(json.dumps(job)))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append one entry with its ``frame`` index and either ``labels`` or ``failure``."""
        line = json.dumps(entry).encode() + b"\n"
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(entry, offset)

    def entry(self, frame: int) -> dict[str, Any]:
        """Return the entry of a finished frame."""
        self._file.seek(self.done[frame])
        found = self._parse(self._file.readline())
        if found.get("frame") != frame:
            raise ValueError(f"{self.path} was changed by another process: remove it, begin again")
        return found

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _load(self, job: Mapping[str, Any]) -> None:
        self._drop_torn_line()
        self._file.seek(0)
        first = self._file.readline()
        if not first:
            self._write_first(job)
            return
        if (found := self._parse(first)) != job:
            differ = sorted(key for key in {*found, *job} if found.get(key) != job.get(key))
            raise ValueError(
                f"{self.path} is from other work ({', '.join(differ)} differ): remove it, "
                "or name another output"
            )
        offset = self._file.tell()
        for line in iter(self._file.readline, b""):
            self._note(self._parse(line), offset)
            offset = self._file.tell()

    def _write_first(self, job: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(job).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _drop_torn_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        size, tail = 1 << 16, b""
        while end and b"\n" not in tail and len(tail) < end:
            start = max(0, end - len(tail) - size)
            self._file.seek(start)
            tail = self._file.read(end - len(tail) - start) + tail
        if tail and not tail.endswith(b"\n"):
            self._file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            return json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path} is damaged ({error}): remove it") from error

    def _note(self, entry: Mapping[str, Any], offset: int) -> None:
        self.done[entry["frame"]] = offset
        self.failed.pop(entry["frame"], None)
        if "failure" in entry:
            self.failed[entry["frame"]] = entry["failure"]
