"""One reader a file format; ``read`` dispatches and yields frames in internal units."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from mlip.data.fields import ASE, HOW_TO_DECLARE, FieldMap, look_alikes
from mlip.data.frame import Frame
from mlip.data.readers.ase_files import read_ase
from mlip.data.readers.extxyz import read_extxyz
from mlip.data.record import Record
from mlip.errors import suggest

_XYZ = ("xyz", "extxyz")
_PICKLES = (".pkl", ".pickle", ".pckl", ".pt", ".pth", ".ckpt", ".joblib", ".npy", ".npz")
_UNSAFE = ("bundletrajectory", "postgresql", "mysql")
_KNOWN = (
    "name an .extxyz file or one that ASE reads (vasprun.xml, OUTCAR, .traj, .db, .cif, POSCAR)"
)
_COMPRESSION = (".gz", ".bz2", ".xz")


def read(
    path: str | Path, fields: FieldMap | str | Mapping[str, Any] | None = None
) -> Iterator[Frame]:
    """Yield the frames of a file, labels in internal units (eV, Å, eV/Å, eV/Å³, ASE sign).

    Args:
        path: An (ext)xyz file (also .gz, .bz2, .xz) or any file that ASE reads.
        fields: Key, unit and convention of each label: a field map, the word ``ase``, or a mapping
            as in a data card. None is for formats whose units ASE knows (vasprun.xml, .traj, .db,
            ...); an xyz file that holds labels needs a declaration.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is unknown or unsafe, the file is empty or damaged, the units are
            undeclared, or a declared key is in no frame (known when the last frame was read).
    """
    path = Path(path)
    file_format = format_of(path)
    if fields is None:
        resolved = None if file_format in _XYZ else ASE
    else:
        resolved = fields if isinstance(fields, FieldMap) else FieldMap.from_config(fields)
    return _frames(path, file_format, resolved)


def read_structures(path: str | Path) -> Iterator[Frame]:
    """Yield the frames of a file without reading any label; units play no part.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is unknown or unsafe, or the file is empty or damaged.
    """
    path = Path(path)
    file_format = format_of(path)
    return (
        Frame(record.atoms, {}, record.source, record.info)
        for record in read_records(path, file_format)
    )


def read_records(path: Path, file_format: str) -> Iterator[Record]:
    """Yield the records of a file, keys and units not interpreted.

    Args:
        path: File to read.
        file_format: What ``format_of(path)`` says.

    Raises:
        ValueError: If the file holds no structure or is damaged.
    """
    empty = True
    for record in read_extxyz(path) if file_format in _XYZ else read_ase(path, file_format):
        empty = False
        yield record
    if empty:
        raise ValueError(f"{path} holds no structure; name a file with at least one frame")


def format_of(path: Path) -> str:
    """Return the format of a file by ASE's names (``extxyz``, ``vasp-xml``, ``traj``, ...).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, pickled, or of an unknown format.
    """
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path()
        near = suggest(path.name, (entry.name for entry in folder.iterdir() if entry.is_file()))
        raise FileNotFoundError(f"{path} does not exist{near if 'mean' in near else ''}")
    if not path.is_file():
        raise ValueError(f"{path} is a folder; name one file in it")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; fetch or write it again")
    _refuse_pickle(path)
    name = path.name.removesuffix(path.suffix) if path.suffix in _COMPRESSION else path.name
    if name.endswith((".xyz", ".extxyz")):
        return "extxyz"
    return _guess(path)


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as handle:
        start = handle.read(2)
    # Protocols 2 to 5 start with the byte 0x80 and the protocol's number.
    if path.suffix.lower() in _PICKLES or (
        start[:1] == b"\x80" and start[1:] in b"\x02\x03\x04\x05"
    ):
        raise ValueError(
            f"{path} is a pickle (or array archive), which runs code when read, and is "
            "never opened; convert it to extended XYZ where it was made"
        )


def _guess(path: Path) -> str:
    try:
        found = filetype(str(path))
    except (UnknownFileTypeError, OSError, EOFError) as error:
        raise ValueError(f"{path}: the format is not known ({error}); {_KNOWN}") from error
    if found not in ioformats or not ioformats[found].can_read:
        raise ValueError(f"{path}: the format {found!r} is not known; {_KNOWN}")
    if found in _UNSAFE:
        raise ValueError(f"{path}: the format {found} is not read; convert it to extended XYZ")
    return found


def _frames(path: Path, file_format: str, fields: FieldMap | None) -> Iterator[Frame]:
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    found: set[str] = set()
    for record in read_records(path, file_format):
        _note_keys(record, seen)
        if fields is None:
            _require_declared(path, seen)
            yield _frame(record, {}, set())
            continue
        labels, used = fields.read_labels(record)
        found |= set(labels)
        yield _frame(record, labels, used)
    if fields is not None:
        _require_found(path, fields, found, seen)


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
        for key, value in values.items():
            if key not in seen and np.asarray(value).dtype.kind in "fiu":
                seen[key] = level, np.shape(value)[1:] if level == "atom" else np.shape(value)


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
        if fields.declared:
            raise ValueError(
                f"{path}: no frame has the key {key!r} declared for {label}"
                f"{suggest(key, seen)}. The file holds: {', '.join(sorted(seen))}"
            )
        if likely := look_alikes(label, seen):
            raise ValueError(
                f"{path}: no frame has {key!r}, but the file holds {' and '.join(likely)}, which "
                f"units=ase does not read; {HOW_TO_DECLARE}"
            )
