"""What goes into a store comes out of it, bit by bit; damage is told, never read."""

import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from mlip.data.card import load_frames
from mlip.data.frame import Frame
from mlip.data.store.convert import convert
from mlip.data.store.gather import gather
from mlip.data.store.layout import Layout, encode, info_of
from mlip.data.store.manifest import NAME, ShardEntry
from mlip.data.store.reader import Store, is_store
from mlip.data.store.shard import Shard, write_shard
from mlip.keys import FIELDS, LABELS
from mlip.neighbors import neighbor_list

spec = importlib.util.spec_from_file_location(
    "real", Path(__file__).parents[1] / "readers" / "real.py"
)
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)


def assert_same(frame, other):
    assert frame.atoms == other.atoms
    assert np.array_equal(frame.atoms.positions, other.atoms.positions)
    assert set(frame.labels) == set(other.labels)
    for name, value in frame.labels.items():
        assert np.shape(value) == other.labels[name].shape
        assert np.array_equal(value, other.labels[name], equal_nan=True)
    assert frame.source == other.source


def test_a_card_reads_back_as_it_was(lithium):
    frames = load_frames("mlearn_li", "train") + load_frames("mlearn_li", "test")
    assert len(lithium) == len(frames) == 270
    for frame, stored in zip(frames, lithium, strict=True):
        assert_same(frame, stored)
        assert stored.info["data"] == "mlearn_li"
        assert stored.info["functional"] == "PBE"
        assert stored.info["group"] == frame.info["group"]
    assert list(np.unique(lithium.splits, return_counts=True)[1]) == [29, 241]


def test_the_manifest_says_what_the_frames_hold(lithium):
    manifest = lithium.manifest
    assert manifest.frames == 270
    assert manifest.elements == {"Li": 270}
    assert manifest.labels == {"energy": 270, "forces": 270, "stress": 270}
    assert manifest.told["functional"] == {"PBE": 270}
    assert manifest.atoms == sum(len(frame) for frame in lithium) == lithium.atom_counts.sum()
    frame = lithium[17]
    edges, _, _ = neighbor_list(
        frame.atoms.positions, frame.atoms.cell.array, frame.atoms.pbc, manifest.cutoff
    )
    assert lithium.edge_counts[17] == edges.shape[1]
    units = json.loads((lithium.folder / NAME).read_text())["units"]
    assert units["stress"] == "eV/Å³"


def labelled(atoms, seed, names):
    generator = np.random.default_rng(seed)
    labels = {}
    for name in names:
        field = FIELDS[name]
        shape = (atoms, *field.shape) if field.level == "atom" else field.shape
        labels[name] = generator.normal(size=shape)
    structure = Atoms(
        generator.integers(1, 119, atoms),
        positions=generator.uniform(0, 5, (atoms, 3)),
        cell=np.eye(3) * 5,
        pbc=generator.integers(0, 2, 3).astype(bool),
    )
    return Frame(structure, labels, f"made#{seed}", {"mask": np.array([True, False]), "id": "a"})


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 2**31), st.sets(st.sampled_from(LABELS))),
        min_size=1,
        max_size=6,
    )
)
def test_any_labels_in_any_frames(tmp_path_factory, specification):
    frames = [labelled(*each) for each in specification]
    batch, summary = encode(frames, Layout(neighbors=True))
    path = tmp_path_factory.mktemp("shard") / "shard.arrow"
    digest, size = write_shard(path, batch)
    counts = {key: summary[key] for key in ("frames", "atoms", "edges")}
    shard = Shard(path, ShardEntry("shard.arrow", digest, size, "", **counts))
    for row, frame in enumerate(frames):
        assert np.array_equal(shard.item("positions", row), frame.atoms.positions.ravel())
        for name in LABELS:
            if name in frame.labels:
                assert np.array_equal(shard.item(name, row), np.ravel(frame.labels[name]))
            else:
                assert name not in shard.offsets or shard.item(name, row).size == 0
        info = info_of(shard.text("info", row))
        assert info["id"] == "a"
        assert info["mask"].dtype == bool


def test_missing_labels_take_no_space():
    energy_only = [labelled(8, seed, ["energy"]) for seed in range(50)]
    mixed = [*energy_only[1:], labelled(8, 0, ["energy", "born_effective_charges"])]
    all_missing, some_missing = (encode(frames, Layout())[0] for frames in (energy_only, mixed))
    assert "forces" not in all_missing.schema.names
    assert some_missing.column("born_effective_charges").nbytes <= 8 * 9 * 8 + 51 * 8


def test_frames_are_views_that_cannot_harm_the_file(lithium):
    before = lithium.arrays(3)["positions"].copy()
    assert lithium.arrays(3)["positions"].base is not None
    copy = Store(lithium.folder)
    copy.arrays(3)["positions"][:] = 0.0
    assert np.array_equal(Store(lithium.folder).arrays(3)["positions"], before)
    assert not list(lithium.verify())


def test_random_access(lithium):
    assert_same(lithium[-1], lithium[269])
    assert [frame.source for frame in lithium[48:52]] == [lithium[i].source for i in range(48, 52)]
    with pytest.raises(IndexError, match="270 frames; there is no number 270"):
        lithium[270]


def test_a_store_travels_to_another_process(lithium):
    lithium[0]
    assert_same(pickle.loads(pickle.dumps(lithium))[5], lithium[5])


