"""Trajectories as pymatgen writes them into JSON, read without pymatgen or running code."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlip.data.pymatgen_structure import numbers_of
from mlip.errors import suggest


@dataclass(frozen=True)
class Step:
    """One step of a trajectory.

    Args:
        atoms: The structure; periodic if the trajectory has a lattice.
        properties: What the file says of the step, ``frame_properties``; nulls are left out.
        sites: What it says of each atom, ``site_properties``; nulls are left out.
    """

    atoms: Atoms
    properties: Mapping[str, Any]
    sites: Mapping[str, Any]


def steps_of(trajectory: Any, source: str) -> Iterator[Step]:
    """Yield the steps of a pymatgen ``Trajectory`` dictionary.

    Coordinates are fractional where there is a lattice and Cartesian (Å) where there is none.
    With ``coords_are_displacement`` each step is relative to the one before it, and the first to
    ``base_positions``.

    Args:
        trajectory: The dictionary.
        source: File and record, for messages.

    Raises:
        ValueError: If a part is missing, malformed or of another length than the rest.
    """
    try:
        numbers = [_number(species) for species in trajectory["species"]]
        coords = _coords(trajectory, len(numbers))
        cells = _cells(trajectory.get("lattice"), len(coords))
        properties = _per_step(trajectory.get("frame_properties"), len(coords))
        sites = _per_step(trajectory.get("site_properties"), len(coords), repeat=True)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source}: the trajectory is not a pymatgen dictionary "
            f"({type(error).__name__}: {error}); fetch or write the file again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}; correct or remove the record") from error
    for index, place in enumerate(coords):
        cell = None if cells is None else cells[index if len(cells) > 1 else 0]
        positions = place if cell is None else place @ cell
        atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=cell is not None)
        yield Step(atoms, properties[index], sites[index])


def _coords(trajectory: Mapping[str, Any], atoms: int) -> np.ndarray:
    coords = plain(trajectory["coords"])
    coords = numbers_of(coords, (len(coords), atoms, 3), "coords")
    if not trajectory.get("coords_are_displacement"):
        return coords
    base = plain(trajectory.get("base_positions"))
    if base is None:
        raise ValueError(
            "coords are displacements, and base_positions, to which they add, is missing"
        )
    return numbers_of(base, (atoms, 3), "base_positions") + np.cumsum(coords, axis=0)


def _cells(lattice: Any, steps: int) -> np.ndarray | None:
    """Return (1 or steps, 3, 3)."""
    lattice = plain(lattice)
    if lattice is None:
        return None
    if isinstance(lattice, Mapping):
        lattice = lattice["matrix"]
    cells = np.array(lattice, dtype=np.float64)
    count = len(cells) if cells.ndim == 3 else 1
    if count not in (1, steps):
        raise ValueError(f"there are {count} lattices for {steps} steps")
    return numbers_of(cells.reshape(count, *cells.shape[-2:]), (count, 3, 3), "lattice")


def _per_step(values: Any, steps: int, repeat: bool = False) -> Sequence[Mapping[str, Any]]:
    """Return the properties of each step, from one mapping a step or one sequence a property."""
    if not values:
        return [{}] * steps
    if isinstance(values, Mapping):
        if repeat:
            return [_known(values)] * steps
        length = max(len(column) for column in values.values())
        values = [
            {key: column[index] for key, column in values.items() if index < len(column)}
            for index in range(length)
        ]
    if len(values) > steps:
        raise ValueError(f"there are properties of {len(values)} steps for {steps} steps")
    return [_known(entry) for entry in values] + [{}] * (steps - len(values))


def _known(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {key: plain(value) for key, value in (entry or {}).items()}
    return {key: value for key, value in found.items() if value is not None}


def plain(value: Any) -> Any:
    """Return the lists of an array that monty encoded; other values as they are."""
    is_array = isinstance(value, Mapping) and value.get("@module") == "numpy"
    return value["data"] if is_array else value


def _number(species: Any) -> int:
    """Return the atomic number of ``"Li"``, ``"Fe2+"``, ``3`` or ``{"element": "Li", ...}``."""
    if isinstance(species, Mapping):
        if "element" not in species:
            raise ValueError(f"a site is partially occupied or empty ({species})")
        species = species["element"]
    if isinstance(species, int) and 0 < species < len(atomic_numbers):
        return species
    symbol = str(species).rstrip("+-0123456789.")
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"{species!r} is not an element{suggest(str(species), atomic_numbers)}")
    return atomic_numbers[symbol]
