"""Conversion: kill and resume, parallel equals serial, bad input and other people's folders."""

import gzip
import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlip import paths
from mlip.data.readers import parts_of, read, read_part
from mlip.data.store.convert import convert
from mlip.data.store.layout import Layout
from mlip.data.store.manifest import NAME
from mlip.data.store.reader import Store

spec = importlib.util.spec_from_file_location(
    "real", Path(__file__).parents[1] / "readers" / "real.py"
)
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)

FRAME = """2
Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 energy={energy} pbc="T T T"
Li 0 0 0 0 0 0.1
O 2 2 {z} 0 0 -0.1
"""
SMALL = Layout(shard_frames=20)


@pytest.fixture
def many(tmp_path):
    path = tmp_path / "many.extxyz"
    path.write_text("".join(FRAME.format(energy=-i, z=1 + i / 2000) for i in range(2000)))
    return path


def assert_holds(store, path):
    frames = list(read(path, "ase"))
    assert len(store) == len(frames)
    for frame, stored in zip(frames, store, strict=True):
        assert frame.atoms == stored.atoms
        assert frame.source == stored.source
        assert np.array_equal(frame.labels["forces"], stored.labels["forces"])
        assert frame.labels["energy"] == stored.labels["energy"]


def test_workers_write_what_one_process_writes(many, tmp_path):
    one = convert(many, tmp_path / "one", "ase", layout=SMALL)
    two = convert(many, tmp_path / "two", "ase", layout=SMALL, workers=2)
    assert [s.sha256 for s in one.manifest.shards] == [s.sha256 for s in two.manifest.shards]
    assert_holds(two, many)


def inputs(folder):
    """Some hundred real frames in each format that is cut into parts; the text also compressed."""
    frames = real.frames() * 4
    lines = json.dumps(real.mptrj(frames)).encode()
    (folder / "a.json").write_bytes(lines)
    (folder / "a.json.gz").write_bytes(gzip.compress(lines))
    rows = [real.row(frame, number) for number, frame in enumerate(frames, 1)]
    real.write_aselmdb(folder / "a.aselmdb", rows, deleted=[3, 50])
    (folder / "omat").mkdir()
    for name in ("data.0000.aselmdb", "data.0001.aselmdb"):
        real.write_aselmdb(folder / "omat" / name, rows)
    np.savez(folder / "omat" / "metadata.npz", natoms=[len(frame) for frame in frames] * 2)
    text = "".join(FRAME.format(energy=-i, z=1 + i / 2000) for i in range(2000))
    (folder / "a.extxyz").write_text(text)
    (folder / "a.extxyz.gz").write_bytes(gzip.compress(text.encode()))
    return folder


PARTED = ["a.json", "a.json.gz", "a.aselmdb", "omat", "a.extxyz", "a.extxyz.gz"]


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    return inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize("most", [1, 7, 10**6])
def test_parts_give_what_the_whole_gives(parted, name, most):
    whole = list(read(parted / name, "ase"))
    pieces = [list(read_part(parted / name, p, "ase")) for p in parts_of(parted / name, most)]
    longest = 4 if "json" in name else 1  # a material is not cut
    assert all(0 < len(piece) <= max(most, longest) for piece in pieces)
    frames = [frame for piece in pieces for frame in piece]
    assert [frame.source for frame in frames] == [frame.source for frame in whole]
    for one, other in zip(frames, whole, strict=True):
        assert one.atoms == other.atoms
        assert one.info == other.info
        assert one.labels.keys() == other.labels.keys()
        for label, values in one.labels.items():
            np.testing.assert_array_equal(values, other.labels[label])


