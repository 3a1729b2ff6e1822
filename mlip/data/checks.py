"""Checks of labelled frames before any work starts, all in one place."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ase.data import chemical_symbols

from mlip.data.check_calculations import check_converged, check_settings
from mlip.data.check_charges import check_charges
from mlip.data.check_energies import check_energies
from mlip.data.check_forces import check_forces, check_masked, check_stress, check_stress_sign
from mlip.data.check_structures import (
    check_distances,
    check_duplicates,
    check_elements,
    check_geometry,
    check_leakage,
)
from mlip.data.check_work import check_work
from mlip.data.digest import Digest
from mlip.data.findings import Finding, by_severity, examples, shortened
from mlip.data.frame import Frame
from mlip.data.survey import Survey, survey
from mlip.keys import FIELDS

_STEMS = {"charges": "charges", "magmoms": "magmom", "dipole": "dipole"}
_THEORY_KEYS = (
    "functional", "xc", "xc_functional", "level_of_theory", "run_type", "corrections",
)  # fmt: skip


def check_frames(
    frames: Iterable[Frame] | Survey,
    required: Sequence[str] = ("energy", "forces"),
    elements: Sequence[str] | None = None,
) -> list[Finding]:
    """Run every check on the frames of one split.

    Args:
        frames: Frames to check, looked at once and one at a time.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows; None when it takes them from the data.

    Returns:
        Errors first, then warnings, then notes. Empty when there is nothing to say.
    """
    return check_splits({"": frames}, required, elements)


def check_splits(
    splits: Mapping[str, Iterable[Frame] | Survey],
    required: Sequence[str] = ("energy", "forces"),
    elements: Sequence[str] | None = None,
) -> list[Finding]:
    """Run every check on each split, and look for what stands in two of them.

    Args:
        splits: Frames by the name of their split, or what a pass over them told.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows; None when it takes them from the data.

    Returns:
        Errors first, then warnings, then notes. Empty when there is nothing to say.
    """
    surveys = {name: survey(frames) for name, frames in splits.items()}
    findings: list[Finding] = []
    for looked in surveys.values():
        findings += check_source(looked, required, elements)
    digests = {name: looked.digests for name, looked in surveys.items()}
    return by_severity(findings + check_duplicates(digests) + check_leakage(digests))


def check_source(
    frames: Iterable[Frame] | Survey,
    required: Sequence[str],
    elements: Sequence[str] | None = None,
) -> list[Finding]:
    """Run every check that looks at one split of one source."""
    looked = survey(frames)
    digests = looked.digests
    if not digests:
        return [Finding("error", "there are no frames; name a file or split that holds some")]
    findings = check_labels(digests, required) + check_geometry(digests)
    findings += check_elements(digests, elements) if elements is not None else []
    checks: tuple[Callable[[Sequence[Digest]], list[Finding]], ...] = (
        check_distances,
        check_finite,
        check_masked,
        check_forces,
        check_stress,
        check_stress_sign,
        check_energies,
        check_charges,
        check_unread,
        check_functionals,
        check_converged,
        check_settings,
    )
    for check in checks:
        findings += check(digests)
    return findings + check_work(looked.pairs)


def check_labels(frames: Sequence[Digest], required: Sequence[str]) -> list[Finding]:
    """Find labels that are missing everywhere (an error if required) or in some frames (a note)."""
    findings = []
    present = {label for frame in frames for label in frame.labels}
    if required and not present:
        return [
            Finding("error", f"{frames[0].file or 'the data'} holds structures without labels, and "
                    f"{_held(frames)}. Compute labels (mlip data label), name the keys of some "
                    "under units, or use other data")
        ]  # fmt: skip
    for label in sorted(set(required) | present):
        missing = [frame.source for frame in frames if label not in frame.labels]
        if len(missing) == len(frames):
            findings.append(
                Finding("error", f"{frames[0].file or 'the data'} holds no {label}: it holds "
                        f"labels {', '.join(sorted(present))}, {_held(frames)}. Name the key "
                        f"of {label} and its unit under units, or use other data")
            )  # fmt: skip
        elif missing:
            findings.append(
                Finding("note", f"{label} is missing in {len(missing)} of {len(frames)} frames "
                        f"({examples(missing)}): it is masked there")
            )  # fmt: skip
    return findings


def check_finite(frames: Sequence[Digest]) -> list[Finding]:
    """Find labels that are not finite, apart from the forces of atoms marked as constrained."""
    return shortened([
        Finding("error", text)
        for frame in frames
        for kind, text in frame.defects
        if kind == "finite"
    ])  # fmt: skip


def check_unread(frames: Sequence[Digest]) -> list[Finding]:
    """Tell keys that look like a label which is not read: charges under another name, say."""
    present = {label for frame in frames for label in frame.labels}
    keys = sorted({key for frame in frames for key in frame.keys})
    findings = []
    for label, stem in _STEMS.items():
        likely = [k for k in keys if stem in k.lower() and not k.lower().startswith("initial")]
        if label in present or len(likely) != 1:
            continue
        unit = FIELDS[label].unit
        findings.append(
            Finding("note", f"{likely[0]} looks like {label} but is not read: name its key and "
                    f"unit under units if it is to be learnt",
                    {label: {"key": likely[0], "unit": unit}})
        )  # fmt: skip
    return findings


def check_functionals(frames: Sequence[Digest]) -> list[Finding]:
    """Find several levels of theory in one data set, by what the info of the frames says."""
    findings = []
    for key in _THEORY_KEYS:
        first: dict[str, str] = {}
        for frame in frames:
            if key in frame.info:
                first.setdefault(str(frame.info[key]), frame.source)
        if len(first) > 1:
            told = ", ".join(f"{value} ({source})" for value, source in sorted(first.items()))
            findings.append(
                Finding("error", f"{key} differs between frames: {told}. Energies of different "
                        "functionals or corrections cannot be mixed; keep one, or train one head "
                        "for each")
            )  # fmt: skip
    return findings


def label_counts(frames: Sequence[Digest]) -> dict[str, int]:
    """Return in how many frames each label is."""
    counts: dict[str, int] = {}
    for frame in frames:
        for label in frame.labels:
            counts[label] = counts.get(label, 0) + 1
    return dict(sorted(counts.items()))


def element_counts(frames: Sequence[Digest]) -> dict[str, tuple[int, int]]:
    """Return in how many frames each element is, and how many atoms of it there are."""
    held: Counter[int] = Counter()
    atoms: Counter[int] = Counter()
    for frame in frames:
        for number, count in frame.composition:
            held[number] += 1
            atoms[number] += count
    return {chemical_symbols[number]: (held[number], atoms[number]) for number in sorted(held)}


def _held(frames: Sequence[Digest]) -> str:
    keys = {key for frame in frames for key in frame.keys}
    return f"other keys {', '.join(sorted(keys)) or '(none)'}"
