"""A training whose step is compiled: equal to the plain one, and resumed bit for bit."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
TINY = [
    "backbone@model.backbone=native", "model.backbone.channels=4", "model.backbone.layers=1",
    "model.backbone.max_l=1", "model.backbone.radial_functions=3", "model.backbone.hidden=4",
    "model.backbone.r_max=4.0", "threads=1", "trainer=cpu", "trainer.max_epochs=3",
]  # fmt: skip
pytestmark = pytest.mark.slow


def start(folder, *more):
    return subprocess.Popen(
        [sys.executable, "train.py", *TINY, f"output={folder}", *more],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(process):
    told = process.communicate()[0]
    assert process.returncode == 0, told[-3000:]
    return told


def rows(folder):
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.open())) if path.is_file() else []


def test_a_killed_training_ends_bit_for_bit_the_same(tmp_path):
    plain, whole, cut = (tmp_path / name for name in ("plain", "whole", "cut"))
    finished(start(plain))
    assert "compiled in" in finished(start(whole, "accelerate=compile"))
    process = start(cut, "accelerate=compile", "save_minutes=0")
    while process.poll() is None and not rows(cut):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(rows(cut)) < 3
    finished(start(cut, "accelerate=compile", "save_minutes=0", "resume=auto"))
    expected = load_file(whole / "last.safetensors")
    for name, value in load_file(cut / "last.safetensors").items():
        assert torch.equal(value, expected[name]), name
    for one, other in zip(rows(plain), rows(whole), strict=True):
        assert float(one["train/loss"]) == pytest.approx(float(other["train/loss"]), rel=1e-4)
