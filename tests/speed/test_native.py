"""The native backbone against others with the sizes of configs/: training step and inference."""

import time
from importlib.util import find_spec

import pytest
import torch
from omegaconf import OmegaConf

from mlip import config
from mlip.data.card import load_frames
from mlip.graph import collate, from_atoms
from mlip.models.build import build, resolve

pytestmark = pytest.mark.speed
R_MAX, REPEATS, FRAMES = 5.0, 15, 6
LABELS = ("energy", "forces", "stress")
PEERS = {"mace": ("mace", 3.0), "nequip": ("nequip", 1.0)}
"""Backbone -> package, and the target: what native has to reach times its speed."""


def potential(backbone, elements, neighbors):
    composed = config.compose("train", [f"backbone@model.backbone={backbone}"])
    model = OmegaConf.to_container(composed.model, resolve=True) | {"terms": {}}
    torch.manual_seed(0)
    return build(resolve(model, elements, neighbors))


def train(model, batch):
    outputs = model(batch, outputs=LABELS, differentiable=True)
    loss = sum((outputs[name] - batch[name]).square().mean() for name in LABELS)
    model.zero_grad()
    loss.backward()


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.parametrize("data", ["mlearn_li", "mptrj"])
@pytest.mark.parametrize("peer", PEERS)
def test_native(peer, data, record):
    """Shortest of interleaved calls, on one thread; the loss asks for all three labels."""
    package, target = PEERS[peer]
    if find_spec(package) is None:
        pytest.skip(f"{package} is in the other environment")
    frames = [f for f in load_frames(data, "train") if len(f.atoms) > 20][:FRAMES]
    batch = collate([from_atoms(f.atoms, R_MAX, f.labels, LABELS) for f in frames])
    elements = sorted({symbol for f in frames for symbol in f.atoms.symbols})
    neighbors = batch.edge_index.shape[1] / len(batch.positions)
    models = {name: potential(name, elements, neighbors) for name in ("native", peer)}
    for work, function in (("training step", train), ("inference", lambda m, b: m(b))):
        times = {name: [] for name in models}
        for _ in range(REPEATS):
            for name, model in models.items():
                times[name].append(seconds(lambda m=model, f=function: f(m, batch)))
        ratio = min(times[peer][2:]) / min(times["native"][2:])
        record(
            f"native, {work} on {data}, beside {peer}", ratio,
            unit="x", target=target, better="higher",
            peer=f"backbone {peer} of configs/", threads=1,
        )  # fmt: skip
