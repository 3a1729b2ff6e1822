"""One reader a file format; ``read`` dispatches and yields frames in internal units."""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mlip.data.fields import ASE, HOW_TO_DECLARE, FieldMap, look_alikes
from mlip.data.frame import Frame
from mlip.data.readers.ase_files import read_ase
from mlip.data.readers.format import Part
from mlip.data.readers.recognize import (
    default_fields,
    format_of,
    formats,
    require_options,
    unread_files,
)
from mlip.data.record import Record
from mlip.errors import suggest

_LOG = logging.getLogger(__name__)
_FIRST = 10  # frames whose keys a message tells


def read(
    path: str | Path,
    fields: FieldMap | str | Mapping[str, Any] | None = None,
    *,
    file_format: str | None = None,
    **options: Any,
) -> Iterator[Frame]:
    """Yield the frames of a file, labels in internal units (eV, Å, eV/Å, eV/Å³, ASE sign).

    Args:
        path: A file or folder of a format that a module of this folder declares (``formats()``), an
            (ext)xyz file (also .gz, .bz2, .xz), or any file that ASE reads.
        fields: Key, unit and convention of each label: a field map, the word ``ase``, or a mapping
            as in a data card. None is for formats whose units are known (MPtrj, aselmdb,
            vasprun.xml, .traj, .db, ...); an xyz file that holds labels needs a declaration. The
            word ``ase`` is understood of a format with keys and units of its own as these.
        file_format: Format, where a card states it; None to recognise it.
        options: Options of the format's reader, ``energy="corrected"`` of MPtrj for instance.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is unknown or unsafe, the file is empty or damaged, the units are
            undeclared, or a declared key is in no frame (known when the last frame was read).
    """
    path = Path(path)
    file_format = file_format or format_of(path)
    require_options(path, file_format, options)
    if others := unread_files(path):
        _LOG.warning("not read with %s: %s", path, ", ".join(others[:_FIRST]))
    return _frames(path, file_format, _resolved(fields, file_format), options)


def parts_of(path: Path, frames: int) -> Iterator[Part] | None:
    """Return the pieces of a path, of at most so many frames each, that processes can read apart.

    Raises:
        ValueError: As :func:`read`; None is returned of formats that are read as a whole.
    """
    found = formats().get(format_of(path))
    return None if found is None or found.parts is None else found.parts(path, frames)


def read_part(
    path: Path,
    part: Part,
    fields: FieldMap | str | Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Frame]:
    """Yield the frames of a part, as :func:`read` does of the whole.

    Raises:
        ValueError: As :func:`read`; that *no* frame has a declared key is for
            :func:`require_labels` to say.
    """
    file_format = formats()[format_of(path)]
    if file_format.read_part is None:
        raise ValueError(f"{path} is of format {file_format.name}, which is read as a whole")
    require_options(path, file_format.name, options)
    records = file_format.read_part(path, **part.where, **options)
    return _labelled(path, records, _resolved(fields, file_format.name), set(), {})


def require_labels(
    path: Path, fields: FieldMap | str | Mapping[str, Any] | None, found: set[str], **options: Any
) -> None:
    """Refuse a file of which no frame held a declared label.

    Args:
        path: The file.
        fields: As for :func:`read`.
        found: Labels that its frames held.
        options: Options of the format's reader.

    Raises:
        ValueError: Naming the key, and what the first frames hold.
    """
    file_format = format_of(path)
    resolved = _resolved(fields, file_format)
    if resolved is not None and resolved.labels.keys() - found:
        seen: dict[str, tuple[str, tuple[int, ...]]] = {}
        for record in islice(read_records(path, file_format, **options), _FIRST):
            _note_keys(record, seen)
        _require_found(path, resolved, found, seen)


def _resolved(
    fields: FieldMap | str | Mapping[str, Any] | None, file_format: str
) -> FieldMap | None:
    if fields is None or fields in ("ase", ASE):  # equal, not identical: it may come from elsewhere
        return default_fields(file_format) or (None if fields is None else ASE)
    return fields if isinstance(fields, FieldMap) else FieldMap.from_config(fields)


