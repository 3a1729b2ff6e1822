"""OMat24, sAlex and other ``.aselmdb`` files or folders of them, read without ASE's database."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from ase import Atoms
from isal import isal_zlib

from mlip.data.bare_atoms import bare_atoms
from mlip.data.fields import ASE
from mlip.data.json_stream import IGZIP_ERROR, LARGEST
from mlip.data.json_values import OBJECT, array_of, lazy, members, plain
from mlip.data.readers.ase_files import fixed_components
from mlip.data.readers.format import Format, Part
from mlip.data.readers.lmdb_pages import check_pages
from mlip.data.record import Record
from mlip.keys import FIELDS

_IDS = ("sid", "calc_id", "task_type")
_RESULTS = {
    name: name in FIELDS and FIELDS[name].level == "atom"
    for name in (
        "energy", "free_energy", "forces", "stress", "dipole", "charges", "magmom", "magmoms"
    )
}  # fmt: skip
_CHARGES = ("charge", "total_charge")
_SOURCE = ("sid", "parent_id")
_READ = {
    *("numbers", "positions", "cell", "pbc", "constraints", "data", "key_value_pairs"),
    *_RESULTS,
    *_CHARGES,
}
_CONSTRAINTS = ("FixAtoms", "FixCartesian", "FixScaled", "FixedLine", "FixedPlane")
_REPAIR = "the file is truncated or damaged: fetch it again"


def read_aselmdb(path: Path, data: bool | Sequence[str] = _IDS) -> Iterator[Record]:
    """Yield the rows of an ``.aselmdb`` file, or of all such files of a folder by name.

    A row is zlib-compressed JSON under its decimal id; arrays are nested lists (as published) or
    ``{"__ndarray__": [shape, dtype, values]}`` (as ASE's present writer makes them). Rows that were
    deleted are left out. Where a folder holds ``metadata.npz``, the numbers of atoms in it must be
    those of the rows.

    Args:
        path: File, or folder such as an unpacked subset of OMat24.
        data: Fields of ``data`` to keep in ``info``; True keeps all of them.

    Raises:
        ValueError: If a row is missing or damaged, naming file and id.
    """
    for part in _parts(path, sys.maxsize):
        yield from _part(path, **part.where, data=data)


def _parts(path: Path, frames: int) -> Iterator[Part]:
    """Yield the parts of a file or folder as ranges of ids."""
    index = 0
    for file in sorted(path.glob("*.aselmdb")) if path.is_dir() else [path]:
        with _open(file) as environment, environment.begin() as transaction:
            ids = _ids(file, transaction)
        for start in range(0, len(ids), frames):
            chosen = ids[start : start + frames]
            where = {"name": file.name, "first": chosen[0], "last": chosen[-1], "index": index}
            yield Part(where, file.stat().st_size * len(chosen) // len(ids))
            index += len(chosen)
    natoms = _metadata(path / "metadata.npz")
    if natoms is not None and index != len(natoms):
        raise ValueError(
            f"{path} holds {index} structures, but its metadata.npz says {len(natoms)}; some files "
            "are missing: fetch the folder again"
        )


def _part(
    path: Path, name: str, first: int, last: int, index: int, data: bool | Sequence[str] = _IDS
) -> Iterator[Record]:
    """Yield the rows of a range of ids; ``index`` structures of the folder come before them."""
    natoms = _metadata(path / "metadata.npz")
    file = path / name if path.is_dir() else path
    for place, record in enumerate(_rows(file, first, last, data), index):
        if natoms is not None and place < len(natoms) and len(record.atoms) != natoms[place]:
            raise ValueError(
                f"{record.source} has {len(record.atoms)} atoms, but metadata.npz says "
                f"{natoms[place]} for structure {place}; fetch the folder again"
            )
        yield record


def count(path: Path) -> int:
    """Return the number of rows of a file, from its bookkeeping alone."""
    with _open(path) as environment, environment.begin() as transaction:
        return len(_ids(path, transaction))


def _rows(path: Path, first: int, last: int, data: bool | Sequence[str]) -> Iterator[Record]:
    with _open(path) as environment, environment.begin(buffers=True) as transaction:
        for number in _ids(path, transaction, first, last):
            source = f"{path}#{number}"
            try:
                value = transaction.get(str(number).encode())
            except lmdb.Error as error:
                raise ValueError(f"{source} cannot be read ({error}); {_REPAIR}") from error
            if value is None:
                raise ValueError(f"{source} is missing though it was not deleted; {_REPAIR}")
            yield _record(_decode(value, source), source, number, data)


def _open(path: Path) -> lmdb.Environment:
    check_pages(path)
    try:
        return lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, meminit=False, max_spare_txns=1
        )
    except lmdb.Error as error:
        if "already open" in str(error):
            raise ValueError(
                f"{path} is already open in this process; finish or close the other reader first"
            ) from error
        raise ValueError(f"{path} is not an LMDB file ({error}); {_REPAIR}") from error


def _ids(path: Path, transaction: Any, first: int = 1, last: int = sys.maxsize) -> list[int]:
    found = {}
    for name, empty in (("nextid", None), ("deleted_ids", [])):
        value = transaction.get(name.encode())
        found[name] = empty if value is None else plain(_decode(value, f"{path}#{name}"))
    following, deleted = found["nextid"], found["deleted_ids"]
    if not isinstance(following, int) or not isinstance(deleted, list):
        raise ValueError(f"{path}: nextid is {following!r}, not a whole number; {_REPAIR}")
    if following - 1 > transaction.stat()["entries"] + len(deleted):
        raise ValueError(f"{path}: nextid is {following}, more than there are rows; {_REPAIR}")
    gone = set(deleted)
    return [number for number in range(first, min(following, last + 1)) if number not in gone]


def _unpacked(value: Any) -> bytes:
    unpacking = isal_zlib.decompressobj()
    text = unpacking.decompress(value, LARGEST)
    if not unpacking.eof:
        what = "it has too many bytes" if unpacking.unconsumed_tail else "it is incomplete"
        raise ValueError(what)
    return text


def _decode(value: Any, source: str) -> Any:
    try:
        return lazy(_unpacked(value))
    except (IGZIP_ERROR, ValueError, RuntimeError) as error:
        raise ValueError(f"{source} cannot be decoded ({error}); {_REPAIR}") from error


def _record(row: Any, source: str, number: int, data: bool | Sequence[str]) -> Record:
    if not isinstance(row, OBJECT):
        raise ValueError(f"{source} is a {type(row).__name__}, not a row; {_REPAIR}")
    try:
        row = members(row, _READ)
        atoms = bare_atoms(
            array_of(row["numbers"]),
            array_of(row["positions"]),
            array_of(row["cell"]) if "cell" in row else np.zeros((3, 3)),
            array_of(row["pbc"]) if "pbc" in row else np.zeros(3, bool),
        )
        return _labelled(row, atoms, source, number, data)
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        raise ValueError(
            f"{source} is not a row of an ASE database ({type(error).__name__}: {error}); {_REPAIR}"
        ) from error


def _labelled(
    row: Any, atoms: Atoms, source: str, number: int, data: bool | Sequence[str]
) -> Record:
    info, arrays = _info(row, number, data), {}
    for key in filter(row.__contains__, _RESULTS):
        value = row[key]
        found = value if isinstance(value, int | float) else array_of(value)
        (arrays if _RESULTS[key] else info)[key] = found
    fixed = _constrained(row, atoms) if "constraints" in row else None
    return Record(atoms, info, arrays, source, fixed)


def _info(row: dict[str, Any], number: int, data: bool | Sequence[str]) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if "key_value_pairs" in row:
        info |= plain(row["key_value_pairs"])
    extra = row.get("data", {})
    if data is True:
        info |= (extra := plain(extra))
    else:
        kept = data or ()
        extra = members(extra, (*_SOURCE, *kept))
        info |= {name: plain(extra[name]) for name in kept if name in extra}
    for name in _CHARGES:
        if name in row and isinstance(row[name], int | float):
            info["total_charge"] = row[name]
    identity = str(extra.get("sid", number))
    info["frame_id"] = identity
    info["source_id"] = str(extra.get("parent_id") or identity)
    return info


def _constrained(row: dict[str, Any], atoms: Atoms) -> np.ndarray | None:
    from ase.constraints import dict2constraint

    # Only these names: what the file says must not choose which code runs.
    known = [entry for entry in plain(row["constraints"]) if entry.get("name") in _CONSTRAINTS]
    held = atoms.copy()
    held.set_constraint([dict2constraint(entry) for entry in known])
    return fixed_components(held)


def _metadata(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["natoms"])
    except Exception as error:  # a damaged archive or header fails in many ways
        raise ValueError(f"{path} has no readable array natoms ({error}); {_REPAIR}") from error


def _claims(path: Path, head: bytes) -> bool:
    return path.suffix == ".aselmdb" or (path.is_dir() and any(path.glob("*.aselmdb")))


FORMAT = Format("aselmdb", read_aselmdb, ASE, _claims, _parts, _part)
