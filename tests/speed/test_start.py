"""From the command to the first optimiser step, and the wait for data, of the demo training."""

import csv
import statistics
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.speed, pytest.mark.mace]
EPOCHS = 3
START = """
import sys
from mlip.training import module
step = module.TrainingModule.optimizer_step
def first(self, *args, **kwargs):
    step(self, *args, **kwargs)
    print("first step", flush=True)
    sys.stdout.flush()
    raise SystemExit(0)
module.TrainingModule.optimizer_step = first
sys.argv[0] = "train.py"
exec(compile(open("train.py").read(), "train.py", "exec"), {"__name__": "__main__"})
"""


def test_first_step(tmp_path, record):
    """Wall clock of a process that stops after its first step; default config, CPU."""
    seconds = []
    for repeat in range(3):
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", START, "trainer=cpu", f"output={tmp_path / str(repeat)}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as child:  # fmt: skip
            told = []
            for line in child.stdout:
                told.append(line)
                if line.startswith("first step"):
                    seconds.append(time.perf_counter() - start)
        assert len(seconds) == repeat + 1, "".join(told)[-2000:]
    print(f"\nseconds to the first step: {seconds}")
    record(
        "from the command to the first optimiser step, demo",
        min(seconds),
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
