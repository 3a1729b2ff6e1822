"""Which key of a source holds which label, and in which unit: the declarative field map."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from mlip.data.record import Record
from mlip.errors import suggest
from mlip.keys import FIELDS, LABELS
from mlip.units import to_internal

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Order of six stress components in ASE."""

HOW_TO_DECLARE = (
    "declare them: units=ase when the file holds energy (eV), forces (eV/Å) and stress (eV/Å³, "
    "positive in tension) under these names, else a mapping such as "
    "{energy: {key: REF_energy, unit: eV}, forces: {key: REF_forces, unit: eV/A}, "
    "stress: {key: virial_raw, unit: kbar, sign: compression_positive, "
    "order: [xx, yy, zz, yz, xz, xy]}}"
)

_QUANTITY = {
    "energy": "energy",
    "forces": "forces",
    "stress": "stress",
    "charges": "charge",
    "total_charge": "charge",
    "magmoms": "magmom",
    "dipole": "dipole",
    "born_effective_charges": "charge",
}
_PER_ATOM = {label: FIELDS[label].level == "atom" for label in LABELS}
_SIGNS = {"tension_positive": 1.0, "compression_positive": -1.0}
_REST = "rest"
_PLACES = [0, 4, 8, 5, 2, 1]  # of the six components in a matrix
_OPTIONS = ("key", "unit")
_STRESS_OPTIONS = ("key", "unit", "sign", "order", "virial")


@dataclass(frozen=True)
class LabelSource:
    """Where one label comes from.

    Args:
        keys: Source keys; the first one that a record holds is read.
        unit: Unit of the source; of a virial, a unit of energy.
        sign: ``tension_positive`` (ASE) or ``compression_positive`` (VASP); stress only.
        order: Names of the six components of the source; None for full 3x3 matrices. Of a matrix
            that was filled from six components as if they were xx, yy, zz, yz, xz, xy, what they
            really are.
        virial: The source gives stress times volume.
    """

    keys: tuple[str, ...]
    unit: str
    sign: str = "tension_positive"
    order: tuple[str, ...] | None = None
    virial: bool = False


@dataclass(frozen=True)
class FieldMap:
    """The labels of a source: key, unit and convention of each.

    Args:
        labels: Source of each label, by the names of ``mlip.keys.LABELS``.
        optional: Labels that a file may lack: those under standard names of a format. The others
            were named by the user or a card, and must exist in the file.
    """

    labels: Mapping[str, LabelSource]
    optional: tuple[str, ...] = ()

    @classmethod
    def standard(cls, labels: Mapping[str, LabelSource]) -> "FieldMap":
        """Return the field map of a format, none of whose labels must exist."""
        return cls(labels, tuple(labels))

    @property
    def declared(self) -> bool:
        """Whether the user or a card named any key."""
        return len(self.optional) < len(self.labels)

    @classmethod
    def from_config(cls, units: str | Mapping[str, Any] | None) -> "FieldMap":
        """Return the field map of a config's ``units:`` or a data card's ``fields:``.

        Args:
            units: The word ``ase``, or for each label a mapping with ``key`` and ``unit``; for
                ``stress`` also ``sign``, ``order`` (absent: full 3x3) and ``virial: true``. Labels
                that it does not name are not read, or with ``rest: ase`` by their ASE names.

        Raises:
            ValueError: For undeclared units, unknown labels, options or units, each with remedy.
        """
        if units is None:
            raise ValueError(f"the units of the labels are not declared; {HOW_TO_DECLARE}")
        if isinstance(units, str):
            if units != "ase":
                raise ValueError(f"units is {units!r}, not a known word; {HOW_TO_DECLARE}")
            return ASE
        if not isinstance(units, Mapping) or not units:
            raise ValueError(f"units is {units!r}, not a mapping of labels; {HOW_TO_DECLARE}")
        rest = _rest(units)
        named = {
            str(label): _label_source(str(label), units[label]) for label in units if label != _REST
        }
        return cls({**rest, **named}, tuple(label for label in rest if label not in named))

    def read_labels(self, record: Record) -> tuple[dict[str, np.ndarray], set[str]]:
        """Return the labels of a record in internal units, and the source keys that were read.

        Labels have the shapes of ``mlip.keys.FIELDS``; forces of constrained components are NaN.

        Raises:
            ValueError: If a value is not numeric or has the wrong shape, naming record and key.
        """
        labels: dict[str, np.ndarray] = {}
        used: set[str] = set()
        for label, source in self.labels.items():
            values = record.arrays if _PER_ATOM[label] else record.info
            for key in source.keys:
                if key in values:
                    labels[label] = _convert(label, key, values[key], source, record)
                    used.add(key)
                    break
        if record.constrained is not None and "forces" in labels:
            labels["forces"] = np.where(record.constrained, np.nan, labels["forces"])
        return labels, used


def _ase_map() -> FieldMap:
    labels = {label: LabelSource((label,), FIELDS[label].unit) for label in LABELS}
    labels["stress"] = LabelSource(("stress",), "eV/Å³", order=VOIGT)
    labels["total_charge"] = LabelSource(("total_charge", "charge"), "e")
    return FieldMap.standard(labels)


ASE = _ase_map()
"""Standard ASE names and units."""


def _rest(units: Mapping[str, Any]) -> Mapping[str, LabelSource]:
    if _REST in units and units[_REST] != "ase":
        raise ValueError(f"units.rest is {units[_REST]!r}: it is ase, or left out")
    return ASE.labels if _REST in units else {}


