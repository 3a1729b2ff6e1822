"""The boards as tables in a terminal."""

from rich.console import Console
from rich.table import Table

from mlip.benchmarks.leaderboard import Board
from mlip.benchmarks.text import number

_MOST_CASES = 30


def print_board(console: Console, board: Board) -> None:
    """Print the scores of every calculator, and each case if they are few."""
    table = _table(f"{board.title} · {board.mode} · {board.tier}")
    for heading in (
        "calculator",
        "computed",
        f"MAE{_unit(board)}",
        "penalised",
        "median ratio",
        "note",
    ):
        _column(table, heading)
    for row in board.rows:
        found = row.scores
        table.add_row(
            row.label,
            f"{found.n_ok}/{found.n}",
            number(found.mae),
            number(found.penalised_mae),
            number(found.median_ratio, 2),
            row.note,
        )
    console.print(table)
    if len(board.cases) <= _MOST_CASES:
        _print_cases(console, board)


def _print_cases(console: Console, board: Board) -> None:
    table = _table(f"each case{_unit(board)}")
    for heading in ("case", "DFT", *(row.label for row in board.rows)):
        _column(table, heading)
    for case in board.cases:
        values = []
        for row in board.rows:
            record = row.records[case.case]
            values.append(number(record.value) if record.status == "ok" else record.status)
        table.add_row(case.case, number(case.reference), *values)
    console.print(table)


def _unit(board: Board) -> str:
    unit = board.task["quantity"]["unit"]
    return "" if unit == "1" else f", {unit}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)


def _column(table: Table, heading: str) -> None:
    text = heading in ("calculator", "note", "case")
    table.add_column(heading, justify="left" if text else "right", overflow="fold")
