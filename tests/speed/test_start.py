"""From the command to the first optimiser step, and the wait for data, of the demo training."""

import csv
import os
import statistics
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.speed, pytest.mark.mace]
EPOCHS = 3
START = """
import os, sys
from mlip.training import module
step = module.TrainingModule.optimizer_step
def first(self, *args, **kwargs):
    step(self, *args, **kwargs)
    print("first step", flush=True)
    os._exit(0)
module.TrainingModule.optimizer_step = first
sys.argv[0] = "train.py"
exec(compile(open("train.py").read(), "train.py", "exec"), {"__name__": "__main__"})
"""


def test_first_step(tmp_path, record):
    """CPU seconds of a process that stops after its first step; default config, no GPU.

    Those are more than the seconds on a clock on an idle machine, and hardly more on a busy one.
    """
    used, clock = [], []
    for repeat in range(3):
        command = [sys.executable, "-c", START, "trainer=cpu", f"output={tmp_path / str(repeat)}"]
        start = time.perf_counter()
        with (tmp_path / "log").open("w") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log)
            _, status, times = os.wait4(child.pid, 0)
        told = (tmp_path / "log").read_text()
        assert "first step" in told, (status, told[-2000:])
        clock.append(time.perf_counter() - start)
        used.append(times.ru_utime + times.ru_stime)
    print(f"\nCPU seconds to the first step {used}, on the clock {clock}")
    record(
        "CPU time from the command to the first optimiser step, demo",
        min(used),
        unit="s",
        target=10.0,
        better="lower",
        peer="none",
        threads=2,
    )


def test_loader_wait(tmp_path, record):
    """Share of the training steps' time in which they wait for a batch, as a training logs it."""
    command = [sys.executable, "train.py", "trainer=cpu", f"trainer.max_epochs={EPOCHS}"]
    subprocess.run([*command, f"output={tmp_path / 'run'}"], check=True, capture_output=True)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        waits = [float(row["speed/loader_wait"]) for row in csv.DictReader(file)]
    record(
        "share of a training in which it waits for data, demo",
        100 * statistics.median(waits),
        unit="%",
        target=5.0,
        better="lower",
        peer="none",
        threads=2,
    )
