"""The doctor: every check on a file, a store or a data card, before a GPU starts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlip.data.card import load_card, load_frames
from mlip.data.checks import check_splits
from mlip.data.fields import FieldMap
from mlip.data.findings import Finding
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.store.reader import Store, is_store
from mlip.data.store.report import frames_to_check


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Args:
        source: File or data set.
        frames: Number of frames of each split that could be read.
        findings: Errors, warnings and notes.
    """

    source: str
    frames: Mapping[str, int]
    findings: Sequence[Finding]

    @property
    def exit_code(self) -> int:
        """1 when there is an error, else 0."""
        return int(any(finding.severity == "error" for finding in self.findings))

    def to_text(self) -> str:
        """Return a page for the terminal; its last line is the verdict."""
        held = ", ".join(f"{split} {count} frames" for split, count in self.frames.items())
        lines = [f"{self.source}: {held or 'cannot be read'}"]
        lines += [f"{finding.severity:<8} {finding.message}" for finding in self.findings]
        counts = {
            word: sum(finding.severity == word for finding in self.findings)
            for word in ("error", "warning", "note")
        }
        verdict = "not fit for training" if self.exit_code else "fit for training"
        told = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for word, n in counts.items() if n)
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

    Bad input is a finding, not an exception.

    Args:
        source: A file, a store, the name of a data set, or the path of a card.
        fields: Field map of a file; a card brings its own.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows, if it is there already.
        options: Options of the reader of a file.
    """
    splits: Mapping[str, Sequence[Frame]] = {}
    findings: list[Finding] = []
    try:
        splits, findings = read_splits(source, fields, **options)
    except (ValueError, FileNotFoundError) as error:
        findings.append(Finding("error", str(error)))
    findings += check_splits(splits, required, elements)
    return Diagnosis(str(source), {k: len(frames) for k, frames in splits.items()}, findings)


def read_splits(
    source: str | Path, fields: FieldMap | str | Mapping[str, Any] | None, **options: Any
) -> tuple[Mapping[str, Sequence[Frame]], list[Finding]]:
    """Return the frames of a file, a store or a data set by split, and what reading them found.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    if is_store(source):
        return frames_to_check(Store(source))
    path = Path(source)
    folder = path.is_dir() and not (path / "card.yaml").is_file()
    file = path.is_file() or (path.suffix and not path.is_dir())
    if path.name != "card.yaml" and (file or folder):
        return {"file": list(read(path, fields, **options))}, []
    if options:
        raise ValueError(f"options are for files; the card of {source} says how its files are read")
    card = load_card(source)
    return {split: load_frames(card, split) for split in card.files}, []
