"""Real VASP outputs: values against the text and other parsers, convergence, damaged files."""

import gzip
import re
import shutil
import warnings
from pathlib import Path

import ase.io
import ase.test
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixScaled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip.data.readers import read
from mlip.data.readers.recognize import format_of

REAL = Path(ase.test.__file__).parent / "testdata" / "vasp"
DFPT, PSTRESS, OUTCAR = (
    REAL / name for name in ("vasprun_dfpt.xml", "vasprun_pstress.xml", "OUTCAR_example_1")
)
CALCULATION = re.compile(r" <calculation>.*?</calculation>\n", re.DOTALL)


def several(folder, steps=3, name="vasprun.xml"):
    """Write a run of several ionic steps: the step of a real one, repeated."""
    text = PSTRESS.read_text(encoding="latin-1")
    step = CALCULATION.search(text)[0]
    path = folder / name
    path.write_text(text.replace(step, step * steps), encoding="latin-1")
    return path


def test_vasprun_equals_its_text():
    (frame,) = read(DFPT)
    assert frame.labels["energy"] == pytest.approx(-6.74587304, abs=1e-12)
    born = frame.labels["born_effective_charges"]
    np.testing.assert_array_equal(born, np.eye(3) * np.array([1, -1])[:, None, None] * 1.14672091)
    assert frame.labels["total_charge"] == 0.0
    assert frame.info["functional"] == "PBE"
    assert frame.info["encut"] == 400.0
    assert frame.info["pseudopotentials"].startswith("Cl: PAW_PBE Cl 06Sep2000; Na: PAW_PBE Na 08")
    assert frame.info["converged"] is True
    assert "constrained" not in frame.info


@pytest.mark.parametrize("path", [DFPT, PSTRESS])
def test_vasprun_equals_what_pymatgen_reads(path):
    outputs = pytest.importorskip("pymatgen.io.vasp.outputs")
    other = outputs.Vasprun(path, parse_potcar_file=False, parse_dos=False, parse_eigen=False)
    frames = list(read(path))
    assert len(frames) == len(other.ionic_steps)
    for frame, step, structure in zip(frames, other.ionic_steps, other.structures, strict=True):
        np.testing.assert_allclose(frame.atoms.positions, structure.cart_coords, atol=1e-10)
        np.testing.assert_array_equal(frame.labels["forces"], step["forces"])
        stress = -np.array(step["stress"]) / 1602.1766208
        np.testing.assert_allclose(frame.labels["stress"], stress, rtol=1e-6, atol=1e-12)
        assert frame.info["converged"] == other.converged_electronic
        electronic = step["electronic_steps"][-1]
        difference = frame.labels["energy"] - frame.info["free_energy"]
        assert difference == pytest.approx(electronic["e_0_energy"] - electronic["e_fr_energy"])


def test_the_energy_is_one_or_the_other_and_the_choice_is_recorded(tmp_path):
    for path in (PSTRESS, OUTCAR):
        (zero,), (free,) = read(path), read(path, energy="free")
        assert free.labels["energy"] == free.info["free_energy"] == zero.info["free_energy"]
        assert zero.labels["energy"] != free.labels["energy"]
        assert (zero.info["energy_kind"], free.info["energy_kind"]) == ("sigma0", "free")
    with pytest.raises(ValueError, match=r"energy is 'fre'.*did you mean 'free'"):
        list(read(OUTCAR, energy="fre"))


def test_outcar_equals_its_text():
    (frame,) = read(OUTCAR)
    assert frame.labels["energy"] == -68.23102426
    assert frame.info["free_energy"] == -68.22868532
    np.testing.assert_array_equal(frame.labels["forces"][2], [-2.152142, -0.601239, -0.175921])
    np.testing.assert_array_equal(frame.atoms.positions[1], [16.82152, 15.71963, 17.66895])
    assert frame.info["functional"] == "PBE"  # LEXCH = 8
    assert frame.labels["total_charge"] == 0.0  # 18 atoms of ZVAL 10, NELECT 180
    assert frame.info["converged"] is True


def test_born_charges_of_outcar(tmp_path):
    """Rows are directions of the polarisation; the last of two tables includes local fields."""
    values = np.random.default_rng(0).normal(size=(18, 3, 3)).round(5)
    table = (
        "\n BORN EFFECTIVE CHARGES (including local field effects) (in |e|, cummulative output)\n"
    )
    table += " " + "-" * 80 + "\n"
    for number, ion in enumerate(values, 1):
        table += f" ion {number:4}\n"
        table += "".join(
            f"    {row}" + "".join(f"{value:12.5f}" for value in line) + "\n"
            for row, line in enumerate(ion, 1)
        )
    head, end, tail = OUTCAR.read_text().partition(" General timing and accounting")
    excluding = table.replace("including", "excluding").replace(".", "9.", 3)
    path = tmp_path / "OUTCAR"
    path.write_text(head + excluding + table + "\n" + end + tail)
    (frame,) = read(path)
    np.testing.assert_array_equal(frame.labels["born_effective_charges"], values)
    path.write_text(head + table[:-300] + end + tail)
    with pytest.raises(ValueError, match=r"OUTCAR: the Born effective charges are not three rows"):
        list(read(path))


