"""What a file holds, before units are declared, and the doctor."""

import importlib.util
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mlip.cli import main
from mlip.data.card import load_card
from mlip.data.doctor import doctor
from mlip.data.inspect import inspect
from mlip.data.readers import read
from mlip.data.write_extxyz import to_extxyz

spec = importlib.util.spec_from_file_location("real", Path(__file__).parent / "readers" / "real.py")
real = importlib.util.module_from_spec(spec)
sys.modules["real"] = real
spec.loader.exec_module(real)

DATASETS = Path(__file__).parents[2] / "datasets"
LITHIUM = DATASETS / "mlearn_li" / "train.extxyz.gz"


def test_an_undeclared_file_is_described():
    found = inspect(LITHIUM)
    assert (found.format, found.frames, found.atoms) == ("extxyz", 241, (2, 54.0, 84))
    assert found.elements == {"Li": 241}
    assert found.pbc == {"TTT": 241}
    properties = {item.key: item for item in found.properties}
    assert set(properties) == {"energy", "forces", "virial_stress_raw"}
    assert properties["forces"].level == "atom"
    assert properties["forces"].shape == (3,)
    assert properties["forces"].maximum == pytest.approx(1.47121, abs=1e-5)
    assert "eV is plausible" in properties["energy"].hint
    assert "unit to declare" in properties["virial_stress_raw"].hint
    assert "sign looks compression_positive" in properties["virial_stress_raw"].hint
    assert found.info["group"] == ["AIMD-NVT", "Elastic", "Surface", "Vacancy"]
    assert found.info["description"] == 241
    assert all(item.read_as == "" for item in found.properties)


def test_text_and_json_tell_the_same():
    found = inspect(LITHIUM, load_card("mlearn_li").fields)
    text, content = found.to_text(), json.loads(found.to_json())
    assert "241 frames (extxyz)" in text
    assert "stress [kbar]" in text
    assert content["frames"] == 241
    assert {item["key"] for item in content["properties"]} == {
        "energy", "forces", "virial_stress_raw",
    }  # fmt: skip
    assert all(item["key"] in text for item in content["properties"])


def test_a_file_without_properties(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nLi 0 0 0\n")
    text = inspect(tmp_path / "a.xyz").to_text()
    assert "no numeric property" in text
    assert "FFF (1)" in text


def test_the_next_step_is_one_that_works(tmp_path, capsys):
    import shlex

    for frame in read(LITHIUM, load_card("mlearn_li").fields):
        (tmp_path / "ours.extxyz").open("a").write(to_extxyz(frame))
    (tmp_path / "bare.xyz").write_text("1\n\nLi 0 0 0\n")
    assert inspect(tmp_path / "bare.xyz").following.startswith("mlip data label ")
    following = inspect(LITHIUM).following
    assert "virial_stress_raw, unit: eV/A^3, sign: tension_positive, order: [xx, yy" in following
    for path in (LITHIUM, tmp_path / "ours.extxyz"):
        words = shlex.split(inspect(path).following.partition("  (")[0])
        assert words[:3] == ["mlip", "data", "doctor"]
        with suppress(SystemExit):  # the raw stress is in kbar: an error of the data, told
            main(words[1:])
        assert "241 frames" in capsys.readouterr().out
    assert words[-1] == "units=ase"


def test_fixed_components_and_many_values_are_counted(tmp_path):
    lines = "".join(
        f"2\nProperties=species:S:1:pos:R:3:move_mask:L:1 name=n{n} kind={n % 3}\n"
        f"Li 0 0 {n} F\nLi 0 0 9 T\n"
        for n in range(10_100)
    )
    (tmp_path / "a.xyz").write_text(lines)
    found = inspect(tmp_path / "a.xyz")
    assert (found.frames, found.constrained, found.fixed) == (10_100, 10_100, 30_300)
    assert found.atoms == (2, 2.0, 2)
    text = found.to_text()
    assert "fixed     30300 force components in 10100 frames (masked)" in text
    assert "name  10000 or more different values" in text


def test_files_of_public_sets_are_described(tmp_path):
    frames = real.frames()[8:14]
    (tmp_path / "mptrj.json").write_text(json.dumps(real.mptrj(frames)))
    rows = [real.row(frame, n) for n, frame in enumerate(frames, 1)]
    real.write_aselmdb(tmp_path / "omat.aselmdb", rows)
    labels = {"energy", "forces", "stress"}
    for name in ("mptrj.json", "omat.aselmdb"):
        found = inspect(tmp_path / name)
        assert found.frames == 6
        assert {item.read_as.split(" ")[0] for item in found.properties if item.read_as} == labels
        assert found.following == f"mlip data doctor {tmp_path / name}"
        assert json.loads(found.to_json())["following"] == found.following


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no.xyz does not exist"):
        inspect(tmp_path / "no.xyz")
    with pytest.raises(ValueError, match=r"not a known word"):
        inspect(LITHIUM, "metal")


def test_the_doctor_passes_the_lithium_data():
    found = doctor("mlearn_li")
    assert found.exit_code == 0
    assert found.frames == {"train": 241, "test": 29}
    copies, _ = found.findings
    assert copies.message.startswith("3 structures are in more than one split turned, shifted or")
    assert found.to_text().startswith(
        "mlearn_li: train 241 frames, test 29 frames\n"
        "labels of train: energy 241, forces 241, stress 241\n"
        "labels of test: energy 29, forces 29, stress 29\nwarning  3 structures"
    )
    assert found.to_text().endswith("fit for training (1 warning, 1 note)\n")


def test_the_doctor_tells_bad_input_instead_of_raising():
    found = doctor(LITHIUM)
    assert found.exit_code == 1
    assert "units of its labels are not declared" in found.to_text()
    assert "not fit for training (1 error)" in found.to_text()
    content = json.loads(found.to_json())
    assert content["exit_code"] == 1
    assert content["findings"][0]["severity"] == "error"


def test_what_is_not_there_is_bad_input(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match=r"no.xyz does not exist"):
        doctor(tmp_path / "no.xyz")
    with pytest.raises(SystemExit) as ended:
        main(["data", "doctor", "mlearn_lo"])
    assert ended.value.code == 2
    assert "no file, folder or data set 'mlearn_lo'; did you mean" in capsys.readouterr().err


def test_the_doctor_reads_a_file_with_declared_units():
    found = doctor(LITHIUM, load_card("mlearn_li").fields, elements=["Na"])
    assert found.exit_code == 1
    assert found.findings[0].message.startswith("Li is in ")


def test_the_doctor_finds_a_frame_in_two_splits(tmp_path):
    import hashlib

    import yaml

    folder = tmp_path / "mlearn_li"
    shutil.copytree(DATASETS / "mlearn_li", folder)
    shutil.copy(folder / "test.extxyz.gz", folder / "train.extxyz.gz")
    card = yaml.safe_load((folder / "card.yaml").read_text())
    digest = hashlib.sha256((folder / "train.extxyz.gz").read_bytes()).hexdigest()
    card["files"]["train"] |= {"sha256": digest, "frames": 29}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    found = doctor(folder)
    assert found.exit_code == 0
    finding = found.findings[0]
    assert "29 structures are in more than one split: " in finding.message
    assert "fit for training (" in found.to_text()
