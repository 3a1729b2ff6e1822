"""Predictions of a reference potential, kept in a journal so that a killed run goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from rich.console import Console
from rich.progress import track

from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.data.journal import Journal
from mlip.evaluation.evaluate import Evaluation, evaluate

JOURNAL = "reference.jsonl"


def predict(
    calculator: BaseCalculator,
    frames: Sequence[Frame],
    label: str,
    journal: tuple[Path, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """Return the predictions for a few frames, each on the disk before the next is begun.

    Args:
        calculator: The reference.
        frames: Frames to compute.
        label: Name of the reference.
        journal: Folder of ``reference.jsonl`` and what the work is; None keeps nothing.

    Raises:
        ValueError: If the folder holds the journal of other work.
    """
    console = Console(stderr=True)
    shown = track(
        range(len(frames)), f"asking {label}", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    if journal is None:
        results = [_compute(calculator, frames[index]) for index in shown]
    else:
        folder, job = journal
        with Journal(folder / JOURNAL, job) as lines:
            results = [_recalled(lines, i, calculator, frames[i]) for i in shown]
    failures = {i: result for i, result in enumerate(results) if isinstance(result, str)}
    predictions = [{} if isinstance(result, str) else result for result in results]
    return Evaluation(label, frames, predictions, failures)


def _recalled(
    lines: Journal, index: int, calculator: BaseCalculator, frame: Frame
) -> dict[str, np.ndarray] | str:
    """Return what the journal says of this structure; else compute it and write it there."""
    name = fingerprint(frame.atoms).hex()
    if index in lines.done:
        entry = lines.entry(index)
        if entry.get("structure") == name:
            return entry.get("failure") or {k: np.array(v) for k, v in entry["labels"].items()}
    result = _compute(calculator, frame)
    told: dict[str, Any] = {"frame": index, "structure": name}
    if isinstance(result, str):
        lines.add({**told, "failure": result})
    else:
        lines.add({**told, "labels": {key: value.tolist() for key, value in result.items()}})
    return result


def _compute(calculator: BaseCalculator, frame: Frame) -> dict[str, np.ndarray] | str:
    found = evaluate(calculator, [frame], progress=False)
    return found.failures.get(0) or found.predictions[0]
