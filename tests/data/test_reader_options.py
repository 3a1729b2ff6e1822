"""Options of a reader, from every place where they are given to what is recorded of them."""

import json

import numpy as np
import pytest

from mlip.cli import main
from mlip.config import compose
from mlip.data.readers import read
from mlip.data.sources import from_files
from mlip.data.store.reader import Store
from tests.data.readers import real

FRAMES = real.frames()[:12]
CORRECTED = [real.mptrj_record(frame)["corrected_total_energy"] for frame in FRAMES]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mptrj.json").write_text(json.dumps(real.mptrj(FRAMES)))
    return tmp_path / "mptrj.json"


def energies(frames):
    return [float(frame.labels["energy"]) for frame in frames]


def test_select(path, tmp_path):
    output = tmp_path / "a.extxyz"
    main(["data", "select", str(path), str(output), "options={energy: corrected}"])
    assert energies(read(output, "ase")) == CORRECTED


def test_convert_keeps_them_in_the_origin(path, tmp_path):
    main(["data", "convert", str(path), str(tmp_path / "store"), "options={energy: corrected}"])
    store = Store(tmp_path / "store")
    assert energies(store) == CORRECTED
    assert store.manifest.origin["reader_options"] == {"energy": "corrected"}
    with pytest.raises(SystemExit):  # another conversion, not the same one
        main(["data", "convert", str(path), str(tmp_path / "store")])


def test_training_files(path):
    splits = from_files(path, None, options={"energy": "corrected"}, test_fraction=0.2)
    together = [*splits.train, *splits.val, *splits.test]
    assert sorted(energies(together)) == sorted(CORRECTED)
    assert splits.origin["options"] == {"energy": "corrected"}


def test_training_config(path):
    overrides = ["data=extxyz", f"data.path={path}", "data.units=ase"]
    config = compose("train", [*overrides, "data.options={energy: corrected}"])
    assert config.data.source.options == {"energy": "corrected"}


def test_inspect_and_doctor(path, capsys):
    corrected = "options={energy: corrected}"
    main(["data", "inspect", str(path), corrected, "--json"])
    told = json.loads(capsys.readouterr().out)
    energy = next(item for item in told["properties"] if item["key"] == "energy")
    assert (energy["minimum"], energy["maximum"]) == (min(CORRECTED), max(CORRECTED))
    main(["data", "doctor", str(path), corrected])
    assert "12 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    "verb", [["inspect"], ["doctor"], ["select", "b.extxyz"], ["convert", "b"], ["label", "b.xyz"]]
)
def test_unknown_options_are_refused_with_suggestions(verb, path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = ["calculator=gfn2_xtb", "total_charge=0"] if verb[0] == "label" else []
    with pytest.raises(SystemExit):
        main(["data", verb[0], str(path), *verb[1:], "options={enrgy: corrected}", *more])
    output = capsys.readouterr()
    assert "has no option 'enrgy'; did you mean 'energy'" in output.err + output.out
    assert not (tmp_path / "b").exists()


def test_options_that_are_no_mapping(path, capsys):
    with pytest.raises(SystemExit):
        main(["data", "inspect", str(path), "options=corrected"])
    assert "write a mapping, such as {energy: corrected}" in capsys.readouterr().err


def test_the_word_ase_does_not_misread_a_format_with_units_of_its_own(path):
    for frame, expected in zip(read(path, "ase"), FRAMES, strict=True):
        np.testing.assert_allclose(frame.labels["stress"], real.values(expected)[2], rtol=1e-7)
