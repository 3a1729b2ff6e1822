"""The runs of a sweep side by side: a table, a figure and a page, seeds averaged."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mlip.reporting import figures
from mlip.reporting.html import number, write_page
from mlip.reporting.labels import describe

_NOT_A_CHOICE = ("seed", "output", "resume")


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        label: What it differs by from the others, seeds left out.
        folder: Its folder, with ``summary.json``.
    """

    label: str
    folder: Path

    @property
    def errors(self) -> dict[str, float]:
        """RMSE of each quantity on test frames, or validation frames without."""
        found: Mapping[str, Mapping[str, float]] = json.loads(
            (self.folder / "summary.json").read_text()
        )["errors"]
        lead = next(iter(found.values()))
        return {name: value for name, value in lead.items() if "_rmse_" in name}


def labelled(jobs: Sequence[tuple[Sequence[str], Path]]) -> list[Run]:
    """Return the runs of jobs, named by the words in which they differ.

    Args:
        jobs: Overrides and folder of each job.
    """
    words = [
        [word for word in overrides if word.partition("=")[0] not in _NOT_A_CHOICE]
        for overrides, _ in jobs
    ]
    shared = set.intersection(*map(set, words)) if words else set()
    return [
        Run(" ".join(word for word in own if word not in shared) or "same", folder)
        for own, (_, folder) in zip(words, jobs, strict=True)
    ]


def write_comparison(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``comparison.csv``, ``.png`` and ``.html`` of finished runs, and print the table.

    Returns:
        The path of the page.
    """
    errors = {run: run.errors for run in runs}
    quantities = list(dict.fromkeys(name for found in errors.values() for name in found))
    labels = list(dict.fromkeys(run.label for run in runs))
    values = {
        label: {name: _values(errors, label, name) for name in quantities} for label in labels
    }
    with (folder / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "folder", *quantities])
        for run, found in errors.items():
            writer.writerow([run.label, run.folder.name, *(found.get(q, "") for q in quantities)])
    _print(values, quantities)
    shown = [name for name in quantities if "aligned" not in name]
    figure = figures.comparison(
        {_words(name): {label: values[label][name] for label in labels} for name in shown}
    )
    figures.save(figure, folder / "comparison.png")
    return write_page(
        folder / "comparison.html",
        "comparison.html",
        runs=len(runs),
        headings=[describe(name) for name in quantities],
        rows=[(label, [_cell(values[label][name]) for name in quantities]) for label in labels],
        image=figures.svg(figure),
    )


def _values(errors: Mapping[Run, Mapping[str, float]], label: str, name: str) -> list[float]:
    return [found[name] for run, found in errors.items() if run.label == label and name in found]


def _words(name: str) -> str:
    words, unit = describe(name)
    return f"{words}, {unit}"


def _cell(values: Iterable[float]) -> str:
    """Return the mean, with the standard deviation over seeds where there are some."""
    found = np.array(list(values))
    if len(found) == 0:
        return "-"
    spread = f" ± {number(float(found.std(ddof=1)), 2)}" if len(found) > 1 else ""
    return f"{number(float(found.mean()))}{spread}"


def _print(values: Mapping[str, Mapping[str, list[float]]], quantities: Sequence[str]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run")
    for name in quantities:
        table.add_column("\n".join(describe(name)), justify="right")
    for label, row in values.items():
        table.add_row(label, *(_cell(row[name]) for name in quantities))
    Console(highlight=False).print(table)
