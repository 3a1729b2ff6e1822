"""Predictions of any ASE calculator on labelled frames, and what is wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from rich.progress import track

from mlip.data.frame import Frame
from mlip.evaluation.metrics import QUANTITIES, Errors, align, known_components, summarise

DERIVED = ("born_effective_charges",)
"""What is computed only for frames with such a label: it takes several derivatives more."""
PREDICTED = ("energy", "forces", "stress", "charges", "dipole", "magmoms", *DERIVED)
CHARGE_KEYS = ("total_charge", "charge")
_BATCH = 16
_MOST_GROUPS = 20


@dataclass(frozen=True)
class Evaluation:
    """What a calculator predicted for each frame.

    Args:
        label: Name of the potential.
        frames: The frames.
        predictions: Outputs in internal units, stress (3, 3); empty where it failed.
        failures: Message of each frame that failed, by its index.
        provenance: Checkpoint hash, versions, files: shown on the page.
    """

    label: str
    frames: Sequence[Frame]
    predictions: Sequence[dict[str, np.ndarray]]
    failures: dict[int, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> Errors:
        """Errors over all frames; a frame that failed counts as missing."""
        return self._errors_of(self._all_differences(), range(len(self.frames)))

    @property
    def groups(self) -> list[str]:
        """The group of each frame (``info["group"]``: AIMD, surface, ...), empty where unnamed."""
        return [str(frame.info.get("group", "")) for frame in self.frames]

    def group_errors(self) -> dict[str, Errors]:
        """Return the errors of each group of frames, if there are some, but not a crowd.

        Aligned energies use the shifts of all frames, so that groups stay comparable.
        """
        names = sorted(set(self.groups))
        if not 2 <= len(names) <= _MOST_GROUPS:
            return {}
        everything = self._all_differences()
        members = {name: [i for i, own in enumerate(self.groups) if own == name] for name in names}
        return {name: self._errors_of(everything, indices) for name, indices in members.items()}

    def _all_differences(self) -> dict[str, list[np.ndarray | None]]:
        return {quantity: self.differences(quantity) for quantity in QUANTITIES}

    @staticmethod
    def _errors_of(
        everything: Mapping[str, list[np.ndarray | None]], indices: Sequence[int]
    ) -> Errors:
        values: dict[str, float] = {}
        used: dict[str, int] = {}
        missing: dict[str, int] = {}
        for quantity, parts in everything.items():
            differences = [parts[index] for index in indices]
            values |= summarise(quantity, differences)
            used[quantity] = len(known_components(differences))
            missing[quantity] = sum(part is None for part in differences)
        return Errors(values, used, missing)

    def differences(self, quantity: str) -> list[np.ndarray | None]:
        """Return prediction minus label of each frame, internal units, None where missing."""
        if quantity == "energy_per_atom_aligned":
            structures = [frame.atoms for frame in self.frames]
            return align(structures, self.differences("energy_per_atom"))
        pairs = [self.pair(index, quantity) for index in range(len(self.frames))]
        return [None if pair is None else pair[1] - pair[0] for pair in pairs]

    def pair(self, index: int, quantity: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return label and prediction of one frame, or None if either is missing."""
        name = "energy" if quantity == "energy_per_atom" else quantity
        frame, prediction = self.frames[index], self.predictions[index]
        if name not in frame.labels or name not in prediction:
            return None
        if name == "stress" and not frame.atoms.pbc.all():
            return None  # the volume of a slab or a molecule is a choice, and so is its stress
        size = len(frame) if name == "energy" else 1
        label, value = (np.asarray(one[name], dtype=float) for one in (frame.labels, prediction))
        if name == "magmoms":  # potentials give sizes; the sign of all is a choice
            return np.abs(label), np.abs(value)
        return label / size, value / size

    def write(self, folder: str | Path) -> Path:
        """Write ``metrics.json``, ``predictions.csv``, parity plots and ``report.html``.

        Returns:
            The path of the report.
        """
        from mlip.evaluation.pages import write_evaluation

        return write_evaluation(self, Path(folder))


def evaluate(
    calculator: BaseCalculator,
    frames: Sequence[Frame],
    *,
    label: str = "",
    progress: bool = True,
) -> Evaluation:
    """Predict energy, forces, stress and, if offered, charges, dipoles and moments of every frame.

    A calculator with a method ``predict(structures) -> list of dicts`` is evaluated in batches.
    A frame on which it fails is kept as a failure with its message, never dropped.

    Args:
        calculator: Any ASE calculator.
        frames: Frames with labels.
        label: Name of the potential on plots and pages.
        progress: Show a bar.
    """
    predictions: list[dict[str, np.ndarray]] = []
    failures: dict[int, str] = {}
    size = _BATCH if hasattr(calculator, "predict") else 1
    starts = range(0, len(frames), size)
    shown = track(starts, "evaluating", transient=True) if progress else starts
    for start in shown:
        group = frames[start : start + size]
        structures = [_structure(frame) for frame in group]
        labelled = {name for frame in group for name in frame.labels}
        also = [
            name for name in DERIVED if name in labelled & set(getattr(calculator, "derived", ()))
        ]
        for offset, result in enumerate(_predict(calculator, structures, also)):
            if isinstance(result, str):
                failures[start + offset] = result
            predictions.append({} if isinstance(result, str) else result)
    hashed = getattr(calculator, "checkpoint_hash", None)
    provenance = {"checkpoint": hashed[:12]} if hashed else {}
    return Evaluation(label or type(calculator).__name__, frames, predictions, failures, provenance)


def _structure(frame: Frame) -> Atoms:
    """Return the structure with its total charge, if the frame states one."""
    atoms = frame.atoms.copy()
    stated = [frame.labels.get("total_charge"), *(frame.info.get(key) for key in CHARGE_KEYS)]
    charge = next((value for value in stated if value is not None), None)
    if charge is not None:
        atoms.info["total_charge"] = float(charge)
    return atoms


def _predict(
    calculator: BaseCalculator, structures: Sequence[Atoms], also: Sequence[str] = ()
) -> list[dict[str, np.ndarray] | str]:
    if len(structures) > 1 or hasattr(calculator, "predict"):
        given = {"also": also} if also else {}
        try:
            results = calculator.predict(structures, **given)  # type: ignore[attr-defined]
            return [_finite(result) for result in results]
        except Exception as error:  # a failure becomes a recorded row
            if len(structures) == 1:
                return [_message(error)]
            return [_predict(calculator, [atoms], also)[0] for atoms in structures]
    return [_single(calculator, structures[0])]


def _single(calculator: BaseCalculator, atoms: Atoms) -> dict[str, np.ndarray] | str:
    atoms.calc = calculator
    offered = getattr(calculator, "implemented_properties", PREDICTED)
    try:
        result = {"energy": atoms.get_potential_energy()}
        if "forces" in offered:
            result["forces"] = atoms.get_forces()
        if "stress" in offered and atoms.pbc.all():
            result["stress"] = voigt_6_to_full_3x3_stress(atoms.get_stress())
        if "charges" in offered:
            result["charges"] = atoms.get_charges()
        if "magmoms" in calculator.results:  # some offer what they do not give
            result["magmoms"] = calculator.results["magmoms"]
    except Exception as error:  # a failure becomes a recorded row
        return _message(error)
    return _finite(result)


def _finite(result: dict[str, Any]) -> dict[str, np.ndarray] | str:
    kept = {name: np.asarray(result[name], dtype=float) for name in PREDICTED if name in result}
    bad = [name for name, value in kept.items() if not np.isfinite(value).all()]
    return f"{' and '.join(bad)} not finite" if bad else kept


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
