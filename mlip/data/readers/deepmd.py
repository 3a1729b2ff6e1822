"""DeePMD-kit systems: a folder with type.raw and set.* folders of .npy arrays."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.readers.format import Format
from mlip.data.record import Record
from mlip.errors import suggest

_FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(("energy",), "eV"),
        "forces": LabelSource(("force",), "eV/A"),
        # DeePMD's virial is -volume x stress of ASE's sign: positive under compression.
        "stress": LabelSource(("virial",), "eV", "compression_positive", None, virial=True),
    },
)
_SHAPES = {"coord": (3,), "force": (3,), "box": None, "energy": None, "virial": None}
_REPAIR = "copy the system again"


def read_deepmd(path: Path) -> Iterator[Record]:
    """Yield the frames of a DeePMD system, or of every system below a folder, memory-mapped.

    Units are DeePMD's own: Å, eV, eV/Å, and a virial in eV (stress = -virial / volume).
    ``nopbc`` beside ``type.raw`` says that the frames have no cell. Pickled arrays are refused.

    Args:
        path: Folder that holds ``type.raw``, or any folder above such folders.

    Raises:
        ValueError: If a file is missing, damaged or of another shape, naming it.
    """
    for system in sorted(found.parent for found in path.rglob("type.raw")):
        known, numbers = _numbers(system)
        folders = sorted(system.glob("set.*"))
        if not folders:
            raise ValueError(f"{system} has a type.raw but no folder set.*; {_REPAIR}")
        for folder in folders:
            yield from _frames(system, folder, known, numbers)


def _numbers(system: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the atomic numbers of the types in ``type_map.raw``, and those of ``type.raw``."""
    names_file = system / "type_map.raw"
    if not names_file.is_file():
        raise ValueError(
            f"{names_file} is missing, so that the elements of {system} are unknown; write it, one "
            "symbol for each type"
        )
    names = names_file.read_text(encoding="utf-8", errors="replace").split()
    for name in names:
        if name not in atomic_numbers:
            raise ValueError(f"{names_file}: {name!r} is no element{suggest(name, atomic_numbers)}")
    try:
        types = [int(word) for word in (system / "type.raw").read_text(encoding="utf-8").split()]
    except ValueError as error:
        raise ValueError(f"{system / 'type.raw'} holds no whole numbers ({error})") from error
    if not types or min(types) < 0 or max(types) >= len(names):
        raise ValueError(
            f"{system / 'type.raw'} is empty or names types that are not among the {len(names)} "
            f"of {names_file.name}; {_REPAIR}"
        )
    known = np.array([atomic_numbers[name] for name in names])
    return known, known[types]


def _frames(system: Path, folder: Path, known: np.ndarray, numbers: np.ndarray) -> Iterator[Record]:
    tables = {name: _table(folder / f"{name}.npy") for name in _SHAPES}
    coordinates = tables.pop("coord")
    if coordinates is None:
        raise ValueError(f"{folder / 'coord.npy'} is missing; {_REPAIR}")
    periodic = not (system / "nopbc").is_file()
    if periodic and tables["box"] is None:
        raise ValueError(f"{folder / 'box.npy'} is missing and there is no file nopbc; {_REPAIR}")
    sizes = {"coord": 3 * len(numbers), "force": 3 * len(numbers), "box": 9, "virial": 9}
    for name, table in {"coord": coordinates, **tables}.items():
        _require_shape(folder / f"{name}.npy", table, len(coordinates), sizes.get(name, 1))
    real = _real_types(folder / "real_atom_types.npy", coordinates.shape[0], known, len(numbers))
    for index in range(len(coordinates)):
        types = None if real is None else np.array(real[index])
        own = numbers if types is None else known[types]
        record = _record(system, folder, index, own, coordinates, tables, periodic)
        yield record if types is None else _without_padding(record, types)


def _real_types(path: Path, frames: int, known: np.ndarray, atoms: int) -> np.ndarray | None:
    """Return (frames, atoms) types of a system of mixed type, whose ``type.raw`` says nothing."""
    table = _table(path)
    if table is None:
        return None
    _require_shape(path, table, frames, atoms)
    if table.dtype.kind not in "iu" or table.min() < -1 or table.max() >= len(known):
        raise ValueError(
            f"{path} holds types that are not among the {len(known)} of type_map.raw; {_REPAIR}"
        )
    return table.reshape(frames, atoms)


def _without_padding(record: Record, types: np.ndarray) -> Record:
    """Return a record without the virtual atoms, of type -1, that fill up frames of mixed type."""
    kept = types >= 0
    arrays = {name: values[kept] for name, values in record.arrays.items()}
    return replace(record, atoms=record.atoms[kept], arrays=arrays)


def _table(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header fails in NumPy's parser in many ways
        raise ValueError(f"{path} cannot be read ({str(error)[:200]}); {_REPAIR}") from error


def _require_shape(path: Path, table: np.ndarray | None, frames: int, size: int) -> None:
    if table is None:
        return
    if table.dtype.kind not in "fiu" or table.size != frames * size or len(table) != frames:
        raise ValueError(
            f"{path} is {table.dtype} of shape {table.shape}, but {frames} frames of {size} "
            f"numbers are needed; {_REPAIR}"
        )


def _record(
    system: Path, folder: Path, index: int, numbers: np.ndarray, coordinates: np.ndarray,
    tables: dict[str, Any], periodic: bool,
) -> Record:  # fmt: skip
    cell = np.array(tables["box"][index], dtype=float).reshape(3, 3) if periodic else None
    positions = np.array(coordinates[index], dtype=float).reshape(-1, 3)
    source = f"{folder}#{index}"
    atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=periodic)
    info: dict[str, Any] = {"source_id": system.name, "frame_id": f"{folder.name}-{index}"}
    arrays = {}
    if tables["energy"] is not None:
        info["energy"] = float(np.ravel(tables["energy"][index])[0])
    if tables["virial"] is not None and periodic:
        info["virial"] = np.array(tables["virial"][index], dtype=float).reshape(3, 3)
    if tables["force"] is not None:
        arrays["force"] = np.array(tables["force"][index], dtype=float).reshape(-1, 3)
    return Record(atoms, info, arrays, source)


def _claims(path: Path, head: bytes) -> bool:
    return path.is_dir() and next(path.rglob("type.raw"), None) is not None


FORMAT = Format("deepmd", read_deepmd, _FIELDS, _claims)
