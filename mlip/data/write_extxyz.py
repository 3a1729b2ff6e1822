"""Extended XYZ with every digit of a float64, under the standard ASE names."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlip.data.frame import Frame
from mlip.keys import FIELDS

_NOT_WRITTEN = ("unread_arrays", "constrained", "Properties", "Lattice", "pbc")


def to_extxyz(frame: Frame) -> str:
    """Return one frame as the text that ``units=ase`` reads back equal to the last digit.

    Text, numbers and flags of ``frame.info`` are kept, and which components are held fixed
    (``move_mask``); other arrays and nested values are not.

    Raises:
        ValueError: If an info key holds a blank, ``=`` or a quote.
    """
    columns, arrays = ["species:S:1", "pos:R:3"], [frame.atoms.positions]
    for label, values in frame.labels.items():
        if FIELDS[label].level == "atom":
            rows = np.asarray(values, dtype=float).reshape(len(frame), -1)
            columns.append(f"{label}:R:{rows.shape[1]}")
            arrays.append(rows)
    fixed = frame.info.get("constrained")
    flags = [""] * len(frame)
    if fixed is not None:
        columns.append("move_mask:L:3")
        flags = [f" {' '.join('F' if held else 'T' for held in row)}" for row in np.asarray(fixed)]
    comment = [f"Properties={':'.join(columns)}"]
    if frame.atoms.cell.array.any():
        comment.insert(0, f'Lattice="{_numbers(frame.atoms.cell.array)}"')
    comment.append(f'pbc="{" ".join("T" if flag else "F" for flag in frame.atoms.pbc)}"')
    for label, values in frame.labels.items():
        if FIELDS[label].level == "graph":
            text = _numbers(values)
            comment.append(f'{label}="{text}"' if " " in text else f"{label}={text}")
    comment += _info(frame.info, frame)
    table = np.concatenate(arrays, axis=1).tolist()
    lines = [
        f"{symbol} {' '.join(map(repr, row))}{mask}"
        for symbol, row, mask in zip(frame.atoms.get_chemical_symbols(), table, flags, strict=True)
    ]
    return "\n".join([str(len(frame)), " ".join(comment), *lines]) + "\n"


def _info(info: Mapping[str, Any], frame: Frame) -> list[str]:
    parts = []
    for key, value in info.items():
        if key in _NOT_WRITTEN or key in FIELDS or not isinstance(value, _SCALARS):
            continue
        if not key or any(letter in key for letter in " =\"'\t\n"):
            raise ValueError(f"{frame.source}: the info key {key!r} cannot be written; rename it")
        parts.append(f"{key}={_word(value)}")
    return parts


_SCALARS = (str, bool, int, float, np.integer, np.floating, np.bool_)


def _word(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "T" if value else "F"
    if isinstance(value, str):
        # JSON escapes quotes, backslashes and line breaks the way the reader undoes them.
        return json.dumps(value, ensure_ascii=False)
    return repr(value.item() if isinstance(value, np.generic) else value)


def _numbers(values: Any) -> str:
    return " ".join(map(repr, np.asarray(values, dtype=float).ravel().tolist()))
