"""Bulk moduli of crystals without internal freedom, from energies over a range of volumes."""

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.errors import suggest
from mlip.properties.relax import NotConvergedError, PropertyError, Protocol, Relaxed, single_point
from mlip.units import GPA_PER_EV_A3

VOLUMES = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)
"""Of the volume given."""
ROUGHNESS = 2.0
"""meV/atom; a larger residual of the fit is a jump of the potential, not a curve."""
_DEGREE = 3


@dataclass(frozen=True)
class BulkModulus:
    """Curvature of the energy at the volume where the potential has its minimum.

    Args:
        value: Bulk modulus, GPa.
        result: Single point at the volume given.
        extra: ``volume_ratio``, the volume of the minimum over the volume given.
    """

    value: float
    result: Relaxed
    extra: dict[str, float] = field(default_factory=dict)


def bulk_modulus(
    crystal: Atoms,
    calculator: Calculator,
    *,
    mode: str = "static",
    protocol: Protocol | None = None,
) -> BulkModulus:
    """Return K = V d²E/dV² at the minimum of E(V) under isotropic strain, in GPa.

    Seven volumes within 6 %, scaled positions kept; Birch-Murnaghan of third order, that is, a
    cubic in V^(−2/3) (Birch, Phys. Rev. 71, 809 (1947)). This is the elastic bulk modulus of cubic
    crystals whose atoms symmetry holds in place; for others it is an upper bound.

    Args:
        crystal: Cell near its equilibrium volume; not modified.
        calculator: Any ASE calculator with energy and forces.
        mode: ``static``, the only one.
        protocol: Not used; here so that every property takes the same arguments.

    Raises:
        ValueError: For another mode.
        NotConvergedError: If the energy has no minimum within the volumes.
        PropertyError: If the energy jumps, so that it has no curvature to speak of.
        NonFiniteError: If an energy or a force is not finite.
    """
    if mode != "static":
        raise ValueError(f"unknown mode {mode!r} of bulk_modulus{suggest(mode, ('static',))}")
    points = [single_point(_scaled(crystal, ratio), calculator) for ratio in VOLUMES]
    volumes = np.array(VOLUMES) * crystal.get_volume()
    energies = np.array([point.energy for point in points])
    given = points[VOLUMES.index(1.0)]
    volume, modulus = _minimum(volumes, energies, given)
    ratio = volume / crystal.get_volume()
    return BulkModulus(modulus * GPA_PER_EV_A3, given, {"volume_ratio": ratio})


def _check_smooth(residuals: np.ndarray, given: Relaxed) -> None:
    largest = 1e3 * float(np.abs(residuals).max()) / len(given.atoms)
    if largest > ROUGHNESS:
        raise PropertyError(
            f"the energy is not smooth in the volume: it deviates from its fit by {largest:.1f} "
            f"meV/atom, more than {ROUGHNESS:g}, as where neighbours cross a cutoff",
            given,
        )


def _scaled(crystal: Atoms, ratio: float) -> Atoms:
    atoms = crystal.copy()
    atoms.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
    return atoms


def _minimum(volumes: np.ndarray, energies: np.ndarray, given: Relaxed) -> tuple[float, float]:
    """Return the volume of the minimum, Å³, and K there, eV/Å³."""
    scale = float(volumes.mean())
    fit = np.poly1d(np.polyfit((volumes / scale) ** (-2 / 3), energies, _DEGREE))
    _check_smooth(fit((volumes / scale) ** (-2 / 3)) - energies, given)
    slope, curvature = fit.deriv(1), fit.deriv(2)
    low, high = sorted((volumes[[0, -1]] / scale) ** (-2 / 3))
    found = [x.real for x in slope.r if abs(x.imag) < 1e-9 and low <= x.real <= high]
    found = [x for x in found if curvature(x) > 0]
    if not found:
        raise NotConvergedError(
            f"the energy has no minimum within {VOLUMES[0]:g} and {VOLUMES[-1]:g} of the volume "
            "given: the potential wants another volume",
            given,
        )
    x = min(found, key=lambda value: float(fit(value)))
    volume = scale * x ** (-1.5)
    # at the minimum d²E/dV² = E''(x) (dx/dV)², with dx/dV = −(2/3) x / V
    return volume, float(curvature(x)) * (2 * x / 3) ** 2 / volume
