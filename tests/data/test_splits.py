"""Hold-out splits: stable, disjoint, and stratified."""

import numpy as np
import pytest
from ase import Atoms

from mlip.data.card import load_frames
from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.data.groups import group_of
from mlip.data.splits import hold_out, hold_out_indices


def frames_of(count, seed=0, group=None):
    generator = np.random.default_rng(seed)
    return [
        Frame(Atoms("Li2", generator.random((2, 3)) * 5, cell=[5, 5, 5], pbc=True), {}, f"f#{i}",
              {"group": group} if group else {})
        for i in range(count)
    ]  # fmt: skip


def names(frames):
    return {fingerprint(frame.atoms) for frame in frames}


def test_the_split_is_a_partition_in_order():
    frames = frames_of(200)
    train, held = hold_out(frames, 0.2, seed=1)
    assert len(train) + len(held) == 200
    assert len(held) == 40
    assert names(train).isdisjoint(names(held))
    order = {id(frame): index for index, frame in enumerate(frames)}
    for part in (train, held):
        assert [order[id(frame)] for frame in part] == sorted(order[id(frame)] for frame in part)


def test_known_split_of_the_lithium_data_never_changes():
    frames = load_frames("mlearn_li", "train")
    _, held = hold_out_indices(frames, 0.1, seed=0, stratify="group")
    assert held == [
        4, 18, 20, 76, 85, 102, 111, 114, 116, 119, 121, 122, 126, 127, 156, 157, 182, 191, 199,
        203, 211, 230, 231,
    ]  # fmt: skip


def test_the_order_of_the_file_plays_no_part():
    frames = frames_of(100)
    _, held = hold_out(frames, 0.3, seed=5)
    _, turned = hold_out(frames[::-1], 0.3, seed=5)
    assert names(held) == names(turned)


def test_an_added_or_removed_frame_moves_at_most_one_other():
    frames = frames_of(60)
    moves = 0
    for extra in frames_of(100, seed=9):
        before = names(hold_out(frames, 0.25, seed=5)[1])
        after = names(hold_out([*frames, extra], 0.25, seed=5)[1]) & names(frames)
        assert len(before ^ after) <= 1
        moves += len(before ^ after)
        frames = [extra, *frames]
    assert moves < 50  # a split by random numbers would move about 40 % of the frames each time


def test_another_seed_is_another_split():
    frames = frames_of(100)
    assert hold_out_indices(frames, 0.3, 1)[1] != hold_out_indices(frames, 0.3, 2)[1]
    assert hold_out_indices(frames, 0.3, 1) == hold_out_indices(frames, 0.3, 1)


def test_equal_structures_are_on_one_side():
    frames = frames_of(40)
    held = set(hold_out_indices(frames * 3, 0.3, 0)[1])
    for index in range(40):
        assert len({(index + 40 * copy) in held for copy in range(3)}) == 1


def test_strata_are_held_out_evenly_and_small_ones_stay_in_train():
    strata = {"small": 9, "ten": 10, "large": 57}
    frames = [f for i, (name, n) in enumerate(strata.items()) for f in frames_of(n, i, name)]
    for seed in range(5):
        _, held = hold_out(frames, 0.1, seed, stratify="group")
        groups = [frame.info["group"] for frame in held]
        assert {name: groups.count(name) for name in strata} == {"small": 0, "ten": 1, "large": 5}


def test_fraction_zero_holds_nothing():
    assert hold_out_indices(frames_of(5), 0.0, 0) == ([0, 1, 2, 3, 4], [])
    assert hold_out_indices([], 0.5, 0) == ([], [])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"fraction is .*in \[0, 1\)"):
        hold_out(frames_of(3), fraction, 0)


def test_an_unknown_stratum_key_is_refused():
    with pytest.raises(ValueError, match=r"stratify is 'gruop'.*did you mean 'group'"):
        hold_out(frames_of(3, group="a"), 0.5, 0, stratify="gruop")


