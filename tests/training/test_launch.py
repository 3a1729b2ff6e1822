"""Numbers of devices that do not fit the processes that were started are refused."""

import os
import subprocess
import sys
import threading
import time

import pytest

from mlip.config import compose
from mlip.training import devices, launch


@pytest.fixture
def environment(monkeypatch):
    def change(**variables):
        for name in ("SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize(
    ("variables", "devices", "overrides", "message"),
    [
        (
            {"SLURM_STEP_NUM_TASKS": "4"},
            2,
            ["output=runs/one"],
            "SLURM started 4 processes, but trainer.devices=2 and trainer.num_nodes=1 ask for 2",
        ),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 1, ["output=runs/one"], "start one task"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 2, [], "output=FOLDER"),
        (
            {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "3"},
            2,
            ["output=runs/one"],
            "torchrun started 3 processes",
        ),
        ({}, 2, ["trainer.num_nodes=2"], "srun or torchrun"),
    ],
)
def test_processes_that_do_not_fit_are_refused(environment, variables, devices, overrides, message):
    environment(**variables)
    with pytest.raises(ValueError, match=message):
        launch.check(compose("train", overrides), devices)


@pytest.mark.parametrize(
    ("variables", "devices", "overrides"),
    [
        ({}, 2, []),
        ({"SLURM_STEP_NUM_TASKS": "1"}, 2, []),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 2, ["trainer.num_nodes=2", "output=runs/one"]),
    ],
)
def test_processes_that_fit_are_not(environment, variables, devices, overrides):
    environment(**variables)
    launch.check(compose("train", overrides), devices)


def test_no_process_is_started_for_one_device_or_by_one_of_several(environment, monkeypatch):
    monkeypatch.setattr(launch, "_Process", None)  # would fail
    environment()
    config = compose("train")
    with launch.processes(config, 1):
        pass
    environment(SLURM_STEP_NUM_TASKS="2")
    with launch.processes(config, 2):
        pass


def test_the_environment_is_put_back(environment, monkeypatch):
    environment()
    started = []

    class Process:
        failed = False

        def __init__(self, rank, config):
            started.append((rank, os.environ["WORLD_SIZE"], config.read_text()))

        def end(self):
            started.append("ended")

    monkeypatch.setattr(launch, "_Process", Process)
    before = dict(os.environ)
    with pytest.raises(KeyError), launch.processes(compose("train"), 3):
        raise KeyError
    assert dict(os.environ) == before
    assert [one[:2] for one in started[:2]] == [(1, "3"), (2, "3")]
    assert "${" not in started[0][2]  # resolved: the time in a name is that of the first process
    assert started[2:] == ["ended", "ended"]


BROKEN = ("-c", "import sys; sys.exit('error: the disk is full')")
WAITING = ("-c", "import time; time.sleep(600)")


@pytest.fixture
def config(tmp_path):
    return compose("train", [f"output={tmp_path}/run"])


def test_a_run_that_fails_of_another_process_gives_its_words(environment, monkeypatch, config):
    environment()
    monkeypatch.setattr(launch, "_PROGRAM", BROKEN)
    lost = RuntimeError("connection closed by peer")
    told = pytest.raises(ValueError, match="process 1: error: the disk is full")
    with told, launch.processes(config, 2):
        raise lost


def test_a_run_that_waits_for_a_dead_process_is_ended(environment, monkeypatch, config, capsys):
    environment()
    ended = threading.Event()
    monkeypatch.setattr(launch, "_PROGRAM", BROKEN)
    monkeypatch.setattr(launch, "_GRACE", 0.1)
    monkeypatch.setattr(launch.os, "_exit", lambda code: ended.set())
    with launch.processes(config, 2):
        assert ended.wait(30)
    assert "process 1 failed: error: the disk is full" in capsys.readouterr().err


def test_other_processes_end_with_the_first(environment, monkeypatch, config):
    environment()
    monkeypatch.setattr(launch, "_PROGRAM", WAITING)
    started = []
    start = launch._Process
    monkeypatch.setattr(
        launch, "_Process", lambda *args: started.append(start(*args)) or started[-1]
    )
    with pytest.raises(ValueError, match="bad data"), launch.processes(config, 2):
        raise ValueError("bad data")
    assert started[0].failed


def test_a_process_ends_when_the_first_is_killed():
    command = "from mlip.training.launch import _end_with_parent; _end_with_parent()"
    child = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE)
    time.sleep(0.2)
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=60) == 1


def test_threads_are_shared_out(monkeypatch):
    from mlip import runtime

    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    assert runtime.share_of_cores(1) is None
    assert runtime.share_of_cores(2) == 4
    assert runtime.share_of_cores(16) == 1
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4(x2)")
    assert launch.local_processes() == 4


def test_fewer_validation_frames_than_devices_are_refused():
    devices.check_validation(2, 2)
    with pytest.raises(ValueError, match="1 validation frames for 2 devices"):
        devices.check_validation(1, 2)


def test_the_precision_of_products_is_that_of_the_config(monkeypatch, tmp_path):
    import torch

    from mlip.training import run

    found = []

    def stop(config):
        found.append(torch.get_float32_matmul_precision())
        raise ValueError("far enough")

    monkeypatch.setattr(run, "prepare", stop)
    for wanted in ("high", "highest"):
        with pytest.raises(ValueError, match="far enough"):
            run.run(compose("train", [f"matmul={wanted}", f"output={tmp_path}/{wanted}"]))
    assert found == ["high", "highest"]
    with pytest.raises(ValueError, match="did you mean 'high'"):
        run.run(compose("train", ["matmul=hihg", f"output={tmp_path}/other"]))
