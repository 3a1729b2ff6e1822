"""Checks of labelled frames before any work starts: pure functions that return findings."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mlip.data.check_calculations import check_converged, check_settings
from mlip.data.check_structures import (
    check_distances,
    check_duplicates,
    check_elements,
    check_geometry,
    usable,
)
from mlip.data.energy_references import (
    EnergyReferences,
    fit_energy_references,
    reference_residuals,
)
from mlip.data.findings import Finding, by_severity, examples, require, shortened
from mlip.data.frame import Frame
from mlip.keys import FIELDS
from mlip.units import GPA_PER_EV_A3

LARGE_FORCE = 100.0
"""eV/Å; above it a frame is most likely a failed calculation."""
LARGE_STRESS = 10.0
"""eV/Å³ (1602 GPa); above it the unit is most likely another one."""
SCATTER = 1.0
"""eV/atom; real frames of one level of theory lie closer to their reference energies."""
WEAK = 0.5
"""eV/atom; pseudopotential and all-electron totals, and cohesive energies, are larger."""
NET_FORCE = 0.1
"""eV/Å; the sum of all forces of a structure vanishes, up to the noise of the calculation."""
CHARGE_SUM = 0.05
"""e; how well partial charges must add up to the total charge."""

_FUNCTIONAL_KEYS = ("functional", "xc", "xc_functional", "level_of_theory")
_MIN_GROUP = 8
_OUTLIER = 12.0
_OUTLIER_FLOOR = 0.05


def check_frames(
    frames: Sequence[Frame],
    required: Sequence[str] = ("energy", "forces"),
    elements: Sequence[str] | None = None,
) -> list[Finding]:
    """Run every check on the frames of one split.

    Args:
        frames: Frames to check.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows; None when it takes them from the data.

    Returns:
        Errors first, then warnings, then notes. Empty when there is nothing to say.
    """
    return check_splits({"": frames}, required, elements)


def check_splits(
    splits: Mapping[str, Sequence[Frame]],
    required: Sequence[str] = ("energy", "forces"),
    elements: Sequence[str] | None = None,
) -> list[Finding]:
    """Run every check on each split, and look for structures that stand in two of them.

    Args:
        splits: Frames by the name of their split.
        required: Labels without which the data is of no use.
        elements: Symbols that the model knows; None when it takes them from the data.

    Returns:
        Errors first, then warnings, then notes. Empty when there is nothing to say.
    """
    findings: list[Finding] = []
    for frames in splits.values():
        findings += check_source(frames, required, elements)
    sound = {name: [f for f in frames if usable(f.atoms)] for name, frames in splits.items()}
    return by_severity(findings + check_duplicates(sound))


def check_source(
    frames: Sequence[Frame], required: Sequence[str], elements: Sequence[str] | None = None
) -> list[Finding]:
    """Run every check that looks at one split of one source."""
    if not frames:
        return [Finding("error", "there are no frames; name a file or split that holds some")]
    findings = check_labels(frames, required) + check_geometry(frames)
    findings += check_elements(frames, elements) if elements is not None else []
    checks: tuple[Callable[[Sequence[Frame]], list[Finding]], ...] = (
        check_distances,
        check_finite,
        check_forces,
        check_stress,
        check_stress_sign,
        check_energies,
        check_charges,
        check_functionals,
        check_converged,
        check_settings,
    )
    for check in checks:
        findings += check(frames)
    return findings


def check_labels(frames: Sequence[Frame], required: Sequence[str]) -> list[Finding]:
    """Find labels that are missing everywhere (an error if required) or in some frames (a note)."""
    findings = []
    present = {label for frame in frames for label in frame.labels}
    for label in sorted(set(required) | present):
        missing = [frame.source for frame in frames if label not in frame.labels]
        if len(missing) == len(frames):
            findings.append(
                Finding("error", f"{_file(frames)} holds no {label}: it holds "
                        f"{_held(frames)}. Name the key of {label} and its unit under units, or "
                        "use other data")
            )  # fmt: skip
        elif missing:
            findings.append(
                Finding("note", f"{label} is missing in {len(missing)} of {len(frames)} frames "
                        f"({examples(missing)}): it is masked there")
            )  # fmt: skip
    return findings


def check_finite(frames: Sequence[Frame]) -> list[Finding]:
    """Find labels that are not finite; force components marked as constrained are only counted."""
    findings, fixed, atoms = [], 0, 0
    for frame in frames:
        constrained = frame.info.get("constrained")
        for label, values in frame.labels.items():
            bad = ~np.isfinite(np.atleast_1d(values))
            if label == "forces" and constrained is not None:
                fixed += int(np.count_nonzero(constrained))
                atoms += 1
                bad &= ~np.asarray(constrained)
            if bad.any():
                findings.append(_not_finite(frame, label, np.argwhere(bad)[0]))
    findings = shortened(findings)
    if fixed:
        findings.append(
            Finding("note", f"{fixed} force components of constrained atoms in {atoms} frames are "
                    "masked")
        )  # fmt: skip
    return findings


def check_forces(frames: Sequence[Frame]) -> list[Finding]:
    """Find forces above ``LARGE_FORCE`` and structures whose forces do not add up to zero."""
    large, net = [], []
    for frame in _with(frames, "forces"):
        forces = frame.labels["forces"]
        finite = np.where(np.isfinite(forces), forces, 0.0)
        size = float(np.sqrt((finite**2).sum(axis=1)).max())
        if size > LARGE_FORCE:
            large.append(f"{frame.source} {size:.0f} eV/Å")
        # NaN, hence not above the limit, where atoms are fixed.
        total = np.abs(forces.sum(axis=0)).max()
        if total > NET_FORCE:
            net.append(f"{frame.source} {total:.3g} eV/Å")
    findings = []
    if large:
        findings.append(
            Finding("warning", f"forces above {LARGE_FORCE:.0f} eV/Å in {len(large)} frames "
                    f"({examples(large)}); check the unit of forces, or remove these frames")
        )  # fmt: skip
    if net:
        findings.append(
            Finding("warning", f"the forces of {len(net)} frames do not add up to zero "
                    f"({examples(net)}); check the key and the unit of forces, and that atoms held "
                    "fixed are marked by a move_mask column")
        )  # fmt: skip
    return findings


def check_stress(frames: Sequence[Frame]) -> list[Finding]:
    """Find stresses too large to be in eV/Å³, and matrices that are not symmetric."""
    held = [f for f in _with(frames, "stress") if np.isfinite(f.labels["stress"]).all()]
    sizes = np.array([np.abs(frame.labels["stress"]).max() for frame in held])
    skew = [
        frame.source
        for frame, size in zip(held, sizes, strict=True)
        if np.abs(frame.labels["stress"] - frame.labels["stress"].T).max() > 1e-3 + 0.01 * size
    ]
    findings = []
    if (large := sizes > LARGE_STRESS).any():
        worst = int(sizes.argmax())
        # One frame may be a failed calculation; a unit is wrong everywhere.
        severity = "error" if np.median(sizes) > LARGE_STRESS / 10 else "warning"
        findings.append(
            Finding(severity, f"stress of {np.count_nonzero(large)} frames is above "
                    f"{LARGE_STRESS:.0f} eV/Å³ ({held[worst].source}: {sizes[worst]:.4g} eV/Å³ = "
                    f"{sizes[worst] * GPA_PER_EV_A3:.4g} GPa): it looks like GPa or kbar; declare "
                    "units.stress, or remove these frames")
        )  # fmt: skip
    if skew:
        findings.append(
            Finding("error", f"the stress matrix of {len(skew)} frames is not symmetric "
                    f"({examples(skew)}); check units.stress.order")
        )  # fmt: skip
    return findings


def check_stress_sign(frames: Sequence[Frame]) -> list[Finding]:
    """Find a stress that grows under compression: its sign is that of a pressure.

    Within one composition the mean normal stress must rise with the volume. Cells with vacuum
    (1.3 times the median volume per atom) are left out; fewer than ten frames, or volumes that
    differ by less than 1 %, decide nothing.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for frame in _with(frames, "stress"):
        finite = np.isfinite(frame.labels["stress"]).all()
        if finite and frame.atoms.pbc.all() and usable(frame.atoms):
            volume = frame.atoms.get_volume() / len(frame)
            trace = float(np.trace(frame.labels["stress"])) / 3
            groups.setdefault(_formula(frame), []).append((volume, trace))
    centred = [_centred(np.array(group)) for group in groups.values() if len(group) > 2]
    points: np.ndarray = np.concatenate(centred) if centred else np.empty((0, 2))
    if len(points) < 10 or points[:, 0].std() < 0.01 or points[:, 1].std() == 0.0:
        return []
    correlation = float(np.corrcoef(points.T)[0, 1])
    if not correlation < -0.3:
        return []
    return [
        Finding("warning", f"{_file(frames)}: stress falls when the cell is stretched (correlation "
                f"with volume {correlation:.2f}), so its sign looks like that of a pressure; "
                "declare units.stress.sign: compression_positive")
    ]  # fmt: skip


