"""Neighbour lists against ASE's, in every mix of periodic directions."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list

from mlip.neighbors import neighbor_list

R_MAX = 4.7  # Å
CELLS = {
    "orthogonal": np.diag([3.0, 4.0, 5.0]),
    "skewed": np.array([[3.0, 0.0, 0.0], [2.5, 3.0, 0.0], [2.0, 2.0, 4.0]]),
    "smaller than the cutoff": np.diag([1.5, 9.0, 2.0]),
    "large": np.diag([12.0, 13.0, 14.0]),
    "left-handed": np.diag([3.0, 4.0, -5.0]),
}


@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_same_pairs_as_ase(cell, pbc):
    positions = np.random.default_rng(0).uniform(-0.5, 1.5, (6, 3)) @ cell  # some outside the cell
    atoms = Atoms("Li6", positions=positions, cell=cell, pbc=pbc)
    sender, receiver, shift = ase_neighbor_list("ijS", atoms, R_MAX)
    expected = sorted(zip(sender, receiver, *shift.T, strict=True))
    edge_index, edge_shift, _ = neighbor_list(positions, cell, np.array(pbc), R_MAX)
    assert sorted(zip(*edge_index, *edge_shift.T, strict=True)) == expected


def test_order_and_pairs():
    cell = CELLS["skewed"]
    positions = np.random.default_rng(1).uniform(0, 1, (5, 3)) @ cell
    edge_index, shift, pair = neighbor_list(positions, cell, np.ones(3, bool), R_MAX)
    assert (np.diff(edge_index[1]) >= 0).all()
    assert (np.bincount(pair) == 2).all()
    vectors = positions[edge_index[1]] - positions[edge_index[0]] + shift @ cell
    for number in range(0, pair.max() + 1, 7):
        forth, back = vectors[pair == number]
        np.testing.assert_allclose(forth, -back, atol=1e-12)


def test_molecule_without_a_cell():
    edge_index, _, _ = neighbor_list(
        np.array([[0, 0, 0], [0, 0, 0.7]]), np.zeros((3, 3)), np.zeros(3, bool), 2.0
    )
    assert edge_index.shape == (2, 2)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_pair(count):
    edge_index, shift, pair = neighbor_list(
        np.zeros((count, 3)), np.zeros((3, 3)), np.zeros(3, bool), 2.0
    )
    assert edge_index.shape == (2, 0)
    assert shift.shape == (0, 3)
    assert pair.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_max": 0.0}, "r_max is 0.0"),
        ({"positions": np.array([[0, 0, np.nan]])}, "position of atom 0"),
        ({"cell": np.zeros((3, 3))}, "lattice vector 0 is zero"),
        ({"cell": np.ones((3, 3))}, "coplanar"),
        ({"cell": np.full((3, 3), np.inf)}, "must be finite"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "positions": np.zeros((1, 3)),
        "cell": np.eye(3) * 5,
        "pbc": np.ones(3, bool),
        "r_max": 3.0,
    }
    with pytest.raises(ValueError, match=message):
        neighbor_list(**{**arguments, **change})
