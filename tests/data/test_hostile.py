"""Every reader against cut, changed, reordered and hostile files: the frames, or a named error."""

import bz2
import gzip
import importlib.util
import json
import lzma
import os
import pickle
import re
import sys
import zlib
from pathlib import Path

import ase.db
import ase.io
import lmdb
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlip.data.doctor import doctor
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.store.convert import convert
from mlip.data.store.reader import Store
from mlip.data.write_extxyz import to_extxyz
from mlip.units import to_internal

READERS = Path(__file__).parent / "readers"


def load(name):
    spec = importlib.util.spec_from_file_location(name, READERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


real = load("real")
other = load("test_other_formats")

COUNT = 4
FRAMES = real.frames()[:COUNT]  # one material, so that DeePMD can hold them


def examples(count):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def labelled(frame):
    energy, forces, stress = real.values(frame)
    return {"energy": np.array(energy), "forces": forces, "stress": (stress + stress.T) / 2}


def with_results(frame):
    atoms, labels = frame.atoms.copy(), labelled(frame)
    labels["stress"] = labels["stress"].ravel()[[0, 4, 8, 5, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def write_extxyz(folder):
    path = folder / "a.extxyz"
    path.write_text("".join(to_extxyz(Frame(f.atoms, labelled(f))) for f in FRAMES))
    return path


def write_json(name, content):
    def write(folder):
        (folder / name).write_text(json.dumps(content))
        return folder / name

    return write


def write_runner(folder):
    bohr, hartree = to_internal("length", "bohr"), to_internal("energy", "Ha")
    lines = []
    for frame in FRAMES:
        energy, forces, _ = real.values(frame)
        lines.append("begin")
        lines += ["lattice {:.16g} {:.16g} {:.16g}".format(*(v / bohr)) for v in frame.atoms.cell]
        for symbol, place, force in zip(
            frame.atoms.symbols, frame.atoms.positions / bohr, forces * bohr / hartree, strict=True
        ):
            numbers = "{:.16g} {:.16g} {:.16g}"
            lines.append(f"atom {numbers.format(*place)} {symbol} 0.0 0.0 {numbers.format(*force)}")
        lines += [f"energy {energy / hartree:.16g}", "charge 0.0", "end"]
    (folder / "input.data").write_text("\n".join(lines) + "\n")
    return folder / "input.data"


def write_aselmdb(folder):
    rows = [real.row(frame, number) for number, frame in enumerate(FRAMES, 1)]
    return real.write_aselmdb(folder / "a.aselmdb", rows)


def write_deepmd(folder):
    return other.write_deepmd(folder / "system", FRAMES)


def write_database(folder):
    with ase.db.connect(folder / "a.db") as base:
        for frame in FRAMES:
            base.write(with_results(frame))
    return folder / "a.db"


def write_trajectory(folder):
    ase.io.write(folder / "a.traj", [with_results(frame) for frame in FRAMES])
    return folder / "a.traj"


def alexandria():
    def step(frame):
        energy, forces, stress = real.values(frame)
        structure = real.structure(frame.atoms)
        stress = (stress * real.KBAR).tolist()
        return {
            "structure": structure,
            "energy": energy,
            "forces": forces.tolist(),
            "stress": stress,
        }

    return {"agm1": [{"steps": [step(frame) for frame in FRAMES]}]}


def pymatgen():
    return [
        {
            "structure": real.structure(frame.atoms),
            "energy": real.values(frame)[0],
            "entry_id": f"e{n}",
        }
        for n, frame in enumerate(FRAMES)
    ]


JSON = {
    "mptrj": ("a.json", real.mptrj(FRAMES)),
    "matpes": ("m.json", [other.matpes_entry(frame, n) for n, frame in enumerate(FRAMES)]),
    "alexandria": ("x.json", alexandria()),
    "pymatgen": ("p.json", pymatgen()),
}
WRITERS = {
    "extxyz": write_extxyz,
    "runner": write_runner,
    "aselmdb": write_aselmdb,
    "deepmd": write_deepmd,
    "ase db": write_database,
    "ase traj": write_trajectory,
    **{name: write_json(*content) for name, content in JSON.items()},
}
UNITS = {"extxyz": "ase"}
# Frames follow each other without an end mark: cut between two frames, the file is a whole one.
OPEN_ENDED = ("extxyz", "runner")


def outcome(path, units=None):
    """Return the frames up to the end or the error, and the text of the error."""
    found = []
    try:
        for frame in read(path, units):
            found.append(frame)
    except (ValueError, FileNotFoundError) as error:
        assert str(path.parent) in str(error)  # noqa: PT017
        return found, str(error)
    return found, ""


def equal(frame, source):
    labels = labelled(source)
    if "energy" in frame.labels:
        np.testing.assert_allclose(frame.labels["energy"], labels["energy"], rtol=1e-14)
    if "forces" in frame.labels:
        np.testing.assert_allclose(frame.labels["forces"], labels["forces"], atol=1e-14)
    np.testing.assert_array_equal(frame.atoms.numbers, source.atoms.numbers)
    np.testing.assert_allclose(frame.atoms.positions, source.atoms.positions, atol=1e-12)


@pytest.mark.parametrize("name", WRITERS)
def test_whole_files_read_back(tmp_path, name):
    found, error = outcome(WRITERS[name](tmp_path), UNITS.get(name))
    assert not error
    for frame, source in zip(found, FRAMES, strict=True):
        equal(frame, source)


def part_of(path, data):
    """Return one of the files that a format is made of; a cut word is another word, not damage."""
    if path.is_file():
        return path
    return data.draw(st.sampled_from(sorted(path.rglob("*.npy"))))


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_refused_after_the_frames_before(tmp_path_factory, name):
    @examples(12)
    @given(st.data())
    def check(data):
        path = WRITERS[name](tmp_path_factory.mktemp("cut"))
        file = part_of(path, data)
        whole = file.read_bytes()
        cut = data.draw(st.integers(0, len(whole.rstrip()) - 1))
        file.write_bytes(whole[:cut])
        found, error = outcome(path, UNITS.get(name))
        for frame, source in zip(found, FRAMES, strict=False):
            equal(frame, source)
        between = name in OPEN_ENDED and whole[:cut].endswith(b"\n")
        assert error or len(found) == COUNT or between

    check()


@pytest.mark.parametrize("name", WRITERS)
def test_a_flipped_bit_never_loses_a_frame_in_silence(tmp_path_factory, name):
    @examples(25)
    @given(st.data())
    def check(data):
        path = WRITERS[name](tmp_path_factory.mktemp("flip"))
        file = part_of(path, data)
        whole = bytearray(file.read_bytes())
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(whole)
        found, error = outcome(path, UNITS.get(name))
        assert error or len(found) == COUNT

    check()


def quick_xz(content):
    return lzma.compress(content, preset=0)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, quick_xz])
@pytest.mark.parametrize("name", ["extxyz", "mptrj", "runner"])
def test_a_damaged_archive_is_refused_or_harmless(tmp_path_factory, name, pack):
    suffix = {gzip.compress: ".gz", bz2.compress: ".bz2", quick_xz: ".xz"}[pack]

    @examples(12)
    @given(st.data())
    def check(data):
        plain = WRITERS[name](tmp_path_factory.mktemp("pack"))
        whole = bytearray(pack(plain.read_bytes()))
        path = plain.with_name(plain.name + suffix)
        place = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            whole = whole[:place]
        else:
            whole[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole)
        found, error = outcome(path, UNITS.get(name))
        if not error:
            for frame, source in zip(found, FRAMES, strict=True):
                equal(frame, source)

    check()


HOSTILE = [None, True, -1, 10**30, 1e308, float("nan"), float("inf"), "", "x", "é" * 50, [], [[]],
           {}, {"@class": "Popen", "@module": "subprocess", "args": ["false"]}, [[1.0, 2.0]],
           {"__ndarray__": [[10**12], "float64", [1.0]]},
           {"__ndarray__": [[1], "O", ["x"]]}]  # fmt: skip


def places_in(node, path=()):
    """Return the paths of every node of a JSON value."""
    found = [path] if path else []
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node if isinstance(node, list) else ())
    )
    for key, value in items:
        found += places_in(value, (*path, key))
    return found


