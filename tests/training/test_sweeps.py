"""Sweeps: what every job is given, Optuna's trials, and jobs that a queue starts again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from mlip import paths
from mlip.training import sweeps

ROOT = Path(__file__).parents[2]
TINY = [
    "model.backbone.channels=4",
    "model.backbone.max_ell=1",
    "model.backbone.radial_network=[8]",
    "model.backbone.r_max=4.0",
    "threads=1",
    "trainer=cpu",
]
FOLDER = "output=${hydra:sweep.dir}/${hydra:job.num}"


def test_each_job_gets_a_folder_of_its_own():
    assert sweeps.completed(["seed=1,2", "--multirun"]) == ["--multirun", "seed=1,2", FOLDER]
    given = ["-m", "seed=1,2", "output=runs/${seed}"]
    assert sweeps.completed(given) == given
    assert sweeps.completed(["seed=1"]) == ["seed=1"]


def test_jobs_of_a_queue_can_go_on(monkeypatch):
    monkeypatch.setattr(sweeps, "_installed", lambda _: True)
    words = sweeps.completed(["-m", "hydra/launcher=slurm"])
    assert words == ["-m", "hydra/launcher=slurm", FOLDER, "resume=auto"]
    words = sweeps.completed(["-m", "hydra/launcher=slurm", "resume=null", "output=x"])
    assert words == ["-m", "hydra/launcher=slurm", "resume=null", "output=x"]


@pytest.mark.parametrize(
    ("word", "extra"), [("hydra/launcher=slurm", "slurm"), ("hydra/sweeper=tpe", "sweep")]
)
def test_a_plugin_that_is_not_there_is_named(word, extra, monkeypatch):
    monkeypatch.setattr(sweeps, "_installed", lambda _: False)
    with pytest.raises(ModuleNotFoundError, match=rf"mlip-suite\[{extra}\]"):
        sweeps.completed(["-m", word])


def hydra_config(*overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(paths.content("configs")), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True).hydra


def test_the_queue_composes():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = hydra_config("hydra/launcher=slurm", "hydra.launcher.partition=gpu").launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.partition, launcher.tasks_per_node, launcher.signal_delay_s) == ("gpu", 1, 120)
    assert launcher.additional_parameters.requeue is True


def test_the_sampler_composes():
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sweeper = hydra_config("hydra/sweeper=tpe", "hydra.sweeper.n_trials=3").sweeper
    assert sweeper._target_.endswith("OptunaSweeper")
    assert (sweeper.direction, sweeper.n_trials) == ("minimize", 3)


def start(*words):
    return subprocess.Popen(
        [sys.executable, "train.py", *TINY, "--multirun", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.mace
def test_optuna_finds_the_better_of_two_trials(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hydra/sweeper=tpe", "hydra.sweeper.n_trials=2", "trainer.max_epochs=1"]
    process = start(*words, "optimizer.lr=interval(1e-3,3e-2)", f"hydra.sweep.dir={tmp_path}")
    out = process.communicate(timeout=600)[0]
    assert process.returncode == 0, out
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    best = [json.loads((tmp_path / f"{n}/summary.json").read_text())["best"] for n in range(2)]
    assert found["best_value"] == pytest.approx(min(best))
    assert best[0] != best[1]


@pytest.mark.slow
@pytest.mark.mace
def test_a_preempted_job_saves_its_step_is_started_again_and_finishes(tmp_path):
    """The launcher of one machine handles the signal as that of SLURM does."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    process = start(
        "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=20", "seed=1",
        "trainer.max_epochs=3", "data.batch_size=1", "save_minutes=0.01",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    state = tmp_path / "0" / "last.ckpt"
    deadline = time.time() + 240
    while time.time() < deadline and not state.is_file():
        time.sleep(0.05)
    jobs = [job for job in Path("/proc").glob("[0-9]*") if _runs(job, str(tmp_path))]
    assert len(jobs) == 1
    os.kill(int(jobs[0].name), signal.SIGUSR2)
    out = process.communicate(timeout=600)[0]
    assert process.returncode == 0, out
    told = "".join(file.read_text() for file in tmp_path.glob(".submitit/*/*_log.*"))
    assert "Requeued job" in told
    assert re.search("Job completed successfully", told)
    assert json.loads((tmp_path / "0" / "summary.json").read_text())["epochs"] == 3


def _runs(job, folder):
    try:
        words = (job / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "submitit.core._submit" in words and any(folder in word for word in words)
