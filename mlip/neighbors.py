"""Neighbour lists by vesin, in float64, for any mix of periodic and open directions."""

import numpy as np
from ase.geometry import complete_cell
from jaxtyping import Bool, Float, Int


def neighbor_list(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    r_max: float,
) -> tuple[Int[np.ndarray, "2 edges"], Int[np.ndarray, "edges 3"], Int[np.ndarray, " edges"]]:
    """Return every directed pair of atoms closer than ``r_max``, periodic images included.

    Edges are sorted by receiver, so that sums over neighbours walk through memory in order. The
    vector of an edge is ``positions[receiver] - positions[sender] + shift @ cell``, in Å.

    Args:
        positions: Cartesian positions, Å.
        cell: Lattice vectors as rows, Å; rows of open directions may be zero.
        pbc: Periodic along each lattice vector.
        r_max: Cutoff, Å; may exceed the cell.

    Returns:
        ``edge_index`` (sender, receiver), the integer cell shift of each edge, and the number of
        its pair: an edge and its reverse share one, so that what depends on the distance alone
        need be computed once for both.

    Raises:
        ValueError: If ``r_max`` is not positive, a coordinate is not finite, or a periodic lattice
            vector is zero or the cell has no volume.
    """
    first, second, shift = _checked_pairs(positions, cell, pbc, r_max)
    sender = np.concatenate([first, second])
    receiver = np.concatenate([second, first])
    shift = np.concatenate([shift, -shift])
    order = np.argsort(receiver, kind="stable")
    pair = np.tile(np.arange(len(first)), 2)
    return np.stack([sender, receiver])[:, order], shift[order], pair[order]


def pair_list(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    r_max: float,
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, "pairs 3"]]:
    """Return every pair closer than ``r_max`` once: first and second atom, and the cell shift.

    The vector of a pair is ``positions[second] - positions[first] + shift @ cell``, in Å; an atom
    and its own image are a pair too. Arguments as for :func:`neighbor_list`.

    Raises:
        ValueError: As there.
    """
    return _checked_pairs(positions, cell, pbc, r_max)


def count_edges(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    r_max: float,
) -> int:
    """Return the number of edges that :func:`neighbor_list` would give.

    Raises:
        ValueError: As there.
    """
    return 2 * len(_checked_pairs(positions, cell, pbc, r_max)[0])


def _checked_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, r_max: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not r_max > 0:
        raise ValueError(f"r_max is {r_max}: the cutoff must be a positive length in Å")
    box = _box(np.asarray(cell, dtype=float), np.asarray(pbc, dtype=bool))
    positions = np.ascontiguousarray(positions, dtype=float)
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise ValueError(f"the position of atom {atom} is {positions[atom]}: it must be finite")
    return _pairs(positions, box, np.asarray(pbc, dtype=bool), r_max)


def _pairs(
    positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, r_max: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair once; the vector is ``positions[second] - positions[first] + shift @ box``."""
    if len(positions) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros((0, 3), dtype=np.int64)
    from vesin import NeighborList  # imports torch where it is installed: seconds

    first, second, shift = NeighborList(cutoff=r_max, full_list=False).compute(
        points=positions, box=box, periodic=[bool(periodic) for periodic in pbc], quantities="ijS"
    )
    return first.astype(np.int64), second.astype(np.int64), shift.astype(np.int64)


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
        raise ValueError(
            f"the cell {cell.tolist()} has no volume: its lattice vectors are coplanar"
        )
    return box
