"""The extended XYZ reader: exact values, and a clear error for every damage."""

import gzip

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlip.data.readers import read, read_structures

FRAME = """2
Lattice="4.0 0.0 0.0 1.0 5.0 0.0 0.5 0.25 6.0" Properties=species:S:1:pos:R:3:forces:R:3 \
energy=-7.25 stress="1 4 5 4 2 6 5 6 3" group="AIMD run" label=100_0.12 pbc="T F T"
Li 0.1 0.2 0.3 1.5 -2.5 3.5
o  1.0 2.0 3.0 -1.5 2.5 -3.5
"""
SIMPLE = """1
Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5
Li 0 0 0 0 0 0
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def frames_of(path, units="ase"):
    return list(read(path, units))


def test_every_value_is_the_one_in_the_text(tmp_path):
    (frame,) = frames_of(write(tmp_path / "a.xyz", FRAME))
    assert frame.atoms.get_chemical_symbols() == ["Li", "O"]
    np.testing.assert_array_equal(frame.atoms.positions, [[0.1, 0.2, 0.3], [1, 2, 3]])
    np.testing.assert_array_equal(frame.atoms.cell.array, [[4, 0, 0], [1, 5, 0], [0.5, 0.25, 6]])
    assert frame.atoms.pbc.tolist() == [True, False, True]
    assert frame.labels["energy"] == -7.25
    np.testing.assert_array_equal(frame.labels["forces"], [[1.5, -2.5, 3.5], [-1.5, 2.5, -3.5]])
    np.testing.assert_array_equal(frame.labels["stress"], [[1, 4, 5], [4, 2, 6], [5, 6, 3]])
    assert frame.info == {"group": "AIMD run", "label": "100_0.12"}
    assert frame.source == f"{tmp_path}/a.xyz#0"
    assert frame.atoms.calc is None
    assert set(frame.atoms.arrays) == {"numbers", "positions"}


@pytest.mark.parametrize("pbc", [True, False, (True, True, False)])
def test_agrees_with_the_reader_of_ase_on_a_file_written_by_ase(tmp_path, pbc):
    generator = np.random.default_rng(1)
    images = []
    for size in (1, 3, 5):
        atoms = Atoms(
            generator.choice(["Li", "O", "P"], size), generator.normal(size=(size, 3)),
            cell=generator.normal(size=(3, 3)) + 5 * np.eye(3), pbc=pbc,
        )  # fmt: skip
        symmetric = generator.normal(size=6)
        atoms.calc = SinglePointCalculator(
            atoms, energy=generator.normal(), forces=generator.normal(size=(size, 3)),
            stress=symmetric, charges=generator.normal(size=size),
        )  # fmt: skip
        images.append(atoms)
    ase.io.write(tmp_path / "a.extxyz", images)
    ours, theirs = frames_of(tmp_path / "a.extxyz"), ase.io.read(tmp_path / "a.extxyz", ":")
    assert len(ours) == 3
    for frame, atoms in zip(ours, theirs, strict=True):
        assert frame.atoms == Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for key in ("energy", "forces", "charges"):
            np.testing.assert_array_equal(frame.labels[key], atoms.calc.results[key])
        np.testing.assert_array_equal(frame.labels["stress"], atoms.get_stress(voigt=False))


def test_six_stress_components_of_ase_are_in_voigt_order(tmp_path):
    text = SIMPLE.replace("energy=-1.5", 'energy=-1.5 stress="1 2 3 4 5 6"')
    (frame,) = frames_of(write(tmp_path / "a.xyz", text))
    np.testing.assert_array_equal(frame.labels["stress"], [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


@pytest.mark.parametrize("suffix", [".xyz", ".extxyz", ".xyz.gz", ".extxyz.bz2", ".extxyz.xz"])
def test_compression_is_read(tmp_path, suffix):
    import bz2
    import lzma

    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pack.get(path.suffix, bytes)(SIMPLE.encode() * 3))
    assert [frame.source for frame in frames_of(path)] == [f"{path}#{i}" for i in range(3)]


def test_plain_xyz_and_blank_lines_are_read(tmp_path):
    text = "1\nsome water from a book\nO 0 0 0\n\n1\n\nO 0 0 1\n\n\n"
    frames = list(read_structures(write(tmp_path / "a.xyz", text)))
    assert len(frames) == 2
    assert frames[0].info == {"comment": "some water from a book"}
    assert not frames[0].atoms.pbc.any()


def test_move_mask_masks_the_forces_of_fixed_atoms(tmp_path):
    text = (
        '2\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:move_mask:L:1:forces:R:3 '
        "energy=1\nLi 0 0 0 T 1 2 3\nLi 0 0 2 F -1 -2 -3\n"
    )
    (frame,) = frames_of(write(tmp_path / "a.extxyz", text))
    np.testing.assert_array_equal(frame.labels["forces"], [[1, 2, 3], [np.nan] * 3])
    assert frame.info["constrained"].tolist() == [[False] * 3, [True] * 3]


def test_components_of_a_move_mask_are_kept_apart(tmp_path):
    text = (
        '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3:move_mask:L:3 '
        "energy=1\nLi 0 0 0 1 2 3 T F T\n"
    )
    (frame,) = frames_of(write(tmp_path / "a.xyz", text))
    np.testing.assert_array_equal(frame.labels["forces"], [[1, np.nan, 3]])


BROKEN = {
    "header": (SIMPLE.replace("1\n", "one\n", 1), "number of atoms is expected.*'one'"),
    "zero atoms": ("0\n\n", "whole number of at least 1"),
    "no comment": ("3\n", "comment line of a frame of 3 atoms is missing"),
    "too few atoms": (SIMPLE.replace("1\n", "2\n", 1), "has 1 of its 2 atoms"),
    "too many atoms": (SIMPLE + "Li 0 0 1 0 0 0\n", "number of atoms is expected"),
    "short row": (SIMPLE.replace("Li 0 0 0 0 0 0", "Li 0 0 0 0 0"), "atom 0 has 6 columns.*7"),
    "long row": (SIMPLE.replace("Li 0 0 0 0 0 0", "Li 0 0 0 0 0 0 0"), "atom 0 has 8 columns.*7"),
    "word in numbers": (SIMPLE.replace("Li 0 0 0 0", "Li 0 0 0 x"), "'forces'.*not numeric.*'x'"),
    "element": (SIMPLE.replace("Li 0", "Lj 0"), "'Lj' is not an element"),
    "dummy element": (SIMPLE.replace("Li 0", "X 0"), "atomic number 0 is not that of an element"),
    "open quote": (SIMPLE.replace('0 3"', "0 3"), "unclosed quote or bracket"),
    "short lattice": (SIMPLE.replace("0 0 3 0 0 0 3", "3"), "Lattice cannot be read"),
    "twice": (SIMPLE.replace("energy=-1.5", "energy=-1.5 energy=-2"), "gives 'energy' twice"),
    "properties": (SIMPLE.replace("forces:R:3", "forces:R"), "Properties=.*cannot be read"),
    "property type": (SIMPLE.replace("forces:R:3", "forces:Q:3"), "Properties=.*cannot be read"),
    "pbc": (SIMPLE.replace("energy", 'pbc="T T" energy'), "pbc is .*; write it as"),
    "no positions": (SIMPLE.replace("pos:R:3", "where:R:3"), "no pos:R:3"),
    "no species": (SIMPLE.replace("species:S", "name:S"), "neither a species nor a Z column"),
    "text energy": (SIMPLE.replace("-1.5", "-1.5eV"), "energy .*'-1.5eV', not a number"),
    "bare energy": (SIMPLE.replace("energy=-1.5", "energy"), "energy .*True, not a number"),
    "stress of five": (SIMPLE.replace("-1.5", '-1.5 stress="1 2 3 4 5"'), "5 components"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damage_is_named_with_file_frame_and_line(tmp_path, case):
    text, message = BROKEN[case]
    path = write(tmp_path / "a.xyz", SIMPLE + text)
    with pytest.raises(ValueError, match=message) as error:
        frames_of(path)
    index = 2 if case == "too many atoms" else 1
    assert f"{path}#{index}" in str(error.value)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.extxyz.gz"
    path.write_bytes(gzip.compress(SIMPLE.encode() * 200)[:-20])
    with pytest.raises(ValueError, match=r"a.extxyz.gz#\d+ .*truncated or damaged"):
        frames_of(path)


def test_not_gzip_at_all(tmp_path):
    path = write(tmp_path / "a.extxyz.gz", SIMPLE)
    with pytest.raises(ValueError, match=r"truncated or damaged"):
        frames_of(path)


def test_not_text(tmp_path):
    path = tmp_path / "a.extxyz"
    path.write_bytes(b"\xff\xfe\x00\x01" * 20)
    with pytest.raises(ValueError, match=r"cannot be read"):
        frames_of(path)


# ---- properties ---------------------------------------------------------------------------------

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
number = st.floats(-1e3, 1e3).map(lambda x: float(f"{x:.6f}"))


@st.composite
def files(draw):
    """A list of (text of a frame, its energy, positions, forces); widths differ between frames."""
    result = []
    for index in range(draw(st.integers(1, 4))):
        atoms = draw(st.integers(1, 4))
        rows = draw(st.lists(st.tuples(*[number] * 6), min_size=atoms, max_size=atoms))
        energy = draw(number)
        body = "".join("Li " + " ".join(f"{x:.6f}" for x in row) + "\n" for row in rows)
        head = (
            f'{atoms}\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3:forces:R:3 '
            f"energy={energy:.6f} step={index}\n"
        )
        result.append((head + body, energy, np.array(rows)))
    return result


@quick
@given(files())
def test_any_file_reads_back_exactly(tmp_path, content):
    frames = frames_of(write(tmp_path / "a.xyz", "".join(text for text, _, _ in content)))
    assert len(frames) == len(content)
    for frame, (_, energy, rows) in zip(frames, content, strict=True):
        assert frame.labels["energy"] == energy
        np.testing.assert_array_equal(frame.atoms.positions, rows[:, :3])
        np.testing.assert_array_equal(frame.labels["forces"], rows[:, 3:])


@quick
@given(files(), st.data())
def test_a_file_cut_anywhere_but_at_a_frame_is_refused(tmp_path, content, data):
    text = "".join(text for text, _, _ in content)
    cut = data.draw(st.integers(1, len(text) - 1))
    ends = np.cumsum([len(text) for text, _, _ in content])
    # A cut inside the last number of a frame leaves a well-formed file: nothing could tell.
    last_number = [len(text.rstrip("\n").rsplit(" ", 1)[1]) + 1 for text, _, _ in content]
    for end, width in zip(ends, last_number, strict=True):
        assume(not end - width < cut <= end)
    path = write(tmp_path / "a.xyz", text[:cut])
    with pytest.raises(ValueError, match=r"a.xyz#"):
        frames_of(path)


@quick
@given(files(), st.data())
def test_a_lost_or_doubled_line_is_refused(tmp_path, content, data):
    lines = "".join(text for text, _, _ in content).splitlines(keepends=True)
    where = data.draw(st.integers(0, len(lines) - 1))
    edited = (
        lines[:where] + data.draw(st.sampled_from([[], [lines[where]] * 2])) + lines[where + 1 :]
    )
    with pytest.raises(ValueError, match=r"a.xyz"):
        frames_of(write(tmp_path / "a.xyz", "".join(edited)))


@quick
@given(files(), st.data())
def test_a_swapped_line_is_refused_or_only_exchanges_atoms(tmp_path, content, data):
    lines = "".join(text for text, _, _ in content).splitlines(keepends=True)
    first = data.draw(st.integers(0, len(lines) - 1))
    second = data.draw(st.integers(0, len(lines) - 1))
    heads = [line for line in (lines[first], lines[second]) if not line.startswith("Li ")]
    assume(lines[first] != lines[second] and len(heads) == 1)
    lines[first], lines[second] = lines[second], lines[first]
    with pytest.raises(ValueError, match=r"a.xyz#"):
        frames_of(write(tmp_path / "a.xyz", "".join(lines)))


@quick
@given(st.binary(min_size=1, max_size=300))
def test_arbitrary_bytes_never_give_a_frame_or_another_error(tmp_path, content):
    path = tmp_path / "a.xyz"
    path.write_bytes(content)
    assume(content[:1] not in b"\x80123456789")
    with pytest.raises(ValueError, match=r"a.xyz"):
        list(read_structures(path))
