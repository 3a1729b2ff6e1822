"""JSON values that are read when asked for: numbers go from the text into arrays, and nowhere else.

A value is what ``simdjson`` gives (objects and arrays that stay text until a member is asked for),
or, of texts that only Python writes (NaN, Infinity), plain dictionaries and lists.
"""

from collections.abc import Container
from math import prod
from typing import Any

import numpy as np
import simdjson

from mlip.data.json_stream import parse

OBJECT = (dict, simdjson.Object)
"""What a JSON object may be."""


def lazy(text: bytes) -> Any:
    """Return a JSON value whose members are read when asked for.

    Raises:
        ValueError: If the text is not JSON.
    """
    try:
        return simdjson.Parser().parse(text)
    except ValueError:
        return parse(text)


def plain(value: Any) -> Any:
    """Return a value as dictionaries and lists."""
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def members(value: Any, names: Container[str]) -> dict[str, Any]:
    """Return the members of an object that are wanted, null left out; they stay unread."""
    if isinstance(value, simdjson.Object):  # asking for an absent key takes microseconds
        held = [(key, value[key]) for key in value.keys() if key in names]  # noqa: SIM118
    else:
        held = [(key, inner) for key, inner in value.items() if key in names]
    return {key: inner for key, inner in held if inner is not None}


def array_of(value: Any) -> np.ndarray:
    """Return an array from nested lists, or from ASE's ``__ndarray__`` encoding.

    Raises:
        ValueError: If shape, type and values do not agree.
        TypeError: If something in it is not a number.
    """
    if type(value) is simdjson.Array:
        return _nested(value)
    return _encoded(value) if isinstance(value, OBJECT) else np.array(value)


def _encoded(value: Any) -> np.ndarray:
    shape, kind, flat = (plain(part) for part in value["__ndarray__"])
    if np.dtype(kind).kind not in "biuf":
        raise ValueError(f"an array of type {kind!r} is not numeric")
    if prod(shape) != len(flat):
        raise ValueError(f"{len(flat)} values do not fill an array of shape {shape}")
    return np.array(flat, dtype=kind).reshape(shape)


def _nested(value: simdjson.Array) -> np.ndarray:
    shape, inner = [len(value)], value[0] if len(value) else None
    while type(inner) is simdjson.Array and len(inner):
        shape.append(len(inner))
        inner = inner[0]
    if type(inner) is int:
        found = _whole(value)
    elif type(inner) is float:
        found = np.frombuffer(value.as_buffer(of_type="d"))
    else:
        return np.array(value.as_list())
    if len(shape) == 1:
        return found
    if len(found) != prod(shape) or not _even(value, shape):
        raise ValueError(f"{len(found)} numbers in rows do not fill the shape {tuple(shape)}")
    return found.reshape(shape)


def _even(value: simdjson.Array, shape: list[int]) -> bool:
    """Return whether all rows have the length that the first has, at every depth."""
    rows: list[Any] = list(value)
    if set(map(len, rows)) - {shape[1]}:
        return False
    return len(shape) == 2 or all(_even(row, shape[1:]) for row in rows)


def _whole(value: simdjson.Array) -> np.ndarray:
    """Return the numbers of an array whose first is a whole one, whole if all are."""
    try:
        return np.frombuffer(value.as_buffer(of_type="i"), dtype=np.int64)
    except TypeError:
        return np.frombuffer(value.as_buffer(of_type="d"))
