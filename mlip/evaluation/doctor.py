"""The doctor with a reference potential, and with its page."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlip import config as configs
from mlip.calculators.build import build_calculator
from mlip.data.doctor import Diagnosis, diagnose, survey_source, with_declaration
from mlip.data.findings import by_severity
from mlip.data.frame import Frame
from mlip.data.survey import Survey
from mlip.evaluation.doctor_page import write_doctor_page
from mlip.evaluation.evaluate import Evaluation
from mlip.evaluation.reference_check import check_reference, known_frames
from mlip.evaluation.reference_run import predict

FRAMES = 24
"""Frames that a reference potential is asked about."""


def full_doctor(
    source: str | Path,
    fields: str | Mapping[str, Any] | None = None,
    reference: str | None = None,
    output: str | Path | None = None,
    frames: int = FRAMES,
    options: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Run every check, those against a reference potential included, and write the page.

    With an output, what the reference predicts is kept there as it comes: after a kill, the same
    call goes on where it stopped.

    Args:
        source: A file, a store, the name of a data set, or the path of a card.
        fields: Units of a file, as in a data card.
        reference: Name of a calculator, ``chgnet_0_3_0`` for instance.
        output: Folder of ``doctor.html`` and ``reference.jsonl``; None writes neither.
        frames: How many frames, evenly spread, the reference is asked about.
        options: Options of the reader of a file.

    Raises:
        ValueError: If there is no such calculator, or the output is of other work.
    """
    content = None
    if reference is not None:  # before a long reading
        content = configs.compose("evaluate", [f"calculator={reference}"]).calculator
    surveys, findings = survey_source(source, fields, max(frames, 64), options)
    diagnosis = diagnose(source, surveys, findings)
    asked = None
    if content is not None and surveys:
        asked = _ask(content, surveys, frames, output, Path(source).name)
        findings = by_severity([*diagnosis.findings, *check_reference(asked)])
        diagnosis = replace(diagnosis, findings=findings, compared=True)
    diagnosis = with_declaration(diagnosis, fields)
    if output is not None:
        write_doctor_page(diagnosis, surveys, asked, Path(output))
    return diagnosis


def _ask(
    content: Any, surveys: Mapping[str, Survey], count: int, output: str | Path | None, source: str
) -> Evaluation:
    share = -(-count // len(surveys))
    held = chain.from_iterable(looked.held.spread(share) for looked in surveys.values())
    chosen: list[Frame] = known_frames(list(held), content.card.get("elements"))
    label = str(content.card.label)
    if not chosen:
        return Evaluation(label, [], [])
    job = {
        "source": source,
        "reference": OmegaConf.to_container(content.build, resolve=True),
        "frames": len(chosen),
    }
    journal = None if output is None else (Path(output), job)
    return predict(build_calculator(content.build), chosen, label, journal)
