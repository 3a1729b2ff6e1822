"""Checks of forces and stress by their size, balance and symmetry."""

from collections.abc import Sequence

import numpy as np

from mlip.data.digest import Digest
from mlip.data.findings import Finding, examples
from mlip.units import GPA_PER_EV_A3

LARGE_FORCE = 100.0
"""eV/Å; above it a frame is most likely a failed calculation."""
LARGE_STRESS = 10.0
"""eV/Å³ (1602 GPa); above it the unit is most likely another one."""
NET_FORCE = 0.1
"""eV/Å; the sum of all forces of a structure vanishes, up to the noise of the calculation."""

_FAR = 8.0  # spreads of the logarithm
_TAIL = 10.0  # times the 95th percentile
_LEAST = 5.0  # eV/Å
_FEWEST = 20


def check_forces(frames: Sequence[Digest]) -> list[Finding]:
    """Find forces too large, out of the range of the others, or that do not add up to zero.

    An atom whose force is exactly zero in a frame that does not balance was held fixed; its force
    is unknown, not zero.
    """
    known = [frame for frame in frames if np.isfinite(frame.force)]
    still = [frame.source for frame in known if frame.force == 0.0 and len(frame) > 1]
    large = [f"{f.source} {f.force:.0f} eV/Å" for f in known if f.force > LARGE_FORCE]
    unbalanced = [frame for frame in known if frame.net_force > NET_FORCE]
    fixed = [f"{f.source} {f.zero_forces} atoms" for f in unbalanced if f.zero_forces]
    net = [f"{f.source} {f.net_force:.3g} eV/Å" for f in unbalanced if not f.zero_forces]
    findings = []
    if large:
        findings.append(
            Finding("warning", f"forces above {LARGE_FORCE:.0f} eV/Å in {len(large)} frames "
                    f"({examples(large)}); check the unit of forces, or remove these frames")
        )  # fmt: skip
    if fixed:
        findings.append(
            Finding("error", f"forces are exactly zero on some atoms of {len(fixed)} frames "
                    f"({examples(fixed)}) while the others do not add up to zero: atoms were held "
                    "fixed, and zero is not their force; mark them by a move_mask column (F is "
                    "fixed), so that they are masked")
        )  # fmt: skip
    if net:
        findings.append(
            Finding("warning", f"the forces of {len(net)} frames do not add up to zero "
                    f"({examples(net)}); check the key and the unit of forces, and that atoms held "
                    "fixed are marked by a move_mask column")
        )  # fmt: skip
    if len(known) >= _FEWEST and len(still) > 0.5 * len(known):
        findings.append(
            Finding("warning", f"all forces are exactly zero in {len(still)} of {len(known)} "
                    f"frames ({examples(still)}): they were not computed, unless by symmetry; "
                    "leave forces out of units, or take them from the calculation")
        )  # fmt: skip
    return findings + _unusual([frame for frame in known if frame.force <= LARGE_FORCE])


def check_masked(frames: Sequence[Digest]) -> list[Finding]:
    """Tell how many force components of constrained atoms are masked."""
    masked = [frame.masked for frame in frames if frame.masked]
    if not masked:
        return []
    return [
        Finding("note", f"{sum(masked)} force components of constrained atoms in {len(masked)} "
                "frames are masked")
    ]  # fmt: skip


def check_stress(frames: Sequence[Digest]) -> list[Finding]:
    """Find stresses too large to be in eV/Å³, and matrices that are not symmetric."""
    held = [frame for frame in frames if np.isfinite(frame.stress)]
    sizes = np.array([frame.stress for frame in held])
    skew = [frame.source for frame in held if frame.skew > 1e-3 + 0.01 * frame.stress]
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


def check_stress_sign(frames: Sequence[Digest]) -> list[Finding]:
    """Find a stress that grows under compression: its sign is that of a pressure.

    Within one composition the mean normal stress must rise with the volume. Cells with vacuum
    (1.3 times the median volume per atom) are left out; fewer than ten frames, or volumes that
    differ by less than 1 %, decide nothing.
    """
    groups: dict[tuple, list[tuple[float, float]]] = {}
    for frame in frames:
        if np.isfinite(frame.pressure) and np.isfinite(frame.volume):
            groups.setdefault(frame.formula, []).append((frame.volume, -frame.pressure))
    centred = [_centred(np.array(group)) for group in groups.values() if len(group) > 2]
    points: np.ndarray = np.concatenate(centred) if centred else np.empty((0, 2))
    if len(points) < 10 or points[:, 0].std() < 0.01 or points[:, 1].std() == 0.0:
        return []
    correlation = float(np.corrcoef(points.T)[0, 1])
    if not correlation < -0.3:
        return []
    file = frames[0].file or "the data"
    return [
        Finding("warning", f"{file}: stress falls when the cell is stretched (correlation with "
                f"volume {correlation:.2f}), so its sign looks like that of a pressure; declare "
                "the other units.stress.sign", {"stress": {"sign": "other"}})
    ]  # fmt: skip


def _unusual(frames: Sequence[Digest]) -> list[Finding]:
    """Find frames whose largest force is far beyond the range of the others, on a log scale."""
    moving = [frame for frame in frames if frame.force > 1e-3]
    if len(moving) < _FEWEST:
        return []
    logs = np.log([frame.force for frame in moving])
    middle = float(np.median(logs))
    spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.1)
    top = _TAIL * float(np.exp(np.quantile(logs, 0.95)))
    odd = [
        frame for frame, log in zip(moving, logs, strict=True)
        if log > middle + _FAR * spread and frame.force > max(top, _LEAST)
    ]  # fmt: skip
    if not odd:
        return []
    values = [f"{frame.source} {frame.force:.3g} eV/Å" for frame in odd]
    return [
        Finding("warning", f"the largest force of {len(odd)} frames is far above that of the "
                f"others, which have {np.exp(middle):.2g} eV/Å in the middle ({examples(values)}); "
                "check for failed calculations")
    ]  # fmt: skip


def _centred(points: np.ndarray) -> np.ndarray:
    """Return relative volume and stress of one composition about their means, vacuum left out."""
    points = points[points[:, 0] < 1.3 * np.median(points[:, 0])]
    if not len(points):
        return points
    return np.column_stack(
        [points[:, 0] / points[:, 0].mean() - 1, points[:, 1] - points[:, 1].mean()]
    )
