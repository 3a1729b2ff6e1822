"""Checks of the structures: geometry, close atoms, elements, duplicates, leakage."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols

from mlip.data.digest import Digest, digests
from mlip.data.findings import Finding, examples, shortened
from mlip.data.frame import Frame

CLOSEST = 0.3
"""Å; two atoms nearer than this are a mistake."""
_SAME = 1e-7
_SAME_ENERGY = 1e-4


def check_geometry(frames: Iterable[Frame | Digest]) -> list[Finding]:
    """Find positions or cells that are not finite, and periodic directions without a vector."""
    return shortened([
        Finding("error", text)
        for frame in digests(frames)
        for kind, text in frame.defects
        if kind == "geometry"
    ])  # fmt: skip


def check_distances(frames: Iterable[Frame | Digest], closest: float = CLOSEST) -> list[Finding]:
    """Find pairs of atoms, periodic images included, nearer than ``closest`` (Å, below 3.5)."""
    findings = []
    for frame in digests(frames):
        distance, i, j = frame.closest
        if not distance < closest:
            continue
        what = f"atoms {i} and {j}" if i != j else f"atom {i} and its own periodic image"
        symbols = ", ".join(chemical_symbols[number] for number in frame.pair)
        findings.append(
            Finding("error", f"{frame.source}: {what} ({symbols}) are {distance:.3f} Å apart, less "
                    f"than {closest} Å; check the unit of positions and cell, or remove the frame")
        )  # fmt: skip
    return shortened(findings)


def check_elements(frames: Iterable[Frame | Digest], elements: Sequence[str]) -> list[Finding]:
    """Find elements that a model with the given element list does not know."""
    where: list[str] = []
    unknown: set[str] = set()
    for frame in frames:
        symbols = frame.atoms.symbols if isinstance(frame, Frame) else frame.symbols
        if new := set(symbols) - set(elements):
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


def check_duplicates(splits: Mapping[str, Iterable[Frame | Digest]]) -> list[Finding]:
    """Find equal structures within a split and across splits, and copies in another setting.

    Equal structures have the same atoms at the same places, in any order and periodic image, and
    the same total charge.
    Copies agree in composition, volume, sums over pairs of atoms, and energy if there is one:
    they are one structure turned, shifted, or in another cell; a mirror image counts as a copy.

    Args:
        splits: Frames by the name of their split; one split is allowed.
    """
    first: dict[tuple[bytes, str], tuple[str, Digest]] = {}
    again: dict[tuple[bytes, str], list[tuple[str, Digest]]] = {}
    for split, frames in splits.items():
        for frame in digests(frames):
            name, place = (frame.fingerprint, f"{frame.total_charge:.3f}"), (split, frame)
            if frame.fingerprint and first.setdefault(name, place) is not place:
                again.setdefault(name, [first[name]]).append(place)
    equal, copies = list(again.values()), _copies(list(first.values()))
    moved = "turned, shifted or in another cell"
    optimism = "test errors would be too good, keep one copy"
    weight = "they weigh more than others, keep one copy"
    return [
        Finding("warning" if warn else "note", f"{len(places)} structures {text}: "
                f"{examples(_pairs(places))}; {remedy}")
        for warn, places, text, remedy in (
            (True, _across(equal), "are in more than one split", optimism),
            (True, _within(equal), "occur more than once", weight),
            (True, _across(copies), f"are in more than one split {moved}", optimism),
            (False, _within(copies), f"occur {moved}", "they weigh more than others"),
        )
        if places
    ]  # fmt: skip


def check_leakage(splits: Mapping[str, Iterable[Frame | Digest]]) -> list[Finding]:
    """Find materials and trajectories that the source names in more than one split."""
    findings = []
    held = {split: digests(frames) for split, frames in splits.items()}
    for key, what, many in (
        ("source_id", "material", "materials"), ("trajectory_id", "trajectory", "trajectories"),
    ):  # fmt: skip
        names = {
            split: {str(frame.info[key]) for frame in frames if key in frame.info}
            for split, frames in held.items()
        }
        shared = sorted({
            name for split in names for other in names if split < other
            for name in names[split] & names[other]
        })  # fmt: skip
        if shared:
            findings.append(
                Finding("warning", f"{len(shared)} {many} have frames in more than one split "
                        f"({examples(shared)}): test errors would be too good; divide with "
                        f"group={what}")
            )  # fmt: skip
    return findings


def _copies(places: Sequence[tuple[str, Digest]]) -> list[list[tuple[str, Digest]]]:
    """Return groups of at least two whose invariants and energies per atom agree."""
    groups: dict[tuple, list[tuple[str, Digest]]] = {}
    for split, frame in places:
        if np.isfinite(frame.shape[0]) and frame.shape[0] > 0 and len(frame) > 1:
            groups.setdefault((frame.formula, frame.info.get("functional")), []).append(
                (split, frame)
            )
    found = []
    for group in groups.values():
        group.sort(key=lambda place: place[1].shape)
        run = group[:1]
        for place in group[1:]:
            if _alike(run[-1][1], place[1]):
                run.append(place)
                continue
            found.append(run)
            run = [place]
        found.append(run)
    return [run for run in found if len(run) > 1]


def _alike(first: Digest, second: Digest) -> bool:
    ours, theirs = (
        (*frame.shape, frame.volume if np.isfinite(frame.volume) else 0.0)
        for frame in (first, second)
    )
    if not np.allclose(ours, theirs, rtol=_SAME, atol=0.0):
        return False
    gap = abs(first.energy / len(first) - second.energy / len(second))
    return not gap > _SAME_ENERGY  # NaN where one has no energy


def _across(groups: Sequence[Sequence[tuple[str, Digest]]]) -> list[Sequence[tuple[str, Digest]]]:
    return [group for group in groups if len({split for split, _ in group}) > 1]


def _within(groups: Sequence[Sequence[tuple[str, Digest]]]) -> list[Sequence[tuple[str, Digest]]]:
    return [group for group in groups if len({split for split, _ in group}) == 1]


def _pairs(groups: Sequence[Sequence[tuple[str, Digest]]]) -> list[str]:
    """Return the first two sources of each group, from different splits where there are some."""
    told = []
    for group in groups:
        first = group[0]
        other = next((place for place in group[1:] if place[0] != first[0]), group[1])
        told.append(f"{first[1].source} = {other[1].source}")
    return told
