"""Structures made without ASE's general constructor, which takes ten times as long."""

import numpy as np
from ase import Atoms
from ase.cell import Cell

_EMPTY = Atoms()


def bare_atoms(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> Atoms:
    """Return a structure that holds these very arrays.

    Args:
        numbers: (atoms,) atomic numbers.
        positions: (atoms, 3) float64, Å.
        cell: (3, 3) float64, rows are lattice vectors, Å.
        pbc: (3,) bool.

    Raises:
        ValueError: If ASE can make no structure of them.
    """
    if not (
        numbers.dtype == np.int64
        and positions.dtype == cell.dtype == np.float64
        and pbc.dtype == bool
        and (numbers.ndim, positions.shape) == (1, (len(numbers), 3))
        and (cell.shape, pbc.shape) == ((3, 3), (3,))
    ):
        return Atoms(numbers, positions=positions, cell=cell, pbc=pbc)
    atoms = Atoms.__new__(Atoms)
    atoms.__dict__ |= _EMPTY.__dict__ | {
        "arrays": {"numbers": numbers, "positions": positions},
        "_cellobj": Cell(cell),
        "_pbc": pbc,
        "_celldisp": np.zeros((3, 1)),
        "_constraints": [],
        "info": {},
    }
    return atoms