def test_the_fingerprint_sees_structure_and_nothing_else():
    cell = [[4, 0, 0], [1, 5, 0], [0, 0.5, 6]]
    scaled = np.array([[0.0, 0.3, 0.999], [0.25, 0.5, 0.75]])
    atoms = Atoms("LiO", scaled_positions=scaled, cell=cell, pbc=True)
    same = fingerprint(atoms)
    images = scaled + np.array([[1, -2, 0], [0, 0, 3]])
    wrapped = Atoms("LiO", scaled_positions=images, cell=cell, pbc=True)
    noisy = Atoms("LiO", atoms.positions + 1e-9, cell=cell, pbc=True)
    below = Atoms("LiO", scaled_positions=scaled - [[1e-9, 0, 0], [0, 0, 0]], cell=cell, pbc=True)
    for other in (wrapped, noisy, below, atoms[[1, 0]]):
        assert fingerprint(other) == same
    moved, other_cell, other_pbc = atoms.copy(), atoms.copy(), atoms.copy()
    moved.positions[0, 0] += 0.01
    other_cell.cell[0, 0] += 0.01
    other_pbc.pbc = [True, True, False]
    swapped = Atoms("OLi", scaled_positions=scaled, cell=cell, pbc=True)
    for other in (moved, other_cell, other_pbc, swapped):
        assert fingerprint(other) != same


def test_the_fingerprint_of_a_molecule_and_a_slab():
    molecule = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    assert fingerprint(molecule) == fingerprint(molecule[[1, 0]])
    slab = Atoms("Li", [[0.1, 0.2, 9.0]], cell=[3, 3, 0], pbc=[True, True, False])
    image = Atoms("Li", [[3.1, -2.8, 9.0]], cell=[3, 3, 0], pbc=[True, True, False])
    assert fingerprint(slab) == fingerprint(image)
    higher = Atoms("Li", [[0.1, 0.2, 10.0]], cell=[3, 3, 0], pbc=[True, True, False])
    assert fingerprint(slab) != fingerprint(higher)


def grouped(count):
    frames = frames_of(count)
    ids = [{"source_id": f"mp-{i // 5}", "trajectory_id": f"t{i // 3}"} for i in range(count)]
    return [Frame(f.atoms, {}, f.source, info) for f, info in zip(frames, ids, strict=True)]


@pytest.mark.parametrize(
    ("by", "key"), [("material", "source_id"), ("trajectory", "trajectory_id")]
)
def test_groups_are_never_divided_and_never_move(by, key):
    frames = grouped(600)
    train, held = hold_out(frames, 0.2, 3, group=by)
    assert {f.info[key] for f in train}.isdisjoint({f.info[key] for f in held})
    assert 60 < len(held) < 180
    before = {f.source for f in hold_out(frames[:300], 0.2, 3, group=by)[1]}
    assert before == {f.source for f in held} & {f.source for f in frames[:300]}


def test_composition_and_prototype_are_groups():
    salt = Atoms("Na4Cl4", scaled_positions=SALT, cell=[5.6] * 3, pbc=True)
    fluoride = Atoms("Li4F4", scaled_positions=SALT, cell=[4.0] * 3, pbc=True)
    rattled = salt.copy()
    rattled.positions += 0.3 * np.random.default_rng(0).random((8, 3))
    first, second, third = (Frame(atoms, {}, "f#0") for atoms in (salt, fluoride, rattled))
    assert group_of(first, "prototype") == group_of(second, "prototype") == "A1B1#225"
    assert group_of(third, "prototype") == "A1B1#1"
    assert group_of(first, "composition") == group_of(third, "composition") == "ClNa"
    assert group_of(Frame(Atoms("H2O", np.eye(3)), {}), "prototype") == "A1B2"


SALT = np.array(
    [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]
) / 2  # fmt: skip


def test_a_frame_without_its_group_is_named():
    with pytest.raises(ValueError, match=r"f#0 has no 'source_id', so .* grouped by material"):
        hold_out(frames_of(3), 0.5, 0, group="material")
    with pytest.raises(ValueError, match=r"give one of them"):
        hold_out(grouped(3), 0.5, 0, stratify="source_id", group="material")
