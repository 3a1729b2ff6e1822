"""Trees of calculations, charges beside them, and what doctor and select make of their marks."""

import gzip
import json
import shutil
from pathlib import Path

import ase.io
import ase.test
import numpy as np
import pytest
from ase.test.fio.test_espresso import pw_output_text
from ase.units import Bohr

from mlip.cli import main
from mlip.data.doctor import doctor
from mlip.data.readers import read
from mlip.data.readers.charge_files import BADER, DDEC6
from mlip.data.readers.recognize import format_of
from mlip.data.store.reader import Store

REAL = Path(ase.test.__file__).parent / "testdata" / "vasp"
CP2K = Path(__file__).parent / "files" / "BANDS_output_v8.1.out.gz"


def vasprun(folder, real="vasprun_dfpt.xml", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    text = (REAL / real).read_text(encoding="latin-1")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "vasprun.xml").write_text(text, encoding="latin-1")
    return folder / "vasprun.xml"


def unconverged(folder):
    """A real run of nine electronic steps, told that nine were all it might make."""
    path = vasprun(folder, "vasprun_pstress.xml")
    text = path.read_text(encoding="latin-1").replace('"NELM">    60', '"NELM">     9')
    path.write_text(text, encoding="latin-1")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "interface"
    vasprun(root / "slab" / "1")
    shutil.copy(REAL / "OUTCAR_example_1", root / "slab" / "1" / "OUTCAR")
    (root / "slab" / "2").mkdir()
    shutil.copy(REAL / "OUTCAR_example_1", root / "slab" / "2" / "OUTCAR")
    packed = root / "bulk" / "vasprun.xml.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress((REAL / "vasprun_pstress.xml").read_bytes()))
    (root / "cp2k").mkdir()
    shutil.copy(CP2K, root / "cp2k" / "run.out.gz")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "OUTCAR").write_text("not to be read")
    (root / "slab" / "slurm-1.out").write_text("job started")
    return root


def test_a_tree_is_found_by_itself_and_each_calculation_is_used_once(tree):
    assert format_of(tree) == "calculations"
    frames = list(read(tree))
    found = {frame.info["source_id"]: frame.source.removeprefix(f"{tree}/") for frame in frames}
    assert found == {
        "bulk": "bulk/vasprun.xml.gz#0",
        "cp2k": "cp2k/run.out.gz#0",
        "slab/1": "slab/1/vasprun.xml#0",
        "slab/2": "slab/2/OUTCAR#0",
    }
    for frame in frames:
        assert frame.info["trajectory_id"] == frame.info["source_id"]
        assert frame.info["frame_id"] == 0
        assert frame.info["functional"] in ("PBE", "LDA")
        assert frame.info["encut"] > 0
        assert frame.info["converged"] is True


def test_a_broken_calculation_is_an_error_that_says_how_to_leave_it_out(tree):
    path = tree / "slab" / "2" / "OUTCAR"
    path.write_text(path.read_text()[:50_000])
    told = r"(?s)1 of its calculations.*slab/2/OUTCAR .*options='{skip: \[slab/2\]}'"
    with pytest.raises(ValueError, match=told):
        list(read(tree))
    assert len(list(read(tree, skip=["slab/2"]))) == 3
    out = str(tree.parent / "out.extxyz")
    main(["data", "select", str(tree), out, "options={skip: [slab/2], energy: free}"])
    assert {frame.info["energy_kind"] for frame in read(out, "ase")} == {"free"}
    path.parent.rename(path.parent.with_name(".2"))
    assert len(list(read(tree))) == 3
    path.parent.with_name(".2").rename(path.parent)
    assert len(list(read(tree, skip="slab"))) == 2
    with pytest.raises(ValueError, match=r"skip names 'slap/2'.*did you mean 'slab/2'"):
        list(read(tree, skip=["slab/2", "slap/2"]))
    with pytest.raises(ValueError, match=r"has no option 'skipp'; did you mean 'skip'"):
        read(tree, skipp=["slab/2"])
    shutil.copy(CP2K, tree / "cp2k" / "again.out.gz")
    with pytest.raises(ValueError, match=r"cp2k holds 2 outputs \(again.out.gz, run.out.gz\)"):
        list(read(tree, skip=["slab"]))
    assert len(list(read(tree, skip=["slab", "cp2k"]))) == 1
    shutil.move(tree / "bulk" / "vasprun.xml.gz", tree / "bulk" / "vasprun.xml.relax1.gz")
    assert len(list(read(tree, skip=["slab", "cp2k"]))) == 1
    shutil.copy(tree / "bulk" / "vasprun.xml.relax1.gz", tree / "bulk" / "vasprun.xml.relax2.gz")
    with pytest.raises(ValueError, match=r"bulk holds 2 outputs \(vasprun.xml.relax1.gz, vasprun"):
        list(read(tree, skip=["slab", "cp2k"]))


