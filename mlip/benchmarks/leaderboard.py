"""From result files to boards: one ranking for each task, tier and mode."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlip.benchmarks.metrics import Scores, score
from mlip.benchmarks.record import Record
from mlip.benchmarks.results import Result
from mlip.benchmarks.task import MODES, TIERS

_VOTERS = 3
_ALARM = 4.0
_HELD_OUT = {"train": " · in the training file", "test": " · held out"}


@dataclass(frozen=True)
class Group:
    """Scores of one material, or of one split of a material that has splits."""

    name: str
    scores: Scores


@dataclass(frozen=True)
class Row:
    """One calculator on one board.

    Args:
        name: Of its config.
        label: For people.
        card: Its card.
        scores: Over all cases of the board.
        groups: The same by material.
        records: Case name to record; a case never run is a record with the status skipped.
        rank: 1 is best; None for another functional than the reference's, and for controls.
        note: Why it has no rank, if it has none.
        version: Start of the hash of its weights, and the version of its package.
    """

    name: str
    label: str
    card: dict[str, Any]
    scores: Scores
    groups: list[Group]
    records: dict[str, Record]
    rank: int | None
    note: str
    version: str


@dataclass(frozen=True)
class Board:
    """A ranking over one set of cases.

    Args:
        task: Card of the task.
        tier: smoke, core or full.
        mode: static or relaxed.
        rows: Ranked calculators, then those of another functional, then controls.
        cases: One record a case, for names, references and tags.
        alarms: Cases on which all potentials agree against the reference, which may be wrong.
    """

    task: dict[str, Any]
    tier: str
    mode: str
    rows: list[Row]
    cases: list[Record]
    alarms: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Return the title of the task."""
        return str(self.task["title"])

    @property
    def key(self) -> str:
        """Return an identifier for links."""
        return f"{self.task['name']}-{self.mode}-{self.tier}"


def boards(results: Sequence[Result]) -> list[Board]:
    """Return every board that the results fill, in the order task, mode, tier.

    Cases of a board are the union over its calculators: what one of them has not run counts as
    failed for it. A calculator is on the board of a tier if it ran any case of that tier.
    """
    tasks = {(r.task["name"], r.task["version"]): r.task for r in results}
    found = [
        _board(task, tier, mode, [r for r in results if (r.task["name"], r.task["version"]) == key])
        for key, task in sorted(tasks.items(), key=lambda item: _task_order(item[1]))
        for mode in MODES
        for tier in TIERS
    ]
    return [board for board in found if board is not None]


def _task_order(task: dict[str, Any]) -> tuple[bool, bool, str, str]:
    """Surfaces first, then what else is an energy of an area, then the covariates."""
    first, area = task["name"] != "surface_energy", task["quantity"]["unit"] != "J/m²"
    return first, area, task["name"], task["version"]


def _board(task: dict[str, Any], tier: str, mode: str, results: list[Result]) -> Board | None:
    entries = []
    for result in results:
        records = [r for r in result.records if r.mode == mode]
        if any(_tier(record) == tier for record in records):
            inside = [r for r in records if TIERS.index(_tier(r)) <= TIERS.index(tier)]
            entries.append((result, {record.case: record for record in inside}))
    if not entries:
        return None
    cases = {case: record for _, records in entries for case, record in records.items()}
    ordered = [cases[name] for name in sorted(cases)]
    rows = [_row(task, result, records, ordered) for result, records in entries]
    return Board(task, tier, mode, _ranked(rows), ordered, consensus_alarms(rows, ordered))


def consensus_alarms(rows: Sequence[Row], cases: Sequence[Record]) -> list[str]:
    """Return the scored cases on which three or more potentials agree against the reference.

    They agree if the spread of their values is below half of their mean distance from the
    reference, and that distance is above four times its uncertainty. Potentials of another
    functional and controls have no vote. Potentials trained on the same data may err together: an
    alarm asks for a look at the reference, and changes no score.
    """
    voters = [row for row in rows if not row.note]
    found = []
    for case in cases:
        values = [value for row in voters if (value := row.records[case.case].value) is not None]
        if len(values) < _VOTERS or not case.tags.get("scored", True):
            continue
        distance = abs(sum(values) / len(values) - case.reference)
        if max(values) - min(values) < distance / 2 and distance > _ALARM * case.uncertainty:
            found.append(case.case)
    return found


def _row(
    task: dict[str, Any], result: Result, records: dict[str, Record], cases: list[Record]
) -> Row:
    full = {case.case: records.get(case.case) or _skipped(case, result) for case in cases}
    card = result.calculator
    note = ""
    if card.get("control"):
        note = "control"
    elif card["functional"] != task["reference"]["functional"]:
        note = f"{card['functional']} against {task['reference']['functional']}"
    return Row(
        name=card["name"],
        label=card["label"],
        card=card,
        scores=score(list(full.values())),
        groups=_groups(full.values()),
        records=full,
        rank=None,
        note=note,
        version=_version(next(iter(records.values()))),
    )


def _ranked(rows: list[Row]) -> list[Row]:
    """Sort by penalised error: a failed case counts as the prediction zero."""

    def key(row: Row) -> tuple[bool, bool, float]:
        penalised = row.scores.penalised_mae
        control = bool(row.card.get("control"))
        return control, bool(row.note), float("inf") if penalised is None else penalised

    rank, ordered = 0, []
    for row in sorted(rows, key=key):
        if not row.note and row.scores.n_ok:
            rank += 1
            row = replace(row, rank=rank)
        ordered.append(row)
    return ordered


def _groups(records: Iterable[Record]) -> list[Group]:
    found: dict[str, list[Record]] = {}
    for record in records:
        split = _HELD_OUT.get(record.tags.get("source_split", ""), "")
        found.setdefault(record.material + split, []).append(record)
    return [Group(name, score(group)) for name, group in sorted(found.items())]


def _skipped(case: Record, result: Result) -> Record:
    return Record(
        task=case.task,
        case=case.case,
        mode=case.mode,
        calculator=result.calculator["name"],
        status="skipped",
        input_hash="",
        reference=case.reference,
        uncertainty=case.uncertainty,
        unit=case.unit,
        detail="not run by this calculator",
        atoms=case.atoms,
        tags=case.tags,
    )


def _tier(record: Record) -> str:
    return str(record.tags["tiers"][record.mode])


def _version(record: Record) -> str:
    known = ("python", "numpy", "ase", "torch", "mlip-suite")
    packages = [f"{name} {number}" for name, number in record.versions.items() if name not in known]
    weights = [f"weights {record.checkpoint_hash[:10]}"] if record.checkpoint_hash else []
    return " · ".join([*packages, *weights])
