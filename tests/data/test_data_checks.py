"""Checks before work starts: each finding appears for its defect and only then."""

import time
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip.data.check_structures import check_distances, check_duplicates
from mlip.data.checks import check_frames, check_unread
from mlip.data.digest import digests
from mlip.data.findings import Finding, examples, require
from mlip.data.frame import Frame


def sound(count=20, seed=0):
    """Frames without a defect: strained, rattled rock salt with consistent labels."""
    generator = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        strain = generator.uniform(-0.05, 0.05)
        atoms = bulk("LiF", "rocksalt", a=4.0 * (1 + strain), cubic=True)
        atoms.positions += generator.normal(scale=0.02, size=(8, 3))
        forces = generator.normal(size=(8, 3))
        labels = {
            "energy": np.array(-40 + 8 * strain**2 + generator.normal(scale=0.01)),
            "forces": forces - forces.mean(axis=0),
            "stress": np.eye(3) * strain,
        }
        frames.append(Frame(Atoms(atoms), labels, f"f.xyz#{index}", {"functional": "PBE"}))
    return frames


def changed(frames, index, atoms=None, info=None, **labels):
    old = frames[index]
    kept = {key: value for key, value in {**old.labels, **labels}.items() if value is not None}
    new = Frame(atoms or old.atoms, kept, old.source, info if info is not None else old.info)
    return [*frames[:index], new, *frames[index + 1 :]]


def found(frames, severity, **options):
    return [f.message for f in check_frames(frames, **options) if f.severity == severity]


def only(frames, severity, **options):
    (message,) = found(frames, severity, **options)
    return message


def test_sound_frames_give_only_the_note_on_the_references():
    assert found(sound(), "error", elements=["Li", "F"]) == []
    assert found(sound(), "warning") == []
    assert "determine only 1 of 2" in only(sound(), "note")


def test_no_frames():
    assert only([], "error").startswith("there are no frames")


def test_a_required_label_that_is_missing_everywhere_is_an_error_with_the_keys():
    frames = [
        Frame(
            f.atoms, {"energy": f.labels["energy"]}, f.source, {**f.info, "unread_arrays": ("F",)}
        )
        for f in sound()
    ]
    message = only(frames, "error")
    assert message.startswith(
        "f.xyz holds no forces: it holds labels energy, other keys F, functional"
    )
    assert found(frames, "error", required=("energy",)) == []


