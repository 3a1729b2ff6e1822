"""Pieces of an input that can be converted one by one, in any order, by any process."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.inputs import is_data_set
from mlip.data.readers import parts_of, read, read_part, require_labels
from mlip.data.readers.format import Part
from mlip.data.readers.recognize import files_of, format_of, require_options, unread_files

if TYPE_CHECKING:  # its schema takes longer to import than all the rest
    from mlip.data.card import DataCard


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
    """A file, or a part of one.

    Args:
        number: Place among the tasks of an input.
        source: The file.
        part: The part; None for the whole file.
    """

    number: int
    source: Source
    part: Part | None = None

    @property
    def size(self) -> int:
        """Bytes of the input that it takes, for the progress bar."""
        return _bytes(self.source.path) if self.part is None else self.part.size


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
    if is_data_set(given):
        if units is not None:
            raise ValueError(f"units is given, but the card of {path} declares them: leave it out")
        return [_of_card(_card(given), split, options) for split in _card(given).files]
    if path.is_dir():
        return [Source(file, _fields(units), options=options) for file in _files(path)]
    format_of(path)
    return [Source(path, _fields(units), options=options)]


def _files(folder: Path) -> list[Path]:
    """Return the folder if it is of a format, else what is of a format below it."""
    try:
        format_of(folder)
    except ValueError:
        found, _ = files_of(folder)
        if not found:
            raise
        return found
    return [folder]


def left_out(given: str | Path) -> list[str]:
    """Return the names of the files of a folder that are not read with it."""
    path = Path(given)
    if is_data_set(given) or not path.is_dir():
        return []
    return unread_files(path) if _files(path) == [path] else files_of(path)[1]


def origin_of(given: str | Path, sources: list[Source]) -> dict[str, Any]:
    """Return what identifies an input, so that a conversion goes on with the same one only."""
    fields = sources[0].fields
    card = _card(given) if sources[0].info else None
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
                "bytes": _bytes(source.path),
                "modified": max(file.stat().st_mtime_ns for file in _content(source.path)),
            }
            for source in sources
        ],
    }


def tasks_of(sources: list[Source], frames: int) -> Iterator[Task]:
    """Yield the tasks of an input; the parts of a file have at most about ``frames`` frames."""
    number = 0
    for source in sources:
        empty = True
        for part in parts_of(source.path, frames) or (None,):
            empty = False
            yield Task(number, source, part)
            number += 1
        if empty:
            raise ValueError(f"{source.path} holds no structure; name a file with some")


def frames_of(task: Task) -> Iterator[Frame]:
    """Yield the frames of a task, labels in internal units.

    Raises:
        ValueError: As the reader of the format; a key that no frame of a *part* has is no error,
            see :func:`require_found`.
    """
    source = task.source
    if task.part is None:
        frames = read(source.path, source.fields, **source.options)
    else:
        frames = read_part(source.path, task.part, source.fields, **source.options)
    for frame in frames:
        if source.info:
            yield Frame(frame.atoms, frame.labels, frame.source, {**source.info, **frame.info})
        else:
            yield frame


def require_found(sources: list[Source], found: Mapping[str, set[str]]) -> None:
    """Refuse an input a file of which has a declared label in no frame.

    Args:
        sources: The files.
        found: Labels that the frames of each file held, by its path.

    Raises:
        ValueError: Naming file and key, and what the file holds.
    """
    for source in sources:
        held = found.get(str(source.path), set())
        require_labels(source.path, source.fields, held, **source.options)


def _content(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _content(path))


def _card(given: str | Path) -> "DataCard":
    from mlip.data.card import load_card

    return load_card(given)


def _fields(units: Any) -> FieldMap | None:
    return None if units is None else FieldMap.from_config(units)


def _of_card(card: "DataCard", split: str, options: Mapping[str, Any]) -> Source:
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
