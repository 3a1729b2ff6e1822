"""Defects planted in real frames are found, and real sets as they are give no false alarm."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mlip.data.card import load_card, load_frames
from mlip.data.check_energies import all_electron, check_energies
from mlip.data.check_structures import check_duplicates, check_leakage
from mlip.data.check_work import WorkPairs, check_work
from mlip.data.checks import check_frames, check_splits
from mlip.data.digest import Digester
from mlip.data.doctor import doctor
from mlip.data.frame import Frame
from mlip.units import to_internal

HARTREE = to_internal("energy", "Ha")
BOHR_FORCE = to_internal("forces", "Ha/bohr")


@cache
def real(name):
    card = load_card(name)
    return tuple(load_frames(card, next(iter(card.files))))


def spoilt(name, label, change):
    return [
        replace(f, labels={**f.labels, label: change(f.labels[label], f)}) if label in f.labels
        else f for f in real(name)
    ]  # fmt: skip


def told(frames, *severities):
    return [f.message for f in check_frames(frames) if f.severity in (severities or ("error",))]


CLEAN = {
    "mlearn_li": 1,  # three strained cells of the test part are turned copies of training cells
    "mlearn_mo": 0,
    "mlearn_ge": 1,  # one such copy
    "mlearn_cu": 0,
    "mlearn_ni": 0,
    "mptrj": 0,
    "alexandria": 0,
}


@pytest.mark.parametrize("name", CLEAN)
def test_real_sets_give_no_false_alarm(name):
    found = doctor(name)
    assert [f.message for f in found.findings if f.severity == "error"] == []
    warnings = [f.message for f in found.findings if f.severity == "warning"]
    assert len(warnings) == CLEAN[name]
    assert all("turned, shifted or in another cell" in text for text in warnings)
    assert found.labels[next(iter(found.labels))]["energy"] == next(iter(found.frames.values()))


def exchange(*order):
    """Return stresses whose yz, xz, xy hold the components of these places."""

    def change(stress, frame):
        shear = stress[[1, 0, 0], [2, 2, 1]]
        wrong = np.diag(np.diag(stress)).astype(float)
        for place, (i, j) in zip(order, ((1, 2), (0, 2), (0, 1)), strict=True):
            wrong[i, j] = wrong[j, i] = shear[place]
        return wrong

    return change


WORK = {
    "gradients": ("mlearn_mo", "forces", lambda x, f: -x, "forces have the wrong sign"),
    "pressure": ("mlearn_mo", "stress", lambda x, f: -x, "stress have the wrong sign"),
    "pressure of lithium": ("mlearn_li", "stress", lambda x, f: -x, "wrong sign"),
    "hartree": ("mlearn_ni", "energy", lambda x, f: x / HARTREE, "units.energy.unit: Ha"),
    "kcal": ("mlearn_mo", "energy", lambda x, f: x * 23.0605, "units.energy.unit: kcal/mol"),
    "kJ": ("mlearn_cu", "energy", lambda x, f: x * 96.485, "units.energy.unit: kJ/mol"),
    "per atom": ("mlearn_mo", "energy", lambda x, f: x / len(f), "energies per atom"),
    "Ha/bohr": ("mlearn_cu", "forces", lambda x, f: x / BOHR_FORCE, "forces in Ha/bohr"),
    "GPa": ("mlearn_li", "stress", lambda x, f: x * 160.21766, "stress in GPa"),
    "kbar": ("mlearn_ge", "stress", lambda x, f: x * 1602.1766, "stress in kbar"),
    "virial": ("mlearn_mo", "stress", lambda x, f: x * f.atoms.get_volume(), "a virial"),
    "VASP order": ("mlearn_mo", "stress", exchange(1, 2, 0), "units.stress.order"),
    "yz for xz": ("mlearn_mo", "stress", exchange(1, 0, 2), "units.stress.order"),
    "order of germanium": ("mlearn_ge", "stress", exchange(2, 0, 1), "units.stress.order"),
}


@pytest.mark.parametrize("case", WORK)
def test_energies_tell_the_unit_sign_and_order_of_forces_and_stress(case):
    name, label, change, message = WORK[case]
    assert not any("neighbouring" in text or "shear" in text for text in told(real(name)))
    assert any(message in text for text in told(spoilt(name, label, change)))


def test_the_work_between_two_frames_is_their_difference_in_energy():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    pairs, random = WorkPairs(), np.random.default_rng(1)
    start = bulk("Cu", cubic=True)
    for _ in range(12):
        atoms = start.copy()
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + random.normal(scale=1e-3, size=(3, 3))), True
        )
        atoms.positions += random.normal(scale=2e-3, size=(4, 3)) + random.normal(size=3)
        atoms.calc = EMT()
        labels = {"energy": np.array(atoms.get_potential_energy()), "forces": atoms.get_forces()}
        labels["stress"] = atoms.get_stress(voigt=False)
        atoms.calc = None
        pairs.add(Frame(atoms, labels))
    table = np.array(list(pairs.rows))
    np.testing.assert_allclose(table[:, 0], table[:, 1] + table[:, 2], atol=2e-6)
    assert np.abs(table[:, 0]).max() > 1e-4
    assert check_work(pairs) == []


def test_fixed_atoms_read_as_zero_forces_are_an_error():
    frames = list(real("mlearn_mo"))
    for index in (3, 10):
        forces = frames[index].labels["forces"].copy()
        forces[:5] = 0.0
        frames[index] = replace(frames[index], labels={**frames[index].labels, "forces": forces})
    (message,) = told(frames)
    assert message.startswith("forces are exactly zero on some atoms of 2 frames (")
    assert f"{frames[3].source} 5 atoms" in message


def test_a_frame_with_wild_forces_or_energy_is_named():
    frames = list(real("mlearn_ni"))
    labels = frames[5].labels
    frames[5] = replace(frames[5], labels={**labels, "forces": labels["forces"] * 4000})
    assert any(frames[5].source in text for text in told(frames, "warning"))
    frames = list(real("alexandria"))
    forces = frames[7].labels["forces"].copy()
    forces[0] += 40.0
    forces[1] -= 40.0
    frames[7] = replace(frames[7], labels={**frames[7].labels, "forces": forces})
    (message,) = [text for text in told(frames, "warning") if "far above" in text]
    assert frames[7].source in message
    frames = list(real("mlearn_li"))
    energy = frames[9].labels["energy"] + 2.0 * len(frames[9])
    frames[9] = replace(frames[9], labels={**frames[9].labels, "energy": energy})
    assert any("far from that of its composition" in t for t in told(frames, "warning"))


@pytest.mark.parametrize(("unit", "factor"), [("Ha", 1 / HARTREE), ("kcal/mol", 23.0605)])
def test_energies_of_all_electrons_in_another_unit(unit, factor):
    # The energies of VASP, and that of a lithium atom with all its electrons, -7.5 Ha.
    frames = []
    for frame in real("mlearn_li"):
        energy = -7.5 * HARTREE * len(frame) + float(frame.labels["energy"])
        frames.append(replace(frame, labels={"energy": np.array(energy * factor)}))
    digester = Digester()
    messages = [f.message for f in check_energies([digester(frame) for frame in frames])]
    assert any(f"units.energy.unit: {unit}" in text for text in messages)
    sound = [replace(f, labels={"energy": f.labels["energy"] / factor}) for f in frames]
    assert check_energies([digester(frame) for frame in sound]) == []


@pytest.mark.parametrize(
    ("z", "hartree"), [(6, -37.845), (8, -75.067), (29, -1640.4), (79, -17865)]
)
def test_energy_of_all_electrons_of_an_atom(z, hartree):
    # Hartree-Fock (light) and Dirac-free numerical energies of the atoms, to four per cent.
    assert all_electron([(z, 1)]) / HARTREE == pytest.approx(hartree, rel=0.04)


def test_copies_across_splits_are_found_however_they_are_written():
    frames = [frame for frame in real("mlearn_mo") if "AIMD" in frame.info["group"]][:12]
    original = frames[0]
    order = np.random.default_rng(0).permutation(len(original))

    def copy(change):
        atoms = original.atoms.copy()
        atoms = change(atoms) or atoms
        return Frame(
            atoms, {"energy": original.labels["energy"] * len(atoms) / len(original)}, "c#0"
        )

    exact = {
        "permuted": lambda atoms: atoms[order],
        "wrapped": lambda atoms: atoms.translate([0, 0, 0]) or atoms.wrap(),
    }
    moved = {
        "shifted": lambda atoms: atoms.translate([0.3, 1.1, -0.4]),
        "turned": lambda atoms: atoms.rotate(37, (1, 2, 3), rotate_cell=True),
        "doubled": lambda atoms: atoms.repeat((1, 1, 2)),
    }
    for name, change in {**exact, **moved}.items():
        found = check_duplicates({"train": frames, "test": [copy(change)]})
        assert len(found) == 1, name
        assert ("turned" in found[0].message) == (name in moved)
        assert f"{original.source} = c#0" in found[0].message
    assert check_duplicates({"train": frames[1:], "test": [copy(lambda atoms: atoms[order])]}) == []


def test_a_material_in_two_splits_is_leakage():
    frames = [replace(f, info={"source_id": f"mp-{i // 2}"}) for i, f in enumerate(real("mptrj"))]
    (finding,) = check_leakage({"train": frames[:11], "test": frames[11:]})
    assert finding.message.startswith("1 materials have frames in more than one split (mp-5)")
    assert check_leakage({"train": frames[:10], "test": frames[10:]}) == []


@pytest.mark.parametrize("key", ["functional", "corrections", "run_type"])
def test_mixed_levels_of_theory(key):
    frames = [replace(f, info={**f.info, key: "PBE"}) for f in real("mptrj")]
    frames[3] = replace(frames[3], info={**frames[3].info, key: "PBE+U"})
    (message,) = [text for text in told(frames) if text.startswith(key)]
    assert "PBE+U" in message
    assert frames[3].source in message


def test_splits_are_looked_at_once_and_lazily():
    seen = []

    def stream():
        for frame in real("mlearn_ni"):
            seen.append(frame.source)
            yield frame

    assert check_splits({"a": stream()}) == check_splits({"a": list(real("mlearn_ni"))})
    assert len(seen) == len(set(seen)) == len(real("mlearn_ni"))
