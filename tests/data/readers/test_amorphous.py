"""The amorphous database: trajectories that pymatgen wrote, and contributions, from real frames."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip.cli import main
from mlip.data.inspect import inspect
from mlip.data.readers import read
from mlip.data.readers.recognize import format_of
from tests.data.readers import real

pytest.importorskip("pymatgen.core")

from monty.json import MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.core.trajectory import Trajectory

FRAMES = real.frames()[:8]  # one material, cells of one shape or another
KBAR = -1602.1766208


def pymatgen(frame):
    atoms = frame.atoms
    return Structure(
        Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.positions,
        coords_are_cartesian=True,
    )  # fmt: skip


def properties(frame, *left_out):
    energy, forces, stress = real.values(frame)
    found = {"e_0_energy": energy, "forces": forces.tolist(), "stress": (stress * KBAR).tolist()}
    return {key: value for key, value in found.items() if key not in left_out}


def trajectory(*left_out, displaced=False, constant=False, **options):
    """Frames as pymatgen's own trajectory."""
    with_lattice = FRAMES[:1] * 4 if constant else FRAMES
    made = Trajectory.from_structures(
        [pymatgen(frame) for frame in with_lattice],
        constant_lattice=constant,
        frame_properties=[properties(frame, *left_out) for frame in with_lattice],
        time_step=2.0,
        **options,
    )
    if displaced:
        made.to_displacements()
    return made.as_dict()


def line(content, temperature=1000, number=0):
    metadata = {
        "_id": f"6594{number:020x}",
        "temperature": temperature,
        "contribs_id": f"65{number}",
    }
    return json.dumps({"metadata": metadata, "trajectory": content}, cls=MontyEncoder) + "\n"


@pytest.mark.parametrize("displaced", [False, True])
def test_a_trajectory_of_pymatgen(displaced, tmp_path):
    path = tmp_path / "a.jsonl.gz"
    lines = [line(trajectory(displaced=displaced), number=number) for number in range(2)]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    assert format_of(path) == "amorphous"
    frames = list(read(path))
    assert len(frames) == 16
    for expected, frame in zip(FRAMES * 2, frames, strict=True):
        energy, forces, stress = real.values(expected)
        assert float(frame.labels["energy"]) == energy
        np.testing.assert_array_equal(frame.labels["forces"], forces)
        np.testing.assert_allclose(frame.labels["stress"], stress, rtol=2e-8)  # two years of CODATA
        assert (frame.atoms.numbers == expected.atoms.numbers).all()
        np.testing.assert_array_equal(frame.atoms.cell.array, expected.atoms.cell.array)
        apart = (frame.atoms.positions - expected.atoms.positions) @ np.linalg.inv(frame.atoms.cell)
        np.testing.assert_allclose(apart, np.round(apart), atol=1e-9)
        assert frame.info["temperature_K"] == 1000
        assert frame.info["time_step_fs"] == 2
    assert len({frame.info["frame_id"] for frame in frames}) == 16
    assert {frame.info["source_id"] for frame in frames} == {"650", "651"}


