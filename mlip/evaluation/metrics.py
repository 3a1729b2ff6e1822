"""Errors of predictions against labels, with their units in their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip.units import GPA_PER_EV_A3

QUANTITIES = {
    "energy_per_atom": ("meV", 1e3),
    "energy_per_atom_aligned": ("meV", 1e3),
    "forces": ("meV_per_A", 1e3),
    "stress": ("GPa", GPA_PER_EV_A3),
    "charges": ("me", 1e3),
    "dipole": ("e_A", 1.0),
    "born_effective_charges": ("me", 1e3),
    "magmoms": ("muB", 1.0),
}
"""Quantity -> unit of its reported errors and factor from internal units."""


@dataclass(frozen=True)
class Errors:
    """Errors over a set of frames.

    Args:
        values: For instance ``forces_rmse_meV_per_A``: MAE, RMSE and largest error of each
            quantity that has labels. ``energy_per_atom_aligned`` is what remains after the
            least-squares shift of each element's reference energy: totals of two functionals or
            codes differ by such a shift, which no physics depends on.
        used: Number of compared components of each quantity.
        missing: Number of frames without the label, or without a prediction.
    """

    values: Mapping[str, float]
    used: Mapping[str, int]
    missing: Mapping[str, int]


def summarise(quantity: str, differences: Sequence[np.ndarray | None]) -> dict[str, float]:
    """Return MAE, RMSE and largest error over the finite components of one quantity.

    Args:
        quantity: Key of ``QUANTITIES``.
        differences: Prediction minus label of each frame, internal units; None where either is
            missing, NaN components where a component has no label.
    """
    values = known_components(differences)
    if len(values) == 0:
        return {}
    unit, factor = QUANTITIES[quantity]
    values = factor * values
    return {
        f"{quantity}_mae_{unit}": float(np.mean(np.abs(values))),
        f"{quantity}_rmse_{unit}": float(np.sqrt(np.mean(values**2))),
        f"{quantity}_max_{unit}": float(np.max(np.abs(values))),
    }


def known_components(differences: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return every finite component of all frames, flat."""
    parts = [np.ravel(part) for part in differences if part is not None]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def align(
    structures: Sequence[Atoms], differences: Sequence[np.ndarray | None]
) -> list[np.ndarray | None]:
    """Remove from energy differences per atom what a shift of each element's reference explains.

    Args:
        structures: Structures of the frames.
        differences: Predicted minus labelled energy per atom, eV; None where missing.

    Returns:
        What remains of each difference; None for all if there are no more frames than shifts,
        because then the shifts explain anything and a remainder of zero would say nothing.
    """
    known = [i for i, value in enumerate(differences) if value is not None and np.isfinite(value)]
    aligned: list[np.ndarray | None] = [None] * len(differences)
    if not known:
        return aligned
    numbers = [structures[i].numbers for i in known]
    elements = np.unique(np.concatenate(numbers))
    fractions = np.array([[np.mean(atoms == z) for z in elements] for atoms in numbers])
    energies = np.array([float(differences[i]) for i in known])  # type: ignore[arg-type]
    shift, _, rank, _ = np.linalg.lstsq(fractions, energies, rcond=None)
    if len(known) <= rank:
        return aligned
    for i, value in zip(known, energies - fractions @ shift, strict=True):
        aligned[i] = np.asarray(value)
    return aligned