def check_energies(frames: Sequence[Frame]) -> list[Finding]:
    """Find energies per atom far from those of the same composition, after the reference fit."""
    try:
        references = fit_energy_references(frames)
    except ValueError:
        return []  # no energy at all: check_labels says so
    residuals: list[float] = reference_residuals(frames, references).tolist()
    groups: dict[str, list[int]] = {}
    for index, frame in enumerate(frames):
        if np.isfinite(residuals[index]):
            groups.setdefault(_formula(frame), []).append(index)
    small = [index for group in groups.values() if len(group) < _MIN_GROUP for index in group]
    pools = [group for group in groups.values() if len(group) >= _MIN_GROUP] + [small]
    odd = sorted(index for pool in pools for index in _outliers(residuals, pool))
    findings = [Finding("note", references.note)] if references.note else []
    findings += _implausible_energies(frames, references)
    if odd:
        values = [f"{frames[i].source} {residuals[i]:+.3f} eV/atom" for i in odd]
        findings.append(
            Finding("warning", f"the energy of {len(odd)} frames is far from that of its "
                    f"composition ({examples(values)} from the references); check for failed or "
                    "differently converged calculations")
        )  # fmt: skip
    return findings


def _implausible_energies(frames: Sequence[Frame], references: EnergyReferences) -> list[Finding]:
    """Find the traces of another unit, of mixed units, or of energies already per atom."""
    findings = []
    if references.rms_residual > SCATTER:
        findings.append(
            Finding("warning", f"energies scatter by {references.rms_residual:.2f} eV/atom about "
                    "the reference energies: the frames may mix units (eV, Ha), totals with "
                    "energies per atom, or levels of theory; compare a few with their source")
        )  # fmt: skip
    known = [f for f in frames if len(f) > 1 and np.isfinite(f.labels.get("energy", np.nan))]
    largest = max((abs(float(f.labels["energy"])) / len(f) for f in known), default=np.inf)
    if largest < WEAK:
        findings.append(
            Finding("warning", f"no energy exceeds {largest:.2f} eV/atom: the unit may be Ha, or "
                    "the energies may be per atom already; total energies in eV are needed")
        )  # fmt: skip
    return findings


