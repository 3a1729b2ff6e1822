"""OMat24's files: equal to the source, in both encodings, and to ASE's own reader; hostile ones."""

import importlib.util
import pickle
import sys
from pathlib import Path

import ase.db
import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip.data.readers import read
from mlip.data.readers.recognize import format_of

spec = importlib.util.spec_from_file_location("real", Path(__file__).with_name("real.py"))
real = importlib.util.module_from_spec(spec)
sys.modules["real"] = real
spec.loader.exec_module(real)

FRAMES = real.frames()[:20]
QUIET = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def file(path, encode=lambda array: array.tolist(), **keywords):
    rows = [real.row(frame, number, encode) for number, frame in enumerate(FRAMES, 1)]
    return real.write_aselmdb(path, rows, **keywords)


@pytest.mark.parametrize("encode", [lambda array: array.tolist(), real.flat])
def test_rows_read_back_to_the_last_digit(tmp_path, encode):
    path = file(tmp_path / "data.aselmdb", encode)
    assert format_of(path) == "aselmdb"
    for number, (frame, source) in enumerate(zip(read(path), FRAMES, strict=True), 1):
        energy, forces, stress = real.values(source)
        assert frame.labels["energy"] == energy
        np.testing.assert_array_equal(frame.labels["forces"], forces)
        np.testing.assert_array_equal(frame.labels["stress"], (stress + stress.T) / 2)
        np.testing.assert_array_equal(frame.atoms.positions, source.atoms.positions)
        np.testing.assert_array_equal(frame.atoms.cell.array, source.atoms.cell.array)
        np.testing.assert_array_equal(frame.atoms.numbers, source.atoms.numbers)
        assert frame.source == f"{path}#{number}"
        assert frame.info["frame_id"] == f"agm{number:09d}_rattled-300"
        assert frame.info["source_id"] == f"agm{number // 4:09d}"


def test_ase_reads_the_same(tmp_path):
    path = tmp_path / "data.aselmdb"
    with ase.db.connect(path, type="aselmdb") as base:
        for frame in FRAMES:
            atoms = frame.atoms.copy()
            energy, forces, stress = real.values(frame)
            from ase.calculators.singlepoint import SinglePointCalculator

            voigt = stress.ravel()[[0, 4, 8, 5, 2, 1]]
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=voigt)
            base.write(atoms, functional="PBE", data={"sid": "x"})
    base = ase.db.connect(path, type="aselmdb", use_lock_file=False)
    base.delete([3])
    images = [theirs.toatoms() for theirs in base.select()]
    base.close()
    assert len(images) == len(FRAMES) - 1
    for frame, atoms in zip(read(path), images, strict=True):
        assert frame.labels["energy"] == atoms.get_potential_energy()
        np.testing.assert_array_equal(frame.labels["forces"], atoms.get_forces())
        np.testing.assert_array_equal(frame.labels["stress"], atoms.get_stress(voigt=False))
        np.testing.assert_array_equal(frame.atoms.positions, atoms.positions)
        assert frame.info["functional"] == "PBE"
        assert frame.info["sid"] == "x"


def test_data_fields_on_request(tmp_path):
    path = file(tmp_path / "data.aselmdb")
    assert "prototype_label" not in next(read(path)).info
    assert next(read(path, data=True)).info["prototype_label"] == "ABC_9111_spg46"
    assert "sid" not in next(read(path, data=["calc_id"])).info
    with pytest.raises(ValueError, match=r"has no option 'dat'; did you mean 'data'"):
        read(path, dat=True)


def test_deleted_rows_are_left_out_and_lost_ones_are_not(tmp_path):
    path = file(tmp_path / "deleted.aselmdb", deleted=[2, 5])
    assert [f.source.rpartition("#")[2] for f in read(path)][:4] == ["1", "3", "4", "6"]
    path = file(tmp_path / "lost.aselmdb", nextid=30)
    with pytest.raises(ValueError, match=r"lost.aselmdb: nextid is 30, more than there are rows"):
        list(read(path))


def test_a_folder_is_held_against_its_metadata(tmp_path):
    file(tmp_path / "data.0000.aselmdb")
    file(tmp_path / "data.0001.aselmdb")
    sizes = [len(frame) for frame in FRAMES] * 2
    np.savez(tmp_path / "metadata.npz", natoms=sizes)
    assert [len(frame) for frame in read(tmp_path)] == sizes
    np.savez(tmp_path / "metadata.npz", natoms=[*sizes, 3])
    with pytest.raises(ValueError, match=r"holds 40 structures, but its metadata.npz says 41"):
        list(read(tmp_path))
    np.savez(tmp_path / "metadata.npz", natoms=np.array([object()]))
    with pytest.raises(ValueError, match=r"metadata.npz has no readable array natoms"):
        list(read(tmp_path))


def test_fixed_atoms_are_masked(tmp_path):
    rows = [real.row(FRAMES[0], 1)]
    rows[0]["constraints"] = [
        {"name": "FixAtoms", "kwargs": {"indices": [1]}},
        {"name": "os.system", "kwargs": {"command": "false"}},
    ]
    (frame,) = read(real.write_aselmdb(tmp_path / "a.aselmdb", rows))
    assert np.isnan(frame.labels["forces"][1]).all()
    assert np.isfinite(frame.labels["forces"][0]).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("positions"),
        lambda row: row.update(numbers="LiF"),
        lambda row: row.update(positions=[[0, 0]]),
        lambda row: row.update(forces=[[0.0, 0.0, 0.0]]),
        lambda row: row.update(stress=[1.0, 2.0]),
        lambda row: row.update(energy="low"),
        lambda row: row.update(positions={"__ndarray__": [[2, 3], "float64", [1.0]]}),
        lambda row: row.update(positions={"__ndarray__": [[1], "O", ["x"]]}),
        lambda row: row.update(cell={"__ndarray__": 3}),
    ],
)
def test_a_damaged_row_is_named(tmp_path, change):
    rows = [real.row(frame, number) for number, frame in enumerate(FRAMES[:3], 1)]
    change(rows[1])
    path = real.write_aselmdb(tmp_path / "a.aselmdb", rows)
    with pytest.raises(ValueError, match=r"a.aselmdb#2"):
        list(read(path))


def test_a_pickle_in_a_row_is_not_run(tmp_path):
    path = file(tmp_path / "a.aselmdb")
    with lmdb.open(str(path), subdir=False, lock=False) as base, base.begin(write=True) as change:
        change.put(b"1", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"a.aselmdb#1 cannot be decoded"):
        list(read(path))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


@QUIET
@given(st.data())
def test_changed_bytes_of_a_row_never_pass_for_a_row(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("lmdb") / "a.aselmdb"
    whole = real.packed(real.row(FRAMES[0], 1))
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = data.draw(
        st.sampled_from([whole[:place], whole[:place] + b"\xff" * 8 + whole[place + 8 :]])
    )
    real.write_aselmdb(path, [real.row(FRAMES[0], 1)])
    with lmdb.open(str(path), subdir=False, lock=False) as base, base.begin(write=True) as change:
        change.put(b"1", broken)
    if broken != whole:
        with pytest.raises(ValueError, match=r"a.aselmdb#1"):
            list(read(path))
