"""Softening: the slope of predicted against reference forces off equilibrium."""

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.errors import suggest
from mlip.properties.relax import Protocol, Relaxed, forces_at

REFERENCE_FORCES = "reference_forces"
"""Array of a frame that holds the forces to compare with, eV/Å."""
MINIMUM_RMS = 0.05
"""eV/Å; below it a frame is at equilibrium and its slope is noise."""


@dataclass(frozen=True)
class Softening:
    """Slope of the forces of one frame.

    Args:
        value: a of F = a F_ref through the origin; below one the potential is soft.
        result: Single point it comes from.
        extra: ``force_mae`` and ``force_rms`` of the reference, eV/Å; ``cosine``, the cosine
            between the two force vectors, which tells noise from softening.
    """

    value: float
    result: Relaxed
    extra: dict[str, float] = field(default_factory=dict)


def softening(
    frame: Atoms,
    calculator: Calculator,
    *,
    mode: str = "static",
    protocol: Protocol | None = None,
) -> Softening:
    """Return a = Σ F·F_ref / Σ F_ref·F_ref over all force components of one frame.

    The slope through the origin of Deng et al., npj Comput. Mater. 11, 9 (2025), for one frame.

    Args:
        frame: Frame off equilibrium with ``arrays["reference_forces"]``; not modified.
        calculator: Any ASE calculator with energy and forces.
        mode: ``static``, the only one.
        protocol: Not used; here so that every property takes the same arguments.

    Raises:
        ValueError: Without reference forces, for a frame at equilibrium, or for another mode.
        NonFiniteError: If an energy or a force is not finite.
    """
    if mode != "static":
        raise ValueError(f"unknown mode {mode!r} of softening{suggest(mode, ('static',))}")
    reference = _reference_forces(frame)
    result, forces = forces_at(frame, calculator)
    product, norm = float((forces * reference).sum()), float((reference**2).sum())
    length = float(np.linalg.norm(forces))
    return Softening(
        value=product / norm,
        result=result,
        extra={
            "force_mae": float(np.abs(forces - reference).mean()),
            "force_rms": _rms(reference),
            "cosine": product / (length * norm**0.5) if length else 0.0,
        },
    )


def _reference_forces(frame: Atoms) -> np.ndarray:
    if REFERENCE_FORCES not in frame.arrays:
        raise ValueError(
            f"{frame.get_chemical_formula()} has no array {REFERENCE_FORCES!r}: give the forces to "
            "compare with, eV/Å, one row an atom"
        )
    reference = np.asarray(frame.arrays[REFERENCE_FORCES], dtype=float)
    if not _rms(reference) > MINIMUM_RMS:
        raise ValueError(
            f"the reference forces of {frame.get_chemical_formula()} have an rms of "
            f"{_rms(reference):.3f} eV/Å, below {MINIMUM_RMS}: give a frame off equilibrium"
        )
    return reference


def _rms(forces: np.ndarray) -> float:
    """Return the root mean square length of the force on an atom, eV/Å."""
    return float(np.sqrt((forces**2).sum(axis=1).mean()))
