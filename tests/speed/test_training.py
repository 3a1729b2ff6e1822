"""Training throughput against mace_run_train: same model, data, batch, precision and threads."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from mlip.data.card import load_frames

pytestmark = [pytest.mark.speed, pytest.mark.mace]
TRAIN, VALID, BATCH, THREADS = 120, 12, 6, 1
SHORT, LONG, REPEATS = 1, 4, 3


def write(frames, path):
    images = []
    for frame in frames:
        atoms = frame.atoms.copy()
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(frame.labels["energy"]),
            forces=frame.labels["forces"],
            stress=frame.labels["stress"],
        )
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    frames = load_frames("mlearn_li", "train")[::-1]
    write(frames[:TRAIN], folder / "train.extxyz")
    write(frames[TRAIN : TRAIN + VALID], folder / "valid.extxyz")
    return folder


def ours(files, epochs, folder):
    return [
        sys.executable,
        "train.py",
        "data=extxyz",
        "data.units=ase",
        f"data.path={files}/train.extxyz",
        f"data.source.val={files}/valid.extxyz",
        f"data.source.test={files}/valid.extxyz",
        f"data.batch_size={BATCH}",
        "~model.terms.zbl",
        "trainer=cpu",
        f"trainer.max_epochs={epochs}",
        f"threads={THREADS}",
        f"output={folder}",
    ]


def theirs(files, epochs, folder):
    return [
        str(Path(sys.executable).with_name("mace_run_train")),
        "--name=peer",
        f"--work_dir={folder}",
        f"--train_file={files}/train.extxyz",
        f"--valid_file={files}/valid.extxyz",
        "--energy_key=energy",
        "--forces_key=forces",
        "--stress_key=stress",
        "--E0s=average",
        "--model=ScaleShiftMACE",
        "--interaction_first=RealAgnosticInteractionBlock",
        "--interaction=RealAgnosticResidualInteractionBlock",
        "--hidden_irreps=32x0e",
        "--max_ell=2",
        "--correlation=2",
        "--num_interactions=2",
        "--r_max=5.0",
        "--num_radial_basis=8",
        "--loss=huber",
        "--compute_stress=True",
        "--scaling=rms_forces_scaling",
        "--energy_weight=10",
        "--forces_weight=10",
        "--stress_weight=100",
        f"--batch_size={BATCH}",
        f"--valid_batch_size={BATCH}",
        f"--max_num_epochs={epochs}",
        "--lr=0.01",
        "--amsgrad",
        "--ema",
        "--ema_decay=0.99",
        "--clip_grad=10",
        "--default_dtype=float32",
        "--device=cpu",
        "--seed=1",
        "--error_table=PerAtomRMSEstressvirials",
    ]


def seconds(command, log):
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    start = time.perf_counter()
    with log.open("w") as file:
        result = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    assert result.returncode == 0, log.read_text()[-3000:]
    return time.perf_counter() - start


def test_training_throughput(files, tmp_path, record):
    """Structures a second, start-up taken out by the difference of a long and a short run."""
    rates = {"mlip": [], "mace_run_train": []}
    for repeat in range(REPEATS):
        for name, command in (("mlip", ours), ("mace_run_train", theirs)):
            times = [
                seconds(
                    command(files, epochs, tmp_path / f"{name}{repeat}{epochs}"),
                    tmp_path / f"{name}.log",
                )
                for epochs in (SHORT, LONG)
            ]
            rates[name].append(TRAIN * (LONG - SHORT) / (times[1] - times[0]))
    for name, values in rates.items():
        print(f"\n{name}: {statistics.median(values):.1f} structures/s {values}")
    record(
        "training throughput, MACE 32x0e on lithium",
        statistics.median(rates["mlip"]) / statistics.median(rates["mace_run_train"]),
        unit="x",
        target=1.0,
        better="higher",
        peer="mace_run_train 0.3.16",
        threads=THREADS,
    )