def changed(content, place, value):
    content = json.loads(json.dumps(content))
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return content


@pytest.mark.parametrize("name", JSON)
def test_a_hostile_value_anywhere_in_json_is_an_error_or_harmless(tmp_path_factory, name):
    file, content = JSON[name]
    everywhere = places_in(content)

    @examples(100)
    @given(st.sampled_from(everywhere), st.sampled_from(HOSTILE))
    def check(place, value):
        path = tmp_path_factory.mktemp("json") / file
        path.write_text(json.dumps(changed(content, place, value)))
        found, error = outcome(path)
        lost = len(place) == 1 or (name == "alexandria" and len(place) <= 3)
        assert error or len(found) == COUNT or (lost and value in ([], {}, [[]]))

    check()


def test_a_hostile_value_anywhere_in_a_row_is_an_error_or_harmless(tmp_path_factory):
    row = real.row(FRAMES[0], 1)

    @examples(100)
    @given(st.sampled_from(places_in(row)), st.sampled_from(HOSTILE))
    def check(place, value):
        path = tmp_path_factory.mktemp("row") / "a.aselmdb"
        real.write_aselmdb(path, [changed(row, place, value)])
        found, error = outcome(path)
        assert error or len(found) == 1
        assert not error or "a.aselmdb#1" in error

    check()