def test_neighbour_lists_are_those_of_the_frames(tmp_path):
    store = convert("mlearn_cu", tmp_path / "s", layout=Layout(cutoff=4.0, neighbors=True))
    for index in (0, 7, 30):
        atoms = store[index].atoms
        for stored, computed in zip(
            store.edges(index),
            neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0),
            strict=True,
        ):
            assert np.array_equal(stored, computed)


def test_without_neighbour_lists_it_says_so(lithium):
    with pytest.raises(ValueError, match="no neighbour lists; convert with neighbors=true"):
        lithium.edges(0)


@pytest.fixture
def copied(lithium, tmp_path):
    return Path(shutil.copytree(lithium.folder, tmp_path / "copy"))


@pytest.mark.parametrize("keep", [0, 8, 1000, -1])
def test_a_truncated_shard_is_refused(copied, keep):
    shard = sorted(copied.glob("*.arrow"))[2]
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{shard.name} has \d+ bytes.*convert the data again"):
        Store(copied)


def test_a_missing_shard_is_refused(copied):
    sorted(copied.glob("*.arrow"))[1].unlink()
    with pytest.raises(ValueError, match="is missing"):
        Store(copied)


def test_a_changed_bit_is_found(copied):
    shard = sorted(copied.glob("*.arrow"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    (finding,) = Store(copied).verify()
    assert finding.severity == "error"
    assert shard.name in finding.message


@given(position=st.floats(0, 1), value=st.integers(0, 255))
def test_a_damaged_shard_never_crashes(tmp_path_factory, lithium, position, value):
    entry = lithium.manifest.shards[0]
    content = bytearray((lithium.folder / entry.file).read_bytes())
    tail = min(2000, len(content))  # schema and footer stand at the ends
    place = int(position * (2 * tail - 1))
    content[place if place < tail else place - 2 * tail] = value
    path = tmp_path_factory.mktemp("damaged") / entry.file
    path.write_bytes(content)
    with suppress(ValueError):  # harmless damage is left to the checksum
        Shard(path, entry).item("positions", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda _: "[]", "damaged"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "schema 99"),
        (lambda text: text.replace('"frames": 270', '"frames": 271'), "checksum"),
    ],
)
def test_a_damaged_manifest_is_refused(copied, change, message):
    manifest = copied / NAME
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(ValueError, match=message):
        Store(copied)


def test_a_folder_without_manifest_is_no_store(tmp_path):
    assert not is_store(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a finished store"):
        Store(tmp_path)


def test_opening_a_store_does_not_import_torch():
    code = "import sys, mlip.data.store.convert; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_batch_gathered_is_its_frames_joined(lithium, tmp_path):
    order = np.random.default_rng(0).permutation(len(lithium))[:60]
    found = gather(lithium, order, ("energy", "forces", "stress"))
    frames = [lithium[int(i)] for i in order]
    np.testing.assert_array_equal(found["counts"], [len(frame) for frame in frames])
    np.testing.assert_array_equal(found["cell"], [frame.atoms.cell.array for frame in frames])
    for name in ("positions", "atomic_numbers"):
        ase_name = "numbers" if name == "atomic_numbers" else name
        joined = np.concatenate([frame.atoms.arrays[ase_name] for frame in frames])
        np.testing.assert_array_equal(found[name], joined)
    forces = np.concatenate([frame.labels["forces"] for frame in frames])
    np.testing.assert_array_equal(found["forces"], forces)
    for name in ("energy", "stress"):
        np.testing.assert_array_equal(found[name], [frame.labels[name] for frame in frames])
    with pytest.raises(IndexError, match="270 frames"):
        gather(lithium, [270])


def test_what_a_frame_has_not_is_gathered_as_nan(tmp_path):
    frames = [*real.frames()[:3], *real.frames()[20:22]]  # the later ones without moments
    store = convert(real.write_mptrj(tmp_path / "a.json", frames), tmp_path / "s")
    found = gather(store, [4, 0, 3], ("magmoms",))
    known = store[0].labels["magmoms"]
    first = len(store[4])
    assert np.isnan(found["magmoms"][:first]).all()
    np.testing.assert_array_equal(found["magmoms"][first : first + len(known)], known)
    assert np.isnan(found["magmoms"][first + len(known) :]).all()


READER = """
import sys
from mlip.data.store.reader import Store
store = Store(sys.argv[1])
total = sum(store.arrays(i)["positions"].sum() for i in range(len(store)))
print("read", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_processes_share_the_pages_of_a_store(lithium):
    command = [sys.executable, "-c", READER, str(lithium.folder)]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        assert [reader.stdout.readline() for reader in readers] == ["read\n"] * 2
        for reader in readers:
            resident, proportional = _mapped(reader.pid, str(lithium.folder))
            assert resident > 100  # kB
            assert proportional <= 0.55 * resident
    finally:
        for reader in readers:
            reader.communicate("\n")


def _mapped(pid, folder):
    """Resident and proportional size (kB) of what a process maps of a folder."""
    sizes, inside = {"Rss": 0, "Pss": 0}, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in sizes and inside:
            sizes[key] += int(rest.split()[0])
        elif line.split()[0].count("-") == 1 and not line.split()[0].endswith(":"):
            inside = folder in line
    return sizes["Rss"], sizes["Pss"]
