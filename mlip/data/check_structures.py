"""Checks of the structures: geometry, close atoms, elements, duplicates."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ase import Atoms

from mlip.data.findings import Finding, examples, shortened
from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame

CLOSEST = 0.3
"""Å; two atoms nearer than this are a mistake."""

# A longer search radius means fewer and larger cells, which is many times faster.
_SEARCH_RADIUS = 2.0


def check_geometry(frames: Sequence[Frame]) -> list[Finding]:
    """Find positions or cells that are not finite, and periodic directions without a vector."""
    findings = []
    for frame in frames:
        atoms = frame.atoms
        if not np.isfinite(atoms.positions).all():
            atom = int(np.argmax(~np.isfinite(atoms.positions).all(axis=1)))
            findings.append(
                Finding("error", f"{frame.source}: the position of atom {atom} is "
                        f"{atoms.positions[atom].tolist()}; correct or remove the frame")
            )  # fmt: skip
        if not _spans(atoms):
            findings.append(
                Finding("error", f"{frame.source}: pbc is {atoms.pbc.tolist()} but the cell "
                        f"{atoms.cell.array.tolist()} does not span these directions; correct pbc "
                        "or the cell")
            )  # fmt: skip
    return shortened(findings)


def check_distances(frames: Iterable[Frame], closest: float = CLOSEST) -> list[Finding]:
    """Find pairs of atoms, periodic images included, nearer than ``closest`` (Å, below 2)."""
    from vesin import NeighborList  # imports torch where it is installed: seconds, so only here

    neighbors = NeighborList(cutoff=_SEARCH_RADIUS, full_list=False, n_threads=1)
    findings = []
    for frame in frames:
        if not usable(frame.atoms):
            continue
        first, second, distance = neighbors.compute(
            frame.atoms.positions, frame.atoms.cell.array, frame.atoms.pbc.tolist(), "ijd"
        )
        if not len(distance) or distance.min() >= closest:
            continue
        pair = int(distance.argmin())
        i, j = int(first[pair]), int(second[pair])
        what = f"atoms {i} and {j}" if i != j else f"atom {i} and its own periodic image"
        symbols = frame.atoms.symbols
        findings.append(
            Finding("error", f"{frame.source}: {what} ({symbols[i]}, {symbols[j]}) are "
                    f"{distance[pair]:.3f} Å apart, less than {closest} Å; check the unit of "
                    "positions and cell, or remove the frame")
        )  # fmt: skip
    return shortened(findings)


def check_elements(frames: Iterable[Frame], elements: Sequence[str]) -> list[Finding]:
    """Find elements that a model with the given element list does not know."""
    where: list[str] = []
    unknown: set[str] = set()
    for frame in frames:
        if new := set(frame.atoms.symbols) - set(elements):
            unknown |= new
            where.append(frame.source)
    if not unknown:
        return []
    names = ", ".join(sorted(unknown))
    return [
        Finding(
            "error",
            f"{names} {'is' if len(unknown) == 1 else 'are'} in {examples(where)}, but the model "
            f"knows only {', '.join(elements)}; remove these frames or train with {names}",
        )
    ]


def check_duplicates(splits: Mapping[str, Sequence[Frame]]) -> list[Finding]:
    """Find equal structures within a split, and the same structure in two splits.

    Args:
        splits: Frames by the name of their split; one split is allowed.
    """
    where: dict[bytes, list[tuple[str, str]]] = {}
    for split, frames in splits.items():
        for frame in frames:
            where.setdefault(fingerprint(frame.atoms), []).append((split, frame.source))
    equal = [places for places in where.values() if len(places) > 1]
    across = [places for places in equal if len({split for split, _ in places}) > 1]
    within = [places for places in equal if len({split for split, _ in places}) == 1]
    return [
        Finding("warning", f"{len(places)} structures {text}: {examples(_pairs(places))}; {remedy}")
        for places, text, remedy in (
            (across, "are in more than one split", "test errors would be too good, keep one copy"),
            (within, "occur more than once", "they weigh more than others, keep one copy"),
        )
        if places
    ]


def usable(atoms: Atoms) -> bool:
    """Return whether positions and cell are finite and every periodic direction has a vector."""
    return bool(np.isfinite(atoms.positions).all()) and _spans(atoms)


def _spans(atoms: Atoms) -> bool:
    if not np.isfinite(atoms.cell.array).all():
        return False
    periodic = atoms.cell.array[np.asarray(atoms.pbc)]
    return not len(periodic) or bool(np.linalg.matrix_rank(periodic) == len(periodic))


def _pairs(groups: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    return [" = ".join(source for _, source in group[:2]) for group in groups]
