"""Structures as pymatgen writes them into JSON, read without pymatgen and without running code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.data.bare_atoms import bare_atoms
from mlip.data.json_values import array_of, plain
from mlip.errors import suggest

_XYZ = 24  # bytes of three float64


def atoms_of(structure: Any, source: str) -> Atoms:
    """Return the structure of a pymatgen ``Structure`` or ``Molecule`` dictionary.

    Cartesian coordinates (``xyz``) are taken as they are where the file holds them, so that no
    digit is lost; else they are made from the fractional ones (``abc``).

    Args:
        structure: The dictionary, or its JSON value (``mlip.data.json_values``).
        source: File and record, for messages.

    Raises:
        ValueError: If a part is missing or malformed, or a site is partially occupied.
    """
    try:
        sites = list(structure["sites"])
        lattice = structure.get("lattice")
        cell = None if lattice is None else numbers_of(lattice["matrix"], (3, 3), "lattice.matrix")
        numbers, positions = _as_published(sites) or _in_general(sites, cell)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{source}: the structure is not a pymatgen dictionary "
            f"({type(error).__name__}: {error}); fetch or write the file again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}; correct or remove the record") from error
    if lattice is None or cell is None:
        cell, pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    else:
        pbc = np.full(3, plain(lattice.get("pbc", True)), dtype=bool)
    return bare_atoms(numbers, positions, cell, pbc)


def site_property(structure: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return a property of every site, None unless all sites have it."""
    values = [(site.get("properties") or {}).get(name) for site in structure["sites"]]
    return None if not values or any(value is None for value in values) else values


def _as_published(sites: list[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return elements and positions of sites that are still text and hold what is usual."""
    if not sites or isinstance(sites[0], dict):
        return None
    try:
        species = [site["species"] for site in sites]
        held = [entry[0] for entry in species]
        numbers = np.array([atomic_numbers[entry["element"]] for entry in held])
        whole = {entry["occu"] for entry in held} == {1} == set(map(len, species))
        rows = [site["xyz"].as_buffer(of_type="d") for site in sites]
        if {memoryview(row).nbytes for row in rows} != {_XYZ}:
            return None
        positions = np.frombuffer(bytearray().join(rows)).reshape(len(sites), 3)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None  # what is wrong, or only unusual, is told from the plain lists
    return (numbers, positions) if whole and numbers.all() else None


def _in_general(sites: list[Any], cell: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    sites = [plain(site) for site in sites]
    return np.array([_element(site["species"]) for site in sites]), _positions(sites, cell)


def _positions(sites: list[Any], cell: np.ndarray | None) -> np.ndarray:
    if not sites:
        raise ValueError("the structure has no sites")
    shape = (len(sites), 3)
    if "xyz" in sites[0]:
        return numbers_of([site["xyz"] for site in sites], shape, "xyz of the sites")
    if cell is None:
        raise KeyError("xyz")
    return numbers_of([site["abc"] for site in sites], shape, "abc of the sites") @ cell


def _element(species: list[Any]) -> int:
    """Return the atomic number of what occupies a site."""
    if len(species) != 1 or species[0].get("occu", 1) != 1:
        raise ValueError(f"a site is partially occupied or empty ({species})")
    symbol = species[0]["element"]
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"{symbol!r} is not an element{suggest(str(symbol), atomic_numbers)}")
    return atomic_numbers[symbol]


def numbers_of(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return finite numbers of the shape, as float64.

    Raises:
        ValueError: If they are not that, naming ``what``.
    """
    try:
        array = array_of(values).astype(np.float64, copy=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} is not an array of numbers ({error})") from error
    if array.shape != shape:
        raise ValueError(f"{what} has shape {array.shape}, but {shape} is needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite")
    return array
