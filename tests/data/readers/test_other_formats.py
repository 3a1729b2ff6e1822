"""MatPES, Alexandria, pymatgen, DeePMD, RuNNer: real frames in their layouts; damaged ones."""

import bz2
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.data.readers import read
from mlip.data.readers.recognize import format_of
from mlip.units import to_internal

spec = importlib.util.spec_from_file_location("real", Path(__file__).with_name("real.py"))
real = importlib.util.module_from_spec(spec)
sys.modules["real"] = real
spec.loader.exec_module(real)

FRAMES = real.frames()[8:14]


def compare(frame, source, stress_too=True):
    energy, forces, stress = real.values(source)
    assert frame.labels["energy"] == energy
    np.testing.assert_array_equal(frame.labels["forces"], forces)
    np.testing.assert_array_equal(frame.atoms.numbers, source.atoms.numbers)
    np.testing.assert_allclose(frame.atoms.positions, source.atoms.positions, rtol=1e-15)
    if stress_too:
        stress = (stress + stress.T) / 2
        np.testing.assert_allclose(frame.labels["stress"], stress, rtol=1e-6, atol=1e-9)


def matpes_entry(frame, number):
    energy, forces, stress = real.values(frame)
    return {
        "builder_meta": {"emmet_version": "0"},
        "structure": real.structure(frame.atoms),
        "energy": energy,
        "forces": forces.tolist(),
        "stress": (stress.ravel()[[0, 4, 8, 5, 2, 1]] * real.KBAR).tolist(),
        "matpes_id": f"matpes-20240214_{number}_0",
        "functional": "PBE",
        "bader_charges": [8.0] * len(frame),
        "cm5_partial_charges": [0.5] * len(frame),
        "ddec6": {"partial_charges": [0.25] * len(frame)},
        "provenance": {"original_mp_id": f"mp-{number}", "md_temperature": 300.0},
    }


@pytest.mark.parametrize("lines", [False, True])
def test_matpes(tmp_path, lines):
    entries = [matpes_entry(frame, number) for number, frame in enumerate(FRAMES)]
    entries[2]["ddec6"] = None
    path = tmp_path / "MatPES-PBE.json"
    path.write_text("\n".join(map(json.dumps, entries)) if lines else json.dumps(entries))
    assert format_of(path) == "matpes"
    found = list(read(path))
    for frame, source in zip(found, FRAMES, strict=True):
        compare(frame, source)
    assert found[0].labels["charges"][0] == 0.25
    assert "charges" not in found[2].labels
    assert found[1].info["source_id"] == "mp-1"
    assert found[1].info["functional"] == "PBE"
    assert next(read(path, charges="cm5")).labels["charges"][0] == 0.5
    with pytest.raises(ValueError, match=r"charges is 'bader'; known: cm5, ddec6"):
        list(read(path, charges="bader"))


def test_alexandria(tmp_path):
    def step(frame):
        energy, forces, stress = real.values(frame)
        stress = (stress * real.KBAR).tolist()
        kept = {"structure": real.structure(frame.atoms), "energy": energy}
        return kept | {"forces": forces.tolist(), "stress": stress}

    content = {
        f"agm{k:09d}": [{"kpoints": [7, 2, 2], "steps": [step(f) for f in FRAMES[k : k + 2]]}]
        for k in (0, 2, 4)
    }
    path = tmp_path / "alex_go_aao_001.json.bz2"
    path.write_bytes(bz2.compress(json.dumps(content).encode()))
    assert format_of(path) == "alexandria"
    found = list(read(path))
    for frame, source in zip(found, FRAMES, strict=True):
        compare(frame, source)
    assert found[3].source == f"{path}#agm000000002-0-1"
    assert found[3].info["source_id"] == "agm000000002"
    content["agm000000002"][0]["steps"][1].pop("forces")
    path.write_bytes(bz2.compress(json.dumps(content).encode()))
    with pytest.raises(ValueError, match=r"agm000000002-0-1 has no 'forces'"):
        list(read(path))


def test_pymatgen_structures_and_entries(tmp_path):
    from pymatgen.core import Structure
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    structures = [Structure.from_dict(real.structure(frame.atoms)) for frame in FRAMES]
    entries = [
        ComputedStructureEntry(item, -1.5 * n, entry_id=f"e{n}", data={"mat_id": f"agm{n}"})
        for n, item in enumerate(structures)
    ]
    for name, content in {
        "list.json": [entry.as_dict() for entry in entries],
        "entries.json": {"entries": [entry.as_dict() for entry in entries]},
        "structures.json": [item.as_dict() for item in structures],
        "one.json": structures[0].as_dict(),
    }.items():
        path = tmp_path / name
        path.write_text(json.dumps(content, default=str))
        assert format_of(path) == "pymatgen"
        found = list(read(path))
        assert len(found) == (1 if name == "one.json" else len(FRAMES))
        for frame, source in zip(found, FRAMES, strict=False):
            np.testing.assert_allclose(frame.atoms.positions, source.atoms.positions, atol=1e-12)
        if "energy" in found[-1].labels:
            assert found[2].labels["energy"] == -3.0
            assert found[2].info["source_id"] == "agm2"
    path.write_text(json.dumps([{"sites": [{"species": []}], "@class": "Structure"}]))
    with pytest.raises(ValueError, match=r"one.json#0"):
        list(read(path))


