"""Any file that ASE reads and no reader here claims: .traj, .db, .cif, POSCAR, ..."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled
from ase.db import connect
from ase.io import iread

from mlip.data.record import Record
from mlip.keys import FIELDS

_STRUCTURE = ("numbers", "positions")


def read_ase(path: Path, file_format: str) -> Iterator[Record]:
    """Yield the records of a file through ASE's own reader.

    Forces are the raw ones of the source; components held fixed are marked in ``constrained``.

    Args:
        path: File to read.
        file_format: ASE's name of the format, ``traj`` for instance.

    Raises:
        ValueError: If ASE cannot read the file.
    """
    index = 0
    images = _images(path, file_format)
    while True:
        try:
            atoms = next(images, None)
        except Exception as error:  # each of ASE's parsers fails in its own way
            raise ValueError(
                f"{path}#{index} cannot be read as {file_format} "
                f"({type(error).__name__}: {error}); the file is truncated, damaged or of another "
                "format: fetch or write it again"
            ) from error
        if atoms is None:
            return
        yield record_of(atoms, f"{path}#{index}")
        index += 1


def _images(path: Path, file_format: str) -> Iterator[Atoms]:
    if file_format not in ("db", "json"):
        yield from iread(str(path), index=":", format=file_format, do_not_split_by_at_sign=True)
        return
    # iread drops the user's own keys of a database, the functional among them.
    opened: Any = connect(str(path), type=file_format, serial=True)
    with opened as database:
        for row in database.select():
            yield row.toatoms(add_additional_information=True)


def record_of(atoms: Atoms, source: str) -> Record:
    """Return what ASE read as a record; raw results, components held fixed marked."""
    info, arrays = _info(atoms), _arrays(atoms)
    for key, value in _results(atoms).items():
        level = FIELDS[key].level if key in FIELDS else "graph"
        if level == "graph" and np.shape(value)[:1] == (len(atoms),) and key not in FIELDS:
            level = "atom"
        (arrays if level == "atom" else info)[key] = value
    if "hirshfeld_charges" in arrays and "charges" not in arrays:  # FHI-aims
        arrays["charges"] = arrays.pop("hirshfeld_charges")
        info["charge_partition"] = "hirshfeld"
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
    return Record(bare, info, arrays, source, fixed_components(atoms))


def _info(atoms: Atoms) -> dict[str, Any]:
    info = dict(atoms.info)
    info.pop("unique_id", None)
    for nested in ("key_value_pairs", "data"):
        if isinstance(info.get(nested), dict):
            info |= info.pop(nested)
    return info


def _arrays(atoms: Atoms) -> dict[str, np.ndarray]:
    return {key: value for key, value in atoms.arrays.items() if key not in _STRUCTURE}


def _results(atoms: Atoms) -> dict[str, Any]:
    """Results that the file holds; ``results`` is raw, where ``get_forces`` applies constraints."""
    results = getattr(atoms.calc, "results", {})
    return {key: value for key, value in results.items() if value is not None}


def fixed_components(atoms: Atoms) -> np.ndarray | None:
    """Return (atoms, 3), True where a component is fixed; constraints that only couple are left."""
    fixed = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask)
        elif isinstance(constraint, FixAtoms | FixScaled | FixedLine | FixedPlane):
            # A scaled, line or plane constraint mixes the Cartesian components of its atoms.
            fixed[constraint.index] = True
    return fixed if fixed.any() else None
