"""Training from the command line on real lithium frames: folder, kill, resume, bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlip.data.card import load_frames

ROOT = Path(__file__).parents[2]
TINY = [
    "model.backbone.channels=4",
    "model.backbone.max_ell=1",
    "model.backbone.radial_network=[8]",
    "model.backbone.r_max=4.0",
    "threads=1",
    "trainer=cpu",
]
pytestmark = pytest.mark.mace


def train(*overrides, **options):
    tiny = TINY
    if any(word.startswith("start=") for word in overrides):  # the file brings its own model
        tiny = [word for word in TINY if not word.startswith("model.")]
    return subprocess.run(
        [sys.executable, "train.py", *tiny, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "lithium"
    result = train("trainer.max_epochs=2", f"output={folder}")
    assert result.returncode == 0, result.stderr
    return folder, result


def test_the_run_folder_is_complete(finished):
    folder, result = finished
    for name in (
        "config.yaml",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "last.ckpt",
        "summary.json",
        "report.html",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert "report.html" in result.stdout
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    assert "val/forces_rmse_meV_per_A" in rows[0]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["frames"]["test"] == 29
    assert set(summary["errors"]) == {"train", "val", "test"}
    assert summary["frames"]["train"] + summary["frames"]["val"] == 241


def test_the_potential_works_in_ase(finished):
    from mlip import MlipCalculator

    folder, _ = finished
    atoms = load_frames("mlearn_li", "test")[0].atoms
    atoms.calc = MlipCalculator(folder / "best.safetensors", device="cpu")
    assert np.isfinite(atoms.get_potential_energy())
    assert atoms.get_forces().shape == (len(atoms), 3)
    assert atoms.get_stress().shape == (6,)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())


def test_a_dry_run_tells_what_the_run_would_cost_and_writes_nothing(tmp_path):
    folder = tmp_path / "dry"
    overrides = ["dry_run=true", "trainer.max_epochs=7", "data.batch={edges: 4000}"]
    result = train(*overrides, f"output={folder}")
    assert result.returncode == 0, result.stderr
    weights = re.search(r"^weights +([\d,]+)$", result.stdout, re.MULTILINE)
    assert int(weights[1].replace(",", "")) > 100
    steps = int(re.search(r"\((\d+) steps and the validation\)", result.stdout)[1])
    assert 20 < steps < 225
    edges = int(re.search(r"atoms, ([\d,]+) edges", result.stdout)[1].replace(",", ""))
    assert 2000 < edges <= 4000
    assert "for 7 epochs" in result.stdout
    assert "nothing was written" in result.stdout
    assert not folder.exists()
    hot = train("dry_run=true", "loss.properties.energy.weight=1e300", f"output={folder}")
    assert hot.returncode == 1
    assert "it or its gradient is not a number" in hot.stderr


def test_a_second_run_never_overwrites_the_first(finished):
    folder, _ = finished
    result = train("trainer.max_epochs=2", f"output={folder}")
    assert result.returncode == 2
    assert "already holds a run" in result.stderr


def test_resume_of_a_finished_run_returns_at_once(finished):
    folder, _ = finished
    before = (folder / "best.safetensors").stat().st_mtime_ns
    result = train("trainer.max_epochs=2", f"output={folder}", "resume=auto")
    assert result.returncode == 0
    assert "finished" in result.stdout
    assert (folder / "best.safetensors").stat().st_mtime_ns == before


def test_resume_with_another_config_is_refused(finished):
    folder, _ = finished
    result = train("trainer.max_epochs=3", f"output={folder}", "resume=auto")
    assert result.returncode == 2
    assert "another config" in result.stderr


def test_start_from_a_trained_potential(finished, tmp_path):
    folder, _ = finished
    result = train(
        "trainer.max_epochs=1",
        f"start={folder}/best.safetensors",
        f"output={tmp_path}/fine",
        "optimizer.lr=1e-4",
    )
    assert result.returncode == 0, result.stderr
    first = json.loads((folder / "summary.json").read_text())["errors"]["test"]
    second = json.loads((tmp_path / "fine" / "summary.json").read_text())["errors"]["test"]
    key = "forces_rmse_meV_per_A"
    assert second[key] < 1.1 * first[key]  # it went on from there, not from scratch


def test_kill_and_resume_lose_at_most_an_epoch(tmp_path):
    folder = tmp_path / "killed"
    overrides = ["trainer.max_epochs=6", f"output={folder}", "resume=auto"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *TINY, *overrides],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = folder / "metrics.csv"
    deadline = time.time() + 240
    while time.time() < deadline and not (
        metrics.is_file()
        and len(metrics.read_text().splitlines()) >= 3
        and (folder / "last.ckpt").is_file()
    ):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(metrics.read_text().splitlines()) - 1
    assert 2 <= done < 6
    result = train(*overrides)
    assert result.returncode == 0, result.stderr
    epochs = [int(float(row.split(",")[0])) for row in metrics.read_text().splitlines()[1:]]
    assert epochs == list(range(6))  # every epoch once, the interrupted one repeated
    assert json.loads((folder / "summary.json").read_text())["epochs"] == 6


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_ends_where_the_unbroken_one_does(tmp_path):
    common = ["trainer.max_epochs=4", "schedule=constant"]
    assert train(*common, f"output={tmp_path}/whole").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "train.py", *TINY, *common, f"output={tmp_path}/cut"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.time() + 240
    while time.time() < deadline and not (tmp_path / "cut" / "last.ckpt").is_file():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert train(*common, f"output={tmp_path}/cut", "resume=auto").returncode == 0
    whole, cut = rows(tmp_path / "whole")[-1], rows(tmp_path / "cut")[-1]
    for name in ("val/loss", "train/loss", "val/forces_rmse_meV_per_A"):
        assert float(cut[name]) == pytest.approx(float(whole[name]), rel=1e-6), name


def test_a_terminated_run_saves_its_step_and_ends_bit_for_bit_the_same(tmp_path):
    """What a queue does before it takes a machine back; the last state would be an epoch old."""
    common = ["trainer.max_epochs=2", "data.batch_size=2", "save_minutes=null"]
    assert train(*common, f"output={tmp_path}/whole").returncode == 0
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "train.py", *TINY, *common, f"output={cut}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    deadline = time.time() + 240
    while time.time() < deadline and not (cut / "config.yaml").is_file():
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[0]
    assert process.returncode == 143
    assert f"to go on: resume=auto output={cut}" in told.replace("\n", "")
    state = torch.load(cut / "last.ckpt", weights_only=True)
    assert state["global_step"] > 0
    assert train(*common, f"output={cut}", "resume=auto").returncode == 0
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    for name, value in load_file(cut / "last.safetensors").items():
        assert torch.equal(value, whole[name]), name


def test_a_truncated_state_is_named(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "summary.json").unlink()
    (copy / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:500])
    result = train("trainer.max_epochs=2", f"output={copy}", "resume=auto")
    assert result.returncode == 2
    assert "last.ckpt" in result.stderr


def test_a_diverged_run_says_so_and_keeps_its_last_good_state(tmp_path):
    result = train("trainer.max_epochs=3", "optimizer.lr=1e30", "trainer.gradient_clip_val=null",
                   f"output={tmp_path}/out")  # fmt: skip
    assert result.returncode == 1
    assert "diverged" in result.stderr


BAD = {
    "unknown key": (["trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'"),
    "unknown option": (["loss=hubber"], "did you mean 'huber'"),
    "missing file": (
        ["data=extxyz", "data.path=nowhere.extxyz", "data.units=ase"],
        "nowhere.extxyz",
    ),
    "undeclared path": (["data=extxyz", "data.units=ase"], "data.path"),
    "undeclared units": (["data=extxyz", "data.path=README.md"], "data.units"),
    "missing references": (["energy_references={O: -4.0}"], "Li"),
    "no validation frames": (["data.source.val_fraction=0.0"], "val_fraction"),
    "unknown monitor": (["monitor=val/los"], "val/loss"),
    "no such start": (["start=nothing.safetensors"], "nothing.safetensors"),
    "start with another model": (
        ["start=README.md", "model.backbone.channels=64"],
        "brings its own model",
    ),
    "foreign start": (["start=README.md"], "README.md"),
    "resume of nonsense": (["resume=yes_please"], "resume"),
    "negative weight": (["loss.properties.forces.weight=-1"], "negative"),
    "unknown loss function": (["loss.properties.forces.function=hubber"], "huber"),
    "zero threads": (["threads=0"], "threads"),
    "a bare word": (["quickly"], "key=value"),
    "text for epochs": (["trainer.max_epochs=abc"], "trainer.max_epochs"),
    "no epochs": (["trainer.max_epochs=0"], "trainer.max_epochs"),
    "a GPU that is not there": (["trainer.accelerator=gpu"], "cuda"),
    "patience that is none": (["patience=abc"], "patience"),
    "no average": (["ema_decay=null"], "ema_decay"),
    "more threads than cores": (["threads=9999"], "cores"),
    "more devices than cores": (["trainer.devices=9999"], "cores"),
    "no device": (["trainer.devices=0"], "trainer.devices"),
    "every GPU where there is none": (["trainer.devices=auto"], "trainer.devices=2"),
    "two machines from one process": (["trainer.num_nodes=2"], "srun or torchrun"),
    "an unknown strategy": (["trainer.strategy=ddb"], "ddp"),
    "no batch before a step": (["trainer.accumulate_grad_batches=0"], "accumulate_grad_batches"),
    "an unknown precision of products": (["matmul=hihg"], "high"),
    "text for threads": (["threads=abc"], "threads"),
    "unknown precision": (["model.precision=float16"], "float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_before_any_work(case, tmp_path):
    overrides, message = BAD[case]
    result = train("trainer.max_epochs=1", f"output={tmp_path}/out", *overrides)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "best.safetensors").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    result = train(f"output={tmp_path}/file/run", "trainer.max_epochs=1")
    assert result.returncode == 2
    assert "is a file" in result.stderr


def test_bad_frames_are_named(tmp_path):
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = load_frames("mlearn_li", "test")[:6]
    images = [frame.atoms.copy() for frame in frames]
    images[3].positions[1] = images[3].positions[0] + 0.1
    for atoms, frame in zip(images, frames, strict=True):
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(frame.labels["energy"]), forces=frame.labels["forces"]
        )
    ase.io.write(tmp_path / "bad.extxyz", images)
    result = train(
        "data=extxyz",
        f"data.path={tmp_path}/bad.extxyz",
        "data.units=ase",
        "data.source.test_fraction=0.0",
        "data.source.val_fraction=0.3",
        f"output={tmp_path}/out",
    )
    assert result.returncode == 2
    assert "#3" in result.stderr
    assert "0.3" in result.stderr
