"""What once went wrong in silence: elements, masks, rows, mixtures, locks."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlip.cli import main
from mlip.data.archive import unpack
from mlip.data.frame import Frame
from mlip.data.journal import Journal
from mlip.data.json_values import array_of, lazy
from mlip.data.readers import read
from mlip.data.store.convert import convert
from mlip.data.write_extxyz import to_extxyz


def test_lammps_dumps_do_not_become_hydrogen(tmp_path):
    path = tmp_path / "run.dump"
    path.write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 5\n0 5\n0 5\n"
        "ITEM: ATOMS id type x y z fx fy fz\n1 1 0 0 0 1 0 0\n2 2 1 1 1 -1 0 0\n"
    )
    (tmp_path / "run.lammpstrj").write_text(path.read_text())
    for name in ("run.dump", "run.lammpstrj"):
        with pytest.raises(ValueError, match=r"run\.(dump|lammpstrj)"):
            list(read(tmp_path / name))


def deepmd(folder, frames=2):
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0 0 0\n")
    (folder / "type_map.raw").write_text("H O Li\n")
    (folder / "nopbc").write_text("")
    np.save(folder / "set.000" / "coord.npy", np.arange(frames * 9.0).reshape(frames, 9))
    np.save(folder / "set.000" / "energy.npy", np.zeros(frames))
    np.save(folder / "set.000" / "force.npy", np.ones((frames, 9)))
    return folder


def test_deepmd_systems_of_mixed_type_have_their_own_elements(tmp_path):
    folder = deepmd(tmp_path / "mixed")
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[1, 2, 2], [0, 1, -1]]))
    first, second = read(folder)
    assert str(first.atoms.symbols) == "OLi2"
    assert str(second.atoms.symbols) == "HO"  # the third is padding
    assert second.labels["forces"].shape == (2, 3)
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[1, 2, 3], [0, 1, 1]]))
    with pytest.raises(ValueError, match=r"real_atom_types.npy holds types that are not among"):
        list(read(folder))
    (tmp_path / "mixed" / "empty").mkdir()
    (tmp_path / "mixed" / "empty" / "type.raw").write_text("0")
    (tmp_path / "mixed" / "empty" / "type_map.raw").write_text("H")
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[1, 2, 2], [0, 1, 1]]))
    with pytest.raises(ValueError, match=r"empty has a type.raw but no folder set"):
        list(read(folder))


RAGGED = (
    b"[[1.0,2.0,3.0],[4.0,5.0],[6.0,7.0,8.0,9.0]]",
    b"[[[1,2],[3]],[[4,5],[6]]]",
    b"[[[1,2],[3,4]],[[5],[6,7,8]]]",
)


@pytest.mark.parametrize("text", RAGGED)
def test_rows_of_different_lengths_are_refused(text):
    with pytest.raises(ValueError, match=r"rows|inhomogeneous"):
        array_of(lazy(text))
    np.testing.assert_array_equal(array_of(lazy(b"[[1,2],[3,4]]")), [[1, 2], [3, 4]])


def test_fixed_atoms_stay_masked_through_a_selection(tmp_path):
    fixed = np.array([[True, True, True], [False, False, True]])
    forces = np.where(fixed, np.nan, 0.5)
    atoms = Atoms("Li2", [[0, 0, 0], [0, 0, 2.5]])
    frame = Frame(
        atoms, {"energy": np.array(-1.0), "forces": forces}, "x#0", {"constrained": fixed}
    )
    (tmp_path / "a.extxyz").write_text(to_extxyz(frame))
    (again,) = read(tmp_path / "a.extxyz", "ase")
    np.testing.assert_array_equal(again.info["constrained"], fixed)
    np.testing.assert_array_equal(again.labels["forces"], forces)


def test_charges_that_were_never_computed_are_no_labels(tmp_path):
    lines = ["begin", "atom 0 0 0 Li {q} 0.0 0 0 0", "atom 0 0 5 Li {q} 0.0 0 0 0",
             "energy -1.0", "charge 0.0", "end", ""]  # fmt: skip
    (tmp_path / "input.data").write_text("\n".join(lines).format(q="0.0"))
    assert "charges" not in next(read(tmp_path / "input.data")).labels
    (tmp_path / "input.data").write_text("\n".join(lines).format(q="0.1"))
    assert "charges" in next(read(tmp_path / "input.data")).labels


def xyz(path, energy_key, count=2):
    images = []
    for index in range(count):
        atoms = Atoms("Li2", [[0, 0, 0], [0, 0, 2.5 + 0.1 * index]])
        atoms.info[energy_key] = -1.0
        atoms.arrays["forces"] = np.zeros((2, 3))
        images.append(atoms)
    write(path, images)


def test_every_file_of_a_folder_must_hold_what_was_declared(tmp_path):
    (tmp_path / "data").mkdir()
    xyz(tmp_path / "data" / "a.extxyz", "dft_energy")
    xyz(tmp_path / "data" / "b.extxyz", "other_energy")
    units = {"energy": {"key": "dft_energy", "unit": "eV"}}
    with pytest.raises(ValueError, match=r"b.extxyz: no frame has the key 'dft_energy'"):
        convert(tmp_path / "data", tmp_path / "store", units)


def test_a_kill_at_any_point_of_a_conversion_lets_it_go_on(tmp_path):
    xyz(tmp_path / "a.extxyz", "energy")
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / ".conversion.json.123.partial").write_text("{")
    store = convert(tmp_path / "a.extxyz", folder, "ase")
    (folder / ".parts").mkdir()  # killed after the manifest
    (folder / "conversion.json").write_text("{}")
    assert len(convert(tmp_path / "a.extxyz", folder, "ase")) == len(store) == 2
    assert not (folder / ".parts").exists()
    assert not (folder / "conversion.json").exists()


def test_a_selection_into_a_store_leaves_nothing_beside_it_and_goes_on(tmp_path):
    xyz(tmp_path / "a.extxyz", "energy")
    arguments = ["data", "select", str(tmp_path / "a.extxyz"), str(tmp_path / "s"), "units=ase"]
    main(arguments)
    assert not (tmp_path / "s.extxyz").exists()
    assert (tmp_path / "s" / "manifest.json").is_file()


def test_a_hostile_number_of_atoms_ends_at_the_end_of_the_file(tmp_path):
    (tmp_path / "a.extxyz").write_text("999999999999\nx\n")
    with pytest.raises(ValueError, match=r"a\.extxyz"):
        convert(tmp_path / "a.extxyz", tmp_path / "store", "ase")


def test_one_process_has_the_journal(tmp_path):
    path = tmp_path / "x.journal"
    with Journal(path, {"work": 1}) as journal:
        journal.add({"frame": 0, "labels": {}})
        code = "import sys, pathlib; from mlip.data.journal import Journal as J"
        call = f"{code}; J(pathlib.Path(sys.argv[1]), {{'work': 1}})"
        words = [sys.executable, "-c", call, str(path)]
        other = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "another process writes" in other.stderr
        assert journal.entry(0)["frame"] == 0
    content = path.read_text().splitlines()
    path.write_text("\n".join([content[0], json.dumps({"frame": 7, "labels": {}})]) + "\n")
    with Journal(path, {"work": 1}) as journal:
        journal.done[0] = journal.done[7]
        with pytest.raises(ValueError, match="was changed by another process"):
            journal.entry(0)


def test_the_draft_of_a_living_process_is_left_alone(tmp_path):
    import tarfile

    (tmp_path / "a.txt").write_text("x")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "a.txt", "a.txt")
    alive, dead = (tmp_path / f".a.{number}.unpacking" for number in (os.getppid(), 99999999))
    alive.mkdir()
    dead.mkdir()
    assert [path.name for path in unpack(tmp_path / "a.tar", tmp_path / "a")] == ["a.txt"]
    assert alive.is_dir()
    assert not dead.exists()


def test_files_beside_a_system_are_told(tmp_path, caplog, capsys):
    deepmd(tmp_path / "data" / "sys")
    xyz(tmp_path / "data" / "more.extxyz", "energy")
    assert len(list(read(tmp_path / "data"))) == 2
    assert "not read with" in caplog.text
    assert "more.extxyz" in caplog.text
    main(["data", "convert", str(tmp_path / "data"), str(tmp_path / "store")])
    assert "not read: more.extxyz" in capsys.readouterr().out
