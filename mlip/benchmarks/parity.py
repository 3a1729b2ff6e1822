"""Where the points of a parity plot go; the page draws them as SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlip.benchmarks.leaderboard import Board, Row
from mlip.benchmarks.text import number

SIZE = 420.0
"""Side of the square, in units of the drawing."""
MARGIN = 46.0
_STEPS = (1, 2, 2.5, 5, 10)
_TICKS = 5


@dataclass(frozen=True)
class Point:
    """One case: position in the drawing, and what the reader sees on hovering."""

    x: float
    y: float
    title: str
    held_out: bool


@dataclass(frozen=True)
class Parity:
    """A parity plot of a board.

    Args:
        size: Side of the drawing.
        margin: Room for the numbers of the axes.
        ticks: (position, text) along either axis; y is measured upwards from the bottom.
        noise: Half the height of the band of the reference's uncertainty.
        diagonal: Ends of the line of perfect agreement.
        series: (colour, row, points) for each calculator that is no control.
    """

    size: float
    margin: float
    ticks: list[tuple[float, str]]
    noise: float
    diagonal: tuple[float, float]
    series: list[tuple[int, Row, list[Point]]]


def parity(board: Board, order: Sequence[str] = ()) -> Parity:
    """Return the plot of every value of a board against its reference; controls are left out.

    Args:
        board: The board.
        order: Names of calculators in the order of their colours, the same on every board.
    """
    rows = [row for row in board.rows if not row.card.get("control")]
    values = [record.reference for record in board.cases]
    values += [r.value for row in rows for r in row.records.values() if r.value is not None]
    low, high, step = _range(min(values), max(values))

    def place(value: float) -> float:
        return round(MARGIN + (value - low) / (high - low) * (SIZE - MARGIN - 10), 2)

    def colour(row: Row) -> int:
        return order.index(row.name) if row.name in order else rows.index(row)

    count = round((high - low) / step)
    ticks = [low + index * step for index in range(count + 1)]
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9)) + (str(step).endswith("25"))
    return Parity(
        size=SIZE,
        margin=MARGIN,
        ticks=[(place(t), number(t, decimals)) for t in ticks],
        noise=round(place(low + board.task["reference"]["uncertainty"]) - place(low), 2),
        diagonal=(place(low), place(high)),
        series=[(colour(row), row, _points(row, place)) for row in rows],
    )


def _points(row: Row, place: Callable[[float], float]) -> list[Point]:
    found = []
    for record in row.records.values():
        if record.value is not None:
            title = (
                f"{row.label} · {record.case}: {record.value:.3f} against {record.reference:.3f} "
                f"{record.unit}"
            )
            held_out = record.tags.get("source_split") == "test"
            found.append(Point(place(record.reference), place(record.value), title, held_out))
    return found


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Return the limits of both axes at whole steps, and the step."""
    low, high = min(low, 0.0), max(high, low + 1e-6)
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in _STEPS if factor * power >= raw)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step
