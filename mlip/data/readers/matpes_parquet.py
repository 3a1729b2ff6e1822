"""MatPES (Kaplan et al. 2025) as parquet: the frames of its JSON."""

from collections.abc import Iterator
from pathlib import Path

from mlip.data.readers.format import Format
from mlip.data.readers.matpes import FIELDS
from mlip.data.readers.parquet import columns_of, rows_of
from mlip.data.record import Record


def read_matpes_parquet(path: Path) -> Iterator[Record]:
    """Yield the entries of a MatPES parquet file, a row group in memory at a time.

    Energies, forces, stress (VASP's, kbar) and magnetic moments as in the JSON; ``bader_charges``
    are numbers of valence electrons and are not read as charges.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is damaged, has other columns, or a row lacks a label.
    """
    for record in rows_of(path):
        lacking = [key for key in ("energy", "stress") if key not in record.info]
        lacking += ["forces"] * ("forces" not in record.arrays)
        if lacking:
            raise ValueError(
                f"{record.source} has no {lacking[0]!r}; remove the row or fetch the file again"
            )
        yield record


def _claims(path: Path, head: bytes) -> bool:
    return head[:4] == b"PAR1" and "matpes_id" in columns_of(path)


FORMAT = Format("matpes_parquet", read_matpes_parquet, FIELDS, _claims)
