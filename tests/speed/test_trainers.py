"""Our training against the trainers of nequip and CHGNet: same sizes, frames, batch, precision."""

import pytest
import torch

from mlip.data.batching import Budget, BudgetLoader, BudgetSampler
from mlip.data.card import load_frames
from mlip.data.loader import counts
from mlip.graph import collate, from_atoms
from mlip.models.loading import load
from mlip.training.step import gradients
from tests.speed.accuracy import NequipTrain, Ours
from tests.speed.test_chgnet import structures
from tests.speed.test_compiled import our_step, ratio

pytestmark = pytest.mark.speed
SHORT, LONG = 1, 3
FRAMES, BATCH = 8, 4
LABELS = ("energy", "forces", "stress")


@pytest.mark.nequip
def test_nequip(tmp_path, record):
    """CPU seconds of an epoch with its validation, the start taken out by a longer training."""
    (tmp_path / "peer").mkdir()
    trainers = {
        "ours": Ours("nequip", "lithium"),
        "theirs": NequipTrain("nequip-train", "lithium", tmp_path / "peer"),
    }
    seconds = {}
    for name, trainer in trainers.items():
        short, long = (
            trainer.train(tmp_path / f"{name}{epochs}", epochs) for epochs in (SHORT, LONG)
        )
        seconds[name] = (long - short) / (LONG - SHORT)
    print(f"\nCPU seconds an epoch: {seconds}")
    record(
        "training epoch, NequIP of configs/ on lithium",
        seconds["theirs"] / seconds["ours"],
        unit="x",
        target=1.0,
        better="higher",
        peer="nequip-train 0.19",
        threads=1,
    )


@pytest.mark.chgnet
def test_chgnet(record):
    """An epoch of the published weights on small frames of MPtrj, loader included."""
    from chgnet.data.dataset import StructureData, collate_graphs
    from chgnet.model.model import CHGNet
    from chgnet.trainer import Trainer

    torch.set_num_threads(1)
    frames = [f for f in load_frames("mptrj", "test") if 4 < len(f) <= 24][:FRAMES]
    package = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    data = StructureData(
        structures(frames),
        [float(frame.labels["energy"]) / len(frame) for frame in frames],
        [frame.labels["forces"] for frame in frames],
        stresses=[frame.labels["stress"] for frame in frames],
        graph_converter=package.graph_converter,
    )
    kept = [data[i] for i in range(len(data))]  # made once: graphs are not what is compared
    trainer = Trainer(
        model=package, targets="efs", criterion="Huber", optimizer="AdamW", learning_rate=1e-9,
        use_device="cpu", print_freq=1000,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(kept, batch_size=BATCH, collate_fn=collate_graphs)
    potential = load("chgnet_0_3_0").train()
    graphs = [from_atoms(f.atoms, potential.r_max, f.labels, LABELS) for f in frames]
    graphs = [graph for graph in graphs if graph.edge_index.shape[1]]
    sampler = BudgetSampler(*counts(graphs), Budget(frames=BATCH))
    own = BudgetLoader(graphs, sampler, collate_fn=collate)
    step = our_step(potential, next(iter(own)), gradients)

    def ours():
        for batch in own:
            step(batch)

    def theirs():
        trainer._train(loader, 0)

    ours(), theirs()
    record(
        "training epoch, CHGNet 0.3.0 on 8 small frames of MPtrj",
        ratio(ours, theirs),
        unit="x",
        target=1.0,
        better="higher",
        peer="chgnet 0.4.2 Trainer",
        threads=1,
    )
