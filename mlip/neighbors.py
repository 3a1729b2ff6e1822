"""Neighbour lists by vesin, in float64, for any mix of periodic and open directions."""

import numpy as np
from ase.geometry import complete_cell
from jaxtyping import Bool, Float, Int
from vesin import NeighborList


def neighbor_list(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    r_max: float,
) -> tuple[Int[np.ndarray, "2 edges"], Int[np.ndarray, "edges 3"]]:
    """Return every directed pair of atoms closer than ``r_max``, periodic images included.

    Edges are sorted by receiver, so that sums over neighbours walk through memory in order. The
    vector of an edge is ``positions[receiver] - positions[sender] + shift @ cell``, in Å.

    Args:
        positions: Cartesian positions, Å.
        cell: Lattice vectors as rows, Å; rows of open directions may be zero.
        pbc: Periodic along each lattice vector.
        r_max: Cutoff, Å; may exceed the cell.

    Returns:
        ``edge_index`` (sender, receiver) and the integer cell shift of each edge.

    Raises:
        ValueError: If ``r_max`` is not positive, a coordinate is not finite, or a periodic lattice
            vector is zero or the cell has no volume.
    """
    if not r_max > 0:
        raise ValueError(f"r_max is {r_max}: the cutoff must be a positive length in Å")
    box = _box(np.asarray(cell, dtype=float), np.asarray(pbc, dtype=bool))
    positions = np.ascontiguousarray(positions, dtype=float)
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise ValueError(f"the position of atom {atom} is {positions[atom]}: it must be finite")
    if len(positions) == 0:
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3), dtype=np.int64)
    receiver, sender, shift = NeighborList(cutoff=r_max, full_list=True, sorted=True).compute(
        points=positions, box=box, periodic=[bool(periodic) for periodic in pbc], quantities="ijS"
    )
    edge_index = np.stack([sender, receiver]).astype(np.int64)
    return edge_index, -shift.astype(np.int64)


def _box(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Fill open directions that have no lattice vector; refuse a periodic cell without volume."""
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell {cell.tolist()} must be finite")
    missing = pbc & (np.linalg.norm(cell, axis=1) < 1e-8)
    if missing.any():
        raise ValueError(
            f"pbc is {pbc.tolist()} but lattice vector {int(np.argmax(missing))} is zero: "
            "set the cell, or pbc to False in that direction"
        )
    box = np.where(pbc[:, None] | (np.linalg.norm(cell, axis=1) > 1e-8)[:, None], cell, 0.0)
    box = complete_cell(box)
    if abs(np.linalg.det(box)) < 1e-8:
        raise ValueError(f"the cell {cell.tolist()} has no volume: its lattice vectors are coplanar")
    return box
