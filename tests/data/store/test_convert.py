"""Conversion: kill and resume, parallel equals serial, bad input and other people's folders."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlip import paths
from mlip.data.readers import read
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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_conversion_goes_on(many, tmp_path, workers):
    output = tmp_path / "store"
    code = (
        "from mlip.data.store.convert import convert\n"
        "from mlip.data.store.layout import Layout\n"
        "if __name__ == '__main__':\n"
        f"    convert({str(many)!r}, {str(output)!r}, 'ase', workers={workers},\n"
        "            layout=Layout(shard_frames=20))\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)])
    while len(list(output.glob("*.arrow"))) < 10:
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # workers of a killed parent finish the shard in hand, then end
    assert not (output / NAME).exists()
    with pytest.raises(FileNotFoundError, match="not a finished store"):
        Store(output)
    kept = {path: path.stat().st_mtime_ns for path in output.glob("*.arrow")}
    assert 10 <= len(kept) < 100
    store = convert(many, output, "ase", layout=SMALL)
    assert_holds(store, many)
    assert not list(store.verify())
    assert sum(path.stat().st_mtime_ns == kept[path] for path in kept) >= len(kept) - workers
    assert {path.name for path in output.iterdir()} == {
        ".lock",
        NAME,
        *(shard.file for shard in store.manifest.shards),
    }


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
    assert store.manifest.told["energy_choice"] == {"corrected": 4}
    assert store[0].labels["energy"] == real.frames()[0].info["corrected_total_energy"]
    assert convert(path, tmp_path / "d").manifest.told["energy_choice"] == {"uncorrected": 4}
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
