"""A task: its card, its cases with references, and the property that scores them."""

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import jsonschema
import yaml
from ase import Atoms

from mlip import paths
from mlip.errors import suggest

TIERS = ("smoke", "full")
MODES = ("static", "relaxed")
PROPERTY_PACKAGE = "mlip.properties."


@dataclass(frozen=True)
class Case:
    """One structure with its reference value.

    Args:
        name: ``material/label``.
        material: For instance ``Li2O``.
        label: ``hkl`` or ``hkl@shift``.
        structure: Slab or boundary cell; ``info["normal_axis"]`` says which vector is the normal.
        bulk: Bulk cell of the material.
        reference: Reference value, in the unit of the card.
        uncertainty: Of the reference, same unit.
        tiers: Mode to the smallest tier that holds the case.
        scored: False for a doubtful reference: shown, not scored.
        tags: Source, split of the source, confidence of the bulk cell.
    """

    name: str
    material: str
    label: str
    structure: Atoms
    bulk: Atoms
    reference: float
    uncertainty: float
    tiers: dict[str, str]
    scored: bool
    tags: dict[str, str]


@dataclass(frozen=True)
class Task:
    """Everything that ``benchmarks/<name>/`` and ``configs/task/<name>.yaml`` say.

    Args:
        name: As typed on the command line.
        card: Contents of the card, validated.
        property: Dotted name of a function in ``mlip.properties``.
        protocol: Its thresholds.
        cases: Every case of every tier.
    """

    name: str
    card: dict[str, Any]
    property: str
    protocol: dict[str, Any]
    cases: list[Case] = field(repr=False)

    def select(
        self, tier: str, modes: Sequence[str], limit: int | None = None
    ) -> list[tuple[Case, str]]:
        """Return the (case, mode) pairs of a tier; ``full`` holds ``smoke``.

        Raises:
            ValueError: For an unknown tier or mode, or a limit below one.
        """
        if tier not in TIERS:
            raise ValueError(f"unknown tier {tier!r}{suggest(str(tier), TIERS)}")
        for mode in modes:
            if mode not in MODES:
                raise ValueError(f"unknown mode {mode!r} in modes{suggest(str(mode), MODES)}")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"limit is {limit!r}: give at least 1, or null for all cases")
        wanted = [
            (case, mode)
            for mode in modes
            for case in self.cases
            if TIERS.index(case.tiers[mode]) <= TIERS.index(tier)
        ]
        return wanted[:limit]


def load_task(config: Mapping[str, Any]) -> Task:
    """Read the task that a ``configs/task/*.yaml`` names.

    Raises:
        ValueError: If the card breaks its schema, a property lies outside ``mlip.properties``, or
            structures, bulk cells and references do not match.
        FileNotFoundError: If a file of the task is missing.
    """
    if not str(config["property"]).startswith(PROPERTY_PACKAGE):
        raise ValueError(
            f"task.property is {config['property']!r}: only functions of mlip.properties are run"
        )
    folder = paths.content("benchmarks") / str(config["name"])
    return Task(
        name=str(config["name"]),
        card=read_card(folder / "card.yaml"),
        property=str(config["property"]),
        protocol=dict(config["protocol"]),
        cases=list(_read_cases(folder)),
    )


def read_card(path: Path) -> dict[str, Any]:
    """Read a card and validate it against ``benchmarks/card.schema.json``.

    Raises:
        ValueError: If it breaks the schema, naming the field.
    """
    card = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = json.loads((path.parent.parent / "card.schema.json").read_text(encoding="utf-8"))
    error = jsonschema.Draft202012Validator(schema)
    problem = next(iter(error.iter_errors(card)), None)
    if problem is not None:
        where = ".".join(str(part) for part in problem.absolute_path) or "the card"
        raise ValueError(f"{path.parent.name}/{path.name}: {where}: {problem.message}")
    return card


@cache
def _read_cases(folder: Path) -> tuple[Case, ...]:
    bulks = {atoms.info["material"]: atoms for atoms in _read(folder / "bulk.extxyz")}
    structures: dict[str, Atoms] = {}
    for path in sorted((folder / "structures").glob("*.extxyz*")):
        structures |= {str(atoms.info["case"]): atoms for atoms in _read(path)}
    with (folder / "reference.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"{row['material']}/{row['label']}" for row in rows]
    odd = set(names) ^ set(structures) or {row["material"] for row in rows} - set(bulks)
    if odd or len(set(names)) != len(names):
        raise ValueError(
            f"{folder.name}: structures, bulk.extxyz and reference.csv do not match, "
            f"first at {sorted(odd)[:3]}: every case needs one frame, one row and a bulk cell"
        )
    return tuple(_case(row, structures, bulks) for row in rows)


def _case(row: dict[str, str], structures: dict[str, Atoms], bulks: dict[str, Atoms]) -> Case:
    name = f"{row['material']}/{row['label']}"
    return Case(
        name=name,
        material=row["material"],
        label=row["label"],
        structure=structures[name],
        bulk=bulks[row["material"]],
        reference=float(row["reference_J_m2"]),
        uncertainty=float(row["uncertainty_J_m2"]),
        tiers={"static": row["static_tier"], "relaxed": row["relaxed_tier"]},
        scored=row["scored"] == "true",
        tags={key: row[key] for key in ("source", "source_split", "confidence") if row[key]},
    )


def _read(path: Path) -> list[Atoms]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return list(ase.io.iread(file, index=":", format="extxyz"))
