"""Checks of energies: references, outliers, and traces of another unit."""

from collections.abc import Sequence

import numpy as np

from mlip.data.digest import Digest
from mlip.data.energy_references import EnergyReferences, fit_compositions
from mlip.data.findings import Finding, examples
from mlip.units import to_internal

SCATTER = 1.0
"""eV/atom; real frames of one level of theory lie closer to their reference energies."""
WEAK = 0.5
"""eV/atom; pseudopotential and all-electron totals, and cohesive energies, are larger."""
STRONG = 25.0
"""eV/atom; totals of VASP, where free atoms are near zero, are smaller."""

_MIN_GROUP = 8
_OUTLIER = 12.0
_OUTLIER_FLOOR = 0.05
_UNITS = ("eV", "Ha", "Ry", "kcal/mol", "kJ/mol")


def check_energies(frames: Sequence[Digest]) -> list[Finding]:
    """Find energies per atom far from those of the same composition, after the reference fit."""
    known = [frame for frame in frames if np.isfinite(frame.energy)]
    if not known:
        return []  # check_labels says so
    references = fit_compositions((frame.composition, frame.energy) for frame in known)
    residuals = [_residual(frame, references) for frame in known]
    findings = [Finding("note", references.note)] if references.note else []
    findings += _implausible(known, references)
    if odd := outliers(known, residuals):
        values = [f"{known[i].source} {residuals[i]:+.3f} eV/atom" for i in odd]
        findings.append(
            Finding("warning", f"the energy of {len(odd)} frames is far from that of its "
                    f"composition ({examples(values)} from the references); check for failed or "
                    "differently converged calculations")
        )  # fmt: skip
    return findings


def energy_residuals(frames: Sequence[Digest]) -> list[float]:
    """Return the energies after a fit of references, eV/atom, of frames that have one."""
    known = [frame for frame in frames if np.isfinite(frame.energy)]
    if not known:
        return []
    references = fit_compositions((frame.composition, frame.energy) for frame in known)
    return [_residual(frame, references) for frame in known]


def outliers(frames: Sequence[Digest], residuals: Sequence[float]) -> list[int]:
    """Return the frames whose residual lies far from the median of their composition.

    Far is twelve times the spread (median absolute deviation, at least 0.05 eV/atom). Compositions
    of fewer than eight frames are looked at together.
    """
    groups: dict[tuple, list[int]] = {}
    for index, frame in enumerate(frames):
        groups.setdefault(frame.formula, []).append(index)
    small = [index for group in groups.values() if len(group) < _MIN_GROUP for index in group]
    pools = [group for group in groups.values() if len(group) >= _MIN_GROUP] + [small]
    return sorted(index for pool in pools for index in _far(residuals, pool))


def all_electron(composition: Sequence[tuple[int, int]]) -> float:
    """Return about the energy of all electrons of free atoms, eV, right to some per cent.

    Thomas-Fermi with the corrections of Scott and Schwinger, E = -0.768745 Z^(7/3) + Z^2/2
    - 0.269900 Z^(5/3) Ha (Schwinger, Phys. Rev. A 24, 2353 (1981), eq. 50).
    """
    hartree = sum(
        count * (-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3))
        for z, count in composition
    )
    return hartree * to_internal("energy", "Ha")


def _residual(frame: Digest, references: EnergyReferences) -> float:
    total = sum(
        count * references.values[symbol]
        for symbol, (_, count) in zip(frame.symbols, frame.composition, strict=True)
    )
    return (frame.energy - total) / len(frame)


def _implausible(frames: Sequence[Digest], references: EnergyReferences) -> list[Finding]:
    """Find the traces of another unit, of mixed units, or of energies already per atom."""
    findings = []
    if references.rms_residual > SCATTER:
        findings.append(
            Finding("warning", f"energies scatter by {references.rms_residual:.2f} eV/atom about "
                    "the reference energies: the frames may mix units (eV, Ha), totals with "
                    "energies per atom, or levels of theory; compare a few with their source")
        )  # fmt: skip
    sizes = np.array([abs(frame.energy) / len(frame) for frame in frames if len(frame) > 1])
    if not sizes.size:
        return findings
    if sizes.max() < WEAK:
        findings.append(
            Finding("warning", f"no energy exceeds {sizes.max():.2f} eV/atom: the unit may be Ha, "
                    "or the energies may be per atom already; total energies in eV are needed",
                    {"energy": {"unit": "Ha"}})
        )  # fmt: skip
    unit = _unit_of_all_electrons(frames)
    if unit not in ("", "eV") or (not unit and np.median(sizes) > STRONG):
        guess = f"the unit looks like {unit}, declare units.energy.unit: {unit}" if unit else (
            "the unit may be kcal/mol or kJ/mol; compare a few with their source (totals of "
            "norm-conserving pseudopotentials can be as large)"
        )  # fmt: skip
        findings.append(
            Finding("warning" if unit else "note", f"energies are {np.median(sizes):.4g} eV/atom, "
                    "not what valence electrons or all electrons have in eV: "
                    f"{guess}", {"energy": {"unit": unit}} if unit else {})
        )  # fmt: skip
    return findings


def _unit_of_all_electrons(frames: Sequence[Digest]) -> str:
    """Return the unit in which the energies are those of all electrons, empty if there is none."""
    # Hydrogen has no core: its hydrides could be taken for another unit.
    kept = [f for f in frames if dict(f.composition).get(1, 0) <= 0.3 * len(f)] or [frames[0]]
    ratio = float(np.median([frame.energy / all_electron(frame.composition) for frame in kept]))
    factors = {unit: 1 / to_internal("energy", unit) for unit in _UNITS}
    near = [unit for unit in _UNITS if abs(ratio / factors[unit] - 1) < 0.08]
    return near[0] if near else ""


def _far(residuals: Sequence[float], pool: Sequence[int]) -> list[int]:
    if len(pool) < _MIN_GROUP:
        return []
    values = np.array([residuals[index] for index in pool])
    deviation = np.abs(values - np.median(values))
    # 1.4826 turns the median absolute deviation into a standard deviation of normal noise.
    limit = _OUTLIER * max(1.4826 * float(np.median(deviation)), _OUTLIER_FLOOR)
    return [index for index, value in zip(pool, deviation, strict=True) if value > limit]
