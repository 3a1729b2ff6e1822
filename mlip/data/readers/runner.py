"""RuNNer and n2p2 ``input.data``: begin, lattice, atom, energy, charge, end."""

from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.json_stream import DAMAGE, open_plain
from mlip.data.readers.extxyz import LONGEST
from mlip.data.readers.format import Format
from mlip.data.record import Record
from mlip.errors import suggest
from mlip.units import to_internal

_FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(("energy",), "Ha"),
        "forces": LabelSource(("forces",), "Ha/bohr"),
        "charges": LabelSource(("charges",), "e"),
        "total_charge": LabelSource(("total_charge",), "e"),
    },
)
_COLUMNS = 10
_REPAIR = "the file is truncated or damaged: fetch or write it again"


class _Block:
    """The lines of one structure."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lattice: list[list[float]] = []
        self.symbols: list[str] = []
        self.rows: list[list[float]] = []
        self.info: dict[str, Any] = {}

    def add(self, words: list[str]) -> None:
        keyword, rest = words[0], words[1:]
        if keyword == "lattice":
            self.lattice.append([float(word) for word in _exactly(rest, 3)])
        elif keyword == "atom":
            rest = _exactly(rest, _COLUMNS - 1)
            self.symbols.append(rest.pop(3))
            self.rows.append([float(word) for word in rest])
        elif keyword in ("energy", "charge"):
            name = "energy" if keyword == "energy" else "total_charge"
            if name in self.info:
                raise ValueError(f"{keyword} is given twice")
            self.info[name] = float(_exactly(rest, 1)[0])
        elif keyword == "comment":
            self.info["comment"] = " ".join(rest)
        else:
            raise ValueError(f"the keyword {keyword!r} is not known")

    def record(self, length: float) -> Record:
        if not self.rows or len(self.lattice) not in (0, 3):
            raise ValueError(
                f"there are {len(self.rows)} atoms and {len(self.lattice)} lattice vectors; at "
                "least one atom and none or three vectors are needed"
            )
        for symbol in self.symbols:
            if symbol not in atomic_numbers or symbol == "X":
                raise ValueError(f"{symbol!r} is no element{suggest(symbol, atomic_numbers)}")
        table = np.array(self.rows)
        cell = np.array(self.lattice) * length if self.lattice else None
        atoms = Atoms(
            numbers=[atomic_numbers[symbol] for symbol in self.symbols],
            positions=table[:, :3] * length, cell=cell, pbc=cell is not None,
        )  # fmt: skip
        self.info["frame_id"] = self.source.rpartition("#")[2]
        arrays = {"forces": table[:, 5:]}
        if table[:, 3].any():  # the column is always there, zeros where no charges are known
            arrays["charges"] = table[:, 3]
        return Record(atoms, self.info, arrays, self.source)


def read_runner(path: Path, length: str = "bohr") -> Iterator[Record]:
    """Yield the structures of an ``input.data``, plain or compressed.

    An atom's line is ``atom x y z element charge unused fx fy fz``. The format does not state its
    units: they are taken as Hartree atomic units; for a file in others declare ``fields`` and
    ``length`` (``fields={"energy": {"key": "energy", "unit": "eV"}, ...}, length="A"``).

    Args:
        path: The file.
        length: Unit of positions and lattice.

    Raises:
        ValueError: If a structure is incomplete or malformed, naming file, structure and line.
    """
    factor = to_internal("length", length)
    block: _Block | None = None
    index = number = 0
    with TextIOWrapper(open_plain(path), encoding="utf-8") as handle:
        lines = _lines(path, handle)
        for number, words in lines:
            try:
                if words[0] == "begin" and block is None:
                    block = _Block(f"{path}#{index}")
                elif block is None or words[0] == "begin":
                    raise ValueError(f"begin is expected, not {words[0]!r}" if block is None
                                     else "begin stands within a structure")  # fmt: skip
                elif words[0] == "end":
                    yield block.record(factor)
                    block, index = None, index + 1
                else:
                    block.add(words)
            except ValueError as error:
                raise ValueError(f"{path}#{index} (line {number}): {error}; {_REPAIR}") from error
    if block is not None:
        raise ValueError(f"{path}#{index} (line {number}): the structure has no end; {_REPAIR}")


def _lines(path: Path, handle: TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    number = 0
    while True:
        try:
            line = handle.readline(LONGEST)
        except (*DAMAGE, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} (line {number + 1}): cannot be read ({error}); {_REPAIR}"
            ) from error
        if not line:
            return
        number += 1
        if len(line) == LONGEST:
            raise ValueError(f"{path} (line {number}): the line is too long; {_REPAIR}")
        if words := line.split():
            yield number, words


def _exactly(words: list[str], count: int) -> list[str]:
    if len(words) != count:
        raise ValueError(f"{len(words)} values stand where {count} are needed")
    return words


def _claims(path: Path, head: bytes) -> bool:
    # By its name too: ASE's reader of this format takes a damaged block for none at all.
    named = path.is_file() and path.name.startswith("input.data")
    return named or head.startswith((b"begincomment", b"beginlattice", b"beginatom"))


FORMAT = Format("runner", read_runner, _FIELDS, _claims)