def read_structures(path: str | Path, **options: Any) -> Iterator[Frame]:
    """Yield the frames of a file without reading any label; units play no part.

    Args:
        path: As for ``read``.
        options: Options of the format's reader.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is unknown or unsafe, or the file is empty or damaged.
    """
    path = Path(path)
    file_format = format_of(path)
    require_options(path, file_format, options)
    return (
        Frame(record.atoms, {}, record.source, record.info)
        for record in read_records(path, file_format, **options)
    )


def read_records(path: Path, file_format: str, **options: Any) -> Iterator[Record]:
    """Yield the records of a file, keys and units not interpreted.

    Args:
        path: File to read.
        file_format: What ``format_of(path)`` says.
        options: Options of the format's reader.

    Raises:
        ValueError: If the file holds no structure or is damaged.
    """
    if file_format in formats():
        records = formats()[file_format].read(path, **options)
    else:
        records = read_ase(path, file_format)
    empty = True
    for record in _named(path, records):
        empty = False
        yield record
    if empty:
        raise ValueError(f"{path} holds no structure; name a file with at least one frame")


def _named(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    """Yield the records; whatever a hostile file makes a reader raise names the file and record."""
    index = 0
    while True:
        try:
            record = next(records, None)
        except Exception as error:
            if isinstance(error, ValueError | FileNotFoundError) and str(path) in str(error):
                raise
            raise ValueError(
                f"{path}#{index} cannot be read ({type(error).__name__}: {str(error)[:200]}); the "
                "file is damaged or of another format: fetch or write it again"
            ) from error
        if record is None:
            return
        yield record
        index += 1


def _frames(
    path: Path, file_format: str, fields: FieldMap | None, options: Mapping[str, Any]
) -> Iterator[Frame]:
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    found: set[str] = set()
    yield from _labelled(path, read_records(path, file_format, **options), fields, found, seen)
    if fields is not None:
        _require_found(path, fields, found, seen)


def _labelled(
    path: Path,
    records: Iterator[Record],
    fields: FieldMap | None,
    found: set[str],
    seen: dict[str, tuple[str, tuple[int, ...]]],
) -> Iterator[Frame]:
    """Yield the frames of records; what labels and keys there were is added to the last two."""
    for record in records:
        _note_keys(record, seen)
        if fields is None:
            _require_declared(path, seen)
            yield _frame(record, {}, set())
            continue
        labels, used = fields.read_labels(record)
        found.update(labels)
        yield _frame(record, labels, used)


def _frame(record: Record, labels: dict[str, np.ndarray], used: set[str]) -> Frame:
    info = {key: value for key, value in record.info.items() if key not in used}
    if unread := sorted(set(record.arrays) - used):
        info["unread_arrays"] = tuple(unread)
    if record.constrained is not None:
        info["constrained"] = record.constrained
    return Frame(record.atoms, labels, record.source, info)


def _note_keys(record: Record, seen: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Remember level and shape of each numeric key, for the messages at the end of the file."""
    for level, values in (("graph", record.info), ("atom", record.arrays)):
        for key in values.keys() - seen.keys():
            value = values[key]
            if isinstance(value, str):
                continue
            try:
                numbers = np.asarray(value)
            except ValueError:  # rows of different lengths; an error if it is to be a label
                continue
            if numbers.dtype.kind in "fiu":
                seen[key] = level, numbers.shape[1:] if level == "atom" else numbers.shape


def _require_declared(path: Path, seen: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    likely = [key for label in ("energy", "forces", "stress") for key in look_alikes(label, seen)]
    if likely:
        raise ValueError(
            f"{path} holds {', '.join(likely)}, but the units of its labels are not "
            f"declared; {HOW_TO_DECLARE}"
        )


def _require_found(
    path: Path, fields: FieldMap, found: set[str], seen: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Refuse a file whose labels would silently go unread."""
    for label in fields.labels.keys() - found:
        key = fields.labels[label].keys[0]
        if label not in fields.optional:
            raise ValueError(
                f"{path}: no frame has the key {key!r} declared for {label}"
                f"{suggest(key, seen)}. The file holds: {', '.join(sorted(seen))}"
            )
        if likely := look_alikes(label, seen):
            raise ValueError(
                f"{path}: no frame has {key!r}, but the file holds {' and '.join(likely)}, which "
                f"units=ase does not read; {HOW_TO_DECLARE}"
            )