def backwards(node):
    if isinstance(node, dict):
        return {key: backwards(node[key]) for key in reversed(list(node))}
    return [backwards(item) for item in node] if isinstance(node, list) else node


@pytest.mark.parametrize("name", [*JSON, "aselmdb"])
def test_the_order_of_keys_plays_no_part(tmp_path, name):
    if name == "aselmdb":
        rows = [backwards(real.row(frame, n)) for n, frame in enumerate(FRAMES, 1)]
        path, order = real.write_aselmdb(tmp_path / "a.aselmdb", rows), FRAMES
    else:
        file, content = JSON[name]
        path = tmp_path / file
        path.write_text(json.dumps(backwards(content)))
        order = FRAMES[::-1] if name == "mptrj" else FRAMES
    found, error = outcome(path)
    assert not error
    for frame, source in zip(found, order, strict=True):
        equal(frame, source)


def test_exchanged_atoms_and_keys_of_extxyz_play_no_part(tmp_path):
    path = write_extxyz(tmp_path)
    lines = path.read_text().splitlines()
    size = int(lines[0])
    random = np.random.default_rng(0)
    order = random.permutation(size)
    mixed = [lines[0], lines[1], *(lines[2 : 2 + size][n] for n in order)]
    words = re.findall(r'[^ "]+(?:"[^"]*")?', lines[1])
    assert len(words) > 4
    mixed[1] = " ".join(reversed(words))
    path.write_text("\n".join(mixed) + "\n")
    (frame,), error = outcome(path, "ase")
    assert not error
    np.testing.assert_array_equal(frame.atoms.positions, FRAMES[0].atoms.positions[order])
    np.testing.assert_array_equal(frame.labels["forces"], labelled(FRAMES[0])["forces"][order])


