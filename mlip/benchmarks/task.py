"""A task: its card, its cases with references, and the property that scores them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from mlip import paths
from mlip.benchmarks.cases import TIERS, Case, read_cases
from mlip.errors import suggest

MODES = ("static", "relaxed")
PROPERTY_PACKAGE = "mlip.properties."


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
        """Return the (case, mode) pairs of a tier; each tier holds those before it.

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
            if mode in case.tiers and TIERS.index(case.tiers[mode]) <= TIERS.index(tier)
        ]
        return wanted[:limit]


def load_task(config: Mapping[str, Any], cases: str | Path | None = None) -> Task:
    """Read the task that a ``configs/task/*.yaml`` names.

    Args:
        config: The contents of that file.
        cases: Folder with cases of one's own, in the form of ``benchmarks/<name>/``; None takes
            those of the task.

    Raises:
        ValueError: If the card breaks its schema, a property lies outside ``mlip.properties``, or
            structures, partners and references do not match.
        FileNotFoundError: If a file of the task is missing.
    """
    if not str(config["property"]).startswith(PROPERTY_PACKAGE):
        raise ValueError(
            f"task.property is {config['property']!r}: only functions of mlip.properties are run"
        )
    folder = paths.content("benchmarks") / str(config["name"])
    card = read_card(folder / "card.yaml")
    return Task(
        name=str(config["name"]),
        card=card,
        property=str(config["property"]),
        protocol=dict(config["protocol"]),
        cases=list(read_cases(folder if cases is None else Path(cases), card)),
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
