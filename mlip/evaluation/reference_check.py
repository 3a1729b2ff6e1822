"""Labels against a reference potential: sign, unit and order, which no plausibility can prove."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from ase.calculators.calculator import BaseCalculator

from mlip.data.findings import Finding
from mlip.data.frame import Frame
from mlip.evaluation.evaluate import Evaluation, evaluate
from mlip.units import to_internal

_MOST_FRAMES = 24
_FEWEST = 12
_UNITS = {
    "forces": ("eV/Å", "meV/A", "Ha/bohr", "Ry/bohr", "kcal/mol/A"),
    "stress": ("eV/Å³", "GPa", "kbar", "bar", "Ha/bohr^3"),
}
_SHEAR = ((1, 2), (0, 2), (0, 1))
_SHEAR_NAMES = ("yz", "xz", "xy")


def check_reference(
    frames: Sequence[Frame],
    calculator: BaseCalculator,
    name: str,
    elements: Sequence[str] | None = None,
) -> list[Finding]:
    """Compare forces and stress of up to 24 frames with a potential that is known to be sound.

    Args:
        frames: Labelled frames; evenly spaced ones are computed.
        calculator: The reference.
        name: Its name, for the messages.
        elements: Symbols that it knows; frames with others are left out.

    Returns:
        An error where sign, unit or order of shear is another one; a warning where the labels do
        not follow the reference at all; else a note with the correlations.
    """
    usable = [f for f in frames if elements is None or set(f.atoms.symbols) <= set(elements)]
    if not usable:
        return [Finding("warning", f"{name} knows the elements of none of the frames: no check")]
    places = np.unique(np.linspace(0, len(usable) - 1, _MOST_FRAMES).astype(int))
    found = evaluate(calculator, [usable[i] for i in places], label=name, progress=False)
    findings = [
        *_compare(found, "forces", name),
        *_compare(found, "stress", name),
        *_check_order(found, name),
    ]
    if found.failures:
        first = next(iter(found.failures.values()))
        text = f"{name} failed on {len(found.failures)} of {len(places)} frames: {first}"
        findings.append(Finding("warning", text))
    return findings


def _compare(evaluation: Evaluation, quantity: str, name: str) -> list[Finding]:
    label, prediction = _pairs(evaluation, quantity)
    if len(label) < _FEWEST or not label.std() or not prediction.std():
        return []
    correlation = float(np.corrcoef(label, prediction)[0, 1])
    told = f"correlation with {name} {correlation:+.2f}"
    if abs(correlation) < 0.5:
        text = f"{quantity} do not follow the reference ({told}); check key, unit and atom order"
        return [Finding("warning", text)]
    findings = []
    if correlation < 0:
        remedy = (
            "declare units.stress.sign: compression_positive"
            if quantity == "stress"
            else "they look like gradients; negate them"
        )
        findings.append(Finding("error", f"{quantity} have the opposite sign ({told}); {remedy}"))
    ratio = float(np.sqrt(np.mean(label**2) / np.mean(prediction**2)))
    unit = _nearest_unit(quantity, ratio)
    if unit != _UNITS[quantity][0]:
        text = (
            f"{quantity} are {ratio:.3g} times those of {name}: the unit looks like {unit}; "
            f"declare units.{quantity}.unit: {unit}"
        )
        findings.append(Finding("error", text))
    return findings or [Finding("note", f"{quantity}: {told}, size {ratio:.2f} of the reference's")]


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
    if best == (0, 1, 2) or fits[best] < 0.5 or fits[best] < fits[0, 1, 2] + 0.2:
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
    return [Finding("error", text)]


def _pairs(evaluation: Evaluation, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [evaluation.pair(i, quantity) for i in range(len(evaluation.frames))]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return np.zeros(0), np.zeros(0)
    label, prediction = (np.concatenate([p[side].ravel() for p in known]) for side in (0, 1))
    keep = np.isfinite(label) & np.isfinite(prediction)
    return label[keep], prediction[keep]
