"""Write LEADERBOARD.md and leaderboard.html, from result files only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlip.benchmarks.leaderboard import Board, Row, boards
from mlip.benchmarks.parity import parity
from mlip.benchmarks.record import STATUSES
from mlip.benchmarks.results import read_result
from mlip.benchmarks.text import DASH, interval, number
from mlip.reporting.html import write_page, write_text

_HEAD = (
    "#",
    "calculator",
    "functional",
    "computed",
    "MAE",
    "by material",
    "penalised",
    "95 % interval",
    "skill",
    "bias",
    "median ratio",
    "facet order",
    "trained on",
    "licence of the weights",
    "time, s",
)
_RIGHT = (0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14)
_INTRODUCTION = """# Leaderboard

Written by `mlip benchmark` from the result files; change those, not this file. The page
`leaderboard.html` beside it shows every case. Errors are in the unit of the task. *computed* is
cases that gave a value out of all; *penalised* counts a failed case as the prediction zero, and the
rank follows it; its *95 % interval* comes from resampling the cases. *skill* is 1 for perfect and 0
for the prediction zero, whoever else is on the board. *median ratio* is model/DFT, below one is
softening. Calculators of another functional than that of the reference, and controls, have no rank.
"""


def report(results: Sequence[Path], folder: Path) -> list[Path]:
    """Write the table and the page of result files into a folder; return both paths.

    Args:
        results: ``result.json`` files, from a run or from ``benchmarks/*/results``.
        folder: Where ``LEADERBOARD.md`` and ``leaderboard.html`` go.

    Raises:
        ValueError: If there is no result, or one is damaged.
    """
    if not results:
        raise ValueError("there are no results yet: run `mlip benchmark … record=true` first")
    found = _without_subsets(boards([read_result(path) for path in results]))
    potentials = (r for board in found for r in board.rows if not r.card.get("control"))
    order = sorted({row.name for row in potentials})
    page = write_page(
        folder / "leaderboard.html",
        "leaderboard.html",
        tasks=_by_task(found),
        parity={board.key: parity(board, order) for board in found},
        statuses=STATUSES,
        show=number,
        show_interval=interval,
        heat={board.key: _hottest(board) for board in found},
        worst={board.key: _worst(board) for board in found},
    )
    return [page, write_text(folder / "LEADERBOARD.md", markdown(found))]


def _without_subsets(found: Sequence[Board]) -> list[Board]:
    """Leave out a tier if the next one holds all its calculators: it holds its cases too."""
    kept = []
    for index, board in enumerate(found):
        larger = found[index + 1] if index + 1 < len(found) else None
        same = larger and (larger.task["name"], larger.mode) == (board.task["name"], board.mode)
        names = {row.name for row in board.rows}
        if not (larger and same and names <= {row.name for row in larger.rows}):
            kept.append(board)
    return kept


def markdown(found: Sequence[Board]) -> str:
    """Return the leaderboard as Markdown."""
    parts = [_INTRODUCTION]
    for task_boards in _by_task(found):
        task = task_boards[0].task
        reference = task["reference"]
        noise = f"{reference['uncertainty']} {reference['uncertainty_unit']}"
        parts.append(
            f"## {task['title']}\n\n{task['question']}\n\n"
            f"Reference: {reference['level_of_theory']}; resolved to about {noise}. "
            f"Version {task['version']} of the task.\n"
        )
        parts += [_section(board) for board in task_boards]
    return "\n".join(parts)


def _section(board: Board) -> str:
    rules = ["---:" if index in _RIGHT else "---" for index in range(len(_HEAD))]
    lines = [
        f"### {board.mode}, {board.tier} tier: {len(board.cases)} cases\n",
        _line(_HEAD),
        _line(rules),
        *(_line(_cells(row)) for row in board.rows),
        "",
        *_groups_table(board),
        *_alarm_lines(board),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    found, card = row.scores, row.card
    note = f" ({row.note})" if row.note else ""
    return [
        str(row.rank or ""),
        row.label + note,
        card["functional"],
        f"{found.n_ok}/{found.n}",
        number(found.mae),
        number(found.material_mae),
        number(found.penalised_mae),
        interval(found.interval),
        number(found.skill, 2),
        number(found.bias, sign=True),
        number(found.median_ratio, 2),
        number(found.facet_order, 2),
        ", ".join(card["training_sets"]) or DASH,
        card["weights_licence"],
        f"{found.wall_time:.1f}",
    ]


def _groups_table(board: Board) -> list[str]:
    """Materials down, calculators across: MAE and median ratio."""
    lines = [
        f"{_mae(board.task)} (median ratio) by material:\n",
        _line(["material", "cases", *(row.label for row in board.rows)]),
        _line(["---", "---:", *("---:" for _ in board.rows)]),
    ]
    for index, group in enumerate(board.rows[0].groups):
        total = group.scores.n or group.scores.n_unscored
        count = f"{total}" if group.scores.n else f"{total} (not scored)"
        cells = []
        for row in board.rows:
            scores = row.groups[index].scores
            ratio = "" if scores.median_ratio is None else f" ({scores.median_ratio:.2f})"
            cells.append(number(scores.mae) + ratio)
        lines.append(_line([group.name, count, *cells]))
    return lines


def _alarm_lines(board: Board) -> list[str]:
    if not board.alarms:
        return []
    return ["", f"All potentials agree against the reference: {', '.join(board.alarms)}."]


def _mae(task: Mapping[str, Any]) -> str:
    unit = task["quantity"]["unit"]
    return "MAE" if unit == "1" else f"MAE, {unit}"


def _worst(board: Board) -> float:
    """Return the largest error on a board, to which its bars are scaled."""
    values = [value for row in board.rows for value in (row.scores.mae, row.scores.penalised_mae)]
    return max((value for value in values if value), default=1.0)


def _hottest(board: Board) -> float:
    """Return the largest error of a material by a potential, at which the colour is strongest."""
    potentials = [row for row in board.rows if not row.card.get("control")] or board.rows
    values = [group.scores.mae for row in potentials for group in row.groups]
    return max((value for value in values if value), default=1.0)


def _by_task(found: Sequence[Board]) -> list[list[Board]]:
    tasks: dict[tuple[str, str], list[Board]] = {}
    for board in found:
        tasks.setdefault((board.task["name"], board.task["version"]), []).append(board)
    return list(tasks.values())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
