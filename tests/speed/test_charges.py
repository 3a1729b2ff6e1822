"""What charges cost: third and fourth generation beside the second, training and dynamics."""

import time

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from omegaconf import OmegaConf

from mlip import MlipCalculator, config
from mlip.graph import collate, from_atoms
from mlip.models.build import build, resolve
from mlip.models.checkpoint import save

pytestmark = pytest.mark.speed
LABELS = ("energy", "forces", "stress")
REPEATS, STEPS = 7, 10


def crystal(repeat, seed=0):
    atoms = bulk("LiCl", "rocksalt", 5.13, cubic=True) * repeat
    atoms.rattle(0.08, seed=seed)
    return atoms


def model_of(generation, backbone):
    overrides = [f"model={generation}", f"backbone@model.backbone={backbone}"]
    model = OmegaConf.to_container(config.compose("train", overrides).model, resolve=True)
    resolved = resolve(model, ["Li", "Cl"], 26.0)
    torch.manual_seed(0)
    return build(resolved), resolved


def train(model, batch):
    outputs = model(batch, outputs=LABELS, differentiable=True)
    loss = sum(outputs[name].square().mean() for name in LABELS)
    model.zero_grad()
    loss.backward()


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.parametrize("backbone", ["mace", "native"])
@pytest.mark.parametrize("generation", ["3g", "4g"])
def test_training_step(generation, backbone, record):
    """Shortest of interleaved steps on four cells of 96 atoms; the sums are planned each time."""
    models = {name: model_of(name, backbone)[0] for name in ("2g", generation)}
    cells = [crystal((2, 2, 3), seed) for seed in range(4)]
    labels = {"total_charge": np.zeros(())}
    batch = collate([from_atoms(atoms, models["2g"].r_max, labels) for atoms in cells])
    times = {name: [] for name in models}
    for _ in range(REPEATS):
        for name, model in models.items():
            times[name].append(seconds(lambda m=model: train(m, batch)))
    record(
        f"training step of {generation} on {backbone}, 4 cells of 96 atoms",
        min(times[generation][1:]) / min(times["2g"][1:]),
        unit="x", target=1.3, better="lower", peer=f"2g on {backbone}", threads=1,
    )  # fmt: skip


@pytest.mark.parametrize("backbone", ["mace", "native"])
def test_step_of_dynamics(backbone, record, tmp_path):
    """Median of steps of 2 fs of 2,000 atoms at 600 K, charges started from the last ones."""
    times = {}
    for generation in ("2g", "4g"):
        model, resolved = model_of(generation, backbone)
        path = save(tmp_path / f"{generation}.safetensors", model, resolved)
        atoms = crystal((5, 5, 10))
        atoms.info["total_charge"] = 0
        atoms.calc = MlipCalculator(path, device="cpu")
        MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.default_rng(0))
        dynamics = VelocityVerlet(atoms, timestep=2 * units.fs)
        times[generation] = [seconds(lambda d=dynamics: d.run(1)) for _ in range(STEPS)]
    record(
        f"step of dynamics of 4g on {backbone}, 2,000 atoms",
        float(np.median(times["4g"][4:]) / np.median(times["2g"][4:])),
        unit="x", target=1.3, better="lower", peer=f"2g on {backbone}", threads=1,
    )  # fmt: skip
