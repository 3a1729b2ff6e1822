"""The declarative field map: units, signs, orders, and labels that would silently go unread."""

import numpy as np
import pytest
from ase import Atoms
from omegaconf import OmegaConf
from scipy import constants

from mlip.data.fields import ASE, FieldMap
from mlip.data.readers import read
from mlip.data.record import Record
from mlip.units import GPA_PER_EV_A3

HEAD = '2\nLattice="2 0 0 0 2 0 0 0 5" Properties=species:S:1:pos:R:3:{column}:R:3 {info}\n'
ROWS = "Li 0 0 0 1 2 3\nLi 0 0 2.5 -1 -2 -3\n"


def write(tmp_path, column="REF_forces", info="REF_energy=-1.5"):
    path = tmp_path / "a.extxyz"
    path.write_text(HEAD.format(column=column, info=info) + ROWS)
    return path


def record(info=None, arrays=None, constrained=None):
    atoms = Atoms("Li2", [[0, 0, 0], [0, 0, 2.5]], cell=[2, 2, 5], pbc=True)
    return Record(atoms, info or {}, arrays or {}, "f#3", constrained)


def stress_of(value, **options):
    options = {"key": "s", "unit": "eV/A^3", "sign": "tension_positive", **options}
    labels, used = FieldMap.from_config({"stress": options}).read_labels(record({"s": value}))
    assert used == {"s"}
    return labels["stress"]


def test_declared_keys_and_units_are_converted(tmp_path):
    units = {
        "energy": {"key": "REF_energy", "unit": "Ha"},
        "forces": {"key": "REF_forces", "unit": "Ha/bohr"},
    }
    (frame,) = read(write(tmp_path), units)
    hartree = constants.physical_constants["Hartree energy in eV"][0]
    bohr = constants.physical_constants["Bohr radius"][0] * 1e10
    assert frame.labels["energy"] == pytest.approx(-1.5 * hartree, rel=1e-14)
    np.testing.assert_allclose(
        frame.labels["forces"], np.array([[1, 2, 3], [-1, -2, -3]]) * hartree / bohr, rtol=1e-14
    )
    assert "REF_energy" not in frame.info


def test_a_hydra_config_is_a_mapping():
    units = OmegaConf.create(
        {"stress": {"key": "s", "unit": "kbar", "sign": "compression_positive",
                    "order": ["xx", "yy", "zz", "xy", "yz", "zx"]}}
    )  # fmt: skip
    labels, _ = FieldMap.from_config(units).read_labels(record({"s": np.arange(1.0, 7.0)}))
    expected = np.array([[1, 4, 6], [4, 2, 5], [6, 5, 3]]) * -0.1 / GPA_PER_EV_A3
    np.testing.assert_allclose(labels["stress"], expected, rtol=1e-14)


def test_full_matrix_and_virial():
    full = np.array([[1.0, 4, 5], [4, 2, 6], [5, 6, 3]])
    np.testing.assert_array_equal(stress_of(full), full)
    np.testing.assert_array_equal(stress_of(full.ravel()), full)
    virial = stress_of(full, unit="eV", virial=True, sign="compression_positive")
    np.testing.assert_allclose(virial, -full / 20.0, rtol=1e-15)  # the cell is 2 x 2 x 5 Å


def test_constrained_components_are_masked_and_the_record_is_not_touched():
    forces = np.ones((2, 3))
    held = record(
        arrays={"forces": forces}, constrained=np.array([[True, False, False], [False] * 3])
    )
    labels, _ = ASE.read_labels(held)
    np.testing.assert_array_equal(labels["forces"], [[np.nan, 1, 1], [1, 1, 1]])
    assert np.isfinite(forces).all()


def test_ase_reads_the_electronic_labels_and_never_invents_a_total_charge():
    values = {
        "charges": np.array([0.5, -0.5]), "magmoms": np.array([1.0, -1.0]),
        "born_effective_charges": np.arange(18.0).reshape(2, 9),
    }  # fmt: skip
    labels, _ = ASE.read_labels(record({"dipole": np.array([0.0, 0, 1]), "charge": 1}, values))
    assert set(labels) == {*values, "dipole", "total_charge"}
    assert labels["total_charge"] == 1.0
    assert labels["born_effective_charges"].shape == (2, 3, 3)
    assert "total_charge" not in ASE.read_labels(record(arrays=values))[0]
    both, _ = ASE.read_labels(record({"total_charge": 2, "charge": 1}))
    assert both["total_charge"] == 2.0


