"""The doctor with a reference potential, and its page of histograms."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlip import config as configs
from mlip.calculators.build import build_calculator
from mlip.data.check_structures import usable
from mlip.data.doctor import Diagnosis, doctor, read_splits
from mlip.data.frame import Frame
from mlip.evaluation.reference_check import check_reference
from mlip.reporting import figures
from mlip.reporting.html import write_page
from mlip.units import GPA_PER_EV_A3

_SEARCH_RADIUS = 5.0


def full_doctor(
    source: str | Path,
    fields: str | Mapping[str, Any] | None = None,
    reference: str | None = None,
    output: str | Path | None = None,
    **options: Any,
) -> Diagnosis:
    """Run every check, those against a reference potential included, and write the page.

    Args:
        source: A file, the name of a data set, or the path of a card.
        fields: Units of a file, as in a data card.
        reference: Name of a calculator, ``chgnet_0_3_0`` for instance.
        output: Folder of ``doctor.html``; None writes none.
        options: Options of the reader of a file.

    Raises:
        ValueError: If there is no such calculator.
    """
    diagnosis = doctor(source, fields, **options)
    splits: Mapping[str, Sequence[Frame]] = {}
    with suppress(ValueError, FileNotFoundError):  # it stands among the findings
        splits, _ = read_splits(source, fields, **options)
    frames = [frame for some in splits.values() for frame in some if usable(frame.atoms)]
    if reference is not None and frames:
        content = configs.compose("evaluate", [f"calculator={reference}"]).calculator
        calculator = build_calculator(content.build)
        elements = content.card.get("elements")
        findings = check_reference(frames, calculator, content.card.label, elements)
        rank = {"error": 0, "warning": 1, "note": 2}
        every = sorted([*diagnosis.findings, *findings], key=lambda found: rank[found.severity])
        diagnosis = replace(diagnosis, findings=every)
    if output is not None:
        write_doctor_page(diagnosis, frames, Path(output))
    return diagnosis


def write_doctor_page(diagnosis: Diagnosis, frames: Sequence[Frame], folder: Path) -> Path:
    """Write ``doctor.html``: the verdict, every finding, and histograms of labels and structures.

    Returns:
        The path of the page.
    """
    images = {}
    for title, quantity, unit, function in HISTOGRAMS:
        parts = [np.ravel(value) for f in frames if (value := function(f)) is not None]
        if parts:
            values = np.concatenate(parts)
            figure = figures.histogram(values, quantity=quantity, unit=unit, title=title)
            images[title] = figures.svg(figure)
    return write_page(
        folder / "doctor.html",
        "doctor.html",
        source=Path(diagnosis.source).name,
        splits=dict(diagnosis.frames),
        findings=diagnosis.findings,
        fit=not diagnosis.exit_code,
        images=images,
    )


def _energy(frame: Frame) -> Any:
    return frame.labels["energy"] / len(frame) if "energy" in frame.labels else None


def _forces(frame: Frame) -> Any:
    return np.linalg.norm(frame.labels["forces"], axis=1) if "forces" in frame.labels else None


def _pressure(frame: Frame) -> Any:
    if "stress" not in frame.labels:
        return None
    return -np.trace(frame.labels["stress"]) / 3 * GPA_PER_EV_A3


def _closest(frame: Frame) -> Any:
    from vesin import NeighborList  # imports torch where it is installed: seconds, so only here

    search = NeighborList(cutoff=_SEARCH_RADIUS, full_list=False, n_threads=1)
    atoms = frame.atoms
    (distances,) = search.compute(atoms.positions, atoms.cell.array, atoms.pbc.tolist(), "d")
    return distances.min() if len(distances) else None


HISTOGRAMS: tuple[tuple[str, str, str, Callable[[Frame], Any]], ...] = (
    ("Energies", "energy", "eV/atom", _energy),
    ("Forces", "length of the force", "eV/Å", _forces),
    ("Pressures", "pressure", "GPa", _pressure),
    ("Charges", "charge", "e", lambda frame: frame.labels.get("charges")),
    ("Closest atoms", "smallest distance of a frame", "Å", _closest),
    ("Sizes", "atoms in a frame", "", len),
)
"""Title, quantity, unit and values of each histogram."""
