"""The record of one case, and the append-only file that survives a kill."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal, get_args

Status = Literal[
    "ok",
    "not_converged",
    "exploded",
    "nan",
    "oom",
    "unsupported_element",
    "error",
    "skipped",
]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Record:
    """One case in one mode by one calculator; a failure is a record like any other.

    Args:
        task: Name of the task.
        case: ``material/label``.
        mode: ``static`` or ``relaxed``.
        calculator: Name of the calculator config.
        status: How it ended.
        input_hash: Hash of structure, protocol and calculator.
        reference: Reference value, in ``unit``.
        uncertainty: Of the reference, in ``unit``.
        unit: Unit of value and reference.
        value: Value computed; None unless ``status`` is ok.
        detail: Why it failed, for people.
        steps: Optimiser steps.
        fmax: Largest force left, eV/Å.
        max_displacement: Largest displacement in the relaxation, Å.
        atoms: Atoms in the structure.
        wall_time: Of the case, s; the first case of a material includes its bulk.
        peak_memory: Of the worker during the case, MiB.
        peak_gpu_memory: MiB; None without a GPU.
        checkpoint_hash: SHA-256 of the file with the weights.
        versions: Package to version.
        dtype: Precision of the model.
        device: Where it ran.
        threads: Threads of the worker.
        processor: Model of the CPU.
        tags: Source, split of the source, confidence, scored.
        extra: Further numbers of the property, by name.
    """

    task: str
    case: str
    mode: str
    calculator: str
    status: str
    input_hash: str
    reference: float
    uncertainty: float
    unit: str
    value: float | None = None
    detail: str = ""
    steps: int | None = None
    fmax: float | None = None
    max_displacement: float | None = None
    atoms: int | None = None
    wall_time: float | None = None
    peak_memory: float | None = None
    peak_gpu_memory: float | None = None
    checkpoint_hash: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    dtype: str | None = None
    device: str | None = None
    threads: int | None = None
    processor: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}: one of {', '.join(STATUSES)}")
        if (self.value is None) == (self.status == "ok"):
            raise ValueError(f"{self.case}: a value goes with the status ok, and only with it")

    @property
    def material(self) -> str:
        """Return the part of the case name before the slash."""
        return self.case.split("/", 1)[0]

    @property
    def label(self) -> str:
        """Return the part of the case name after the slash."""
        return self.case.split("/", 1)[-1]

    @property
    def error(self) -> float | None:
        """Return value minus reference; None for a failure."""
        return None if self.value is None else self.value - self.reference

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Record":
        """Return the record of plain data.

        Raises:
            ValueError: For a missing or unknown field, which another version may have written.
        """
        unknown = set(data) - {item.name for item in fields(cls)}
        try:
            if unknown:
                raise TypeError(f"unknown fields {sorted(unknown)}")
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"a record cannot be read ({error})") from None


class Journal:
    """An open records file: each record is on the disk before the next case starts."""

    def __init__(self, file: IO[bytes], records: list[Record]) -> None:
        self._file = file
        self.records = records

    def append(self, record: Record) -> None:
        """Write one record and wait until the disk has it."""
        line = json.dumps(record.to_dict(), allow_nan=False, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a records file for appending; a last line torn by a kill is cut off first.

    Raises:
        ValueError: If another run is writing there, or a line other than the last is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {path}: wait for it, or give another output"
            ) from None
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        file.truncate(whole)
        yield Journal(file, list(_parse(content[:whole], path)))


def _parse(content: bytes, path: Path) -> Iterator[Record]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            yield Record.from_dict(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is damaged ({error}): remove the line and run again"
            ) from error
