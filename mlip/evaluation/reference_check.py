"""Labels against a reference potential: sign, unit and order, which no plausibility can prove."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from mlip.data.findings import Finding
from mlip.data.frame import Frame
from mlip.evaluation.evaluate import Evaluation
from mlip.units import to_internal

_FEWEST = 12
_UNITS = {
    "energy": ("eV", "Ha", "Ry", "kcal/mol", "kJ/mol", "meV"),
    "forces": ("eV/Å", "meV/A", "Ha/bohr", "Ry/bohr", "kcal/mol/A"),
    "stress": ("eV/Å³", "GPa", "kbar", "bar", "Ha/bohr^3"),
}
_VERBS = {"energy": "does", "forces": "do", "stress": "does"}
_SHEAR = ((1, 2), (0, 2), (0, 1))
_SHEAR_NAMES = ("yz", "xz", "xy")


def known_frames(frames: Sequence[Frame], elements: Sequence[str] | None) -> list[Frame]:
    """Return the frames whose elements a reference knows; None knows all."""
    return [f for f in frames if elements is None or set(f.atoms.symbols) <= set(elements)]


def check_reference(found: Evaluation) -> list[Finding]:
    """Compare energies, forces and stress of some frames with a potential known to be sound.

    Args:
        found: What the reference predicts for them.

    Returns:
        An error where sign, unit or order of shear is another one; a warning where the labels do
        not follow the reference at all, or it failed; else a note with the correlations.
    """
    name = found.label
    if not found.frames:
        return [Finding("warning", f"{name} knows the elements of none of the frames: no check")]
    findings = [
        *_compare("energy", *_energies(found), name),
        *_compare("forces", *_pairs(found, "forces"), name),
        *(_check_virial(found) or _compare("stress", *_pairs(found, "stress"), name)),
        *_check_order(found, name),
    ]
    if found.failures:
        first = next(iter(found.failures.values()))
        text = f"{name} failed on {len(found.failures)} of {len(found.frames)} frames: {first}"
        findings.append(Finding("warning", text))
    return findings


def _compare(quantity: str, label: np.ndarray, prediction: np.ndarray, name: str) -> list[Finding]:
    if len(label) < _FEWEST or not label.std() or not prediction.std():
        return []
    correlation = float(np.corrcoef(label, prediction)[0, 1])
    told = f"correlation with {name} {correlation:+.2f}"
    if abs(correlation) < 0.5:
        if quantity == "energy":
            return []  # after the references, what is left may be too small to follow
        text = (
            f"{quantity} {_VERBS[quantity]} not follow the reference ({told}); check key, unit and "
            "atom order"
        )
        return [Finding("warning", text)]
    findings = []
    if correlation < 0:
        remedies = {
            "energy": "check the sign of the energies",
            "forces": "they look like gradients; negate them",
            "stress": "declare the other units.stress.sign",
        }
        text = f"{quantity} has the opposite sign ({told}); {remedies[quantity]}"
        change = {"stress": {"sign": "other"}} if quantity == "stress" else {}
        findings.append(Finding("error", text.replace("forces has", "forces have"), change))
    slope = float(np.sqrt(np.mean(label**2) / np.mean(prediction**2)))
    unit = _nearest_unit(quantity, slope)
    if unit != _UNITS[quantity][0]:
        text = (
            f"{quantity} is {slope:.3g} times that of {name}: the unit looks like {unit}; "
            f"declare units.{quantity}.unit: {unit}"
        )
        text = text.replace("forces is", "forces are").replace("times that", "times those", 1) \
            if quantity == "forces" else text  # fmt: skip
        # Energies lose most of their size to the references: too little to be sure.
        severity = "warning" if quantity == "energy" else "error"
        findings.append(Finding(severity, text, {quantity: {"unit": unit}}))
    return findings or [Finding("note", f"{quantity}: {told}, size {slope:.2f} of the reference's")]


def _energies(found: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Return energies per atom of labels and predictions, each without its own references."""
    every = [found.pair(i, "energy_per_atom") for i in range(len(found.frames))]
    kept = [i for i, pair in enumerate(every) if pair is not None and np.isfinite(pair).all()]
    pairs = np.array([every[i] for i in kept], dtype=float).reshape(-1, 2)
    counts = np.array([
        np.bincount(found.frames[i].atoms.numbers, minlength=119) / len(found.frames[i])
        for i in kept
    ]).reshape(-1, 119)  # fmt: skip
    if not kept or len(kept) < np.linalg.matrix_rank(counts) + _FEWEST:
        return np.zeros(0), np.zeros(0)
    left = pairs - counts @ np.linalg.lstsq(counts, pairs, rcond=None)[0]
    return left[:, 0], left[:, 1]


