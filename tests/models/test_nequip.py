"""The nequip backbone: packaged models equal to their own calculator, and training from scratch."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mlip.models.backbones.nequip import Nequip
from mlip.models.loading import load, load_with_config
from mlip.models.nequip_foundation import load_nequip
from tests.models.nequip_package import ELEMENTS, check_equal, package

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.nequip
MODEL = {
    "_target_": "nequip.model.NequIPGNNModel",
    "model_dtype": "float64",
    "num_layers": 2,
    "l_max": 1,
    "parity": False,
    "num_features": [8, 6],
    "readout_mlp_hidden_layers_depth": 1,
    "readout_mlp_hidden_layers_width": 5,
}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    return package(tmp_path_factory.mktemp("nequip"), MODEL)


def test_a_packaged_model_is_equal_to_its_own_calculator(packaged):
    check_equal(packaged, energy=1e-10, derivative=1e-10)


def test_references_and_options_come_from_the_package(packaged):
    potential, config = load_with_config(packaged)
    assert potential.elements == ELEMENTS
    assert potential.energy_references.tolist() == [-1.0, -2.0, -3.0]
    assert config["backbone"]["channels"] == [8, 6]
    assert config["heads"]["energy"]["hidden"] == [5]


def rewritten(path, folder, change):
    """A copy of a package whose members are changed."""
    target = folder / "changed.nequip.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_no_code_of_a_package_is_run(packaged, tmp_path):
    bomb = f"import pathlib; pathlib.Path({str(tmp_path / 'exploded')!r}).touch()\n".encode()
    mined = rewritten(packaged, tmp_path, lambda name, data: bomb if name[-3:] == ".py" else data)
    load(mined)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"NequIPGNNModel", b"ModelFromSomewhere", "holds a nequip.model.ModelFromSomewhere"),
        (b"    parity: false", b"    parity: false\n    convnet_resnet: true", "convnet_resnet"),
        (b"    num_layers: 2", b"    num_layers: 3", "does not fit"),
    ],
)
def test_what_the_backbone_lacks_is_refused(packaged, tmp_path, old, new, message):
    def change(name, data):
        return data.replace(old, new) if name.endswith("model/config.yaml") else data

    with pytest.raises(ValueError, match=message):
        load(rewritten(packaged, tmp_path, change))


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "text.nequip.zip"
    with pytest.raises(FileNotFoundError, match="no file"):
        load_nequip(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="no package of nequip"):
        load_nequip(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/readme.txt", "hello")
    with pytest.raises(ValueError, match="no package of nequip"):
        load_nequip(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": [8]}, "give 2 numbers"), ({"average_neighbors": None}, "is not set")],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Nequip(["Li"], **{"average_neighbors": 9.0, **options})


@pytest.mark.parametrize("start", ["scratch", "package"])
def test_training(start, packaged, tmp_path):
    frames = packaged.with_name("frames.extxyz")
    how = {
        "scratch": ["backbone@model.backbone=nequip", "model.backbone.channels=8"],
        "package": [f"start={packaged}", "model.precision=float64"],
    }[start]
    result = subprocess.run(
        [sys.executable, "train.py", "trainer=cpu", "threads=1", "data=extxyz", "data.units=ase",
         f"data.path={frames}", f"data.source.val={frames}", f"data.source.test={frames}",
         *how, "ema_decay=0", "trainer.max_epochs=4", f"output={tmp_path / 'run'}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("train/loss")
    assert float(rows[-1].split(",")[place]) < float(rows[1].split(",")[place])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["errors"]["test"]
