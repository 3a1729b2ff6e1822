"""Dispatch by format, and everything that ASE reads."""

import pickle

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixScaled

from mlip.data.readers import read, read_structures
from mlip.data.readers.ase_files import record_of

VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><varray name="kpointlist"><v>0.0 0.0 0.0</v></varray>
  <varray name="weights"><v>1.0</v></varray></kpoints>
 <atominfo><atoms>1</atoms><types>1</types>
  <array name="atoms"><set><rc><c>Li</c><c>1</c></rc></set></array></atominfo>
 <structure name="initialpos"><crystal><varray name="basis">
   <v>3.0 0.0 0.0</v><v>0.0 3.0 0.0</v><v>0.0 0.0 3.0</v></varray></crystal>
  <varray name="positions"><v>0.0 0.0 0.0</v></varray></structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">-1.75</i><i name="e_wo_entrp">-1.5</i>
   <i name="e_0_energy">-1.5</i></energy></scstep>
  <structure><crystal><varray name="basis">
   <v>3.0 0.0 0.0</v><v>0.0 3.0 0.0</v><v>0.0 0.0 3.0</v></varray></crystal>
   <varray name="positions"><v>0.0 0.0 0.0</v></varray></structure>
  <varray name="forces"><v>0.25 -0.5 0.75</v></varray>
  <varray name="stress"><v>1602.1766 0 0</v><v>0 1602.1766 0</v><v>0 0 1602.1766</v></varray>
  <energy><i name="e_fr_energy">-1.75</i><i name="e_wo_entrp">-1.5</i>
   <i name="e_0_energy">-1.5</i></energy>
 </calculation>
</modeling>
"""


def labelled(constraint=None):
    atoms = Atoms("LiO", [[0, 0, 0], [0, 0, 2.0]], cell=[[4, 0, 0], [1, 4, 0], [0, 0, 4]], pbc=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-2.5, forces=[[1, 2, 3], [-1, -2, -3.0]], stress=[1, 2, 3, 4, 5, 6.0]
    )
    if constraint is not None:
        atoms.set_constraint(constraint)
    return atoms


@pytest.mark.parametrize("name", ["a.traj", "a.db", "a.json"])
def test_files_of_ase_need_no_declaration(tmp_path, name):
    path = tmp_path / name
    if name == "a.db":
        with ase.db.connect(path) as base:
            base.write(labelled(), functional="PBE")
    else:
        ase.io.write(path, labelled())
    (frame,) = read(path)
    assert frame.labels["energy"] == -2.5
    np.testing.assert_array_equal(frame.labels["forces"], [[1, 2, 3], [-1, -2, -3]])
    np.testing.assert_array_equal(frame.labels["stress"], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    assert frame.source == f"{path}#0"
    if name == "a.db":
        assert frame.info["functional"] == "PBE"


@pytest.mark.parametrize(
    ("constraint", "fixed"),
    [
        (FixAtoms([1]), [[0, 0, 0], [1, 1, 1]]),
        (FixCartesian([0], mask=[True, False, False]), [[1, 0, 0], [0, 0, 0]]),
        # The lattice is oblique: a fixed lattice direction touches every Cartesian component.
        (FixScaled([0], mask=[True, False, False]), [[1, 1, 1], [0, 0, 0]]),
    ],
)
def test_forces_of_constrained_atoms_are_masked_not_zero(tmp_path, constraint, fixed):
    ase.io.write(tmp_path / "a.traj", labelled(constraint))
    (frame,) = read(tmp_path / "a.traj")
    expected = np.where(np.array(fixed, bool), np.nan, [[1, 2, 3], [-1, -2, -3]])
    np.testing.assert_array_equal(frame.labels["forces"], expected)
    assert not frame.atoms.constraints


def test_hirshfeld_charges_of_fhi_aims_are_charges():
    atoms = labelled()
    atoms.calc.results["hirshfeld_charges"] = np.array([0.25, -0.25])  # ASE's name for them
    record = record_of(atoms, "aims.out#0")
    np.testing.assert_array_equal(record.arrays["charges"], [0.25, -0.25])
    assert record.info["charge_partition"] == "hirshfeld"


@pytest.mark.parametrize("name", ["POSCAR", "a.cif"])
def test_structures_without_labels_are_read(tmp_path, name):
    ase.io.write(tmp_path / name, labelled(), format="vasp" if name == "POSCAR" else "cif")
    (frame,) = read(tmp_path / name)
    assert frame.labels == {}
    assert sorted(frame.atoms.get_chemical_symbols()) == ["Li", "O"]


def test_vasprun(tmp_path):
    (tmp_path / "vasprun.xml").write_text(VASPRUN)
    (frame,) = read(tmp_path / "vasprun.xml")
    assert frame.labels["energy"] == -1.5
    np.testing.assert_array_equal(frame.labels["forces"], [[0.25, -0.5, 0.75]])
    # 1602 kbar in VASP's sign is a compressed cell: -1 eV/Å^3 in ASE's.
    np.testing.assert_allclose(frame.labels["stress"], -np.eye(3), rtol=1e-6)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_an_unfinished_vasp_run_is_refused(tmp_path, keep):
    path = tmp_path / "vasprun.xml"
    path.write_text(VASPRUN[: int(len(VASPRUN) * keep)])
    with pytest.raises(ValueError, match=r"does not end with '</modeling>'.*(not finish|keep)"):
        list(read(path))


def test_a_truncated_trajectory_is_refused(tmp_path):
    path = tmp_path / "a.traj"
    ase.io.write(path, [labelled()] * 3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"a.traj#\d cannot be read as traj"):
        list(read(path))


def test_missing_empty_folder_and_unknown_files(tmp_path):
    (tmp_path / "train.extxyz").write_text("1\n\nLi 0 0 0\n")
    (tmp_path / "empty.extxyz").write_text("")
    (tmp_path / "blank.extxyz").write_text("\n\n")
    (tmp_path / "a.nothing").write_text("hello world\n")
    with pytest.raises(
        FileNotFoundError, match=r"trian.extxyz does not exist; did you mean 'train"
    ):
        read(tmp_path / "trian.extxyz")
    with pytest.raises(FileNotFoundError, match=r"x.extxyz does not exist"):
        read(tmp_path / "nowhere" / "x.extxyz")
    with pytest.raises(ValueError, match=r"empty.extxyz is empty; fetch"):
        read(tmp_path / "empty.extxyz")
    with pytest.raises(ValueError, match=r"blank.extxyz holds no structure"):
        list(read_structures(tmp_path / "blank.extxyz"))
    with pytest.raises(ValueError, match=r"is a folder"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"a.nothing: the format 'nothing' is not known; name an"):
        read(tmp_path / "a.nothing")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.extxyz", "a.traj", "a.db"])
def test_pickles_are_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"is a pickle, .* never opened; convert"):
        list(read(tmp_path / name, "ase"))


def test_the_at_sign_and_wildcards_are_part_of_a_name(tmp_path):
    path = tmp_path / "a@1.traj"
    ase.io.write(tmp_path / "b.traj", [labelled()] * 2)
    (tmp_path / "b.traj").rename(path)
    assert len(list(read(path))) == 2


def test_reading_structures_reads_no_label(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", labelled())
    (frame,) = read_structures(tmp_path / "a.extxyz")
    assert frame.labels == {}
    assert frame.info["energy"] == -2.5