def _check_virial(found: Evaluation) -> list[Finding]:
    """Find stress times volume: divided by the volume it has the reference's size, else not."""
    ratios = []
    for index, frame in enumerate(found.frames):
        pair = found.pair(index, "stress")
        if pair is not None and np.isfinite(pair[0]).all() and np.any(pair[1]):
            ratio = float(np.linalg.norm(pair[0]) / np.linalg.norm(pair[1]))
            ratios.append((ratio, frame.atoms.get_volume()))
    if len(ratios) < _FEWEST:
        return []
    logs = np.log(np.maximum(np.array(ratios), 1e-12))
    gap = logs[:, 0] - logs[:, 1]
    varied = logs[:, 1].std() > 0.2
    if abs(np.median(gap)) > np.log(2) or not varied or gap.std() > logs[:, 0].std():
        return []
    return [
        Finding("error", f"stress is that of {found.label} times the volume: it looks like a "
                "virial in eV; declare units.stress.virial: true",
                {"stress": {"virial": True, "unit": "eV"}})
    ]  # fmt: skip


def _nearest_unit(quantity: str, ratio: float) -> str:
    """Return the unit whose numbers, taken for internal ones, come nearest to the ratio."""
    sizes = {unit: 1 / to_internal(quantity, unit) for unit in _UNITS[quantity]}
    return min(sizes, key=lambda unit: abs(np.log(ratio / sizes[unit])))


def _check_order(evaluation: Evaluation, name: str) -> list[Finding]:
    """Find shear components in another order, by which of the six fits the reference best."""
    pairs = [evaluation.pair(i, "stress") for i in range(len(evaluation.frames))]
    known = [pair for pair in pairs if pair is not None and np.isfinite(pair[0]).all()]
    if len(known) < _FEWEST:
        return []
    label, prediction = (
        np.array([[pair[side][place] for place in _SHEAR] for pair in known]) for side in (0, 1)
    )
    if not label.std() or not prediction.std():
        return []
    fits = {
        order: abs(float(np.corrcoef(label[:, order].ravel(), prediction.ravel())[0, 1]))
        for order in permutations(range(3))
    }
    best = max(fits, key=lambda order: fits[order])
    left, now_left = (1 - fits[order] ** 2 for order in (best, (0, 1, 2)))
    if best == (0, 1, 2) or fits[best] < 0.5 or left > 0.35 * now_left:
        return []
    # Component k of the truth stands where the label has component best[k].
    now = ["", "", ""]
    for truth, place in enumerate(best):
        now[place] = _SHEAR_NAMES[truth]
    text = (
        f"the shear stress fits {name} better in another order (correlation {fits[best]:.2f}, now "
        f"{fits[0, 1, 2]:.2f}): what is read as yz, xz, xy looks like {', '.join(now)}; correct "
        "units.stress.order"
    )
    return [Finding("error", text, {"stress": {"shear": now}})]


def _pairs(evaluation: Evaluation, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [evaluation.pair(i, quantity) for i in range(len(evaluation.frames))]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return np.zeros(0), np.zeros(0)
    label, prediction = (np.concatenate([p[side].ravel() for p in known]) for side in (0, 1))
    keep = np.isfinite(label) & np.isfinite(prediction)
    return label[keep], prediction[keep]