def _label_source(label: str, entry: Any) -> LabelSource:
    """Validate one entry of a ``fields:`` mapping."""
    _require_entry(label, entry)
    virial = entry.get("virial", False)
    if not isinstance(virial, bool):
        raise ValueError(f"units.{label}.virial is {virial!r}: it is true or false")
    try:
        to_internal("energy" if virial else _QUANTITY[label], entry["unit"])
    except ValueError as error:
        raise ValueError(f"units.{label}.unit: {error}") from error
    if label != "stress":
        return LabelSource((entry["key"],), entry["unit"])
    return LabelSource(
        (entry["key"],), entry["unit"], _sign(entry), _order(entry.get("order")), virial
    )


def _require_entry(label: str, entry: Any) -> None:
    if label not in LABELS:
        raise ValueError(f"units names {label!r}, which is not a label{suggest(label, LABELS)}")
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"units.{label} is {entry!r}: give it a key and a unit, as in {{key: REF_{label}, "
            f"unit: {FIELDS[label].unit}}}"
        )
    known = _STRESS_OPTIONS if label == "stress" else _OPTIONS
    for option in entry:
        if option not in known:
            raise ValueError(f"units.{label} has no option {option!r}{suggest(str(option), known)}")
    for option in _OPTIONS:
        if not isinstance(entry.get(option), str):
            raise ValueError(
                f"units.{label}.{option} is missing: every label names the key that holds it in "
                f"the file and its unit, such as {FIELDS[label].unit}"
            )


def _sign(entry: Mapping[str, Any]) -> str:
    sign = entry.get("sign")
    if sign not in _SIGNS:
        raise ValueError(
            f"units.stress.sign is {sign!r}: declare tension_positive (ASE) or "
            "compression_positive (VASP, pressure-like; also virials written as -volume x stress)"
        )
    return str(sign)


def _order(order: Sequence[str] | None) -> tuple[str, ...] | None:
    if order is None:
        return None
    names = () if isinstance(order, str) else tuple("".join(sorted(str(x))) for x in order)
    if len(names) != 6 or set(names) != set(VOIGT):
        raise ValueError(
            f"units.stress.order is {order!r}: list the six components once each, "
            f"for instance {list(VOIGT)}, or leave it out for 3x3 matrices"
        )
    return names


def _convert(label: str, key: str, value: Any, source: LabelSource, record: Record) -> np.ndarray:
    """Return one label in internal units and the shape of ``mlip.keys.FIELDS``."""
    try:
        numbers = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{record.source}: {label} (key {key!r}) has rows of different lengths; correct it"
        ) from error
    if numbers.dtype.kind not in "fiu":
        raise ValueError(
            f"{record.source}: {label} (key {key!r}) is {repr(value)[:200]}, not a number; "
            "correct the value, or name another key"
        )
    numbers = numbers.astype(np.float64, copy=False)
    if label == "stress":
        return _stress(key, numbers, source, record)
    field = FIELDS[label]
    shape = (len(record.atoms), *field.shape) if _PER_ATOM[label] else field.shape
    if numbers.shape != shape:
        if numbers.size != prod(shape) or (shape and numbers.shape[:1] != shape[:1]):
            raise ValueError(
                f"{record.source}: {label} (key {key!r}) has shape {numbers.shape}, but "
                f"{shape} is needed; name the key that holds {field.description}"
            )
        numbers = numbers.reshape(shape)
    factor = _factor(_QUANTITY[label], source.unit)
    return numbers if factor == 1.0 else numbers * factor


_factor = cache(to_internal)


def _stress(key: str, numbers: np.ndarray, source: LabelSource, record: Record) -> np.ndarray:
    factor = _SIGNS[source.sign]
    if source.virial:
        volume = abs(np.linalg.det(record.atoms.cell.array))
        if volume == 0.0:
            raise ValueError(
                f"{record.source}: stress from the virial {key!r} needs a cell with "
                "a volume; remove the virial of structures that are not periodic"
            )
        factor *= _factor("energy", source.unit) / volume
    else:
        factor *= _factor("stress", source.unit)
    if numbers.size == 9 and source.order in (None, VOIGT):
        return numbers.reshape(3, 3) * factor
    if numbers.size == 9:
        numbers = numbers.ravel()[_PLACES]
    if numbers.size != 6:
        raise ValueError(
            f"{record.source}: stress (key {key!r}) has {numbers.size} components; "
            "6 or 9 are needed"
        )
    if source.order is None:
        raise ValueError(
            f"{record.source}: stress (key {key!r}) has 6 components of undeclared "
            f"order; declare units.stress.order, for instance {list(VOIGT)} (ASE) or "
            "[xx, yy, zz, xy, yz, xz] (VASP)"
        )
    return numbers.ravel()[_full(source.order)] * factor


@cache
def _full(order: tuple[str, ...]) -> np.ndarray:
    """Return (3, 3): which of six components stands where in the full matrix."""
    places = np.empty((3, 3), dtype=np.intp)
    for number, name in enumerate(order):
        row, column = "xyz".index(name[0]), "xyz".index(name[1])
        places[row, column] = places[column, row] = number
    return places


def look_alikes(label: str, keys: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return the keys of a file that look like ``label`` by name, level and shape.

    Args:
        label: One of ``mlip.keys.LABELS``.
        keys: Level (``graph`` or ``atom``) and shape of one item of each numeric key.
    """
    stems: Iterable[str] = {
        "energy": ("energ",),
        "forces": ("force",),
        "stress": ("stress", "virial"),
    }.get(label, ())
    shapes = ((6,), (9,), (3, 3)) if label == "stress" else (FIELDS[label].shape,)
    return sorted(
        key
        for key, (level, shape) in keys.items()
        if level == FIELDS[label].level
        and shape in shapes
        and any(stem in key.lower() for stem in stems)
    )
