"""What a file holds, told before any unit is declared."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlip.data.fields import VOIGT, FieldMap, look_alikes
from mlip.data.progress import counted
from mlip.data.readers import read_records
from mlip.data.readers.recognize import default_fields, format_of, require_options
from mlip.data.record import Record
from mlip.data.thinned import Thinned, Values
from mlip.keys import FIELDS

_MAX_VALUES = 8
_MOST_VALUES = 10_000
_HELD = 8192


@dataclass(frozen=True)
class Property:
    """One numeric key of a file, in the units of the file.

    Args:
        key: Key in the file.
        level: ``graph`` (one a structure) or ``atom``.
        shape: Shape of one item.
        frames: Number of frames that hold it.
        minimum: Smallest component.
        maximum: Largest component.
        read_as: Label and unit under the field map in force; empty when the key is not read.
        hint: What the size of the values suggests, for keys that are not read.
    """

    key: str
    level: str
    shape: tuple[int, ...]
    frames: int
    minimum: float
    maximum: float
    read_as: str
    hint: str


@dataclass(frozen=True)
class Inspection:
    """What a file holds.

    Args:
        path: File.
        format: Format by ASE's name.
        frames: Number of structures.
        atoms: Smallest, median and largest number of atoms.
        elements: Number of frames that hold each element.
        pbc: Number of frames for each periodicity, ``TTF`` for a slab.
        properties: Numeric keys.
        info: Values of each other info key; the number of values when there are many, which are
            counted up to 10,000.
        constrained: Number of frames with fixed atoms.
        fixed: Number of fixed force components.
        following: What to type next.
    """

    path: str
    format: str
    frames: int
    atoms: tuple[int, float, int]
    elements: dict[str, int]
    pbc: dict[str, int]
    properties: list[Property]
    info: dict[str, list[str] | int]
    constrained: int
    fixed: int = 0
    following: str = ""

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), indent=2)

    def to_text(self) -> str:
        """Return a page for the terminal."""
        low, median, high = self.atoms
        lines = [
            f"{self.path}: {self.frames} frames ({self.format})",
            f"atoms     {low} to {high}, median {median:g}",
            f"elements  {_counts(self.elements)}",
            f"periodic  {_counts(self.pbc)}",
        ]
        if self.constrained:
            lines.append(
                f"fixed     {self.fixed} force components in {self.constrained} frames (masked)"
            )
        rows = [("key", "per", "shape", "frames", "min", "max", "read as", "hint")]
        for item in self.properties:
            per = "atom" if item.level == "atom" else "frame"
            shape = "x".join(map(str, item.shape)) or "1"
            limits = (f"{item.minimum:.6g}", f"{item.maximum:.6g}")
            label = item.read_as or "-"
            rows.append((item.key, per, shape, str(item.frames), *limits, label, item.hint))
        lines += ["", *_table(rows)] if self.properties else ["", "no numeric property"]
        other = [f"{key}  {_values(values)}" for key, values in self.info.items()]
        following = ["", f"next: {self.following}"] if self.following else []
        return "\n".join([*lines, "", *other, *following]).rstrip() + "\n"


def inspect(
    path: str | Path,
    fields: FieldMap | str | Mapping[str, Any] | None = None,
    **options: Any,
) -> Inspection:
    """Look through a file without interpreting its units.

    Args:
        path: Any file that ``mlip.data.readers`` reads.
        fields: Field map to show beside the keys; None for an undeclared file.
        options: Options of the format's reader.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read.
    """
    path = Path(path)
    if (path / "manifest.json").is_file():
        from mlip.data.store.report import inspect_store

        return inspect_store(path)
    file_format = format_of(path)
    require_options(path, file_format, options)
    if fields is not None and not isinstance(fields, FieldMap):
        fields = FieldMap.from_config(fields)
    if fields is None:
        fields = default_fields(file_format)
    tally = _Tally()
    records = read_records(path, file_format, **options)
    for record in counted(records, f"reading {path.name}"):
        tally.add(record)
    properties = [_property(key, column, fields) for key, column in tally.columns.items()]
    return Inspection(
        path=str(path),
        format=file_format,
        frames=tally.atoms.total(),
        atoms=(min(tally.atoms), _median(tally.atoms), max(tally.atoms)),
        elements=dict(sorted(tally.elements.items())),
        pbc=dict(tally.pbc),
        properties=properties,
        info={
            key: sorted(values) if len(values) <= _MAX_VALUES else len(values)
            for key, values in tally.info.items()
        },
        constrained=tally.constrained,
        fixed=tally.fixed,
        following=following_step(str(path), properties),
    )


def following_step(path: str, properties: Sequence[Property]) -> str:
    """Return what to type next: check the labels, declare their units first, or make some."""
    doctor = f"mlip data doctor {shlex.quote(path)}"
    if any(item.read_as for item in properties):
        return doctor
    seen = {item.key: (item.level, item.shape) for item in properties}
    likely = {label: look_alikes(label, seen) for label in ("energy", "forces", "stress")}
    if not any(likely.values()):
        return f"mlip data label {shlex.quote(path)} OUTPUT.extxyz calculator=NAME  (mlip list)"
    hints = {item.key: item.hint for item in properties}
    standard = all(
        keys == [label] and "is plausible" in hints[label] and "compression" not in hints[label]
        for label, keys in likely.items()
        if keys
    )
    if standard:
        return f"{doctor} units=ase"
    units = ", ".join(
        f"{label}: {_declaration(label, keys[0], seen[keys[0]][1])}"
        for label, keys in likely.items()
        if keys
    )
    return f"{doctor} {shlex.quote('units={' + units + '}')}  (with the true units)"


def _declaration(label: str, key: str, shape: tuple[int, ...]) -> str:
    text = f"key: {key}, unit: {FIELDS[label].unit.replace('Å', 'A').replace('³', '^3')}"
    if label == "stress":
        text += ", sign: tension_positive"
        text += f", order: [{', '.join(VOIGT)}]" if shape == (6,) else ""
    return f"{{{text}}}"


@dataclass
class _Column:
    """Running figures of one numeric key."""

    level: str
    shape: tuple[int, ...]
    frames: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    per_atom: Values = field(default_factory=lambda: Values(_HELD))
    traces: Thinned[tuple[float, float]] = field(default_factory=lambda: Thinned(_HELD))

    def add(self, values: np.ndarray, record: Record) -> None:
        self.frames += 1
        finite = values[np.isfinite(values)]
        if not finite.size:
            return
        self.minimum = min(self.minimum, float(finite.min()))
        self.maximum = max(self.maximum, float(finite.max()))
        if self.level == "graph" and values.size == 1:
            self.per_atom.add([float(values.ravel()[0]) / len(record.atoms)])
        if self.level == "graph" and values.size in (6, 9) and record.atoms.pbc.all():
            # All usual orders of six components begin with xx, yy, zz.
            diagonal = values.ravel()[:3] if values.size == 6 else values.ravel()[::4]
            volume = record.atoms.get_volume() / len(record.atoms)
            self.traces.add((volume, float(diagonal.mean())))


class _Tally:
    """Running figures of a file."""

    def __init__(self) -> None:
        self.atoms: Counter[int] = Counter()
        self.elements: Counter[str] = Counter()
        self.pbc: Counter[str] = Counter()
        self.columns: dict[str, _Column] = {}
        self.info: dict[str, set[str]] = {}
        self.constrained = self.fixed = 0

    def add(self, record: Record) -> None:
        self.atoms[len(record.atoms)] += 1
        self.elements.update(set(record.atoms.symbols))
        self.pbc["".join("T" if flag else "F" for flag in record.atoms.pbc)] += 1
        if record.constrained is not None:
            self.constrained += 1
            self.fixed += int(np.count_nonzero(record.constrained))
        for level, items in (("graph", record.info), ("atom", record.arrays)):
            for key, value in items.items():
                self._add_value(key, level, value, record)

    def _add_value(self, key: str, level: str, value: Any, record: Record) -> None:
        try:
            values = np.asarray(value)
        except ValueError:  # rows of different lengths
            values = np.asarray(str(value))
        if values.dtype.kind in "fiu" and not key.endswith("_id"):
            shape = values.shape[1:] if level == "atom" else values.shape
            self.columns.setdefault(key, _Column(level, shape)).add(values, record)
        elif level == "graph":
            values_seen = self.info.setdefault(key, set())
            if len(values_seen) < _MOST_VALUES:
                values_seen.add(str(value))


def _property(key: str, column: _Column, fields: FieldMap | None) -> Property:
    read_as = ""
    for label, source in (fields.labels if fields else {}).items():
        if key in source.keys:
            read_as = f"{label} [{source.unit}]"
    return Property(
        key,
        column.level,
        column.shape,
        column.frames,
        column.minimum,
        column.maximum,
        read_as,
        "" if read_as else _hint(key, column),
    )


def _hint(key: str, column: _Column) -> str:
    size = max(abs(column.minimum), abs(column.maximum))
    seen = {key: (column.level, column.shape)}
    if not np.isfinite(size):
        return "no finite value"
    if look_alikes("energy", seen):
        middle = float(np.median(column.per_atom.array()))
        fits = -20.0 < middle < 5.0
        return f"{middle:.4g} per atom: {'eV is plausible' if fits else 'unit to declare'}"
    if look_alikes("forces", seen):
        return "eV/Å is plausible" if 0.2 < size < 100.0 else "unit to declare (eV/Å? Ha/bohr?)"
    if look_alikes("stress", seen):
        unit = "unit to declare (GPa? kbar? a virial in eV?)"
        return f"{'eV/Å³ is plausible' if size < 1.0 else unit}; {_sign_hint(list(column.traces))}"
    return ""


def _sign_hint(traces: Sequence[tuple[float, float]]) -> str:
    points = np.array(traces).reshape(-1, 2)
    points = points[points[:, 0] < 1.3 * np.median(points[:, 0])] if len(points) else points
    spread = points.std(axis=0) if len(points) > 2 else np.zeros(2)
    if len(points) < 10 or spread[0] < 0.01 * points[:, 0].mean() or spread[1] == 0.0:
        return "sign to declare"
    correlation = float(np.corrcoef(points.T)[0, 1])
    if abs(correlation) < 0.3:
        return "sign to declare"
    word = "tension_positive" if correlation > 0 else "compression_positive"
    return f"sign looks {word} (correlation with volume {correlation:+.2f})"


def _median(counts: Counter[int]) -> float:
    sizes = sorted(counts)
    places = np.cumsum([counts[size] for size in sizes])
    half = counts.total()
    low, high = (sizes[int(places.searchsorted(n))] for n in ((half + 1) // 2, half // 2 + 1))
    return (low + high) / 2


def _values(values: Sequence[str] | int) -> str:
    if not isinstance(values, int):
        return ", ".join(values)
    return f"{values}{' or more' if values >= _MOST_VALUES else ''} different values"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
