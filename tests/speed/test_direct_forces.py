"""A training step on direct forces against one on conservative forces: same weights, same batch."""

import time

import pytest
import torch
from omegaconf import OmegaConf

from mlip import config
from mlip.data.card import load_frames
from mlip.data.loader import average_neighbors, to_graphs
from mlip.graph import collate
from mlip.models.build import build, resolve

pytestmark = [pytest.mark.speed, pytest.mark.mace]
STEPS = 8


def test_a_step_on_direct_forces_is_cheaper(record):
    composed = config.compose("train", ["stages=direct_forces", "model.backbone.max_l=1"])
    model = OmegaConf.to_container(composed.model, resolve=True)
    labels = ("energy", "forces", "stress")
    graphs = to_graphs(load_frames("mlearn_li", "train")[:4], model["backbone"]["r_max"], labels)
    torch.manual_seed(0)
    potential = build(resolve(model, ["Li"], average_neighbors(graphs)))
    potential.set_energy_references({"Li": -1.9})
    batch = collate(graphs)

    def seconds(*names):
        times = []
        for _ in range(STEPS):
            started = time.perf_counter()
            potential.zero_grad()
            outputs = potential(batch, outputs=names, differentiable=True)
            loss = sum(outputs[name].square().mean() for name in ("energy", *names))
            loss.backward()
            times.append(time.perf_counter() - started)
        return min(times)

    ratio = seconds("forces", "stress") / seconds("direct_forces")
    record(
        "step_direct_forces", ratio, unit="x", target=2.0, better="higher",
        peer="the same step with conservative forces and stress", threads=1,
    )  # fmt: skip