@pytest.mark.parametrize("name", PARTED)
def test_parts_travel(parted, name):
    part = next(iter(parts_of(parted / name, 50)))
    assert pickle.loads(pickle.dumps(part)) == part
    assert len(pickle.dumps(part)) < 500 or "xyz" in name or name.endswith(".gz")


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, 2) for name in PARTED), ("a.extxyz", 1), ("a.json", 1)]
)
def test_a_killed_conversion_goes_on(parted, tmp_path, name, workers):
    """As if it had never been killed: byte for byte, and what was done is not done again."""
    given, output = parted / name, tmp_path / "store"
    script = tmp_path / "run.py"
    script.write_text(
        "from mlip.data.store.convert import convert\n"
        "from mlip.data.store.layout import Layout\n"
        "if __name__ == '__main__':\n"
        f"    convert({str(given)!r}, {str(output)!r}, 'ase', workers={workers},\n"
        "            layout=Layout(shard_frames=20))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    while len(list(output.glob("*.arrow"))) < 6:
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # workers of a killed parent finish the shard in hand, then end
    assert not (output / NAME).exists()
    with pytest.raises(FileNotFoundError, match="not a finished store"):
        Store(output)
    kept = {path: path.stat().st_mtime_ns for path in output.glob("*.arrow")}
    store = convert(given, output, "ase", layout=SMALL)
    undisturbed = convert(given, tmp_path / "undisturbed", "ase", layout=SMALL)
    assert 6 <= len(kept) < len(store.manifest.shards)
    assert not list(store.verify())
    assert sum(path.stat().st_mtime_ns == kept[path] for path in kept) >= len(kept) - workers
    names = {path.name for path in output.iterdir()}
    assert names == {path.name for path in undisturbed.folder.iterdir()}
    for found in names:
        assert (output / found).read_bytes() == (undisturbed.folder / found).read_bytes()
    assert_holds(store, given)


def test_a_half_written_shard_is_written_again(many, tmp_path, monkeypatch):
    from mlip.data.store import convert as module

    def stop(*_):
        raise KeyboardInterrupt

    output = tmp_path / "store"
    monkeypatch.setattr(module, "_finish", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(many, output, "ase", layout=SMALL)
    monkeypatch.undo()
    shard = sorted(output.glob("*.arrow"))[3]
    shard.write_bytes(shard.read_bytes()[:100])
    (output / ".shard-000099-0000.arrow.1.partial").write_bytes(b"half")
    store = convert(many, output, "ase", layout=SMALL)
    assert_holds(store, many)
    assert not list(store.verify())
    assert not list(output.glob("*.partial"))


def test_a_finished_store_is_not_written_again(many, tmp_path):
    first = convert(many, tmp_path / "s", "ase", layout=SMALL)
    times = [path.stat().st_mtime_ns for path in sorted(first.folder.glob("*.arrow"))]
    again = convert(many, tmp_path / "s", "ase", layout=SMALL)
    assert [p.stat().st_mtime_ns for p in sorted(again.folder.glob("*.arrow"))] == times


def test_another_input_or_option_is_refused(many, tmp_path):
    convert(many, tmp_path / "s", "ase", layout=SMALL)
    with pytest.raises(ValueError, match="holds a store of another input or other options"):
        convert(many, tmp_path / "s", "ase", layout=Layout(cutoff=6.0))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"thesis\.tex and is no store"):
        convert(many, tmp_path / "mine", "ase")


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_names_file_and_frame(many, tmp_path, workers):
    lines = many.read_text().splitlines()
    lines[4 * 150 + 2] = "Li 0 0 zero 0 0 0"
    many.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"many\.extxyz#150 \(line 604\).*not numeric"):
        convert(many, tmp_path / "s", "ase", layout=SMALL, workers=workers)
    assert not (tmp_path / "s" / NAME).exists()


def test_a_truncated_file_is_refused(many, tmp_path):
    many.write_text(many.read_text()[:-30])
    with pytest.raises(ValueError, match=r"many\.extxyz#1999"):
        convert(many, tmp_path / "s", "ase", layout=SMALL)


def test_undeclared_and_missing_labels_are_refused(many, tmp_path):
    with pytest.raises(ValueError, match="not declared"):
        convert(many, tmp_path / "a")
    units = {"energy": {"key": "REF_energy", "unit": "eV"}}
    with pytest.raises(ValueError, match="no frame has the key 'REF_energy'"):
        convert(many, tmp_path / "b", units)


def test_a_folder_is_read_file_by_file(many, tmp_path):
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("a.extxyz", "b.extxyz"):
        (folder / name).write_text(FRAME.format(energy=-1, z=1) * 3)
    (folder / "README").write_text("not data")
    store = convert(folder, tmp_path / "s", "ase", workers=2)
    sources = [os.path.basename(frame.source) for frame in store]  # noqa: PTH119
    assert sources == ["a.extxyz#0", "a.extxyz#1", "a.extxyz#2"] + [
        f"b.extxyz#{i}" for i in range(3)
    ]


def test_compressed_files_and_other_formats(tmp_path):
    from ase.io import write

    card = paths.content("datasets") / "mlearn_cu"
    store = convert(card, tmp_path / "card")
    write(tmp_path / "cu.traj", [frame.atoms for frame in store])
    assert len(convert(tmp_path / "cu.traj", tmp_path / "traj")) == len(store) == 31


def test_the_readers_options_reach_it_and_are_kept(tmp_path):
    path = real.write_mptrj(tmp_path / "a.json", real.frames()[:4])
    store = convert(path, tmp_path / "s", reader_options={"energy": "corrected"})
    assert store.manifest.origin["reader_options"] == {"energy": "corrected"}
    assert store.manifest.told["corrections"] == {"MP2020": 4}
    assert store[0].labels["energy"] == real.frames()[0].info["corrected_total_energy"]
    assert convert(path, tmp_path / "d").manifest.told["corrections"] == {"none": 4}
    with pytest.raises(ValueError, match="another input or other options"):
        convert(path, tmp_path / "s")


def test_two_conversions_at_once_are_refused(many, tmp_path):
    import fcntl

    output = tmp_path / "s"
    output.mkdir()
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is converting"):
            convert(many, output, "ase")
