"""Several sources as one: energies on one scale, nothing loaded that need not be."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from mlip.data.card import load_frames
from mlip.data.energy_references import is_isolated, isolated_energy_references
from mlip.data.frame import Frame
from mlip.data.loader import batches, counts, to_graphs
from mlip.data.mixed_sources import from_mixture
from mlip.data.mixture import Mixture, Part, seen
from mlip.data.store.convert import convert
from mlip.data.write_extxyz import to_extxyz

SHIFT = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The test frames of lithium with another zero of energy, as a file and as a store."""
    folder = tmp_path_factory.mktemp("mixture")
    frames = [
        replace(f, labels={**f.labels, "energy": f.labels["energy"] + SHIFT * len(f)})
        for f in load_frames("mlearn_li", "test")
    ]
    (folder / "other.extxyz").write_text("".join(map(to_extxyz, frames)))
    convert(folder / "other.extxyz", folder / "store", "ase")
    return folder


def mixed(folder, name="other.extxyz", **options):
    entry = {"path": str(folder / name), **({} if name == "store" else {"units": "ase"})}
    sources = {"li": {"card": "mlearn_li"}, "other": {**entry, **options}}
    return from_mixture(sources, reference="li", val_fraction=0.1, test_fraction=0.1)


@pytest.mark.parametrize("name", ["other.extxyz", "store"])
def test_energies_come_on_the_scale_of_the_reference(name, folder):
    splits = mixed(folder, name)
    assert splits.alignment is not None
    assert splits.alignment.shifts["other"]["Li"] == pytest.approx(SHIFT, abs=0.02)
    shift = splits.alignment.shifts["other"]["Li"]
    known = {f.atoms.positions.tobytes(): float(f.labels["energy"]) for f in
             load_frames("mlearn_li", "test")}  # fmt: skip
    train = splits.train
    assert isinstance(train, Mixture)
    ours = [frame for frame in train if frame.info["group"] == "other"]
    assert len(ours) == len(train.parts[1].frames) > 15
    for frame in ours:
        raw = known[frame.atoms.positions.tobytes()] + SHIFT * len(frame)
        assert float(frame.labels["energy"]) == pytest.approx(raw - shift * len(frame), abs=1e-9)
    assert splits.elements == ["Li"]
    assert "minus Li +0.7" in splits.alignment.to_text()


@pytest.mark.parametrize("name", ["other.extxyz", "store"])
def test_graphs_are_those_of_the_frames(name, folder):
    splits = mixed(folder, name)
    graphs = to_graphs(splits.train, 5.0, ("energy", "forces"))
    edges, atoms = counts(graphs)
    assert len(graphs) == len(splits.train) == len(edges)
    for index in (0, len(graphs) // 2, len(graphs) - 1, -1):
        frame, graph = splits.train[index], graphs[index]
        assert float(graph.energy) == pytest.approx(float(frame.labels["energy"]), abs=1e-9)
        assert graph.positions.shape[0] == atoms[index] == len(frame)
        assert graph.edge_index.shape[1] == edges[index]
    before = float(graphs[-1].energy)
    assert float(graphs[-1].energy) == before  # asking twice shifts once
    data = {"batch": {"atoms": 200}, "batch_size": 4, "workers": 0}
    total = sum(len(batch.ptr) - 1 for batch in batches(graphs, data, shuffle=True))
    assert total == len(graphs)


def test_weights_repeat_and_thin(folder):
    plain, heavy, light = (mixed(folder, weight=w) for w in (1, 2.5, 0.4))
    count = len(plain.train.parts[1].indices)
    assert len(heavy.train.parts[1].indices) == 2 * count + round(count / 2)
    assert len(light.train.parts[1].indices) == round(0.4 * count)
    assert len(light.val) == len(plain.val)
    assert len(light.train.parts[0].indices) == len(plain.train.parts[0].indices)
    with pytest.raises(ValueError, match="leaves none of 3 frames"):
        seen(3, 0.01, 0)
    with pytest.raises(ValueError, match="weight is -1"):
        seen(3, -1, 0)


def test_taking_some_frames_keeps_their_order(folder):
    frames = load_frames("mlearn_li", "test")
    mixture = Mixture([
        Part("a", frames[:5], {}, np.arange(5)), Part("b", frames[5:9], {}, np.array([0, 0, 3]))
    ])  # fmt: skip
    assert [frame.source for frame in mixture[2:7:2]] == [
        frames[2].source, frames[4].source, frames[5].source
    ]  # fmt: skip
    assert mixture[-1].source == frames[8].source
    with pytest.raises(IndexError):
        mixture[8]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"li": {"card": "mlearn_li"}}, "names li: give two or more"),
        ({"li": {"card": "mlearn_li"}, "b": {}}, "one of path"),
        ({"li": {"card": "mlearn_li"}, "b": {"path": "x.extxyz"}}, "sources.b.units is missing"),
        ({"li": {"card": "mlearn_li", "wieght": 2}, "b": {}}, "did you mean 'weight'"),
    ],
)  # fmt: skip
def test_bad_sources(sources, message):
    with pytest.raises(ValueError, match=message):
        from_mixture(sources)


def test_a_wrong_reference(folder):
    with pytest.raises(ValueError, match=r"data.reference is 'lithium', no source"):
        from_mixture({"li": {"card": "mlearn_li"},
                      "o": {"path": str(folder / "store")}}, reference="lithium")  # fmt: skip


def test_functionals_are_not_mixed_without_alignment(folder):
    sources = {"li": {"card": "mlearn_li"}, "mp": {"card": "mlearn_mo"}}
    assert from_mixture(sources, aligned=False).alignment is None
    path = folder / "r2scan.extxyz"
    frames = load_frames("mlearn_li", "test")[:10]
    path.write_text("".join(to_extxyz(replace(f, info={"functional": "r2SCAN"})) for f in frames))
    convert(path, folder / "r2scan", "ase")
    other = {"li": {"card": "mlearn_li"}, "scan": {"path": str(folder / "r2scan")}}
    with pytest.raises(ValueError, match="differ in their functional"):
        from_mixture(other, aligned=False)
    assert from_mixture(other).alignment is not None


def atom(symbol, energy, cell=None, source="atoms#0"):
    atoms = Atoms(symbol, cell=cell, pbc=cell is not None)
    return Frame(atoms, {"energy": np.array(energy)}, source)


def test_isolated_atoms():
    assert is_isolated(atom("Li", -0.2))
    assert is_isolated(atom("Li", -0.2, [10, 10, 12]))
    assert not is_isolated(atom("Li", -1.9, [3.4, 3.4, 3.4]))
    assert not is_isolated(atom("Li", -1.9, [[20, 0, 0], [20, 3, 0], [0, 0, 20]]))
    frames = [atom("Li", -0.2), atom("O", -1.5, [12, 12, 12]), atom("Li", -1.9, [3, 3, 3])]
    found = isolated_energy_references(frames, ["Li", "O"])
    assert found.values == {"Li": -0.2, "O": -1.5}
    with pytest.raises(ValueError, match="no isolated atom of P"):
        isolated_energy_references(frames, ["Li", "P"])
    with pytest.raises(ValueError, match="both an isolated Li"):
        isolated_energy_references([*frames, atom("Li", -0.4)], ["Li"])