def test_total_charge_is_valence_minus_electrons(tmp_path):
    path = tmp_path / "vasprun.xml"
    text = DFPT.read_text(encoding="latin-1")
    path.write_text(text.replace('"NELECT">      8.0', '"NELECT">      7.0'), encoding="latin-1")
    assert next(read(path)).labels["total_charge"] == 1.0
    path = tmp_path / "OUTCAR"
    text = OUTCAR.read_text()
    path.write_text(text.replace("NELECT =     180.0000", "NELECT =     181.0000"))
    assert next(read(path)).labels["total_charge"] == -1.0


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ('<i type="string" name="METAGGA">R2SCAN</i>', "r2SCAN"),
        ('<i type="string" name="METAGGA">R2SCA</i><i name="IVDW">12</i>', "r2SCAN-D3(BJ)"),
        ('<i type="logical" name="LDAU"> T  </i>', "PBE+U"),
        ('<i type="string" name="GGA">PS</i>', "PBEsol"),
        ('<i name="LHFCALC">T</i><i name="HFSCREEN">0.2</i><i name="AEXX">0.25</i>', "HSE06"),
    ],
)
def test_functionals(tmp_path, tags, name):
    path = tmp_path / "vasprun.xml"
    text = DFPT.read_text(encoding="latin-1").replace('<i type="string" name="GGA">PE</i>\n', "", 1)
    path.write_text(text.replace("<incar>", f"<incar>{tags}", 1), encoding="latin-1")
    assert next(read(path)).info["functional"] == name


@pytest.mark.parametrize(("most", "converged"), [(9, False), (10, True)])
def test_electronic_steps_that_reached_nelm(tmp_path, most, converged):
    """The real run made nine electronic steps."""
    path = tmp_path / "vasprun.xml"
    text = PSTRESS.read_text(encoding="latin-1").replace('"NELM">    60', f'"NELM">    {most}')
    path.write_text(text, encoding="latin-1")
    assert next(read(path)).info["converged"] is converged
    outputs = pytest.importorskip("pymatgen.io.vasp.outputs")
    with warnings.catch_warnings(action="ignore"):
        other = outputs.Vasprun(path, parse_potcar_file=False, parse_dos=False, parse_eigen=False)
    assert other.converged_electronic is converged
    if not converged:
        with pytest.raises(ValueError, match=r"vasprun.xml#0: the electronic steps did not conv"):
            list(read(path, unconverged="refuse"))


@pytest.mark.parametrize("said", ["aborting loop EDIFF was not reached (unconverged)", ""])
def test_outcar_that_did_not_reach_ediff(tmp_path, said):
    path = tmp_path / "OUTCAR"
    path.write_text(OUTCAR.read_text().replace("aborting loop because EDIFF is reached", said))
    assert next(read(path)).info["converged"] is False
    with pytest.raises(ValueError, match=r"OUTCAR#0: the electronic steps did not converge"):
        list(read(path, unconverged="refuse"))


