"""Magnetic moments from the OUTCAR beside a vasprun.xml, which does not hold them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlip.data.readers.outcar import read_outcar
from mlip.data.record import Record

_ENDINGS = ("", ".gz", ".bz2", ".xz")
_CLOSE = 1e-4  # eV: OUTCAR prints eight decimals of the free energy


def with_magmoms(records: Iterable[Record], vasprun: Path) -> Iterator[Record]:
    """Yield the records of a vasprun.xml, with the moments of the OUTCAR beside it if it has any.

    Raises:
        ValueError: If the OUTCAR is damaged, or its steps are those of another run.
    """
    beside = [vasprun.with_name(f"OUTCAR{ending}") for ending in _ENDINGS]
    found = next((file for file in beside if file.is_file() and file.stat().st_size), None)
    if found is None:
        yield from records
        return
    others = read_outcar(found, unfinished="keep", charges="none")
    for record in records:
        if not record.info["spin_polarised"]:
            yield record
            continue
        other = next(others, None)
        if other is None or not _same(record, other):
            raise ValueError(
                f"{record.source}: {found.name} beside it does not tell the same step; the two "
                "files are not of the same run: keep those of one run, or take the OUTCAR away"
            )
        moments = {k: v for k, v in other.arrays.items() if k.startswith("magmom")}
        yield replace(record, arrays={**record.arrays, **moments})


def _same(record: Record, other: Record) -> bool:
    if len(record.atoms) != len(other.atoms):
        return False
    difference = np.abs(record.info["free_energy"] - other.info["free_energy"])
    return bool(difference < _CLOSE * max(1, len(record.atoms)))
