"""The one-page report of a training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlip.evaluation.evaluate import Evaluation
from mlip.evaluation.pages import (
    error_rows,
    failures,
    group_rows,
    parity_plots,
    versions,
    worst,
)
from mlip.reporting import figures
from mlip.reporting.html import write_page


def write_run_report(
    folder: Path,
    *,
    config_yaml: str,
    history: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Evaluation],
    summary: Mapping[str, Any],
) -> Path:
    """Write ``report.html`` of a run: errors, curves, parity plots, data, config, how to use it.

    Args:
        folder: Run folder.
        config_yaml: Resolved config.
        history: Rows of ``metrics.csv``.
        evaluations: By split; the first leads the page: test frames, or validation frames without.
        summary: What ``summary.json`` says: ``data``, ``title``, ``frames``, ``epochs``,
            ``best_epoch``, ``timing``, ``references``, ``level_of_theory``, ``notes``.

    Returns:
        The path of the page.
    """
    lead = next(iter(evaluations))
    parts = {
        split: {
            "rows": error_rows(evaluation),
            "failures": failures(evaluation),
            "frames": len(evaluation.frames),
        }
        for split, evaluation in evaluations.items()
    }
    images = {name: figures.svg(figure) for name, figure in parity_plots(evaluations[lead]).items()}
    curves = {
        panel: figures.svg(figures.learning_curves(history, only=[panel]))
        for panel in figures.panels(history)
    }
    return write_page(
        folder / "report.html",
        "run_report.html",
        name=folder.name,
        lead=lead,
        splits=parts,
        images=images,
        groups=group_rows(evaluations[lead]),
        worst=worst(evaluations[lead]),
        curves=curves,
        summary=summary,
        config_yaml=config_yaml,
        versions=versions(),
        files=sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")),
        potential=(folder / "best.safetensors").as_posix(),
    )
