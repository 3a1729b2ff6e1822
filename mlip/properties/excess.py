"""Excess energy of a planar defect over the bulk, per area: shared by surfaces and boundaries."""

from collections import Counter
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.errors import suggest
from mlip.properties.relax import Protocol, Relaxed, relax, single_point
from mlip.units import J_M2_PER_EV_A2

Mode = Literal["static", "relaxed"]
AXES = ("a", "b", "c")


@dataclass(frozen=True)
class BulkReference:
    """Bulk energy of one calculator in one mode; compute it once for all defects of a material.

    Args:
        energy_per_atom: eV/atom.
        composition: Element to count, as in the bulk cell.
        result: Single point or relaxation it comes from.
    """

    energy_per_atom: float
    composition: dict[str, int]
    result: Relaxed


@dataclass(frozen=True)
class ExcessEnergy:
    """Excess energy of a cell with two equivalent surfaces or boundaries.

    Args:
        value: J/m².
        area: Area of one surface or boundary, Å².
        bulk: Bulk reference that was subtracted.
        result: Single point or relaxation of the defect cell.
    """

    value: float
    area: float
    bulk: BulkReference
    result: Relaxed


def bulk_reference(
    bulk: Atoms, calculator: Calculator, mode: Mode = "static", protocol: Protocol | None = None
) -> BulkReference:
    """Return the bulk energy at the reference cell: atoms as given (static) or free (relaxed).

    The cell stays at the reference lattice in both modes, as that of the slab does: a bulk at
    another lattice constant than the slab adds strain energy to the excess, which grows with
    the thickness of the slab.

    Raises:
        ValueError: For an unknown mode.
        PropertyError: As ``single_point`` and ``relax``.
    """
    result = evaluate(bulk, calculator, mode, protocol)
    return BulkReference(
        result.energy / len(bulk), dict(Counter(bulk.get_chemical_symbols())), result
    )


def evaluate(
    atoms: Atoms,
    calculator: Calculator,
    mode: Mode,
    protocol: Protocol | None,
    free_axis: int | None = None,
) -> Relaxed:
    """Return the single point (static) or the relaxation (relaxed) of a copy of ``atoms``."""
    if mode == "static":
        return single_point(atoms, calculator)
    if mode == "relaxed":
        return relax(atoms, calculator, protocol, free_axis)
    raise ValueError(f"unknown mode {mode!r}{suggest(str(mode), ('static', 'relaxed'))}")


def excess(result: Relaxed, bulk: BulkReference, axis: int) -> ExcessEnergy:
    """Return (E − N·e_bulk) / 2A of an evaluated cell; the area is that of the evaluated cell."""
    area = plane_area(result.atoms, axis)
    energy = result.energy - len(result.atoms) * bulk.energy_per_atom
    return ExcessEnergy(energy / (2 * area) * J_M2_PER_EV_A2, area, bulk, result)


def plane_area(atoms: Atoms, axis: int) -> float:
    """Return the area spanned by the two cell vectors other than ``axis``, Å²."""
    first, second = (vector for index, vector in enumerate(atoms.cell.array) if index != axis)
    return float(np.linalg.norm(np.cross(first, second)))


def normal_axis(atoms: Atoms, axis: str | None = None) -> int:
    """Return the index of the cell vector along the normal, given or from ``info["normal_axis"]``.

    Raises:
        ValueError: If it is neither given nor in ``info``, or is not a, b or c. There is no
            default: a wrong axis gives a wrong area in silence.
    """
    name = axis if axis is not None else atoms.info.get("normal_axis")
    if name not in AXES:
        raise ValueError(
            f"normal_axis of {atoms.get_chemical_formula()} is {name!r}: give the cell vector that "
            "points out of the plane, 'a', 'b' or 'c', as an argument or in atoms.info"
        )
    return AXES.index(name)


def check_stoichiometry(atoms: Atoms, composition: dict[str, int]) -> int:
    """Return how many formula units of the bulk ``atoms`` holds.

    Raises:
        ValueError: If its composition is no whole multiple of the bulk formula: the excess energy
            then depends on chemical potentials, which this definition has not.
    """
    divisor = reduce(gcd, composition.values())
    formula = {symbol: count // divisor for symbol, count in composition.items()}
    counts = Counter(atoms.get_chemical_symbols())
    units = {counts.get(symbol, 0) / number for symbol, number in formula.items()}
    if len(units) != 1 or not next(iter(units)).is_integer() or set(counts) != set(formula):
        written = "".join(f"{symbol}{number}" for symbol, number in formula.items())
        raise ValueError(
            f"the composition {atoms.get_chemical_formula()} is not a whole multiple of the bulk "
            f"formula {written}: use a stoichiometric cell; others need chemical potentials"
        )
    return int(next(iter(units)))