def check_charges(frames: Sequence[Frame]) -> list[Finding]:
    """Find partial charges without the total charge that they add up to."""
    errors, warnings = [], []
    for frame in _with(frames, "charges"):
        total = float(np.sum(frame.labels["charges"]))
        given = frame.labels.get("total_charge")
        if given is None and abs(total) > CHARGE_SUM:
            errors.append(
                Finding("error", f"{frame.source}: the charges add up to {total:+.3f} e but "
                        "total_charge is missing; give it in every frame of a charged data set")
            )  # fmt: skip
        if given is not None and abs(total - float(given)) > CHARGE_SUM:
            warnings.append(
                Finding("warning", f"{frame.source}: the charges add up to {total:+.3f} e but "
                        f"total_charge is {float(given):+.3f} e; check both")
            )  # fmt: skip
    return shortened(errors) + shortened(warnings)


def check_functionals(frames: Sequence[Frame]) -> list[Finding]:
    """Find several functionals in one data set, by what the info of the frames says."""
    findings = []
    for key in _FUNCTIONAL_KEYS:
        first: dict[str, str] = {}
        for frame in frames:
            if key in frame.info:
                first.setdefault(str(frame.info[key]), frame.source)
        if len(first) > 1:
            told = ", ".join(f"{value} ({source})" for value, source in sorted(first.items()))
            findings.append(
                Finding("error", f"{key} differs between frames: {told}. Energies of different "
                        "functionals cannot be mixed; keep one, or train one head for each")
            )  # fmt: skip
    return findings


def _not_finite(frame: Frame, label: str, where: np.ndarray) -> Finding:
    value = np.atleast_1d(frame.labels[label])[tuple(where)]
    at = f" of atom {where[0]}" if FIELDS[label].level == "atom" else ""
    return Finding(
        "error",
        f"{frame.source}: {label}{at} is not finite ({value}); remove the label or the frame, or "
        "mark fixed atoms with a move_mask column",
    )


def _outliers(residuals: Sequence[float], pool: Sequence[int]) -> list[int]:
    if len(pool) < _MIN_GROUP:
        return []
    values = np.array([residuals[index] for index in pool])
    deviation = np.abs(values - np.median(values))
    # 1.4826 turns the median absolute deviation into a standard deviation of normal noise.
    limit = _OUTLIER * max(1.4826 * float(np.median(deviation)), _OUTLIER_FLOOR)
    return [index for index, value in zip(pool, deviation, strict=True) if value > limit]


def _centred(points: np.ndarray) -> np.ndarray:
    """Return relative volume and stress of one composition about their means, vacuum left out."""
    points = points[points[:, 0] < 1.3 * np.median(points[:, 0])]
    if not len(points):
        return points
    return np.column_stack(
        [points[:, 0] / points[:, 0].mean() - 1, points[:, 1] - points[:, 1].mean()]
    )


def _formula(frame: Frame) -> str:
    return frame.atoms.symbols.get_chemical_formula(empirical=True)


def _with(frames: Sequence[Frame], label: str) -> list[Frame]:
    return [frame for frame in frames if label in frame.labels]


def _file(frames: Sequence[Frame]) -> str:
    return frames[0].source.rpartition("#")[0] or "the data"


def _held(frames: Sequence[Frame]) -> str:
    labels = {label for frame in frames for label in frame.labels}
    info = {str(key) for frame in frames for key in frame.info} - {"unread_arrays", "constrained"}
    arrays = {name for frame in frames for name in frame.info.get("unread_arrays", ())}
    return (
        f"labels {', '.join(sorted(labels)) or '(none)'}, other keys "
        f"{', '.join(sorted(info | arrays)) or '(none)'}"
    )


__all__ = [
    "Finding",
    "check_charges",
    "check_converged",
    "check_distances",
    "check_duplicates",
    "check_elements",
    "check_energies",
    "check_finite",
    "check_forces",
    "check_frames",
    "check_functionals",
    "check_geometry",
    "check_labels",
    "check_settings",
    "check_stress",
    "check_stress_sign",
    "require",
]
