"""The sevennet backbone against the package sevenn: the same weights, frames, batch, precision."""

import statistics
import time

import pytest
import torch

from mlip.data.card import load_frames
from mlip.graph import collate, from_atoms
from mlip.models.loading import load

pytestmark = [pytest.mark.speed, pytest.mark.sevennet]
ATOMS, FRAMES, REPEATS = 30, 4, 7
WANTED = ("energy", "forces", "stress")


@pytest.fixture(scope="module")
def frames():
    return [frame for frame in load_frames("mptrj", "test") if len(frame) < ATOMS][:FRAMES]


@pytest.fixture
def package(frames):
    """A function that evaluates the frames as one batch, as the trainer of sevenn does."""
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.calculator import SevenNetCalculator
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from torch_geometric.data import Batch

    with pytest.warns(UserWarning, match="accelerator"):
        model = SevenNetCalculator("7net-0", device="cpu").model
    model.set_is_batch_data(True)
    graphs = [
        AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(frame.atoms, 5.0, with_shift=False))
        for frame in frames
    ]

    def evaluate(differentiable=False):
        found = model.train(differentiable)(Batch.from_data_list(graphs))
        return [found[f"inferred_{name}"] for name in ("total_energy", "force", "stress")]

    return evaluate


@pytest.fixture
def potential(frames):
    model = load("sevennet_0")
    batch = collate([from_atoms(frame.atoms, model.r_max) for frame in frames])

    def evaluate(differentiable=False):
        found = model(batch, outputs=WANTED, differentiable=differentiable)
        return [found[name] for name in WANTED]

    return evaluate


def step(outputs):
    sum(output.square().mean() for output in outputs).backward()


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


CASES = {
    "energy, forces and stress": lambda evaluate: evaluate(),
    "training step": lambda evaluate: step(evaluate(differentiable=True)),
}


@pytest.mark.parametrize("what", CASES)
def test_evaluation(what, potential, package, record):
    torch.set_num_threads(1)
    run = CASES[what]
    record(
        f"sevennet_0, {what}, 4 MPtrj frames",
        ratio(lambda: run(potential), lambda: run(package)),
        unit="x",
        target=1.0,
        better="higher",
        peer="sevenn 0.13.0 model",
        threads=1,
    )
