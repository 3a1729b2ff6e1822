"""OMat24, sAlex and other ``.aselmdb`` files or folders of them, read without ASE's database."""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from ase import Atoms

from mlip.data.fields import ASE
from mlip.data.json_stream import LARGEST, parse
from mlip.data.readers.ase_files import fixed_components
from mlip.data.readers.format import Format
from mlip.data.readers.lmdb_pages import check_pages
from mlip.data.record import Record
from mlip.keys import FIELDS

_IDS = ("sid", "calc_id", "task_type")
_RESULTS = ("energy", "free_energy", "forces", "stress", "dipole", "charges", "magmom", "magmoms")
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
    if not path.is_dir():
        yield from _file(path, data)
        return
    natoms = _metadata(path / "metadata.npz")
    index = 0
    for file in sorted(path.glob("*.aselmdb")):
        for record in _file(file, data):
            if natoms is not None and index < len(natoms) and len(record.atoms) != natoms[index]:
                raise ValueError(
                    f"{record.source} has {len(record.atoms)} atoms, but metadata.npz says "
                    f"{natoms[index]} for structure {index}; fetch the folder again"
                )
            index += 1
            yield record
    if natoms is not None and index != len(natoms):
        raise ValueError(
            f"{path} holds {index} structures, but its metadata.npz says {len(natoms)}; some files "
            "are missing: fetch the folder again"
        )


def count(path: Path) -> int:
    """Return the number of rows of a file, from its bookkeeping alone."""
    with _open(path) as environment, environment.begin() as transaction:
        return len(_ids(path, transaction))


def _file(path: Path, data: bool | Sequence[str]) -> Iterator[Record]:
    with _open(path) as environment, environment.begin(buffers=True) as transaction:
        for number in _ids(path, transaction):
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


def _ids(path: Path, transaction: Any) -> list[int]:
    found = {}
    for name, empty in (("nextid", None), ("deleted_ids", [])):
        value = transaction.get(name.encode())
        found[name] = empty if value is None else _decode(value, f"{path}#{name}")
    following, deleted = found["nextid"], found["deleted_ids"]
    if not isinstance(following, int) or not isinstance(deleted, list):
        raise ValueError(f"{path}: nextid is {following!r}, not a whole number; {_REPAIR}")
    if following - 1 > transaction.stat()["entries"] + len(deleted):
        raise ValueError(f"{path}: nextid is {following}, more than there are rows; {_REPAIR}")
    gone = set(deleted)
    return [number for number in range(1, following) if number not in gone]


def _decode(value: Any, source: str) -> Any:
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(value, LARGEST)
        if not unpacking.eof:
            what = "it has too many bytes" if unpacking.unconsumed_tail else "it is incomplete"
            raise ValueError(what)
        return parse(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"{source} cannot be decoded ({error}); {_REPAIR}") from error


def _record(row: Any, source: str, number: int, data: bool | Sequence[str]) -> Record:
    if not isinstance(row, dict):
        raise ValueError(f"{source} is a {type(row).__name__}, not a row; {_REPAIR}")
    try:
        atoms = Atoms(
            numbers=array_of(row["numbers"]),
            positions=array_of(row["positions"]),
            cell=array_of(row["cell"]) if "cell" in row else None,
            pbc=array_of(row["pbc"]) if "pbc" in row else None,
        )
        return _labelled(row, atoms, source, number, data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{source} is not a row of an ASE database ({type(error).__name__}: {error}); {_REPAIR}"
        ) from error


def _labelled(
    row: dict[str, Any], atoms: Atoms, source: str, number: int, data: bool | Sequence[str]
) -> Record:
    info, arrays = _info(row, number, data), {}
    for key in _RESULTS:
        if row.get(key) is None:
            continue
        value = row[key] if isinstance(row[key], int | float) else array_of(row[key])
        atom = key in FIELDS and FIELDS[key].level == "atom"
        (arrays if atom else info)[key] = value
    fixed = _constrained(row, atoms) if row.get("constraints") else None
    return Record(atoms, info, arrays, source, fixed)


def _info(row: dict[str, Any], number: int, data: bool | Sequence[str]) -> dict[str, Any]:
    extra = row.get("data") or {}
    names = list(extra) if data is True else [name for name in data or () if name in extra]
    info = {**(row.get("key_value_pairs") or {}), **{name: extra[name] for name in names}}
    for name in ("charge", "total_charge"):
        if isinstance(row.get(name), int | float):
            info["total_charge"] = row[name]
    identity = str(extra.get("sid", number))
    info["frame_id"] = identity
    info["source_id"] = str(extra.get("parent_id") or identity)
    return info


def array_of(value: Any) -> np.ndarray:
    """Return an array from nested lists, or from ASE's ``__ndarray__`` encoding.

    Raises:
        ValueError: If shape, type and values do not agree.
    """
    if not isinstance(value, dict):
        return np.array(value)
    shape, kind, flat = value["__ndarray__"]
    if np.dtype(kind).kind not in "biuf":
        raise ValueError(f"an array of type {kind!r} is not numeric")
    if math.prod(shape) != len(flat):
        raise ValueError(f"{len(flat)} values do not fill an array of shape {shape}")
    return np.array(flat, dtype=kind).reshape(shape)


def _constrained(row: dict[str, Any], atoms: Atoms) -> np.ndarray | None:
    from ase.constraints import dict2constraint

    # Only these names: what the file says must not choose which code runs.
    known = [entry for entry in row["constraints"] if entry.get("name") in _CONSTRAINTS]
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


FORMAT = Format("aselmdb", read_aselmdb, ASE, _claims)
