"""What the doctor says to declare, pasted as it is, gives back the true labels."""

import shlex

import numpy as np
import pytest
import yaml
from ase.calculators.emt import EMT
from ase.io.extxyz import write_extxyz
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.data.card import load_frames
from mlip.data.doctor import doctor
from mlip.data.fields import ASE, FieldMap
from mlip.data.findings import Finding
from mlip.data.readers import read
from mlip.data.units_advice import advice
from mlip.data.write_extxyz import to_extxyz
from mlip.evaluation.reference_check import check_reference
from mlip.evaluation.reference_run import predict
from mlip.units import to_internal
from tests.data.test_doctor_defects import exchange, spoilt
from tests.evaluation.test_doctor import frames as copper  # noqa: F401  a fixture

SPOILT = {
    "energy in Ha": ("mlearn_ni", "energy", lambda x, f: x / to_internal("energy", "Ha")),
    "forces in Ry/bohr": ("mlearn_mo", "forces", lambda x, f: x / to_internal("forces", "Ry/bohr")),
    "pressure": ("mlearn_mo", "stress", lambda x, f: -x),
    "order of VASP": ("mlearn_mo", "stress", exchange(1, 2, 0)),
    "another order": ("mlearn_ge", "stress", exchange(2, 0, 1)),
}


def with_six_components(frame):
    atoms = frame.atoms.copy()
    atoms.info = {"energy": float(frame.labels["energy"])}
    atoms.arrays["forces"] = frame.labels["forces"]
    if "stress" in frame.labels:
        atoms.info["stress"] = full_3x3_to_voigt_6_stress(frame.labels["stress"])
    return atoms


def units_of(declaration):
    (word,) = shlex.split(declaration)
    return yaml.safe_load(word.removeprefix("units="))


def require_equal(found, truth):
    for frame, true in zip(found, truth, strict=True):
        for label in ("energy", "forces", "stress"):
            if label in true.labels:
                np.testing.assert_allclose(
                    frame.labels[label], true.labels[label], rtol=1e-5, atol=1e-6
                )


@pytest.mark.parametrize("case", SPOILT)
def test_the_advice_of_the_work_mends_the_labels(case, tmp_path):
    name, label, change = SPOILT[case]
    path = tmp_path / "wrong.extxyz"
    with path.open("w") as file:
        write_extxyz(file, [with_six_components(f) for f in spoilt(name, label, change)])
    found = doctor(path, "ase")
    assert f"declare, if that is what the labels are in: {found.declaration}" in found.to_text()
    units = units_of(found.declaration)
    assert set(units) == {"rest", label}
    split = "train" if name in ("mlearn_mo", "mlearn_ge") else "test"
    require_equal(read(path, units), load_frames(name, split))
    assert doctor(path, units).declaration == ""


@pytest.mark.parametrize("label", ["forces", "stress"])
def test_the_advice_of_a_reference_mends_the_labels(label, copper, tmp_path):  # noqa: F811
    unit = {"forces": "meV/A", "stress": "kbar"}[label]
    factor = {"forces": 1.0, "stress": -1.0}[label] / to_internal(label, unit)
    path = tmp_path / "wrong.extxyz"
    wrong = [f.labels | {label: f.labels[label] * factor} for f in copper]
    path.write_text(
        "".join(
            to_extxyz(type(f)(f.atoms, x, f.source)) for f, x in zip(copper, wrong, strict=True)
        )
    )
    findings = check_reference(predict(EMT(), list(read(path, "ase")), "EMT"))
    require_equal(read(path, units_of(advice(findings, ASE))), copper)


def test_a_declaration_is_told_whole():
    fields = FieldMap.from_config(
        {
            "energy": {"key": "E", "unit": "Ry"},
            "stress": {"key": "v", "unit": "GPa", "sign": "compression_positive"},
        }
    )
    wrong = [
        Finding("error", "", {"energy": {"unit": "Ha"}}),
        Finding("error", "", {"energy": {"unit": "eV"}, "stress": {"sign": "other"}}),
        Finding("error", "", {"forces": {"unit": "meV/A"}}),  # not declared: not read
    ]
    assert units_of(advice(wrong, fields)) == {
        "energy": {"key": "E", "unit": "Ha"},
        "stress": {"key": "v", "unit": "GPa", "sign": "tension_positive"},
    }
    assert advice([Finding("note", "")], fields) == ""


def test_the_rest_is_read_by_its_ase_names():
    fields = FieldMap.from_config({"rest": "ase", "energy": {"key": "E", "unit": "Ha"}})
    assert set(fields.labels) == set(ASE.labels)
    assert set(fields.optional) == set(ASE.labels) - {"energy"}
    with pytest.raises(ValueError, match=r"units.rest is 'metal': it is ase"):
        FieldMap.from_config({"rest": "metal", "energy": {"key": "E", "unit": "Ha"}})
