"""Partial charges in files beside a calculation: Bader's ACF.dat, and DDEC6."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import find_mic
from ase.units import Bohr

from mlip.data.readers.dft import require_choice
from mlip.data.record import Record

BADER = "ACF.dat"
DDEC6 = "DDEC6_even_tempered_net_atomic_charges.xyz"
TOLERANCE = 2e-3
"""Å; how well the atoms of a charge file must lie where those of the calculation do."""

_FILES = {"bader": BADER, "ddec6": DDEC6}
_REPAIR = "write it again with the same program"


class ChargesBeside:
    """The charges that stand beside a calculation, for the ionic step that they belong to.

    A charge file tells one structure, the last one of a run as a rule. The charges go to each step
    whose atoms lie where the charge file says, and to no other.

    Args:
        output: The output of the calculation.
        kind: ``bader``, ``ddec6``, ``none``; None takes the one that is there.

    Raises:
        ValueError: If the file asked for is missing, or both are there and none is asked for.
    """

    def __init__(self, output: Path, kind: str | None) -> None:
        require_choice(output, "charges", kind, (None, "none", *_FILES))  # type: ignore[arg-type]
        self.output, self.used = output, False
        found = [name for name, file in _FILES.items() if (output.parent / file).is_file()]
        if kind is None and len(found) > 1:
            raise ValueError(
                f"{output.parent} holds {BADER} and {DDEC6}: say which charges are meant, "
                "charges='bader' or charges='ddec6', or charges='none'"
            )
        if kind in _FILES and kind not in found:
            raise ValueError(f"{output.parent / _FILES[str(kind)]} does not exist, but charges is "
                             f"{kind!r}; compute them, or leave charges out")  # fmt: skip
        self.kind = (found[0] if found else "none") if kind is None else kind
        self.path = output.parent / _FILES.get(self.kind, "")

    def attach(self, record: Record, valences: np.ndarray | None) -> Record:
        """Return the record with charges (e) if the file tells of its structure.

        Args:
            record: One ionic step.
            valences: Valence electrons of each atom (ZVAL), from which Bader's electrons are
                subtracted.

        Raises:
            ValueError: If the file is damaged, or the valences are needed and not known.
        """
        if self.kind == "none":
            return record
        if self.kind == "bader":
            charges = self._bader(record.atoms, valences)
        else:
            charges = self._ddec6(record.atoms)
        if charges is None:
            return record
        self.used = True
        arrays = {**record.arrays, "charges": charges}
        return replace(record, arrays=arrays, info={**record.info, "charge_partition": self.kind})

    def require_used(self) -> None:
        """Refuse charges that belong to no step.

        Raises:
            ValueError: Naming both files.
        """
        if self.kind != "none" and not self.used:
            raise ValueError(
                f"{self.path}: its atoms lie where those of no ionic step of {self.output.name} do "
                f"(within {TOLERANCE} Å); it belongs to another calculation: {_REPAIR}, or read "
                "with charges='none'"
            )

    def _bader(self, atoms: Atoms, valences: np.ndarray | None) -> np.ndarray | None:
        rows = [words for words in _words(self.path) if words[0].isdigit()]
        table = _numbers(self.path, rows, len(atoms), slice(1, 5))
        if table is None or not _same_place(atoms, table[:, :3], (1.0, Bohr)):
            return None
        if valences is None:
            raise ValueError(
                f"{self.path} gives electrons, and {self.output} does not tell how many valence "
                "electrons each atom has (ZVAL); read vasprun.xml or the whole OUTCAR, or read "
                "with charges='none'"
            )
        return valences - table[:, 3]

    def _ddec6(self, atoms: Atoms) -> np.ndarray | None:
        lines = _words(self.path, blank=True)
        count = int(lines[0][0]) if lines and lines[0] and lines[0][0].isdigit() else 0
        rows = lines[2 : 2 + count]
        if len(rows) < count or not count:
            raise ValueError(f"{self.path} names {count} atoms but ends before: {_REPAIR}")
        table = _numbers(self.path, rows, len(atoms), slice(1, 5))
        if table is None or not _same_place(atoms, table[:, :3], (1.0,)):
            return None
        numbers = [atomic_numbers.get(row[0], 0) for row in rows]
        if not np.array_equal(numbers, atoms.numbers):
            raise ValueError(f"{self.path}: its elements are not those of {self.output}: {_REPAIR}")
        return table[:, 3]


def _words(path: Path, blank: bool = False) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split() for line in lines if blank or line.split()]


def _numbers(
    path: Path, rows: Sequence[Sequence[str]], atoms: int, columns: slice
) -> np.ndarray | None:
    """Return x, y, z and the fourth number of each row; None if the number of atoms differs."""
    try:
        table = np.array([[float(word) for word in row[columns]] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path} holds what is no number ({error}): {_REPAIR}") from error
    if table.shape == (atoms, 4) and np.isfinite(table).all():
        return table
    if table.ndim == 2 and table.shape[1] == 4 and np.isfinite(table).all():
        return None
    raise ValueError(f"{path} has rows without position and charge: {_REPAIR}")


def _same_place(atoms: Atoms, positions: np.ndarray, units: Sequence[float]) -> bool:
    """Return whether the atoms lie there, up to lattice vectors and the unit of the file."""
    offsets = (positions * unit - atoms.positions for unit in units)
    pbc: Any = atoms.pbc  # annotated as a flag in ASE, which takes three as well
    return any(find_mic(x, atoms.cell, pbc)[1].max() < TOLERANCE for x in offsets)
