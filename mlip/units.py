"""The unit system (eV, Å, e, amu, K) and the factors used when reading and reporting."""

from functools import cache

from scipy import constants

from mlip.errors import suggest

_EV = constants.elementary_charge
_HARTREE = constants.physical_constants["Hartree energy in eV"][0]
_BOHR = constants.physical_constants["Bohr radius"][0] * 1e10

GPA_PER_EV_A3 = _EV * 1e30 * 1e-9
"""1 eV/Å³ in GPa."""
J_M2_PER_EV_A2 = _EV * 1e20
"""1 eV/Å² in J/m²."""
COULOMB = _EV / (4 * constants.pi * constants.epsilon_0) * 1e10
"""Coulomb's constant, eV Å/e² (14.399645…, CODATA as scipy has it)."""

_FACTORS: dict[str, dict[str, float]] = {
    "energy": {
        "eV": 1.0,
        "meV": 1e-3,
        "Ha": _HARTREE,
        "Ry": _HARTREE / 2,
        "kcal/mol": constants.calorie * 1e3 / constants.Avogadro / _EV,
        "kJ/mol": 1e3 / constants.Avogadro / _EV,
    },
    "length": {"Å": 1.0, "A": 1.0, "nm": 10.0, "bohr": _BOHR},
    "forces": {
        "eV/Å": 1.0,
        "eV/A": 1.0,
        "meV/A": 1e-3,
        "Ha/bohr": _HARTREE / _BOHR,
        "Ry/bohr": _HARTREE / 2 / _BOHR,
        "kcal/mol/A": constants.calorie * 1e3 / constants.Avogadro / _EV,
        "kJ/mol/A": 1e3 / constants.Avogadro / _EV,
    },
    "stress": {
        "eV/Å³": 1.0,
        "eV/A^3": 1.0,
        "GPa": 1 / GPA_PER_EV_A3,
        "kbar": 0.1 / GPA_PER_EV_A3,
        "bar": 1e-4 / GPA_PER_EV_A3,
        "Ha/bohr^3": _HARTREE / _BOHR**3,
    },
    "charge": {"e": 1.0},
    "magmom": {"μB": 1.0, "muB": 1.0},
    "dipole": {"e·Å": 1.0, "e*A": 1.0, "debye": 1e-21 / constants.speed_of_light / _EV * 1e10},
}


@cache
def to_internal(quantity: str, unit: str) -> float:
    """Return the factor that turns a value in ``unit`` into internal units.

    Args:
        quantity: One of energy, length, forces, stress, charge, magmom, dipole.
        unit: Unit of the source, as written on a data card (``kbar``, ``Ha/bohr``, ...).

    Raises:
        ValueError: For an unknown quantity or unit, with near matches.
    """
    if quantity not in _FACTORS:
        raise ValueError(f"unknown quantity {quantity!r}{suggest(quantity, _FACTORS)}")
    known = _FACTORS[quantity]
    if unit not in known:
        raise ValueError(f"unknown unit {unit!r} for {quantity}{suggest(unit, known)}")
    return known[unit]
