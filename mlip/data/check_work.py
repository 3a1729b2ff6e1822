"""Energies, forces and stresses against each other: the work between two frames is their energy."""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from mlip.data.findings import Finding
from mlip.data.frame import Frame
from mlip.data.thinned import Thinned
from mlip.units import to_internal

_FAR = 0.6  # Å, largest displacement of an atom between the two frames of a pair
_STRAIN = 0.1
_MEMORY = 64  # compositions of which frames are held
_LAST = 3  # frames held of each
_COLUMNS = 15
_PAIRS = 4096
_FEWEST = 10
_TRUST = 0.9  # correlation from which on the fit is believed
_TOLERANCE = 1.6  # what slopes of pairs that are far apart may miss
_WORK = {"forces": 1, "stress": 2}
_SHEAR = ((1, 2), (0, 2), (0, 1))
_NAMES = ("yz", "xz", "xy")
_UNITS = {
    "forces": ("Ha/bohr", "Ry/bohr", "kcal/mol/A", "kJ/mol/A", "meV/A"),
    "stress": ("GPa", "kbar", "Ha/bohr^3"),
    "energy": ("Ha", "Ry", "kcal/mol", "kJ/mol"),
}


class WorkPairs:
    """Pairs of frames of the same atoms that lie near each other, met while reading.

    By the trapezoid rule, E2 - E1 = -1/2 sum (F1 + F2) . (r2 - r1) + 1/2 (V1 s1 + V2 s2) : strain,
    right to second order in the displacement. Of each pair the energy difference (eV), the work of
    the forces and of the normal stress, and that of each shear stress on each shear strain (3, 3)
    are kept, with the number of atoms and the volume.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, deque[Frame]] = OrderedDict()
        self.rows: Thinned[np.ndarray] = Thinned(_PAIRS)
        self.frames = 0

    def add(self, frame: Frame) -> None:
        """Hold a frame against the last ones of the same atoms in the same order."""
        known = {"energy", "forces"} <= set(frame.labels)
        if not known or not np.isfinite(frame.labels["energy"]) or len(frame) < 2:
            return
        key = frame.atoms.numbers.tobytes() + frame.atoms.pbc.tobytes()
        last = self._last.pop(key, deque(maxlen=_LAST))
        rows = [row for other in last if (row := _pair(other, frame)) is not None]
        for row in rows:
            self.rows.add(row)
        self.frames += bool(rows)
        last.append(frame)
        self._last[key] = last
        if len(self._last) > _MEMORY:
            self._last.popitem(last=False)


def check_work(pairs: WorkPairs) -> list[Finding]:
    """Find forces or stresses whose sign, unit or order does not fit the energies.

    Nothing is said where fewer than ten frames have a neighbour, or where the work does not follow
    the energies with a correlation of 0.9 (frames too far apart, or of several settings).
    """
    if pairs.frames < _FEWEST:
        return []
    table = np.array(list(pairs.rows)).reshape(-1, _COLUMNS)
    slopes = {quantity: _slope(table, column) for quantity, column in _WORK.items()}
    known = {quantity: slope for quantity, slope in slopes.items() if slope is not None}
    wrong = [finding for quantity in known for finding in _sign(quantity, known[quantity])]
    odd = {quantity: abs(slope) for quantity, slope in known.items() if not _agrees(abs(slope), 1)}
    of_energy = _unit_of_energy(odd, table) if len(odd) == 2 else None
    if of_energy is not None:
        wrong.append(of_energy)
    else:
        wrong += [_unit(quantity, size, table) for quantity, size in odd.items()]
    return wrong + _check_order(table)


def _pair(first: Frame, second: Frame) -> np.ndarray | None:
    periodic = bool(first.atoms.pbc.all())
    if not periodic and first.atoms.pbc.any():
        return None
    if not all(np.isfinite(f.atoms.positions).all() for f in (first, second)):
        return None
    if not periodic:
        moved = second.atoms.positions - first.atoms.positions
        strain, volumes, steps = np.zeros((3, 3)), (0.0, 0.0), (moved, moved)
    else:
        cells = [f.atoms.cell.array for f in (first, second)]
        volumes = tuple(abs(float(np.linalg.det(cell))) for cell in cells)
        if min(volumes) < 1e-3 or not np.isfinite(volumes).all():
            return None
        places = [np.linalg.solve(c.T, f.atoms.positions.T).T
                  for c, f in zip(cells, (first, second), strict=True)]  # fmt: skip
        shift = places[1] - places[0]
        shift -= np.round(shift)
        steps = shift @ cells[0], shift @ cells[1]
        gradient = np.linalg.solve((cells[0] + cells[1]) / 2, cells[1] - cells[0])
        strain = (gradient + gradient.T) / 2
    if np.abs(strain).max() > _STRAIN or np.linalg.norm(steps[0], axis=1).max() > _FAR:
        return None
    return _row(first, second, steps, strain, volumes)


def _row(
    first: Frame, second: Frame, steps: Sequence[np.ndarray], strain: np.ndarray,
    volumes: Sequence[float],
) -> np.ndarray | None:  # fmt: skip
    forces = [f.labels["forces"] for f in (first, second)]
    stresses = [f.labels.get("stress") for f in (first, second)]
    if not all(np.isfinite(f).all() for f in forces):
        return None
    if any(stress is None or not np.isfinite(stress).all() for stress in stresses):
        if np.abs(strain).max() > 1e-6:
            return None  # what the cell contributes is not known
        stresses = [np.zeros((3, 3))] * 2
    works = [np.asarray(s) * volume for s, volume in zip(stresses, volumes, strict=True)]
    mean = (works[0] + works[1]) / 2
    normal = float(np.diag(mean) @ np.diag(strain))
    shear = [2.0 * mean[i] * strain[j] for i in _SHEAR for j in _SHEAR]
    work = -0.5 * sum(float((f * step).sum()) for f, step in zip(forces, steps, strict=True))
    energy = float(second.labels["energy"]) - float(first.labels["energy"])
    sizes = len(first), np.mean(volumes)
    return np.array([energy, work, normal + sum(shear[::4]), normal, *shear, *sizes])


def _slope(table: np.ndarray, column: int) -> float | None:
    """Return by how much the energy follows the work of column 1 or 2; None if undecided."""
    present = [c for c in _WORK.values() if len(table) >= _FEWEST and np.any(table[:, c])]
    if column not in present:
        return None
    works = table[:, present]
    scale = np.sqrt((works**2).mean(axis=0))
    keep = _without_jumps(table[:, 0], works / scale)
    if np.count_nonzero(keep) < max(_FEWEST, 0.6 * len(keep)):
        return None
    energy, design = table[keep, 0], (works / scale)[keep]
    solution, _, rank, _ = np.linalg.lstsq(design, energy, rcond=None)
    fitted = design @ solution
    if rank < len(present) or not fitted.std() or not energy.std():
        return None
    place = present.index(column)
    # A part that hardly moves the energy has no slope worth telling.
    weak = abs(solution[place]) < 0.15 * np.sqrt((energy**2).mean())
    if weak or np.corrcoef(fitted, energy)[0, 1] < _TRUST:
        return None
    return float(solution[place] / scale[place])


def _without_jumps(energy: np.ndarray, works: np.ndarray) -> np.ndarray:
    """Return which pairs a fit explains; a jump is another magnetic state or a failed run."""
    keep = np.ones(len(energy), dtype=bool)
    for _ in range(5):
        solution = np.linalg.lstsq(works[keep], energy[keep], rcond=None)[0]
        miss = np.abs(energy - works @ solution)
        keep = miss <= 6 * 1.4826 * np.median(miss) + 1e-12
    return keep


def _agrees(size: float, factor: float) -> bool:
    return abs(np.log(size / factor)) < np.log(_TOLERANCE)


def _sign(quantity: str, slope: float) -> list[Finding]:
    if slope > 0:
        return []
    change, remedy = {"stress": {"sign": "other"}}, "declare the other units.stress.sign"
    if quantity == "forces":
        change, remedy = {}, "they look like gradients: negate them"
    return [
        Finding("error", f"{quantity} have the wrong sign: energies of neighbouring frames change "
                f"by {slope:.3g} times their work, which should be 1; {remedy}", change)
    ]  # fmt: skip


@dataclass(frozen=True)
class _Cause:
    """What would make energies change by ``factor`` times the work."""

    factor: float
    told: str
    change: Mapping[str, Mapping[str, Any]]


def _of_energies(table: np.ndarray) -> list[_Cause]:
    causes = [
        _Cause(1 / to_internal("energy", unit),
               f"energies in {unit} (declare units.energy.unit: {unit})",
               {"energy": {"unit": unit}})
        for unit in _UNITS["energy"]
    ]  # fmt: skip
    return [*causes, _Cause(_per_atom(table), "energies per atom, where totals are needed", {})]


def _of_labels(quantity: str, table: np.ndarray) -> list[_Cause]:
    causes = [
        _Cause(to_internal(quantity, unit),
               f"{quantity} in {unit} (declare units.{quantity}.unit: {unit})",
               {quantity: {"unit": unit}})
        for unit in _UNITS[quantity]
    ]  # fmt: skip
    if quantity == "stress":
        told = "a virial, stress times volume (declare units.stress.virial)"
        change = {"stress": {"virial": True, "unit": "eV"}}
        causes.append(_Cause(float(1 / np.median(table[:, 14])), told, change))
    return causes


def _unit_of_energy(slopes: Mapping[str, float], table: np.ndarray) -> Finding | None:
    """Tell what is wrong with the energies where forces and stress both miss by one factor."""

    def miss(cause: _Cause) -> float:
        return max(abs(np.log(slope / cause.factor)) for slope in slopes.values())

    best = min(_of_energies(table), key=miss)
    if miss(best) >= np.log(_TOLERANCE):
        return None
    seen = " and ".join(f"{size:.3g} times that of the {name}" for name, size in slopes.items())
    text = (
        f"energies are in another unit than forces and stress: between neighbouring frames they "
        f"change by {seen} as work; it looks like {best.told}"
    )
    return Finding("error", text, best.change)


def _unit(quantity: str, slope: float, table: np.ndarray) -> Finding:
    causes = [*_of_labels(quantity, table), *_of_energies(table)]
    near = sorted(causes, key=lambda cause: abs(np.log(slope / cause.factor)))
    fitting = [cause for cause in near if _agrees(slope, cause.factor)][:2]
    seen = (
        f"energies of neighbouring frames change by {slope:.3g} times the work of the {quantity}, "
        "which should be 1"
    )
    if not fitting:
        return Finding(
            "warning",
            f"energies and {quantity} may not belong together: {seen}; no unit has that factor, "
            "and long steps or several calculations beside each other give such numbers too: "
            "compare one frame with its source",
        )
    guess = f"it looks like {', or '.join(cause.told for cause in fitting)}"
    return Finding(
        "error", f"energies and {quantity} are in different units: {seen}; {guess}",
        fitting[0].change,
    )  # fmt: skip


def _per_atom(table: np.ndarray) -> float:
    return float(1 / np.median(table[:, 13]))


def _check_order(table: np.ndarray) -> list[Finding]:
    """Find shear components in another order, by which order gives the right work."""
    works = table[:, 4:13].reshape(-1, 3, 3)
    rest = table[:, 0] - table[:, 1] - table[:, 3]
    own = np.sqrt((works**2).sum(axis=(1, 2)))
    # Pairs of almost pure shear, of which at least two kinds are needed to tell.
    keep = own > 4 * (np.abs(table[:, 1]) + np.abs(table[:, 3]))
    if np.count_nonzero(keep) < _FEWEST:
        return []
    works, rest = works[keep], rest[keep]
    total = float((rest**2).sum())
    misses = {
        order: float(((rest - sum(works[:, order[k], k] for k in range(3))) ** 2).sum()) / total
        for order in permutations(range(3))
    }
    best = min(misses, key=lambda order: misses[order])
    if best == (0, 1, 2) or misses[best] > 0.3 or misses[best] > 0.3 * misses[0, 1, 2]:
        return []
    now = ["", "", ""]
    for truth, place in enumerate(best):
        now[place] = _NAMES[truth]
    return [
        Finding("error", "the shear stress is in another order: what is read as yz, xz, xy gives "
                f"the energies of {np.count_nonzero(keep)} sheared pairs of frames as "
                f"{', '.join(now)}; correct units.stress.order", {"stress": {"shear": now}})
    ]  # fmt: skip