DEEP = "[" * 100_000 + "]" * 100_000
TEXTS = {
    "deep.json": DEEP,
    "deep_mptrj.json": '{"mp-1": {"a": {"uncorrected_total_energy": ' + DEEP + "}}}",
    "deep_matpes.json": '[{"matpes_id": "x", "structure": ' + DEEP + "}]",
    "deep_alexandria.json": '{"a": [{"steps": [{"structure": {"sites": [' + DEEP + "]}}]}]}",
    "deep_pymatgen.json": '[{"sites": [{"species": [' + DEEP + "]}]}]",
    "keys.json": '{"a":' * 100_000,
    "atoms.extxyz": "999999999999\nLattice\nLi 0 0 0\n",
    "digits.extxyz": "9" * 5000 + "\n\nLi 0 0 0\n",
    "zero.extxyz": "0\n\n",
    "columns.extxyz": "1\nProperties=species:S:1:pos:R:999999999999\nLi 0 0 0\n",
    "brackets.extxyz": "1\na=" + DEEP + " \nLi 0 0 0\n",
    "number.extxyz": "1\nProperties=species:S:1:pos:R:3 energy=" + "9" * 5000 + "\nLi 0 0 0\n",
    "lattice.extxyz": '1\nLattice="1 2 3"\nLi 0 0 0\n',
    "python.extxyz": "1\nenergy=__import__('os').system('false')\nLi 0 0\n",
    "bytes.extxyz": b"1\nname=\xff\xfe\nLi 0 0 0\n",
    "nul.extxyz": b"1\n\x00\nLi 0 0 \x00\n",
    "words.data": "begin\natom 1 2 3 Qq 0 0 0 0 0\nend\n",
    "bytes.data": b"begin\ncomment \xff\xfe\nend\n",
    "digits.data": "begin\natom " + "9" * 5000 + " x\nend\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text_is_refused_by_name(tmp_path, name):
    content = TEXTS[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    _, error = outcome(path, "ase" if name.endswith("xyz") else None)
    assert name in error or name == "number.extxyz"  # a number that large is infinite
    found = doctor(path, "ase" if name.endswith("xyz") else None)
    assert found.exit_code == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("place", ["position", "energy"])
def test_what_is_not_finite_is_read_and_found_by_the_doctor(tmp_path, value, place):
    position, energy = (value, "1.0") if place == "position" else ("0.5", value)
    path = tmp_path / "a.extxyz"
    forces = "Properties=species:S:1:pos:R:3:forces:R:3"
    path.write_text(f"1\n{forces} energy={energy}\nLi {position} 0 0 0 0 0\n")
    found = doctor(path, "ase")
    assert found.exit_code == 1
    assert any("a.extxyz#0" in f.message for f in found.findings if f.severity == "error")


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_pickle_is_ever_run(tmp_path):
    mark = tmp_path / "run"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb works
    mark.unlink()
    bomb = pickle.dumps(Bomb(mark))
    objects = np.empty(COUNT, dtype=object)
    objects[:] = [Bomb(mark)] * COUNT
    for name in ("a.extxyz", "a.json", "a.db", "a.traj", "a.pkl", "a.pt", "a.npy", "vasprun.xml",
                 "a.aselmdb", "input.data", "a.extxyz.gz"):  # fmt: skip
        (tmp_path / name).write_bytes(bomb)
        assert outcome(tmp_path / name, "ase")[1]
    for part in ("coord", "box", "energy", "force", "virial"):
        folder = tmp_path / f"with_{part}"
        folder.mkdir()
        system = write_deepmd(folder)
        np.save(system / "set.000" / f"{part}.npy", objects, allow_pickle=True)
        assert f"{part}.npy" in outcome(system)[1]
    folder = tmp_path / "omat"
    folder.mkdir()
    write_aselmdb(folder)
    np.savez(folder / "metadata.npz", natoms=objects)
    assert "metadata.npz" in outcome(folder)[1]
    path = tmp_path / "row.aselmdb"
    rows = [real.row(frame, number) for number, frame in enumerate(FRAMES, 1)]
    real.write_aselmdb(path, rows)
    for content in (bomb, zlib.compress(bomb)):
        with lmdb.open(str(path), subdir=False, lock=False) as base, base.begin(write=True) as new:
            new.put(b"2", content)
        found, error = outcome(path)
        assert len(found) == 1
        assert "row.aselmdb#2" in error
    assert not mark.exists()


HEADERS = {
    "huge": "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }",
    "negative": "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "text": "{'descr': '<U8', 'fortran_order': False, 'shape': (4,), }",
    "fields": "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (4,), }",
    "code": "__import__('os').system('false')",
    "deep": "(" * 5000 + ")" * 5000,
}


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_of_arrays(tmp_path, name):
    path = write_deepmd(tmp_path)
    header = HEADERS[name].encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    (path / "set.000" / "force.npy").write_bytes(start + header + b"\x00" * 96)
    found, error = outcome(path)
    assert not found
    assert "force.npy" in error


@pytest.mark.parametrize("name", ["type.raw", "type_map.raw"])
def test_text_of_deepmd_that_is_no_text(tmp_path, name):
    path = write_deepmd(tmp_path)
    (path / name).write_bytes(b"\xff\xfe\x00")
    assert name in outcome(path)[1]


def test_links_that_lead_nowhere_or_round(tmp_path):
    (tmp_path / "gone.extxyz").symlink_to(tmp_path / "never.extxyz")
    (tmp_path / "round.extxyz").symlink_to(tmp_path / "round.extxyz")
    for name in ("gone.extxyz", "round.extxyz"):
        assert name in outcome(tmp_path / name, "ase")[1]
    path = write_deepmd(tmp_path)
    (path / "again").symlink_to(path)
    found, error = outcome(path)
    assert not error
    assert len(found) == COUNT


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.extxyz")
    assert "a.extxyz" in outcome(tmp_path / "a.extxyz", "ase")[1]


@pytest.mark.parametrize("name", ["a.extxyz", "input.data", "a.json"])
def test_a_small_archive_of_a_huge_line_does_not_fill_the_memory(tmp_path, name):
    import tracemalloc

    start = {"a.extxyz": b"1\n", "input.data": b"begin\ncomment ", "a.json": b'{"mp-1":{"x":"'}[
        name
    ]
    path = tmp_path / f"{name}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start + (b'{"uncorrected_total_energy":' if name == "a.json" else b""))
        for _ in range(200):
            file.write(b"a" * 2**20)
    tracemalloc.start()
    try:
        _, error = outcome(path, "ase" if name == "a.extxyz" else None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.name in error
    assert peak < 160 * 2**20


def test_a_row_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    from mlip.data.readers import aselmdb

    path = write_aselmdb(tmp_path)
    monkeypatch.setattr(aselmdb, "LARGEST", 1000)
    assert "a.aselmdb#" in outcome(path)[1]


def test_a_changed_shard_of_a_store_is_found(tmp_path):
    source = write_extxyz(tmp_path)
    convert(source, tmp_path / "store", "ase")
    shards = sorted(path for path in (tmp_path / "store").rglob("*.arrow"))
    whole = shards[0].read_bytes()

    @examples(25)
    @given(st.integers(0, len(whole) - 1), st.integers(0, 7), st.booleans())
    def check(place, bit, cut):
        broken = bytearray(whole)
        broken[place] ^= 1 << bit
        shards[0].write_bytes(whole[:place] if cut else broken)
        found = doctor(tmp_path / "store")
        assert found.exit_code == 1
        assert any(shards[0].name in f.message for f in found.findings if f.severity == "error")

    check()
    shards[0].write_bytes(whole)
    assert doctor(tmp_path / "store").frames == {"store": COUNT}
    assert len(Store(tmp_path / "store")) == COUNT


def test_a_changed_manifest_of_a_store_is_refused(tmp_path):
    convert(write_extxyz(tmp_path), tmp_path / "store", "ase")
    (manifest,) = (tmp_path / "store").glob("*.json")
    content = json.loads(manifest.read_text())

    @examples(80)
    @given(st.sampled_from(places_in(content)), st.sampled_from(HOSTILE))
    def check(place, value):
        manifest.write_text(json.dumps(changed(content, place, value)))
        found = doctor(tmp_path / "store")
        assert found.exit_code == 1 or found.frames == {"store": COUNT}

    check()