def test_selective_dynamics_of_vasprun_are_masked(tmp_path):
    text = PSTRESS.read_text(encoding="latin-1")
    start = text.index('<structure name="initialpos"')
    end = text.index("</structure>", start)
    flags = (
        '<varray name="selective"><v type="logical">F F F</v><v type="logical">T T T</v></varray>'
    )
    path = tmp_path / "vasprun.xml"
    path.write_text(text[:end] + flags + text[end:], encoding="latin-1")
    (frame,) = read(path)
    np.testing.assert_array_equal(np.isnan(frame.labels["forces"]), [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(frame.info["constrained"], [[1, 1, 1], [0, 0, 0]])
    assert not ase.io.read(path).get_forces(apply_constraint=True)[0].any()


@pytest.mark.parametrize("name", ["POSCAR", "CONTCAR"])
def test_fixed_atoms_of_outcar_stand_in_the_poscar_beside_it(tmp_path, name):
    shutil.copy(OUTCAR, tmp_path / "OUTCAR")
    atoms = ase.io.read(OUTCAR)
    mask = [True, False, False]
    atoms.set_constraint([FixAtoms([0, 3]), FixScaled(5, mask)])
    ase.io.write(tmp_path / name, atoms, format="vasp")
    (frame,) = read(tmp_path / "OUTCAR")
    expected = np.zeros((18, 3), bool)
    expected[[0, 3]] = True
    expected[5, 0] = True  # the cell is orthogonal: one component only
    np.testing.assert_array_equal(np.isnan(frame.labels["forces"]), expected)
    ase.io.write(tmp_path / name, atoms[:10], format="vasp")
    with pytest.raises(ValueError, match=r"has 18 atoms, but the CONTCAR or POSCAR"):
        list(read(tmp_path / "OUTCAR"))


def test_compressed_files_and_several_steps(tmp_path):
    path = several(tmp_path)
    frames = list(read(path))
    assert [frame.info["frame_id"] for frame in frames] == [0, 1, 2]
    assert frames[2].source == f"{path}#2"
    packed = tmp_path / "vasprun.xml.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert format_of(packed) == "vasp-xml"
    for one, other in zip(frames, read(packed), strict=True):
        assert one.labels["energy"] == other.labels["energy"]
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"vasprun.xml.gz#\d cannot be decompressed"):
        list(read(packed))


def test_an_unfinished_run_tells_its_complete_steps_and_gives_them_if_asked(tmp_path):
    path = several(tmp_path)
    whole = path.read_text(encoding="latin-1")
    third = list(re.finditer("<calculation>", whole))[2].end() + 2000
    path.write_text(whole[:third], encoding="latin-1")
    with pytest.raises(ValueError, match=r"last complete ionic step is #1.*unfinished: keep"):
        list(read(path))
    assert len(list(read(path, unfinished="keep"))) == 2
    path = tmp_path / "OUTCAR"
    path.write_text(OUTCAR.read_text().partition("General timing")[0])
    with pytest.raises(ValueError, match=r"OUTCAR does not end with 'General timing.* step is #0"):
        list(read(path))
    assert len(list(read(path, unfinished="keep"))) == 1


def test_no_entity_is_ever_expanded(tmp_path):
    text = PSTRESS.read_text(encoding="latin-1")
    secret = tmp_path / "secret"
    secret.write_text("-1.0")
    for declared in (
        f'<!DOCTYPE modeling [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
        '<!DOCTYPE modeling [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    ):
        path = tmp_path / "vasprun.xml"
        path.write_text(text.replace("<modeling>", f"{declared}<modeling>", 1), encoding="latin-1")
        with pytest.raises(ValueError, match=r"declares a document type"):
            list(read(path))
        body = text[text.index("<modeling>") :]
        wide = f'<?xml version="1.0" encoding="UTF-16"?>{declared}{body}'
        path.write_text(wide, encoding="utf-16")
        with pytest.raises(ValueError, match=str(path)):
            list(read(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<v>       0.00000000       0.00000000      -0.00000000 </v>", "", r"forces.*has 1 rows"),
        ('name="e_fr_energy">    -20.2', 'name="e_fr_energy">********', r"#0: the step cannot be"),
        ('name="e_fr_energy">    -20.2', 'name="e_fr_energy">nan</i><i>', r"energy is not finite"),
        ("<scstep>", "<other>", r"vasprun.xml#0 is not XML"),
    ],
)
def test_broken_steps_are_errors(tmp_path, old, new, message):
    text = PSTRESS.read_text(encoding="latin-1")
    head, tail = text[: text.index("<calculation>")], text[text.index("<calculation>") :]
    place = tail.rindex(old) if "scstep" not in old else tail.index(old)
    if "<v>" in old:
        place = tail.index(old, tail.index('name="forces"'))
    path = tmp_path / "vasprun.xml"
    path.write_text(head + tail[:place] + new + tail[place + len(old) :], encoding="latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        list(read(path))
    assert str(path) in str(caught.value)


def test_steps_of_a_machine_learned_force_field_are_no_dft(tmp_path):
    path = several(tmp_path, 2)
    text = path.read_text(encoding="latin-1")
    second = text.rindex("<calculation>")
    bare = re.sub(r"<scstep>.*?</scstep>", "", text[second:], flags=re.DOTALL)
    path.write_text(text[:second] + bare, encoding="latin-1")
    with pytest.raises(ValueError, match=r"vasprun.xml#1 has no electronic steps: it comes from a"):
        list(read(path))


def energies(path, **options):
    return [float(frame.labels["energy"]) for frame in read(path, **options)]


REUSED = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@REUSED
@given(share=st.floats(0.0, 1.0))
@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_no_truncated_file_is_read_in_silence(tmp_path, name, share):
    path = tmp_path / name
    if name == "OUTCAR":
        whole = OUTCAR.read_bytes()
        end = whole.index(b"General timing and accounting")
    else:
        whole = several(tmp_path, 2).read_bytes()
        end = len(whole.rstrip())
    cut = max(1, int(share * (end - 1)))
    path.write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        energies(path)


@REUSED
@given(data=st.data())
@pytest.mark.parametrize("real", [PSTRESS, OUTCAR])
def test_a_corrupted_file_is_an_error_that_names_it_or_reads_as_numbers(tmp_path, real, data):
    content = bytearray(real.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / ("OUTCAR" if real is OUTCAR else "vasprun.xml")
    path.write_bytes(bytes(content))
    try:
        found = energies(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert len(found) == 1
        assert np.isfinite(found).all()
