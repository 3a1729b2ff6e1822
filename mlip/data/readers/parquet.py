"""Parquet copies of training sets, in the layout of MPContribs: MPtrj for instance."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ase import Atoms

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.pymatgen_structure import atoms_of, numbers_of, site_property
from mlip.data.readers.format import Format
from mlip.data.record import Record

_FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(("energy",), "eV"),
        "forces": LabelSource(("forces",), "eV/A"),
        "magmoms": LabelSource(("magmoms",), "muB"),
    },
)
_FLAT = ("cell", "atomic_numbers", "cart_coords")
_ATOMWISE = ("forces", "magmoms", "charges")
_NUMBERS = (*_FLAT, *_ATOMWISE, "stress", "stress_matrix")
_UNREAD = ("abs_forces", "composition", "composition_reduced", "elements", "symmetry")
_ROWS = 256
_NOTE = (
    "the source does not state the unit of its stress: declare units={energy: {key: energy, unit: "
    "eV}, forces: {key: forces, unit: eV/A}, stress: {key: stress, unit: …, sign: …, order: [xx, "
    "yy, zz, yz, xz, xy]}} to read it"
)


def read_parquet(path: Path) -> Iterator[Record]:
    """Yield the rows of a parquet file, a row group in memory at a time.

    The columns are those of the training documents of the Materials Project: ``cell``,
    ``atomic_numbers`` and ``cart_coords`` (or a pymatgen ``structure``), ``energy`` (eV,
    uncorrected), ``forces`` (eV/Å), ``magmoms``, ``stress`` (xx, yy, zz, yz, xz, xy) or
    ``stress_matrix``, ``provenance``. Its publisher states no unit of the stress, so it is kept in
    ``info`` and is a label only where ``units`` declare it.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is damaged, has other columns, or a row is malformed.
    """
    for record in rows_of(path):
        if "stress" in record.info:
            record.info["stress_left_out"] = _NOTE
        yield record


def rows_of(path: Path) -> Iterator[Record]:
    """Yield the rows as records, whatever the unit of their stress."""
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _require_columns(path, file.schema_arrow.names)
            names = [name for name in file.schema_arrow.names if name not in _UNREAD]
            for batch in file.iter_batches(_ROWS, columns=names):
                columns = [_column(name, batch.column(name)) for name in names]
                for values in zip(*columns, strict=True):
                    row = dict(zip(names, values, strict=True))
                    yield _record(row, f"{path}#{number}", number)
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}#{number} cannot be read ({str(error).splitlines()[0]}): the file is truncated "
            "or damaged: fetch it again"
        ) from error


def columns_of(path: Path) -> list[str]:
    """Return the names of the columns, none where the file cannot be read."""
    try:
        return pq.read_schema(path).names
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return []


def _require_columns(path: Path, names: Sequence[str]) -> None:
    if "structure" not in names and (missing := [name for name in _FLAT if name not in names]):
        raise ValueError(
            f"{path} has no column {missing[0]!r} (nor 'structure'); it has {', '.join(names)}. "
            "Give the structures these names, or convert the file to extended XYZ"
        )


def _column(name: str, column: pa.Array) -> Sequence[Any]:
    """Return the values of a column: arrays, None for null; scalars where lists are irregular."""
    if name not in _NUMBERS:
        return column.to_pylist()
    if not pa.types.is_list(column.type):
        return list(column)
    values, width = column.values, 0  # type: ignore[attr-defined]
    if pa.types.is_list(values.type):
        lengths = pc.list_value_length(values).unique()  # type: ignore[attr-defined]
        if values.null_count or len(lengths) != 1 or not lengths[0].as_py():
            return list(column)
        width, values = lengths[0].as_py(), values.flatten()
    if values.null_count or pa.types.is_nested(values.type):
        return list(column)
    table = values.to_numpy(zero_copy_only=False).reshape((-1, width) if width else -1)
    limits = column.offsets.to_pylist()  # type: ignore[attr-defined]
    valid = column.is_valid().to_pylist()
    parts = zip(valid, limits, limits[1:], strict=False)
    return [table[start:end] if known else None for known, start, end in parts]


def _record(row: Mapping[str, Any], source: str, number: int) -> Record:
    try:
        info, arrays = _scalars(row), {}
        for name in _ATOMWISE:
            if (found := _array(row.get(name))) is not None:
                arrays[name] = found
        for name in ("stress", "stress_matrix"):
            if (found := _array(row.get(name))) is not None:
                info["stress"] = found
        atoms = _atoms(row, source, arrays)
    except ValueError as error:
        text = str(error)
        where = text if text.startswith(source) else f"{source}: {text}; correct or remove the row"
        raise ValueError(where) from error
    return Record(atoms, {**info, **_identity(info, number)}, arrays, source)


def _atoms(row: Mapping[str, Any], source: str, arrays: dict[str, Any]) -> Atoms:
    if "structure" in row:
        structure = row["structure"]
        structure = json.loads(structure) if isinstance(structure, str) else structure
        atoms = atoms_of(structure, source)
        if "magmoms" not in arrays and (found := site_property(structure, "magmom")) is not None:
            arrays["magmoms"] = np.asarray(found)
        return atoms
    cell, numbers, positions = (_array(row[name]) for name in _FLAT)
    if cell is None or numbers is None or positions is None:
        raise ValueError(f"{'cell' if cell is None else 'the list of atoms'} is null")
    if not ((numbers > 0) & (numbers < 119)).all():
        raise ValueError(f"atomic_numbers has {numbers.min()} to {numbers.max()}, not elements")
    positions = numbers_of(positions, (len(numbers), 3), "cart_coords")
    cell = numbers_of(cell, (3, 3), "cell")
    return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)


def _scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a row and of its provenance."""
    info = {name: value for name, value in row.items() if name not in (*_NUMBERS, "structure")}
    info |= info.get("provenance") or {}
    return {name: v for name, v in info.items() if isinstance(v, str | int | float)}


def _identity(info: Mapping[str, Any], number: int) -> dict[str, str]:
    """Return ids as those of the JSON: ``<task>-<calculation>-<step>`` of MPtrj."""
    frame = str(info.get("matpes_id") or number)
    found = {}
    if "task_id" in info and "ionic_step_index" in info:
        found["trajectory_id"] = f"{info['task_id']}-{info.get('calcs_reversed_index', 0)}"
        frame = f"{found['trajectory_id']}-{info['ionic_step_index']}"
    material = info.get("material_id") or info.get("original_mp_id") or frame
    return {**found, "frame_id": frame, "source_id": str(material)}


def _array(value: Any) -> np.ndarray | None:
    """Return the numbers of a list, or of a list of lists of one length; None of null."""
    if value is None or isinstance(value, np.ndarray):
        return value
    if not value.is_valid:
        return None
    values = value.values  # type: ignore[attr-defined]
    if not pa.types.is_nested(values.type):
        return _numbers(values)
    lengths = pc.list_value_length(values).unique()  # type: ignore[attr-defined]
    if len(lengths) > 1:
        raise ValueError(f"its lists have {lengths.to_pylist()} members, not one number of them")
    return _numbers(values.flatten()).reshape(len(values), -1)


def _numbers(values: pa.Array) -> np.ndarray:
    if values.null_count:
        raise ValueError("it holds null among its numbers")
    return values.to_numpy(zero_copy_only=False)


def _claims(path: Path, head: bytes) -> bool:
    return head[:4] == b"PAR1" and "matpes_id" not in columns_of(path)


FORMAT = Format("parquet", read_parquet, _FIELDS, _claims)
