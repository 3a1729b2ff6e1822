"""Training on two processes from the command line: one folder, SIGTERM, resume, errors."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors.torch import load_file

from mlip.data.card import load_frames

ROOT = Path(__file__).parents[2]
TINY = [
    "model.backbone.channels=4",
    "model.backbone.max_ell=1",
    "model.backbone.radial_network=[8]",
    "model.backbone.r_max=4.0",
    "trainer=cpu",
    "trainer.devices=2",
    "trainer.max_epochs=2",
    "data=extxyz",
    "data.units=ase",
    "data.source.val_fraction=0.2",
    "data.batch_size=1",
    "energy_references={Li: -1.9}",
    "threads=1",
]
MLIP = ["-c", "from mlip.cli import main; main()", "train"]  # what the installed mlip runs
pytestmark = pytest.mark.mace


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a training on a few real frames."""
    file = tmp_path_factory.mktemp("data") / "few.extxyz"
    images = []
    for frame in load_frames("mlearn_li", "train")[::12]:
        images.append(frame.atoms.copy())
        images[-1].calc = SinglePointCalculator(
            images[-1], energy=float(frame.labels["energy"]), forces=frame.labels["forces"]
        )
    ase.io.write(file, images)
    return lambda *overrides, **options: run(f"data.path={file}", *overrides, **options)


def run(*overrides, program=("train.py",), **options):
    return subprocess.Popen(
        [sys.executable, *program, *TINY, *overrides],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(start(f"output={folder}"))
    assert code == 0, err
    return folder, out


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def wait_for(path, process):
    deadline = time.time() + 120
    while time.time() < deadline and not path.is_file() and process.poll() is None:
        time.sleep(0.05)


def test_the_first_process_alone_writes_and_speaks(whole):
    folder, out = whole
    assert out.count("validation,") == out.count("report:") == 1
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["timing"]["devices"] == 2
    assert [int(row["epoch"]) for row in rows(folder)] == [0, 1]
    frames = summary["frames"]["train"]
    assert int(rows(folder)[-1]["step"]) == 2 * -(-frames // 2)  # a frame a device


def test_the_speed_is_logged(whole):
    folder, _ = whole
    first, last = ({k: float(v) for k, v in row.items() if v} for row in rows(folder))
    for row in (first, last):
        assert row["speed/edges_per_s"] > row["speed/atoms_per_s"] > row["speed/structures_per_s"]
        assert 0 < row["speed/loader_wait"] < 1
        assert 0.1 < row["speed/memory_GB"] < 24
        assert row["speed/splits"] == 0
    assert last["speed/device_hours"] > first["speed/device_hours"] > 0
    assert first["speed/device_hours_left"] == pytest.approx(first["speed/device_hours"], rel=1e-4)
    assert last["speed/device_hours_left"] == 0
    timing = json.loads((folder / "summary.json").read_text())["timing"]
    assert timing["device_hours"] == pytest.approx(last["speed/device_hours"], rel=1e-4)
    assert timing["device_hours"] * 3600 < 2 * timing["seconds"]


def test_both_stop_when_one_is_told_to_and_go_on_bit_for_bit(start, whole, tmp_path):
    cut = tmp_path / "cut"
    process = start(f"output={cut}", "save_minutes=0", program=MLIP)
    wait_for(cut / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)  # the first process only
    code, out, err = finish(process)
    assert code == 143, err
    assert "to go on: resume=auto" in out
    state = torch.load(cut / "last.ckpt", weights_only=True)
    assert 0 < state["global_step"] < int(rows(whole[0])[-1]["step"])
    assert len(state["random_states"]) == 2
    assert not torch.equal(*(states["torch"] for states in state["random_states"]))
    code, _, err = finish(start(f"output={cut}", "resume=auto", program=MLIP))
    assert code == 0, err
    unbroken = load_file(whole[0] / "last.safetensors")
    for name, value in load_file(cut / "last.safetensors").items():
        assert torch.equal(value, unbroken[name]), name
