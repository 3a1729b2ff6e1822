"""The doctor: every check on a file, a store or a data card, before a GPU starts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlip.data.checks import check_splits, label_counts
from mlip.data.fields import FieldMap
from mlip.data.findings import Finding
from mlip.data.inputs import frames_by_split, require_use
from mlip.data.progress import counted
from mlip.data.store.reader import Store, is_store
from mlip.data.survey import Survey
from mlip.data.units_advice import advice


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Args:
        source: File or data set.
        frames: Number of frames of each split that could be read.
        findings: Errors, warnings and notes.
        labels: In how many frames of each split each label is.
        declaration: The units in force, with what the findings ask to be corrected; empty if
            nothing.
        compared: Whether a reference potential was asked.
    """

    source: str
    frames: Mapping[str, int]
    findings: Sequence[Finding]
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    declaration: str = ""
    compared: bool = False

    @property
    def exit_code(self) -> int:
        """1 when there is an error, else 0."""
        return int(any(finding.severity == "error" for finding in self.findings))

    def to_text(self) -> str:
        """Return a page for the terminal; its last line is the verdict."""
        held = ", ".join(f"{split} {count} frames" for split, count in self.frames.items())
        lines = [f"{self.source}: {held or 'cannot be read'}"]
        for split, counts in self.labels.items():
            told = ", ".join(f"{label} {count}" for label, count in counts.items())
            lines.append(f"labels of {split}: {told or 'none'}")
        lines += [f"{finding.severity:<8} {finding.message}" for finding in self.findings]
        counts = {
            word: sum(finding.severity == word for finding in self.findings)
            for word in ("error", "warning", "note")
        }
        verdict = "not fit for training" if self.exit_code else "fit for training"
        told = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for word, n in counts.items() if n)
        if not self.compared:
            lines.append("not compared with a potential, which finds signs and units: add "
                         "reference=chgnet_0_3_0")  # fmt: skip
        if self.declaration:
            lines.append(f"declare, if that is what the labels are in: {self.declaration}")
        return "\n".join([*lines, f"{verdict} ({told or 'nothing found'})"]) + "\n"

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps({**asdict(self), "exit_code": self.exit_code}, indent=2)


def doctor(
    source: str | Path,
    fields: FieldMap | str | Mapping[str, Any] | None = None,
    required: Sequence[str] = ("energy", "forces"),
    elements: Sequence[str] | None = None,
    **options: Any,
) -> Diagnosis:
    """Check a file or a store, or every split of a data set and the splits against each other.

    Bad input is a finding, not an exception. Frames are read one at a time; under a kilobyte of
    each is kept.

    Args:
        source: A file, a store, the name of a data set, or the path of a card.
        fields: Field map of a file; a card brings its own.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows, if it is there already.
        options: Options of the reader of a file.

    Raises:
        FileNotFoundError: If there is no such file or data set.
    """
    surveys, findings = survey_source(source, fields, options=options)
    diagnosis = diagnose(source, surveys, findings, required, elements)
    return with_declaration(diagnosis, fields)


def diagnose(
    source: str | Path,
    surveys: Mapping[str, Survey],
    findings: Sequence[Finding],
    required: Sequence[str] = ("energy", "forces"),
    elements: Sequence[str] | None = None,
) -> Diagnosis:
    """Return the findings of every check on what a pass over a source told.

    Args:
        source: Its name, for the report.
        surveys: By the name of the split.
        findings: What reading it found.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows, if it is there already.
    """
    return Diagnosis(
        str(source),
        {split: len(looked.digests) for split, looked in surveys.items()},
        [*findings, *check_splits(surveys, required, elements)],
        {split: label_counts(looked.digests) for split, looked in surveys.items()},
    )


def with_declaration(
    diagnosis: Diagnosis, fields: FieldMap | str | Mapping[str, Any] | None
) -> Diagnosis:
    """Return a diagnosis that says which units to declare, where they were declared wrongly."""
    if fields is None:
        return diagnosis
    try:
        used = fields if isinstance(fields, FieldMap) else FieldMap.from_config(fields)
    except ValueError:  # it is among the findings
        return diagnosis
    return replace(diagnosis, declaration=advice(diagnosis.findings, used))


def survey_source(
    source: str | Path,
    fields: FieldMap | str | Mapping[str, Any] | None,
    held: int = 64,
    options: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Survey], list[Finding]]:
    """Read a source once, and return what it holds by split, and what reading it found.

    A file that cannot be read to its end is an error; what stands before the damage is looked at.

    Args:
        source: A file, a store, the name of a data set, or the path of a card.
        fields: Field map of a file; a card brings its own.
        held: Frames of each split that are kept to look at closer.
        options: Options of the reader of a file.

    Raises:
        FileNotFoundError: If there is no such file or data set.
        ValueError: If units or options are given where they have no use.
    """
    require_use(source, fields, options)
    surveys: dict[str, Survey] = {}
    findings: list[Finding] = []
    try:
        if is_store(source):
            findings = list(Store(source).verify())
        splits = frames_by_split(source, fields, options)
    except ValueError as error:
        return {}, [Finding("error", str(error))]
    for split, frames in splits.items():
        looked = Survey(held)
        try:
            for frame in counted(frames, f"reading {Path(source).name}"):
                looked.add(frame)
        except (ValueError, FileNotFoundError) as error:
            findings.append(Finding("error", str(error)))
        if looked.digests:
            surveys[split] = looked
    return surveys, findings
