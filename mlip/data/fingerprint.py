"""A hash of a structure: blind to the order of the atoms and to wrapping."""

import hashlib

import numpy as np
from ase import Atoms

_SCALED_DECIMALS = 5
_LENGTH_DECIMALS = 4


def fingerprint(atoms: Atoms) -> bytes:
    """Return 16 bytes that identify elements, cell, pbc and wrapped positions.

    Positions are rounded to 1e-5 of the cell vectors (without a cell to 1e-4 Å), the cell to
    1e-4 Å; the order of the atoms plays no part, and neither do labels, so that one structure
    computed twice has one fingerprint. A translated or rotated copy counts as another structure.
    """
    places = _places(atoms)
    order = np.lexsort((*places.T, atoms.numbers))
    digest = hashlib.blake2b(digest_size=16)
    for part in (atoms.numbers[order], atoms.pbc):
        digest.update(np.asarray(part).astype("<i8").tobytes())
    for part in (np.round(atoms.cell.array, _LENGTH_DECIMALS), places[order]):
        digest.update((part + 0.0).astype("<f8").tobytes())  # + 0.0 makes -0.0 equal to 0.0
    return digest.digest()


def _places(atoms: Atoms) -> np.ndarray:
    """Return (atoms, 3) rounded coordinates: scaled and wrapped where there is a cell."""
    cell = atoms.cell.complete().array
    if not atoms.cell.array.any() or np.linalg.matrix_rank(cell) < 3:
        return np.round(atoms.positions, _LENGTH_DECIMALS) + 0.0
    scaled = np.round(np.linalg.solve(cell.T, atoms.positions.T).T, _SCALED_DECIMALS)
    # Rounded before the modulus, so that 0.9999999 and 0 are one place, and after it for the noise.
    wrapped = np.round(scaled % 1.0, _SCALED_DECIMALS) % 1.0
    return np.where(atoms.pbc, wrapped, scaled) + 0.0