def test_missing_labels_are_counted():
    frames = changed(changed(sound(), 3, forces=None), 5, forces=None)
    assert "forces is missing in 2 of 20 frames (f.xyz#3, f.xyz#5): it is masked there" in (
        found(frames, "note")
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_not_finite(value):
    forces = sound()[2].labels["forces"].copy()
    forces[4, 1] = value
    message = only(changed(sound(), 2, forces=forces), "error")
    assert message.startswith(f"f.xyz#2: forces of atom 4 is not finite ({value})")
    message = only(changed(sound(), 2, energy=np.array(value)), "error")
    assert message.startswith(f"f.xyz#2: energy is not finite ({value})")
    message = only(changed(sound(), 2, stress=np.full((3, 3), value)), "error")
    assert message.startswith("f.xyz#2: stress is not finite")


def test_masked_components_of_constrained_atoms_are_no_error():
    fixed = np.zeros((8, 3), dtype=bool)
    fixed[1] = True
    forces = np.where(fixed, np.nan, sound()[0].labels["forces"])
    frames = changed(sound(), 0, forces=forces, info={"constrained": fixed})
    assert found(frames, "error") == []
    assert found(frames, "warning") == []
    assert "3 force components of constrained atoms in 1 frames are masked" in found(frames, "note")
    forces[2, 0] = np.nan
    assert "forces of atom 2 is not finite" in only(
        changed(sound(), 0, forces=forces, info={"constrained": fixed}), "error"
    )


def test_positions_and_cells_that_make_no_sense():
    atoms = sound()[1].atoms.copy()
    atoms.positions[3, 0] = np.nan
    message = only(changed(sound(), 1, atoms=atoms), "error")
    assert message.startswith("f.xyz#1: the position of atom 3 is [nan, 2.0")
    flat = sound()[1].atoms.copy()
    flat.cell[2] = 0
    message = only(changed(sound(), 1, atoms=flat), "error")
    assert "pbc is [True, True, True] but the cell" in message


def pair(distance, cell, pbc, axis=0, offset=0.0):
    second = np.zeros(3)
    second[axis] = distance
    return Frame(Atoms("LiF", [[offset] * 3, second + offset], cell=cell, pbc=pbc), {}, "p#0")


@pytest.mark.parametrize("pbc", [True, False, (True, False, False), (True, True, False)])
@pytest.mark.parametrize("cell", [[5, 5, 5], [[5, 0, 0], [4.9, 1, 0], [2, 2, 6]], [9, 9, 30]])
def test_close_atoms_are_found_inside_the_cell(cell, pbc):
    (finding,) = check_distances([pair(0.29, cell, pbc)])
    assert finding.severity == "error"
    assert finding.message.startswith(
        "p#0: atoms 0 and 1 (Li, F) are 0.290 Å apart, less than 0.3 Å"
    )
    assert check_distances([pair(0.31, cell, pbc)]) == []


def test_close_atoms_are_found_across_the_boundary_only_where_periodic():
    across = {"distance": 4.8, "cell": [5, 5, 5]}
    (finding,) = check_distances([pair(pbc=True, **across)])
    assert "0.200 Å apart" in finding.message
    assert check_distances([pair(pbc=False, **across)]) == []
    assert check_distances([pair(pbc=(True, False, False), **across)])
    assert check_distances([pair(pbc=(False, True, True), **across)]) == []
    assert check_distances([pair(pbc=True, offset=-17.3, **across)])  # atoms outside the cell


def test_an_atom_near_its_own_image_is_found():
    tiny = Frame(Atoms("Li", cell=[0.25, 5, 5], pbc=True), {}, "t#0")
    (finding,) = check_distances([tiny])
    assert "atom 0 and its own periodic image (Li, Li) are 0.250 Å apart" in finding.message
    assert check_distances([Frame(Atoms("Li", cell=[0.35, 5, 5], pbc=True), {}, "t#0")]) == []
    # A skewed cell whose vectors are long and whose difference is short.
    skewed = Atoms("Li", cell=[[5, 0, 0], [5, 0.2, 0], [0, 0, 5]], pbc=True)
    (finding,) = check_distances([Frame(skewed, {}, "t#0")])
    assert "0.200 Å apart" in finding.message


def test_a_slab_without_a_third_vector_is_checked():
    slab = Atoms("Li2", [[0, 0, 0], [2.9, 0, 0.1]], cell=[3, 3, 0], pbc=(True, True, False))
    (finding,) = check_distances([Frame(slab, {}, "s#0")])
    assert "0.141 Å apart" in finding.message


def test_large_and_unbalanced_forces():
    forces = np.zeros((8, 3))
    forces[0, 0], forces[1, 0] = 101.0, -101.0
    message = only(changed(sound(), 7, forces=forces), "warning")
    assert message.startswith("forces above 100 eV/Å in 1 frames (f.xyz#7 101 eV/Å)")
    forces = sound()[7].labels["forces"] + [[0.1, 0, 0]]
    message = only(changed(sound(), 7, forces=forces), "warning")
    assert message.startswith("the forces of 1 frames do not add up to zero (f.xyz#7 0.8 eV/Å)")


def test_stress_in_another_unit_is_an_error_and_one_failed_frame_a_warning():
    frames = sound()
    for index in range(len(frames)):
        frames = changed(frames, index, stress=frames[index].labels["stress"] * 1602.18)
    assert "it looks like GPa or kbar; declare units.stress" in only(frames, "error")
    message = only(changed(sound(), 4, stress=np.eye(3) * 11), "warning")
    assert "stress of 1 frames is above 10 eV/Å³ (f.xyz#4: 11 eV/Å³ = 1762 GPa)" in message


def test_a_stress_that_is_not_symmetric():
    stress = np.array([[0.1, 0.05, 0], [0, 0.1, 0], [0, 0, 0.1]])
    message = only(changed(sound(), 4, stress=stress), "error")
    assert message.startswith("the stress matrix of 1 frames is not symmetric (f.xyz#4)")


def test_the_sign_of_a_pressure_is_noticed():
    frames = sound()
    for index in range(len(frames)):
        frames = changed(frames, index, stress=-frames[index].labels["stress"])
    message = only(frames, "warning")
    assert message.startswith("f.xyz: stress falls when the cell is stretched (correlation")
    assert message.endswith("declare the other units.stress.sign")
    assert found(frames[:9], "warning") == []  # too few to tell


def test_an_energy_far_from_its_composition():
    energy = sound()[11].labels["energy"] + 8 * 0.9
    message = only(changed(sound(), 11, energy=energy), "warning")
    assert message.startswith(
        "the energy of 1 frames is far from that of its composition (f.xyz#11 +"
    )


def test_mixed_functionals():
    message = only(changed(sound(), 6, info={"functional": "r2SCAN"}), "error")
    assert message.startswith("functional differs between frames: PBE (f.xyz#0), r2SCAN (f.xyz#6)")


def test_unknown_elements():
    message = only(sound(), "error", elements=["Li", "O"])
    assert message.startswith(
        "F is in f.xyz#0, f.xyz#1, f.xyz#2 and 17 more, but the model knows only"
    )
    assert "Li, O" in message


def test_charges_without_a_total_charge():
    neutral = np.tile([0.9, -0.9], 4)
    assert found(changed(sound(), 0, charges=neutral), "error") == []
    charged = neutral + 0.125
    message = only(changed(sound(), 0, charges=charged), "error")
    assert message.startswith(
        "the charges of 1 frames add up to a net charge (f.xyz#0 +1.000 e) but total_charge is mis"
    )
    right = changed(sound(), 0, charges=charged, total_charge=np.array(1.0))
    assert found(right, "error") == found(right, "warning") == []
    wrong = changed(sound(), 0, charges=charged, total_charge=np.array(-1.0))
    assert "(f.xyz#0 +1.000 e for -1.000 e)" in only(wrong, "error")
    loose = changed(sound(), 0, charges=charged, total_charge=np.array(0.9))
    assert "(f.xyz#0 +1.000 e for +0.900 e)" in only(loose, "warning")


def test_forces_that_were_never_computed():
    frames = [replace(f, labels={**f.labels, "forces": np.zeros((8, 3))}) for f in sound()]
    message = only(frames, "warning")
    assert message.startswith("all forces are exactly zero in 20 of 20 frames (f.xyz#0, ")
    assert "in 12 of 20 frames" in only(frames[:12] + sound()[12:], "warning")
    assert found(frames[:8] + sound()[8:], "warning") == []  # a few may be perfect crystals


def test_a_label_under_another_name_is_pointed_at():
    frames = [replace(f, info={**f.info, "unread_arrays": ("REF_charges", "initial_magmoms")})
              for f in sound()]  # fmt: skip
    (finding,) = check_unread(digests(frames))
    assert finding.message.startswith("REF_charges looks like charges but is not read")
    assert finding.units == {"charges": {"key": "REF_charges", "unit": "e"}}
    assert check_unread(digests(sound())) == []


def test_structures_without_labels_are_one_error():
    frames = [replace(f, labels={}) for f in sound()]
    assert "holds structures without labels" in only(frames, "error")


def test_duplicates_within_and_across_splits():
    frames = sound()
    message = only([*frames, frames[3]], "warning")
    assert message.startswith(
        "1 structures occur more than once: f.xyz#3 = f.xyz#3; they weigh more"
    )
    (finding,) = check_duplicates({"train": frames, "test": frames[:2]})
    assert finding.message.startswith("2 structures are in more than one split: f.xyz#0 = f.xyz#0")
    assert check_duplicates({"train": frames[:10], "test": frames[10:]}) == []


def test_require_raises_every_error_and_nothing_else():
    require([Finding("warning", "w"), Finding("note", "n")])
    with pytest.raises(ValueError, match=r"^first\nsecond$"):
        require([Finding("error", "first"), Finding("warning", "w"), Finding("error", "second")])


def test_one_defect_of_many_frames_is_told_in_five_sentences():
    frames = [pair(0.1, [5, 5, 5], True) for _ in range(40)]
    findings = check_distances(frames)
    assert len(findings) == 5
    assert findings[-1].message.endswith("(35 more like this)")
    assert "more like this" not in findings[-2].message


def test_examples_are_short():
    assert examples(["a", "b"]) == "a, b"
    assert examples(list("abcde")) == "a, b, c and 2 more"


def test_checks_do_not_touch_the_frames():
    frames = sound(5)
    before = [(f.atoms.copy(), {k: v.copy() for k, v in f.labels.items()}) for f in frames]
    check_frames(frames, elements=["Li"])
    for frame, (atoms, labels) in zip(frames, before, strict=True):
        assert frame.atoms == atoms
        for key, value in labels.items():
            np.testing.assert_array_equal(frame.labels[key], value)


def test_two_thousand_frames_take_less_than_four_seconds_of_one_core():
    frames = sound(500)
    start = time.process_time()
    check_frames(frames * 4)
    assert time.process_time() - start < 4.0  # about 0.5 s on one free core


def test_mixed_units_of_energy_scatter_about_the_references():
    frames = sound()
    for index in range(0, 20, 4):
        frames = changed(frames, index, energy=frames[index].labels["energy"] / 27.2114)
    assert any("mix units" in message for message in found(frames, "warning"))


@pytest.mark.parametrize("factor", [1 / 27.2114, 1 / 16])
def test_energies_in_hartree_or_per_atom_are_doubted(factor):
    frames = sound()  # -5 eV an atom
    for index in range(20):
        frames = changed(frames, index, energy=frames[index].labels["energy"] * factor)
    assert any("may be Ha" in message for message in found(frames, "warning"))
