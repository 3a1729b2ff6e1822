"""Structures as pymatgen writes them into JSON, read without pymatgen and without running code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.errors import suggest


def atoms_of(structure: Any, source: str) -> Atoms:
    """Return the structure of a pymatgen ``Structure`` or ``Molecule`` dictionary.

    Cartesian coordinates (``xyz``) are taken as they are where the file holds them, so that no
    digit is lost; else they are made from the fractional ones (``abc``).

    Args:
        structure: The dictionary.
        source: File and record, for messages.

    Raises:
        ValueError: If a part is missing or malformed, or a site is partially occupied.
    """
    try:
        sites = structure["sites"]
        lattice = structure.get("lattice")
        cell = None if lattice is None else numbers_of(lattice["matrix"], (3, 3), "lattice.matrix")
        positions = _positions(sites, cell)
        numbers = _elements(sites)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{source}: the structure is not a pymatgen dictionary "
            f"({type(error).__name__}: {error}); fetch or write the file again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}; correct or remove the record") from error
    pbc = False if lattice is None else lattice.get("pbc", True)
    return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)


def site_property(structure: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return a property of every site, None unless all sites have it."""
    values = [(site.get("properties") or {}).get(name) for site in structure["sites"]]
    return None if not values or any(value is None for value in values) else values


def _positions(sites: Any, cell: np.ndarray | None) -> np.ndarray:
    if not isinstance(sites, list) or not sites:
        raise ValueError("the structure has no sites")
    shape = (len(sites), 3)
    if "xyz" in sites[0]:
        return numbers_of([site["xyz"] for site in sites], shape, "xyz of the sites")
    if cell is None:
        raise KeyError("xyz")
    return numbers_of([site["abc"] for site in sites], shape, "abc of the sites") @ cell


def _elements(sites: list[Any]) -> list[int]:
    found = []
    for site in sites:
        species = site["species"]
        if len(species) != 1 or species[0].get("occu", 1) != 1:
            raise ValueError(f"a site is partially occupied or empty ({species})")
        symbol = species[0]["element"]
        if symbol not in atomic_numbers or symbol == "X":
            raise ValueError(f"{symbol!r} is not an element{suggest(str(symbol), atomic_numbers)}")
        found.append(atomic_numbers[symbol])
    return found


def numbers_of(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return finite numbers of the shape, as float64.

    Raises:
        ValueError: If they are not that, naming ``what``.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} is not an array of numbers ({error})") from error
    if array.shape != shape:
        raise ValueError(f"{what} has shape {array.shape}, but {shape} is needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite")
    return array
