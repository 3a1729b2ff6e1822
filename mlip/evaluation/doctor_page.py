"""The doctor's page: verdict, findings, histograms, elements, parity against a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlip.data.check_energies import energy_residuals
from mlip.data.checks import element_counts
from mlip.data.digest import Digest
from mlip.data.doctor import Diagnosis
from mlip.data.survey import Survey
from mlip.evaluation.evaluate import Evaluation
from mlip.reporting import figures
from mlip.reporting.html import write_page
from mlip.units import GPA_PER_EV_A3

PAGE = "doctor.html"


def write_doctor_page(
    diagnosis: Diagnosis, surveys: Mapping[str, Survey], asked: Evaluation | None, folder: Path
) -> Path:
    """Write ``doctor.html``.

    Args:
        diagnosis: The findings.
        surveys: What a pass over each split told.
        asked: What a reference predicts for some of the frames, None without one.
        folder: Where to write.

    Returns:
        The path of the page.
    """
    digests = [digest for looked in surveys.values() for digest in looked.digests]
    elements = element_counts(digests)
    atoms = sum(count for _, count in elements.values())
    return write_page(
        folder / PAGE,
        PAGE,
        source=Path(diagnosis.source).name,
        splits=dict(diagnosis.frames),
        frames=len(digests),
        atoms=atoms,
        labels=diagnosis.labels,
        findings=[replace(f, message=_short(f.message, digests)) for f in diagnosis.findings],
        fit=not diagnosis.exit_code,
        images=[figures.svg(figure) for figure in _histograms(digests, list(surveys.values()))],
        elements=[
            (symbol, held, count, 100.0 * count / atoms)
            for symbol, (held, count) in sorted(elements.items(), key=lambda item: -item[1][1])
        ],
        reference=asked.label if asked else "",
        parity=[figures.svg(figure) for figure in _parity(asked)],
    )


def _short(message: str, digests: Sequence[Digest]) -> str:
    """Return a message with the names of the files read in place of their paths."""
    for file in {digest.file for digest in digests}:
        message = message.replace(file, Path(file).name) if file else message
    return message


def _histograms(digests: Sequence[Digest], surveys: Sequence[Survey]) -> list[Figure]:
    pressures = np.array([digest.pressure for digest in digests]) * GPA_PER_EV_A3
    table: Sequence[tuple[str, str, str, Any]] = (
        ("Energies after the references", "energy", "eV/atom", energy_residuals(digests)),
        ("Energies", "energy", "eV/atom", [d.energy / len(d) for d in digests]),
        ("Forces", "length of the force", "eV/Å", _joined([s.forces.array() for s in surveys])),
        ("Pressures", "pressure", "GPa", pressures),
        ("Charges", "charge", "e", _joined([s.charges.array() for s in surveys])),
        ("Closest atoms", "smallest distance of a frame", "Å", [d.closest[0] for d in digests]),
        ("Volumes", "volume", "Å³/atom", [d.volume for d in digests]),
        ("Sizes", "atoms in a frame", "", [len(d) for d in digests]),
    )
    return [
        figures.histogram(
            np.asarray(values, dtype=float), quantity=quantity, unit=unit, title=title
        )
        for title, quantity, unit, values in table
        if np.isfinite(np.asarray(values, dtype=float)).any()
    ]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(chain(parts, [np.zeros(0)])))


def _parity(asked: Evaluation | None) -> list[Figure]:
    if asked is None:
        return []
    found = []
    for quantity, what, unit, factor in (
        ("forces", "force component", "eV/Å", 1.0),
        ("stress", "stress component", "GPa", GPA_PER_EV_A3),
    ):
        pairs = [asked.pair(index, quantity) for index in range(len(asked.frames))]
        known = [pair for pair in pairs if pair is not None]
        if known:
            label, prediction = (
                factor * np.concatenate([pair[side].ravel() for pair in known]) for side in (0, 1)
            )
            title = f"{quantity.capitalize()}: labels and {asked.label}"
            found.append(figures.parity(label, prediction, quantity=what, unit=unit, label=title))
    return found