def write_deepmd(folder, frames, nopbc=False):
    numbers = frames[0].atoms.numbers
    kinds = sorted(set(numbers.tolist()))
    part = folder / "set.000"
    part.mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join(str(kinds.index(z)) for z in numbers))
    (folder / "type_map.raw").write_text("\n".join(chemical_symbols[z] for z in kinds))
    values = [real.values(frame) for frame in frames]
    volumes = [frame.atoms.get_volume() for frame in frames]
    tables = {
        "coord": [frame.atoms.positions.ravel() for frame in frames],
        "box": [frame.atoms.cell.array.ravel() for frame in frames],
        "energy": [energy for energy, _, _ in values],
        "force": [forces.ravel() for _, forces, _ in values],
        "virial": [-v * s.ravel() for v, (_, _, s) in zip(volumes, values, strict=True)],
    }
    if nopbc:
        (folder / "nopbc").touch()
        tables.pop("box")
    for name, table in tables.items():
        np.save(part / f"{name}.npy", np.array(table))
    return folder


def test_deepmd_and_the_sign_of_its_virial(tmp_path):
    frames = real.frames()[:6]  # one material: equal elements in equal order
    write_deepmd(tmp_path / "systems" / "Mg14AlSb", frames)
    assert format_of(tmp_path / "systems") == "deepmd"
    for found, source in zip(read(tmp_path / "systems"), frames, strict=True):
        energy, forces, stress = real.values(source)
        assert found.labels["energy"] == energy
        np.testing.assert_array_equal(found.labels["forces"], forces)
        np.testing.assert_allclose(found.labels["stress"], stress, rtol=1e-12, atol=1e-18)
        np.testing.assert_array_equal(found.atoms.cell.array, source.atoms.cell.array)
        assert found.info["source_id"] == "Mg14AlSb"
    write_deepmd(tmp_path / "free", frames[:2], nopbc=True)
    assert not any(frame.atoms.pbc.any() for frame in read(tmp_path / "free"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("set.000/force.npy", "force.npy"),
        ("set.000/coord.npy", "coord.npy"),
        ("type.raw", "type.raw"),
        ("type_map.raw", "type_map.raw"),
    ],
)
def test_a_damaged_deepmd_file_is_named(tmp_path, name, message):
    folder = write_deepmd(tmp_path / "a", real.frames()[:3])
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 1] if name.endswith("npy") else b"Q 99 x")
    with pytest.raises(ValueError, match=message):
        list(read(folder))
    if name.endswith("npy"):
        np.save(path, np.array([object()] * 3), allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            list(read(folder))


INPUT = """begin
comment two atoms, total charge +1
lattice 10.0 0.0 0.0
lattice 0.0 11.0 0.0
lattice 0.0 0.0 12.0
atom 0.0 0.0 0.0 Na 0.75 0.0 0.01 0.0 0.0
atom 0.0 0.0 4.5 Cl 0.25 0.0 -0.01 0.0 0.0
energy -622.5
charge 1.0
end
begin
atom 1.0 2.0 3.0 H 0.0 0.0 0.0 0.0 0.5
energy -0.5
charge 0.0
end
"""


def test_runner_is_in_atomic_units_unless_declared(tmp_path):
    path = tmp_path / "input.data"
    path.write_text(INPUT)
    assert format_of(path) == "runner"
    first, second = read(path)
    bohr, hartree = to_internal("length", "bohr"), to_internal("energy", "Ha")
    assert first.atoms.positions[1, 2] == 4.5 * bohr
    assert first.atoms.cell.lengths().tolist() == [10.0 * bohr, 11.0 * bohr, 12.0 * bohr]
    assert first.labels["energy"] == -622.5 * hartree
    assert first.labels["forces"][0, 0] == pytest.approx(0.01 * hartree / bohr, rel=1e-15)
    assert first.labels["charges"].tolist() == [0.75, 0.25]
    assert first.labels["total_charge"] == 1.0
    assert not second.atoms.pbc.any()
    declared = {"energy": {"key": "energy", "unit": "eV"}}
    assert next(read(path, declared, length="A")).atoms.positions[1, 2] == 4.5


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(INPUT.split()) - 1), st.sampled_from(["", "nan_", "begin", "1 2", "Qq"]))
def test_a_changed_word_of_runner_is_never_skipped(tmp_path_factory, place, word):
    path = tmp_path_factory.mktemp("runner") / "input.data"
    words = INPUT.replace("\n", " \n ").split(" ")
    spots = [n for n, text in enumerate(words) if text.strip()]
    words[spots[place]] = word
    path.write_text(" ".join(words))
    from mlip.data.readers.runner import read_runner

    try:
        found = list(read_runner(path))
    except ValueError as error:
        assert "input.data#" in str(error)  # noqa: PT017
    else:
        assert len(found) == 2 or place == len(spots) - 1


@pytest.mark.parametrize("lines", range(2, 14))
def test_a_truncated_runner_file_is_refused(tmp_path, lines):
    path = tmp_path / "input.data"
    path.write_text("".join(INPUT.splitlines(keepends=True)[:lines]))
    if lines == 10:
        assert len(list(read(path))) == 1
        return
    with pytest.raises(ValueError, match=r"input.data"):
        list(read(path))