def test_one_lattice_for_all_steps(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(line(trajectory(constant=True)))
    frames = list(read(path))
    assert len(frames) == 4
    assert all((f.atoms.cell.array == FRAMES[0].atoms.cell.array).all() for f in frames)


def test_it_says_what_it_found_and_what_is_missing(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(line(trajectory("forces", "stress")))
    frames = list(read(path))
    assert set(frames[0].labels) == {"energy"}
    main(["data", "inspect", str(path)])
    told = capsys.readouterr().out
    assert "columns_found  energy, temperature_K" in told
    assert "columns_missing  forces, stress, diffusivity" in told


def test_selective_dynamics_become_missing_forces(tmp_path):
    path = tmp_path / "a.jsonl"
    content = trajectory()
    count = len(content["species"])
    content["site_properties"] = {"selective_dynamics": [[False] * 3] + [[True] * 3] * (count - 1)}
    path.write_text(line(content))
    for frame in read(path):
        assert np.isnan(frame.labels["forces"][0]).all()
        assert np.isfinite(frame.labels["forces"][1:]).all()


def contribution(number, frame, structures=True, temperature=1500):
    found = {
        "id": f"65{number:022x}",
        "identifier": f"mp-{number}",
        "formula": frame.atoms.get_chemical_formula(),
        "data": {
            "chemsys": "-".join(sorted(set(frame.atoms.get_chemical_symbols()))),
            "temperature": {"value": temperature, "display": f"{temperature} K", "unit": "K"},
            "properties": {
                "a": {"element": "Li", "diffusivity": {"value": 1.25e-5, "unit": "cm²/s"}},
                "b": {"element": "O", "diffusivity": {"value": 2.5e-6, "unit": "cm²/s"}},
            },
        },
    }
    if structures:
        found["structures"] = [{"name": "final", **real.structure(frame.atoms)}]
    return found


@pytest.mark.parametrize("layout", ["list", "lines", "page"])
def test_contributions(layout, tmp_path):
    entries = [contribution(number, frame) for number, frame in enumerate(FRAMES)]
    path = tmp_path / "contributions.json"
    path.write_text({
        "list": json.dumps(entries, indent=1),
        "lines": "\n".join(map(json.dumps, entries)),
        "page": json.dumps({"data": entries, "total_count": 8}),
    }[layout])  # fmt: skip
    assert format_of(path) == "amorphous"
    frames = list(read(path))
    assert len(frames) == 8
    for expected, frame in zip(FRAMES, frames, strict=True):
        np.testing.assert_array_equal(frame.atoms.positions, expected.atoms.positions)
        assert frame.info["temperature_K"] == 1500
        assert (frame.info["diffusivity_Li"], frame.info["diffusivity_O"]) == (1.25e-5, 2.5e-6)
        assert frame.info["diffusivity_unit"] == "cm²/s"
        assert frame.info["columns_missing"] == "energy, forces, stress"
    found = {item.key: (item.minimum, item.maximum) for item in inspect(path).properties}
    assert found["diffusivity_Li"] == (1.25e-5, 1.25e-5)


def test_contributions_without_structures_say_what_they_have(tmp_path):
    path = tmp_path / "contributions.json"
    entries = [contribution(n, FRAMES[0], structures=n == 0) for n in range(2)]
    path.write_text(json.dumps(entries))
    with pytest.raises(
        ValueError, match=r"json#1 holds no structure: it has id, identifier, formul"
    ):
        list(read(path))
    with pytest.raises(ValueError, match=r"data.chemsys, data.temperature, data.properties"):
        list(read(path))


WRONG = {
    "species": (lambda c: c.update(species=[*c["species"][1:], "Qq"]), "'Qq' is not an element"),
    "count": (lambda c: c["species"].pop(), "coords has shape"),
    "lattices": (lambda c: c.update(lattice=c["lattice"][:3]), "3 lattices for 8 steps"),
    "base": (lambda c: c.update(coords_are_displacement=True, base_positions=None), "base_pos"),
    "steps": (lambda c: c["frame_properties"].append({}), "properties of 9 steps for 8"),
    "coords": (lambda c: c.pop("coords"), "not a pymatgen dictionary"),
    "nan": (lambda c: c["coords"][0][0].__setitem__(0, float("nan")), "coords is not finite"),
    "partial": (lambda c: c["species"].__setitem__(0, {"Fe": 0.5}), "partially occupied"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_trajectory_is_explained(case, tmp_path):
    change, message = WRONG[case]
    content = json.loads(json.dumps(trajectory(), cls=MontyEncoder))
    change(content)
    path = tmp_path / "a.jsonl"
    path.write_text(line(trajectory()) + line(content, number=1))
    with pytest.raises(ValueError, match=rf"a\.jsonl#1: .*{message}"):
        list(read(path))


def test_a_truncated_file(tmp_path):
    path = tmp_path / "a.jsonl"
    text = line(trajectory())
    path.write_text(text + text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"#1 .*ends within this value"):
        list(read(path))


def test_a_folder_as_in_the_bucket(tmp_path):
    for number, name in enumerate(("Li-O", "Li-S")):
        folder = tmp_path / "temperature=1000K" / f"chemical_system={name}"
        folder.mkdir(parents=True)
        path = folder / "dt=2025-01-10.jsonl.gz"
        path.write_bytes(gzip.compress(line(trajectory(), number=number).encode()))
    assert format_of(tmp_path) == "amorphous"
    assert len(list(read(tmp_path))) == 16


WHOLE = (line(trajectory()) + line(trajectory("stress"), number=1)).encode()
ENTRIES = json.dumps([contribution(n, frame) for n, frame in enumerate(FRAMES)]).encode()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_is_named_or_harmless(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([WHOLE, ENTRIES])))
    place = data.draw(st.integers(3000, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place : place + 1] = data.draw(st.sampled_from([b"{", b"]", b'"', b"x", b"", b","]))
    path = tmp_path_factory.mktemp("damage") / "a.jsonl"
    path.write_bytes(content)
    found = outcome(path)
    assert found in (8, 16) or "a.jsonl" in str(found)


def outcome(path):
    try:
        return len(list(read(path)))
    except ValueError as error:
        return str(error)
