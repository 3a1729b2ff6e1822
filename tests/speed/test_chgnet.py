"""The chgnet backbone against the package chgnet: the same weights, frames, batch and precision."""

import statistics
import time

import pytest
import torch

from mlip.data.card import load_frames
from mlip.graph import collate, from_atoms
from mlip.models.loading import load
from mlip.training.loss import Loss, PropertyLoss

pytestmark = [pytest.mark.speed, pytest.mark.chgnet]
FRAMES, REPEATS = 16, 7
LABELS = ("energy", "forces", "stress")


@pytest.fixture(scope="module")
def frames():
    return load_frames("mptrj", "test")[:FRAMES]


@pytest.fixture(scope="module")
def package():
    from chgnet.model.model import CHGNet

    return CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)


def ratio(ours, theirs):
    """Return the median over turns: the machine may have other work."""
    ratios = []
    for _ in range(REPEATS):
        times = []
        for function in (ours, theirs):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def structures(frames):
    from pymatgen.io.ase import AseAtomsAdaptor

    return [AseAtomsAdaptor.get_structure(frame.atoms) for frame in frames]


def test_prediction(frames, package, record):
    """Energy, forces and stress of a batch, from structures on."""
    torch.set_num_threads(1)
    potential, given = load("chgnet_0_3_0"), structures(frames)

    def ours():
        potential(collate([from_atoms(frame.atoms, potential.r_max) for frame in frames]))

    def theirs():
        package.predict_structure(given, task="efs", batch_size=FRAMES)

    record(
        "chgnet, energy, forces and stress of 16 MPtrj frames",
        ratio(ours, theirs),
        unit="x",
        target=1.0,
        better="higher",
        peer="chgnet 0.4.2 predict_structure",
        threads=1,
    )


def test_step(frames, package, record):
    """Loss on energy, forces and stress and its gradient, from graphs on."""
    from chgnet.trainer.trainer import CombinedLoss

    torch.set_num_threads(1)
    potential = load("chgnet_0_3_0").train()
    loss = Loss({name: PropertyLoss(1.0, "huber", 0.1) for name in LABELS})
    batch = collate([
        from_atoms(frame.atoms, potential.r_max, {name: frame.labels[name] for name in LABELS})
        for frame in frames
    ])  # fmt: skip
    graphs = [package.graph_converter(structure) for structure in structures(frames)]
    criterion = CombinedLoss(target_str="efs", criterion="Huber", delta=0.1)
    targets = {
        "e": torch.tensor([float(f.labels["energy"]) / len(f) for f in frames]),
        "f": [torch.tensor(f.labels["forces"], dtype=torch.float32) for f in frames],
        "s": [torch.tensor(f.labels["stress"], dtype=torch.float32) for f in frames],
    }
    package.train()

    def ours():
        loss(potential(batch, outputs=LABELS, differentiable=True), batch)[0].backward()

    def theirs():
        criterion(targets, package(graphs, task="efs"))["loss"].backward()

    record(
        "chgnet, training step on 16 MPtrj frames",
        ratio(ours, theirs),
        unit="x",
        target=1.0,
        better="higher",
        peer="chgnet 0.4.2 model and CombinedLoss",
        threads=1,
    )