def test_links_are_followed_and_nothing_is_read_twice(tree, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tree / "bulk").rename(elsewhere)
    (tree / "bulk").symlink_to(elsewhere)
    (tree / "slab" / "again").symlink_to(tree)
    found = [frame.info["source_id"] for frame in read(tree)]
    assert found == ["bulk", "cp2k", "slab/1", "slab/2"]


def test_a_run_for_bands_beside_its_first_run_is_no_second_calculation(tmp_path):
    (tmp_path / "scf.out").write_text(pw_output_text + "\nJOB DONE.\n")
    bands = [line for line in pw_output_text.split("\n") if "total energy" not in line]
    (tmp_path / "nscf.out").write_text("\n".join(bands) + "\nJOB DONE.\n")
    assert {Path(frame.source.split("#")[0]).name for frame in read(tmp_path)} == {"scf.out"}


def test_an_empty_folder_is_no_tree(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no data is recognised \(it holds empty\)"):
        read(tmp_path)


def test_magnetic_moments_come_from_the_outcar_beside(tmp_path):
    """VASP prints them to OUTCAR only; the layout is that of ASE's own test of its parser."""
    path = vasprun(tmp_path / "a", **{'"ISPIN">     1': '"ISPIN">     2'})
    text = (REAL / "OUTCAR_example_1").read_text()
    head, _, tail = text.partition("ions per type =              18")
    rows = "\n".join([" " + "-" * 80, " 0.0 0.0 0.1 0.0 0.0 0.2", " 0.0 0.0 0.5 0.0 0.0 -0.2"])
    before, mark, after = tail.partition(" POSITION                                       TOTAL-F")
    lines = after.split("\n")
    printed = (
        "\n magnetization (x)\n\n# of ion       s       p       d       tot\n" + "-" * 42 + "\n"
        "    1        0.01   0.02   1.00   1.03\n    2        0.01   0.02  -1.00  -0.97\n"
        + "-" * 42 + "\ntot          0.02   0.04   0.0   0.06\n\n"
    )  # fmt: skip
    tail = before + printed + mark + "\n".join([lines[0], *rows.split("\n"), *lines[20:]])
    whole = head + "ions per type = 1 1" + tail
    whole = whole.replace("-68.22868532", "-6.74587304").replace("-68.23102426", "-6.74587304")
    whole = species(whole)
    (tmp_path / "a" / "OUTCAR").write_text(whole)
    (frame,) = read(tmp_path)
    np.testing.assert_array_equal(frame.labels["magmoms"], [1.03, -0.97])
    assert "magmoms" not in next(read(path)).labels  # only a tree looks for it
    (tmp_path / "a" / "OUTCAR").write_text(whole.replace("-6.74587304", "-9.74587304"))
    with pytest.raises(ValueError, match=r"OUTCAR beside it does not tell the same step"):
        list(read(tmp_path))


def species(text):
    """Name two elements where the real file names one."""
    line = next(x for x in text.split("\n") if "POTCAR:" in x)
    kept = [x for x in text.split("\n") if "POTCAR:" not in x]
    place = text.split("\n").index(line)
    two = [" POTCAR:    PAW_PBE Na 08Apr2002 ", " POTCAR:    PAW_PBE Cl 06Sep2000 "]
    return "\n".join([*kept[:place], *two, *two, *kept[place:]])


def acf(path, atoms, electrons, unit=Bohr, decimals=6):
    rows = "".join(
        f"{k + 1:5}" + "".join(f"{x / unit:13.{decimals}f}" for x in position)
        + f"{charge:12.6f}      1.1      60.0\n"
        for k, (position, charge) in enumerate(zip(atoms.positions, electrons, strict=True))
    )  # fmt: skip
    line = " " + "-" * 80 + "\n"
    head = "    #         X           Y           Z       CHARGE      MIN DIST   ATOMIC VOL\n"
    (path / BADER).write_text(head + line + rows + line + "    NUMBER OF ELECTRONS:   8.0000\n")


def ddec6(path, atoms, charges):
    rows = "".join(
        f"{s}  {x:.6f}  {y:.6f}  {z:.6f}  {q:.6f}\n"
        for s, (x, y, z), q in zip(atoms.symbols, atoms.positions, charges, strict=True)
    )
    (path / DDEC6).write_text(f'{len(atoms)}\njmolscript: load ""\n{rows}\n2026\nfooter 1 2 3\n')


@pytest.mark.parametrize("unit", [1.0, Bohr])
def test_bader_charges_are_valence_minus_electrons(tmp_path, unit):
    path = vasprun(tmp_path)
    atoms = ase.io.read(path)
    acf(tmp_path, atoms, [0.125, 7.875], unit)
    (frame,) = read(path)
    np.testing.assert_allclose(frame.labels["charges"], [0.875, -0.875])  # ZVAL 1 and 7
    assert frame.info["charge_partition"] == "bader"
    atoms.positions += 0.01
    acf(tmp_path, atoms, [0.125, 7.875], unit)
    with pytest.raises(ValueError, match=r"ACF.dat: its atoms lie where those of no ionic step"):
        list(read(path))
    assert "charges" not in next(read(path, charges="none")).labels


def test_charges_go_to_the_step_that_they_belong_to(tmp_path):
    path = vasprun(tmp_path)
    text = path.read_text(encoding="latin-1")
    start, end = text.index("<calculation>"), text.index("</calculation>") + 14
    step = text[start:end]
    old = "       0.50000000       0.50000000       0.50000000 "
    moved = step.replace(old, "       0.51000000       0.50000000       0.50000000 ")
    assert moved != step
    path.write_text(text[:start] + step + "\n" + moved + text[end:], encoding="latin-1")
    last = ase.io.read(path)
    ddec6(tmp_path, last, [0.8, -0.8])
    first, second = read(path)
    assert "charges" not in first.labels
    np.testing.assert_array_equal(second.labels["charges"], [0.8, -0.8])
    assert second.info["charge_partition"] == "ddec6"
    last.wrap()
    acf(tmp_path, last, [0.125, 7.875])
    with pytest.raises(ValueError, match=r"holds ACF.dat and DDEC6.*say which"):
        list(read(path))
    assert list(read(path, charges="bader"))[1].labels["charges"][0] == 0.875


def test_damaged_charge_files_are_errors(tmp_path):
    path = vasprun(tmp_path)
    acf(tmp_path, ase.io.read(path), [0.125, 7.875])
    whole = (tmp_path / BADER).read_text()
    for text, message in (
        (whole.replace("7.875000", "*.******"), r"ACF.dat holds what is no number"),
        (whole[: whole.index("7.875000")], r"ACF.dat"),
        ("", r"ACF.dat"),
    ):
        (tmp_path / BADER).write_text(text)
        with pytest.raises(ValueError, match=message):
            list(read(path))
    (tmp_path / BADER).unlink()
    with pytest.raises(ValueError, match=r"ACF.dat does not exist, but charges is 'bader'"):
        list(read(path, charges="bader"))
    ddec6(tmp_path, ase.io.read(path)[::-1], [0.8, -0.8])
    with pytest.raises(ValueError, match=r"DDEC6.*its atoms lie where those of no ionic step"):
        list(read(path))


def test_doctor_refuses_what_did_not_converge_and_select_leaves_it_out(tmp_path, capsys):
    root = tmp_path / "tree"
    unconverged(root / "bad")
    vasprun(root / "good", "vasprun_pstress.xml")
    errors = [f.message for f in doctor(root).findings if f.severity == "error"]
    assert any(
        "the electronic steps of 1 frames did not converge" in message
        and f"{root}/bad/vasprun.xml#0" in message
        for message in errors
    )
    with pytest.raises(ValueError, match=r"bad/vasprun.xml#0: the electronic steps did not"):
        list(read(root, unconverged="refuse"))
    kept = tmp_path / "kept.extxyz"
    main(["data", "select", str(root), str(kept), "where=converged"])
    assert "1 frame" in capsys.readouterr().out
    (frame,) = read(kept, "ase")
    assert frame.info["source_id"] == "good"
    assert not any("converge" in f.message for f in doctor(kept, "ase").findings)


def test_calculations_that_do_not_agree_are_found(tmp_path):
    vasprun(tmp_path / "a")
    vasprun(tmp_path / "b", **{"PAW_PBE Na 08Apr2002   ": "PAW_PBE Na_pv 19Sep2006"})
    path = vasprun(tmp_path / "c", **{'"ENCUT">    400': '"ENCUT">    520'})
    acf(tmp_path / "c", ase.io.read(path), [0.125, 7.875])
    ddec6(tmp_path / "b", ase.io.read(path), [0.8, -0.8])
    found = {f.message: f.severity for f in doctor(tmp_path).findings}
    (message,) = (text for text in found if "pseudopotential of Na" in text)
    assert found[message] == "error"
    assert "Na_pv" in message
    assert not any("pseudopotential of Cl" in text for text in found)
    (message,) = (text for text in found if "plane-wave cutoff" in text)
    assert found[message] == "warning"
    assert "400.0" in message
    assert "520.0" in message
    (message,) = (text for text in found if "charge_partition" in text)
    assert found[message] == "error"
    shutil.copy(CP2K, tmp_path / "run.out.gz")
    found = {f.message: f.severity for f in doctor(tmp_path).findings}
    (message,) = (text for text in found if "energy_kind" in text)
    assert found[message] == "warning"


def test_a_tree_becomes_a_store(tree, tmp_path, capsys):
    main(["data", "convert", str(tree), str(tmp_path / "store")])
    store = Store(tmp_path / "store")
    assert len(store) == 4
    assert {store[k].info["source_id"] for k in range(4)} == {"bulk", "cp2k", "slab/1", "slab/2"}
    assert json.loads(json.dumps(store.manifest.told))["converged"] == {"True": 4}


def test_every_broken_calculation_is_told_at_once(tree, caplog):
    for name in ("slab/2", "cp2k"):
        path = next(
            file for file in (tree / name).iterdir() if file.name in ("OUTCAR", "run.out.gz")
        )
        path.write_bytes(path.read_bytes()[:4_000])
    with pytest.raises(ValueError, match=r"2 of its calculations cannot be read") as told:
        list(read(tree))
    assert "options='{skip: [cp2k, slab/2]}'" in str(told.value)
    with pytest.raises(ValueError, match="2 of its calculations"):
        list(read(tree, unfinished="keep"))
    kept = list(read(tree, broken="skip"))
    assert {frame.info["source_id"] for frame in kept} == {"bulk", "slab/1"}
    assert all(text in caplog.text for text in ("left out of", "slab/2", "cp2k"))
    with pytest.raises(ValueError, match="broken is 'kip'; known: refuse, skip"):
        list(read(tree, broken="kip"))