WRONG = {
    "undeclared": (None, "units of the labels are not declared; declare them: units=ase"),
    "word": ("metal", "units is 'metal', not a known word; declare them"),
    "list": (["energy"], "not a mapping of labels"),
    "empty": ({}, "not a mapping of labels"),
    "label": ({"energie": {"key": "e", "unit": "eV"}}, "'energie'.*did you mean 'energy'"),
    "entry": ({"energy": "eV"}, "units.energy is 'eV': give it a key and a unit"),
    "option": ({"energy": {"key": "e", "units": "eV"}}, "no option 'units'; did you mean 'unit'"),
    "no unit": ({"energy": {"key": "e"}}, "units.energy.unit is missing"),
    "no key": ({"forces": {"unit": "eV/A"}}, "units.forces.key is missing"),
    "unit": ({"energy": {"key": "e", "unit": "ev"}}, "units.energy.unit: unknown unit 'ev'.*eV"),
    "sign": ({"stress": {"key": "s", "unit": "kbar"}}, "stress.sign is None: declare tension"),
    "order": (
        {"stress": {"key": "s", "unit": "kbar", "sign": "tension_positive", "order": ["xx"]}},
        "units.stress.order is .*list the six components",
    ),
    "order twice": (
        {"stress": {"key": "s", "unit": "kbar", "sign": "tension_positive",
                    "order": ["xx", "yy", "zz", "yz", "zy", "xy"]}},
        "units.stress.order is",
    ),
    "virial unit": (
        {"stress": {"key": "s", "unit": "kbar", "sign": "tension_positive", "virial": True}},
        "units.stress.unit: unknown unit 'kbar' for energy",
    ),
    "virial word": (
        {"stress": {"key": "s", "unit": "eV", "sign": "tension_positive", "virial": "yes"}},
        "virial is 'yes': it is true or false",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_is_explained(case):
    units, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        FieldMap.from_config(units)


@pytest.mark.parametrize(
    ("info", "arrays", "message"),
    [
        ({"energy": [1.0, 2.0]}, {}, r"f#3: energy \(key 'energy'\) has shape \(2,\)"),
        ({"energy": "-1 eV"}, {}, "f#3: energy .*not a number"),
        ({}, {"forces": np.zeros((2, 2))}, r"forces .* has shape \(2, 2\), but \(2, 3\)"),
        ({}, {"charges": np.zeros((2, 3))}, r"charges .* has shape \(2, 3\), but \(2,\)"),
        ({"stress": np.zeros(5)}, {}, "stress .* has 5 components; 6 or 9 are needed"),
    ],
)
def test_a_value_of_the_wrong_shape_is_explained(info, arrays, message):
    with pytest.raises(ValueError, match=message):
        ASE.read_labels(record(info, arrays))


def test_six_components_need_an_order():
    with pytest.raises(ValueError, match=r"undeclared order; declare units.stress.order"):
        stress_of(np.arange(6.0))


def test_a_virial_needs_a_volume():
    fields = FieldMap.from_config(
        {"stress": {"key": "s", "unit": "eV", "sign": "tension_positive", "virial": True}}
    )
    with pytest.raises(ValueError, match=r"needs a cell with a volume"):
        fields.read_labels(Record(Atoms("Li"), {"s": np.zeros(9)}, {}, "f#0"))


def test_a_declared_key_that_no_frame_has_lists_the_keys(tmp_path):
    with pytest.raises(
        ValueError, match=r"no frame has the key 'ref_energy' declared for energy"
    ) as e:
        list(read(write(tmp_path), {"energy": {"key": "ref_energy", "unit": "eV"}}))
    assert "did you mean 'REF_energy'" in str(e.value)
    assert "The file holds: REF_energy, REF_forces" in str(e.value)


def test_a_declared_key_may_be_absent_in_some_frames(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + path.read_text().replace("REF_energy=-1.5", ""))
    first, second = read(path, {"energy": {"key": "REF_energy", "unit": "eV"}})
    assert "energy" in first.labels
    assert "energy" not in second.labels
    assert first.info["unread_arrays"] == ("REF_forces",)


@pytest.mark.parametrize(
    ("column", "info", "unread"),
    [
        ("forces", "REF_energy=-1", "'energy', but the file holds REF_energy"),
        ("dft_forces", "energy=-1", "'forces', but the file holds dft_forces"),
        ("forces", 'energy=-1 virial="1 0 0 0 1 0 0 0 1"', "'stress', but the file holds virial"),
        ("forces", 'energy=-1 my_stress="1 1 1 0 0 0"', "'stress', but the file holds my_stress"),
    ],
)
def test_labels_that_ase_would_not_read_stop_the_reading(tmp_path, column, info, unread):
    with pytest.raises(ValueError, match=f"no frame has {unread}, which units=ase does not read"):
        list(read(write(tmp_path, column, info), "ase"))


def test_undeclared_units_stop_the_reading(tmp_path):
    with pytest.raises(ValueError, match=r"holds energy, forces, but the units .* not declared"):
        list(read(write(tmp_path, "forces", "energy=1")))
