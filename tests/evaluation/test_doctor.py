"""The doctor with a reference finds wrong signs, units and orders; its page holds together."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip.cli import main
from mlip.data.frame import Frame
from mlip.data.write_extxyz import to_extxyz
from mlip.evaluation.reference_check import check_reference, known_frames
from mlip.evaluation.reference_run import predict
from mlip.units import to_internal


@pytest.fixture(scope="module")
def frames():
    found, random = [], np.random.default_rng(0)
    for index in range(24):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + random.normal(scale=0.03, size=(3, 3))), True
        )
        atoms.rattle(0.05, seed=index)
        atoms.calc = EMT()
        labels = {
            "energy": np.array(atoms.get_potential_energy()),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(voigt=False),
        }
        atoms.calc = None
        found.append(Frame(atoms, labels, f"cu#{index}"))
    return found


def spoilt(frames, label, change):
    return [Frame(f.atoms, {**f.labels, label: change(f.labels[label])}, f.source) for f in frames]


def swap(stress):
    wrong = stress.copy()
    wrong[1, 2] = wrong[2, 1] = stress[0, 1]
    wrong[0, 2] = wrong[2, 0] = stress[1, 2]
    wrong[0, 1] = wrong[1, 0] = stress[0, 2]
    return wrong


SPOILT = {
    "gradients": ("forces", lambda x: -x, "opposite sign"),
    "hartree": ("forces", lambda x: x / to_internal("forces", "Ha/bohr"), "looks like Ha/bohr"),
    "pressure": ("stress", lambda x: -x, "declare the other units.stress.sign"),
    "kbar": ("stress", lambda x: x / to_internal("stress", "kbar"), "looks like kbar"),
    "gpa": ("stress", lambda x: x / to_internal("stress", "GPa"), "looks like GPa"),
    "energy": ("energy", lambda x: x * 23.0605, "energy is 23.1 times that of EMT"),
    "order": ("stress", swap, "looks like xy, yz, xz; correct units.stress.order"),
    "shuffled": ("forces", lambda x: np.roll(x, 1, axis=0) ** 2, "do not follow"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_labels_are_found(case, frames):
    label, change, message = SPOILT[case]
    found = check_reference(predict(EMT(), spoilt(frames, label, change), "EMT"))
    assert any(message in f.message for f in found if f.severity != "note"), found


def test_sound_labels_give_notes_only(frames):
    found = check_reference(predict(EMT(), frames, "EMT"))
    assert [f.severity for f in found] == ["note", "note", "note"]
    assert all("correlation with EMT +1.00" in f.message for f in found)


def test_unknown_elements_are_told(frames):
    assert known_frames(frames, ["Cu"]) == frames
    (found,) = check_reference(predict(EMT(), known_frames(frames, ["Li"]), "EMT"))
    assert "knows the elements of none" in found.message


def test_the_verb_and_its_page(frames, tmp_path, capsys):
    wrong = spoilt(frames, "stress", lambda x: -x)
    (tmp_path / "cu.extxyz").write_text("".join(map(to_extxyz, wrong)))
    arguments = [str(tmp_path / "cu.extxyz"), "units=ase", "reference=emt"]
    with pytest.raises(SystemExit) as exit_:
        main(["data", "doctor", *arguments, f"output={tmp_path / 'page'}"])
    assert exit_.value.code == 1
    assert "opposite sign" in capsys.readouterr().out
    page = (tmp_path / "page" / "doctor.html").read_text()
    for text in ("not fit for training", "opposite sign", "pressure (GPa)", "atoms in a frame"):
        assert text in page
    assert page.count("<svg") == 9


def test_a_page_of_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "no.extxyz").write_text("")
    with pytest.raises(SystemExit):
        main(["data", "doctor", str(tmp_path / "no.extxyz"), f"output={tmp_path}"])
    assert "is empty" in (tmp_path / "doctor.html").read_text()
