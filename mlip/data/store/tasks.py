"""Pieces of an input that can be converted one by one, in any order, by any process."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

from ase.io.formats import open_with_compression

from mlip.data.card import DataCard, load_card
from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.readers import (
    _frame,
    _note_keys,
    _require_declared,
    _require_found,
    format_of,
    read,
    require_options,
)
from mlip.data.readers.extxyz import read_part

_XYZ = ("xyz", "extxyz")
_SUFFIXES = (".xyz", ".extxyz", ".aselmdb", ".db", ".traj", ".json", ".parquet")
_NAMES = ("vasprun.xml", "OUTCAR")
_COMPRESSION = (".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class Source:
    """One file of an input: path, field map, split, what a card says, options of the reader."""

    path: Path
    fields: FieldMap | None
    split: str = ""
    info: Mapping[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A file, or a part of an extended XYZ file.

    Args:
        number: Place among the tasks of an input.
        source: The file.
        text: Text of the part; None for the whole file.
        first: Number of the first frame of the part.
        line: Number of lines before the part.
        size: Bytes of the file that it takes, for the progress bar.
    """

    number: int
    source: Source
    text: str | None = None
    first: int = 0
    line: int = 0
    size: int = 0


def sources_of(
    given: str | Path, units: Any = None, options: Mapping[str, Any] | None = None
) -> list[Source]:
    """Return the files of an input: a file, a folder of files, a card or the name of a data set.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such data set, units are given for a card, or the reader of a
            file has no such option.
    """
    sources = _sources(Path(given), given, units, options or {})
    for source in sources if options else ():
        require_options(source.path, format_of(source.path), options or {})
    return sources


def _sources(path: Path, given: str | Path, units: Any, options: Mapping[str, Any]) -> list[Source]:
    if path.name != "card.yaml" and (path.is_file() or (path.suffix and not path.is_dir())):
        format_of(path)
        return [Source(path, _fields(units), options=options)]
    if path.is_dir() and not (path / "card.yaml").is_file():
        found = sorted(file for file in path.rglob("*") if _is_data(file))
        return [Source(file, _fields(units), options=options) for file in found or [path]]
    if units is not None:
        raise ValueError(f"units is given, but the card of {path} declares them: leave units out")
    return [_of_card(load_card(given), split, options) for split in load_card(given).files]


def origin_of(given: str | Path, sources: list[Source]) -> dict[str, Any]:
    """Return what identifies an input, so that a conversion goes on with the same one only."""
    fields = sources[0].fields
    card = load_card(given) if sources[0].info else None
    return {
        "input": str(given),
        "title": card.title if card else str(given),
        "licence": card.licence if card else "not stated",
        "level_of_theory": dict(card.level_of_theory) if card else {},
        "fields": None if fields is None else asdict(fields),
        "reader_options": dict(sources[0].options),
        "files": [
            {
                "path": str(source.path),
                "split": source.split,
                "bytes": source.path.stat().st_size,
                "modified": source.path.stat().st_mtime_ns,
            }
            for source in sources
        ],
    }


def tasks_of(sources: list[Source], frames: int) -> Iterator[Task]:
    """Yield the tasks of an input; those of one extended XYZ file have ``frames`` frames each."""
    number = 0
    for source in sources:
        if source.path.is_file() and format_of(source.path) in _XYZ:
            for first, line, text, size in _parts(source.path, frames):
                yield Task(number, source, text, first, line, size)
                number += 1
        else:
            yield Task(number, source, size=source.path.stat().st_size)
            number += 1


def frames_of(task: Task) -> Iterator[Frame]:
    """Yield the frames of a task, labels in internal units.

    Raises:
        ValueError: As the reader of the format; a key that no frame of a *part* has is no error,
            see :func:`require_labels`.
    """
    source = task.source
    if task.text is not None:
        frames = _read_part(task)
    else:
        frames = read(source.path, source.fields, **source.options)
    for frame in frames:
        if task.source.info:
            yield Frame(frame.atoms, frame.labels, frame.source, {**task.source.info, **frame.info})
        else:
            yield frame


def require_labels(sources: list[Source], found: set[str]) -> None:
    """Refuse an extended XYZ input of which no frame holds a declared label.

    Raises:
        ValueError: Naming the key and what the file holds.
    """
    source = sources[0]
    if source.fields is None or not source.path.is_file() or format_of(source.path) not in _XYZ:
        return
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    _, _, text, _ = next(_parts(source.path, 10))
    for record in read_part(source.path, StringIO(text)):
        _note_keys(record, seen)
    _require_found(source.path, source.fields, found, seen)


def _read_part(task: Task) -> Iterator[Frame]:
    path, fields = task.source.path, task.source.fields
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    for record in read_part(path, StringIO(task.text), task.first, task.line):
        if fields is None:
            _note_keys(record, seen)
            _require_declared(path, seen)
            yield _frame(record, {}, set())
        else:
            yield _frame(record, *fields.read_labels(record))


def _parts(path: Path, frames: int) -> Iterator[tuple[int, int, str, int]]:
    """Yield first frame, first line, text and bytes of each part; errors are left to the parser."""
    with open_with_compression(str(path), "rb") as binary:
        below: Any = getattr(binary, "fileobj", None) or getattr(binary, "_fp", None) or binary
        handle = TextIOWrapper(binary, encoding="utf-8", newline="\n")
        lines: list[str] = []
        first = line = before = count = 0
        try:
            while (header := handle.readline()) != "":
                lines.append(header)
                text = header.strip()
                if not text:
                    continue
                if not text.isascii() or not text.isdigit():
                    lines += handle.readlines(1)
                    break
                lines += [handle.readline() for _ in range(int(text) + 1)]
                count += 1
                if count == frames:
                    yield first, line, "".join(lines), (size := _tell(below) - before)
                    first, line, before = first + count, line + len(lines), before + size
                    lines, count = [], 0
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(
                f"{path}#{first + count} (line {line + len(lines)}): cannot be read ({error}); the "
                "file is truncated or damaged: fetch or write it again"
            ) from error
        if lines and (count or first == 0 or "".join(lines).strip()):
            yield first, line, "".join(lines), _tell(below) - before


def _tell(file: Any) -> int:
    return int(file.tell()) if not getattr(file, "closed", False) else 0


def _fields(units: Any) -> FieldMap | None:
    return None if units is None else FieldMap.from_config(units)


def _is_data(path: Path) -> bool:
    name = path.name
    for ending in _COMPRESSION:
        name = name.removesuffix(ending)
    known = name.endswith(_SUFFIXES) or name in _NAMES
    return path.is_file() and known and not name.startswith(".")


def _of_card(card: DataCard, split: str, options: Mapping[str, Any]) -> Source:
    file = card.files[split]
    path = card.folder / file.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} of data set {card.name!r} is missing; restore the file")
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}…, but the card of {card.name!r} says "
            f"{file.sha256[:12]}…: restore the file, or correct the card when the change is meant"
        )
    functional = str(card.level_of_theory["functional"])
    info = {"data": card.name, "functional": functional}
    return Source(path, card.fields, split, info, options)
