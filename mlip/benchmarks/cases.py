"""The cases of a task: structures, what they are compared with, and reference values."""

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

TIERS = ("smoke", "core", "full")
"""Each tier holds those before it."""
NO_TIER = "none"
"""In a column of tiers: the case does not exist in that mode."""
_TAGS = ("source", "source_split", "confidence")


@dataclass(frozen=True)
class Case:
    """One structure with its reference value.

    Args:
        name: ``material/label``.
        material: For instance ``Li2O``.
        label: ``hkl`` or ``hkl@shift``.
        structure: Slab, boundary cell or frame; ``info["normal_axis"]`` says which vector is the
            normal.
        partner: What it is compared with: the bulk cell of the material, or the slab that a
            boundary parts into; None for a task of single structures.
        reference: Reference value, in the unit of the card.
        uncertainty: Of the reference, same unit.
        tiers: Mode to the smallest tier that holds the case; a mode it lacks is not for it.
        scored: False for a doubtful reference: shown, not scored.
        tags: Source, split of the source, confidence of the bulk cell.
    """

    name: str
    material: str
    label: str
    structure: Atoms
    partner: Atoms | None
    reference: float
    uncertainty: float
    tiers: dict[str, str]
    scored: bool
    tags: dict[str, str]


def read_cases(folder: Path, card: Mapping[str, Any]) -> tuple[Case, ...]:
    """Read the cases in a folder of the form of ``benchmarks/<task>/``.

    ``reference.csv`` has one row a case: material, label and ``reference_<unit>`` are needed;
    ``uncertainty_<unit>``, static_tier, relaxed_tier, scored, source, source_split and confidence
    may be left out. The structures are in ``structures.extxyz`` or ``structures/*.extxyz``, plain
    or .gz, with ``case=material/label`` on each frame. What they are compared with is in
    ``bulk.extxyz`` (``material=`` on each frame) or ``partners/*.extxyz`` (``case=``).

    Raises:
        ValueError: If structures, partners and references do not match, or a value cannot be read,
            naming the case and the column.
        FileNotFoundError: If the folder or ``reference.csv`` does not exist.
    """
    return _read_cases(folder.resolve(), str(card["quantity"]["unit"]), _uncertainty(card))


def _uncertainty(card: Mapping[str, Any]) -> float:
    return float(card["reference"]["uncertainty"])


@cache
def _read_cases(folder: Path, unit: str, uncertainty: float) -> tuple[Case, ...]:
    table = folder / "reference.csv"
    if not table.is_file():
        raise FileNotFoundError(
            f"{table} does not exist: cases are a folder with structures.extxyz and reference.csv"
        )
    structures = _frames(folder, "structures", "case")
    partners = _frames(folder, "partners", "case") or _frames(folder, "bulk", "material")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    _check_columns(rows, table, unit)
    names = [_name(row) for row in rows]
    odd = set(names) ^ set(structures)
    if partners:
        odd |= {name for name in names if _partner(name, partners) is None}
    if odd or len(set(names)) != len(names):
        raise ValueError(
            f"{folder.name}: structures, partners and reference.csv do not match, first at "
            f"{sorted(odd)[:3]}: every case needs one frame, one row and a bulk cell or partner"
        )
    return tuple(
        _case(row, structures[name], _partner(name, partners), unit, uncertainty)
        for name, row in zip(names, rows, strict=True)
    )


def _check_columns(rows: list[dict[str, str]], table: Path, unit: str) -> None:
    needed = {"material", "label", _column("reference", unit)}
    missing = needed - set(rows[0] if rows else ())
    if missing:
        raise ValueError(
            f"{table} lacks {', '.join(sorted(missing)) if rows else 'rows'}: "
            f"a row needs {', '.join(sorted(needed))}"
        )


def _column(name: str, unit: str) -> str:
    """Return the heading of a column with a unit: ``reference_J_m2`` for J/m², plain for 1."""
    written = unit.replace("²", "2").replace("³", "3").replace("Å", "A").replace("/", "_")
    return name if unit == "1" else f"{name}_{written}"


def _name(row: Mapping[str, str]) -> str:
    return f"{row['material']}/{row['label']}"


def _partner(name: str, partners: Mapping[str, Atoms]) -> Atoms | None:
    return partners.get(name) or partners.get(name.split("/", 1)[0])


def _case(
    row: dict[str, str], structure: Atoms, partner: Atoms | None, unit: str, uncertainty: float
) -> Case:
    static = row.get("static_tier") or "smoke"
    tiers = {"static": static, "relaxed": row.get("relaxed_tier") or static}
    return Case(
        name=_name(row),
        material=row["material"],
        label=row["label"],
        structure=structure,
        partner=partner,
        reference=_number(row, _column("reference", unit)),
        uncertainty=_number(row, _column("uncertainty", unit), uncertainty),
        tiers={mode: _tier(row, tier) for mode, tier in tiers.items() if tier != NO_TIER},
        scored=(row.get("scored") or "true").lower() == "true",
        tags={key: row[key] for key in _TAGS if row.get(key)},
    )


def _tier(row: Mapping[str, str], value: str) -> str:
    if value not in TIERS:
        raise ValueError(
            f"{_name(row)}: tier is {value!r}: one of {', '.join(TIERS)}, or {NO_TIER}"
        )
    return value


def _number(row: Mapping[str, str], column: str, default: float | None = None) -> float:
    text = row.get(column) or ""
    if not text and default is not None:
        return default
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{_name(row)}: {column} is {text!r}: give a number") from None


def _frames(folder: Path, name: str, key: str) -> dict[str, Atoms]:
    """Return the frames of ``name.extxyz`` and ``name/*.extxyz``, plain or .gz, by an info key."""
    files = [*sorted(folder.glob(f"{name}.extxyz*")), *sorted((folder / name).glob("*.extxyz*"))]
    found: dict[str, Atoms] = {}
    for path in files:
        for atoms in _read(path):
            if key not in atoms.info:
                raise ValueError(f"{path}: a frame has no {key}= in its comment line: add it")
            found[str(atoms.info[key])] = atoms
    return found


def _read(path: Path) -> list[Atoms]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return list(ase.io.iread(file, index=":", format="extxyz"))
