"""Selections: windows, strata, and independence of the order of the file."""

import re
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from mlip.cli import main
from mlip.data.card import load_frames
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.select import QUANTITIES, Selection, select
from mlip.data.write_extxyz import to_extxyz


def frame(index, symbols="Li"):
    atoms = Atoms(symbols, np.random.default_rng(index).normal(size=(len(Atoms(symbols)), 3)))
    labels = {"energy": np.array(-float(index)), "forces": np.full((len(atoms), 3), index / 10)}
    return Frame(atoms, labels, f"file#{index}", {"group": symbols, "temperature": index})


FRAMES = [frame(i, symbols) for i, symbols in enumerate(["Li"] * 60 + ["Li2O"] * 25 + ["O2"] * 5)]


def test_elements_windows_and_source():
    chosen = select(FRAMES, Selection(elements=["Li"], where=["temperature>=10", "max_force<5"]))
    assert [f.source for f in chosen] == [f"file#{i}" for i in range(10, 29)]
    assert len(select(FRAMES, Selection(source="#7"))) == 11


def test_strata_get_the_same_number_as_far_as_they_can():
    chosen = select(FRAMES, Selection(limit=45, stratify="composition"))
    assert Counter(f.info["group"] for f in chosen) == {"Li": 20, "Li2O": 20, "O2": 5}
    for stratify in ("elements", "group", "prototype"):
        chosen = select(FRAMES, Selection(limit=4, stratify=stratify))
        assert {"Li2O"} < {f.info["group"] for f in chosen}


@given(st.permutations(range(len(FRAMES))), st.integers(1, 40), st.sampled_from([None, "group"]))
def test_the_order_plays_no_part(order, limit, stratify):
    many = FRAMES * 4  # enough to be thinned on the way
    shuffled = [many[i + 90 * k] for k in range(4) for i in order]
    selection = Selection(limit=limit, stratify=stratify, seed=3)
    first, second = (sorted(f.source for f in select(x, selection)) for x in (many, shuffled))
    assert first == second


def test_seeds_differ():
    chosen = [{f.source for f in select(FRAMES, Selection(limit=20, seed=s))} for s in (0, 1)]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": ["max_force"]}, "where has 'max_force'"),
        ({"where": ["max_force<x"]}, "such as max_force<10"),
        ({"limit": 0}, "limit is 0"),
        ({"stratify": "grup"}, "did you mean 'group'"),
        ({"elements": ["Na"]}, "none of the 90 frames"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        select(FRAMES, Selection(**options))


def test_frames_written_read_back_equal(tmp_path):
    before = load_frames("mlearn_li", "test")
    text = "".join(map(to_extxyz, before))
    (tmp_path / "a.extxyz").write_text(text)
    for old, new in zip(before, read(tmp_path / "a.extxyz", "ase"), strict=True):
        assert old.atoms == new.atoms
        assert old.labels.keys() == new.labels.keys()
        for label, values in old.labels.items():
            np.testing.assert_array_equal(values, new.labels[label])
        kept = {k: v for k, v in old.info.items() if isinstance(v, str | int | float)}
        assert kept == {k: new.info[k] for k in kept}
        assert all(function(old) == function(new) for function in QUANTITIES.values())


def test_the_verb(tmp_path, capsys):
    (tmp_path / "a.extxyz").write_text("".join(map(to_extxyz, FRAMES)))
    arguments = [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz"), "units=ase", "limit=9"]
    main(["data", "select", *arguments, "stratify=group", "seed=2"])
    assert "9 frames" in capsys.readouterr().out
    assert len(list(read(tmp_path / "b.extxyz", "ase"))) == 9


def test_a_limit_alone_takes_the_first_that_pass():
    def frames():
        yield from FRAMES[:20]
        raise AssertionError("read on")

    chosen = select(frames(), Selection(limit=5, where=["temperature>=10"]))
    assert [f.source for f in chosen] == [f"file#{i}" for i in range(10, 15)]
    with pytest.raises(AssertionError, match="read on"):
        select(frames(), Selection(limit=5, seed=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "all that pass"),
        ({"limit": 3}, "the first that pass"),
        ({"limit": 3, "seed": 2}, "at random with seed 2"),
        ({"limit": 3, "stratify": "composition"}, "seed 0 .* the same number of each composition"),
    ],
)
def test_it_says_how_it_chose(options, words):
    assert re.search(words, Selection(**options).manner)


def test_elements_are_a_superset_of_what_a_frame_holds():
    chosen = select(FRAMES, Selection(elements=["Li", "O", "S"]))
    assert {str(f.atoms.symbols) for f in chosen} == {"Li", "Li2O", "O2"}
    with pytest.raises(ValueError, match=r"'Lo', not an element; known: Ac, Ag"):
        Selection(elements=["Lo"])
