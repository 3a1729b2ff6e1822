"""Several sources on one energy scale: a shift of each element for each source, fitted jointly."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.data.frame import Frame
from mlip.errors import suggest

CORRECTIONS = ("none", "MP2020", "OMat24")
"""Kinds of empirical corrections that energies may include (info key ``corrections``)."""


@dataclass(frozen=True)
class Alignment:
    """Energies of several sources relative to one of them.

    Args:
        reference: Source whose energies stay as they are.
        shifts: For each other source, the energy of an atom of each element that is subtracted,
            eV. Elements that no other source has are not shifted: nothing compares them.
        residuals: For each source, the root mean square of what the references leave of the
            energies, eV/atom, without and with its shifts.
        frames: Number of frames with an energy in each source.
        note: A sentence when the fit is not unique, else the empty string.
    """

    reference: str
    shifts: Mapping[str, Mapping[str, float]]
    residuals: Mapping[str, tuple[float, float]]
    frames: Mapping[str, int]
    note: str = ""

    def to_text(self) -> str:
        """Return the report that is printed before a training."""
        lines = [f"energies aligned to {self.reference}"]
        for source, (before, after) in self.residuals.items():
            shifts = self.shifts.get(source, {})
            told = ", ".join(f"{symbol} {value:+.3f}" for symbol, value in shifts.items())
            lines.append(
                f"  {source}: {self.frames[source]} frames, residual {1e3 * before:.0f} -> "
                f"{1e3 * after:.0f} meV/atom" + (f", minus {told} eV/atom" if told else "")
            )
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def to_card(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return asdict(self)


def align(sources: Mapping[str, Sequence[Frame]], reference: str | None = None) -> Alignment:
    """Fit element references common to all sources, and shifts of every source but one.

    Minimises the sum over frames of ``(E/N - sum_k x_k (e_k + d_sk))**2``, ``d`` being zero for
    the reference source and for elements that only one source has; every frame weighs the same.
    Total energies of different functionals, pseudopotentials or codes differ mostly by such terms
    (Huang et al., arXiv 2504.05565; Barroso-Luque et al., arXiv 2410.12771).

    Args:
        sources: Frames of each source by name.
        reference: Source whose energies stay; None takes the one with most frames.

    Raises:
        ValueError: If a source has no energy, ``reference`` is none of them, or sources hold
            energies with different empirical corrections.
    """
    if reference is not None and reference not in sources:
        raise ValueError(f"reference is {reference!r}, no source{suggest(reference, sources)}")
    require_one_kind(sources)
    rows = {name: _rows(name, frames) for name, frames in sources.items()}
    reference = reference or max(rows, key=lambda name: len(rows[name][1]))
    present: dict[str, set[int]] = {
        name: set(np.flatnonzero(x.any(axis=0)).tolist()) for name, (x, _) in rows.items()
    }
    elements = sorted(set.union(*present.values()))
    columns: list[tuple[str, int]] = [("", element) for element in elements]
    for name in sources:
        shared = set.union(set(), *(present[other] for other in sources if other != name))
        if name != reference:
            columns += [(name, element) for element in sorted(present[name] & shared)]
    table = np.concatenate([
        np.stack([x[:, z] if owner in ("", name) else np.zeros(len(x)) for owner, z in columns], 1)
        for name, (x, _) in rows.items()
    ])  # fmt: skip
    energies = np.concatenate([energy for _, energy in rows.values()])
    solution, _, rank, _ = np.linalg.lstsq(table, energies, rcond=None)
    common = np.linalg.lstsq(table[:, : len(elements)], energies, rcond=None)[0]
    left = (energies - table[:, : len(elements)] @ common, energies - table @ solution)
    shifts: dict[str, dict[str, float]] = {name: {} for name in sources if name != reference}
    for (owner, element), value in zip(columns, solution, strict=True):
        if owner:
            shifts[owner][chemical_symbols[element]] = float(value)
    counts = {name: len(energy) for name, (_, energy) in rows.items()}
    note = " ".join(filter(None, (_apart(shifts), _note(int(rank), len(columns)))))
    return Alignment(reference, shifts, _residuals(counts, *left), counts, note)


def require_one_kind(sources: Mapping[str, Sequence[Frame]]) -> None:
    """Refuse sources whose energies include different empirical corrections.

    Corrections are not linear in the composition (an oxide's depends on its bonds), so that no
    shift of elements can take them out.

    Raises:
        ValueError: For a mixture, or a kind that is not known.
    """
    first: dict[str, str] = {}
    for frames in sources.values():
        for frame in frames:
            first.setdefault(str(frame.info.get("corrections", "none")), frame.source)
    for kind in set(first) - set(CORRECTIONS):
        raise ValueError(f"{first[kind]}: corrections is {kind!r}{suggest(kind, CORRECTIONS)}")
    if len(first) > 1:
        told = ", ".join(f"{kind} ({source})" for kind, source in sorted(first.items()))
        raise ValueError(
            f"energies with different corrections cannot be trained together: {told}. Read the "
            "uncorrected energies of every source: for MPtrj uncorrected_total_energy, for OMat24 "
            "energy; MP2020 and OMat24 corrections are fitted to different calculations"
        )


def _rows(name: str, frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    held = [f for f in frames if "energy" in f.labels and np.isfinite(f.labels["energy"])]
    if not held:
        raise ValueError(f"source {name!r} has no frame with an energy: leave it out, or name the "
                         "key of energy under its units")  # fmt: skip
    width = len(chemical_symbols)
    fractions = [np.bincount(f.atoms.numbers, minlength=width) / len(f) for f in held]
    energies = [float(f.labels["energy"]) / len(f) for f in held]
    return np.stack(fractions), np.array(energies)


def _residuals(
    counts: Mapping[str, int], before: np.ndarray, after: np.ndarray
) -> dict[str, tuple[float, float]]:
    ends = np.cumsum(list(counts.values()))[:-1]
    parts = zip(np.split(before, ends), np.split(after, ends), strict=True)
    return {
        name: (float(np.sqrt(np.mean(one**2))), float(np.sqrt(np.mean(two**2))))
        for name, (one, two) in zip(counts, parts, strict=True)
    }


def _apart(shifts: Mapping[str, Mapping[str, float]]) -> str:
    apart = [name for name, shift in shifts.items() if not shift]
    if not apart:
        return ""
    return (
        f"No other source has an element of {', '.join(apart)}: nothing compares their energies, "
        "which stay as they are."
    )


def _note(rank: int, unknowns: int) -> str:
    if rank == unknowns:
        return ""
    return (
        f"The compositions determine only {rank} of {unknowns} references and shifts: the solution "
        "of least norm is used. Energies of the compositions in the data are right; give frames of "
        "further compositions to each source if others matter."
    )
