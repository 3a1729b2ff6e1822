"""Two processes, gradients added up over batches, and halves of batches: all as one large batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.mace

TRAINING = """
import sys
from dataclasses import replace
import lightning, torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from mlip import config
from mlip.data.batching import Budget, BudgetLoader, BudgetSampler
from mlip.data.card import load_frames
from mlip.data.loader import counts, to_graphs
from mlip.graph import collate
from mlip.models.build import build, resolve
from mlip.training.loss import Loss, PropertyLoss
from mlip.training.module import TrainingModule
from mlip.training.strategy import SummedGradients

LABELS = ("energy", "forces", "stress")


class Together(BudgetSampler):
    '''Each batch is what all ranks hold at that step.'''

    def mine(self):
        import numpy as np
        plan = BudgetSampler(self.counts["edges"], self.counts["atoms"], self.budget,
                             seed=self.seed, shuffle=self.shuffle, rank=0, ranks=2)
        plan.set_epoch(self.epoch)
        plan = plan.plan()
        return [np.concatenate(plan[i : i + 2]) for i in range(0, len(plan), 2)]


def ragged(frames):
    '''Frames of 54 to 128 atoms, of which some lack one label or another.'''
    lacks = [(), ("stress",), ("forces",), ("energy",), (), ("forces", "stress")]
    return [
        replace(f, labels={k: v for k, v in f.labels.items() if k not in lacks[i % len(lacks)]})
        for i, f in enumerate(frames)
    ]


def loader(frames, size, sampler, shuffle):
    graphs = to_graphs(frames, 4.0, LABELS)
    made = sampler(*counts(graphs), Budget(frames=size), seed=1, shuffle=shuffle)
    return BudgetLoader(graphs, made, collate_fn=collate)


def potential():
    composed = config.compose("train", ["model.backbone.channels=4", "model.backbone.max_ell=1",
                                        "model.backbone.radial_network=[8]",
                                        "model.backbone.r_max=4.0", "model.precision=float64"])
    torch.manual_seed(0)
    made = build(resolve(OmegaConf.to_container(composed.model, resolve=True), ["Li"], 12.0))
    made.set_energy_references({"Li": -1.9})
    return made.train()


class Kept(Callback):
    def on_train_epoch_end(self, trainer, module):
        self.metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}


def limit(atoms, error):
    '''A machine whose memory does not suffice for more atoms.'''

    def change(potential):
        def refuse(_, inputs):
            if inputs[0].atoms > atoms:
                raise error

        potential.backbone.register_forward_pre_hook(refuse)

    return change


def train(sampler=BudgetSampler, size=3, devices=1, accumulate=1, epochs=1, change=None, frames=13):
    train, val = load_frames("mlearn_li", "train")[::7][:frames], load_frames("mlearn_li", "test")
    loss = Loss({"energy": PropertyLoss(10.0, "huber"), "forces": PropertyLoss(1.0, "huber"),
                 "stress": PropertyLoss(5.0, "mse")})
    model = potential()
    if change is not None:
        change(model)
    module = TrainingModule(
        model, loss, lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True), None, 0.9)
    kept = Kept()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=devices, callbacks=[kept], logger=False,
        strategy=SummedGradients() if devices > 1 else "auto", plugins=[LightningEnvironment()],
        use_distributed_sampler=False, num_sanity_val_steps=0, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, inference_mode=False,
        gradient_clip_val=1.0, accumulate_grad_batches=accumulate)
    trainer.fit(module, loader(ragged(train), size, sampler, True),
                loader(ragged(val[:5]), 2, BudgetSampler, False))
    return {"weights": {k: v.detach() for k, v in module.state_dict().items()},
            "metrics": kept.metrics, "steps": trainer.global_step, "splits": module.splits,
            "seen": len(val[:5])}
"""

NAMES: dict = {}
exec(TRAINING, NAMES)
train, limit = NAMES["train"], NAMES["limit"]


def close(one, two, tolerance=1e-10):
    assert one["steps"] == two["steps"]
    moved = 0.0
    start = NAMES["potential"]().state_dict()
    for name, value in one["weights"].items():
        if value.is_floating_point():
            assert torch.allclose(value, two["weights"][name], rtol=0, atol=tolerance), name
        if name.startswith("potential.") and value.is_floating_point():
            moved += float((value - start[name.removeprefix("potential.")]).abs().sum())
    assert moved > 1e-2  # else nothing was learnt


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes ends with, the second of which is short of memory."""
    folder = tmp_path_factory.mktemp("two")
    command = TRAINING + (
        "rank = __import__('os').environ['LOCAL_RANK']\n"
        "short = limit(150, torch.OutOfMemoryError('out of memory')) if rank == '1' else None\n"
        f"torch.save(train(devices=2, change=short), '{folder}/' + rank)"
    )
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    environment = os.environ | meeting | {"WORLD_SIZE": "2", "NODE_RANK": "0"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", command], cwd=ROOT,
            env=environment | {"LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    return [torch.load(folder / str(rank)) for rank in range(2)]


@pytest.fixture(scope="module")
def one():
    return train(NAMES["Together"])


def test_two_processes_train_as_one_with_the_same_batches(one, two):
    """Ranks hold different numbers of labels of each kind, and the norm is clipped."""
    assert one["steps"] >= 2
    for rank in two:
        close(one, rank)
    assert [rank["splits"] > 0 for rank in two] == [False, True]


def test_the_metrics_are_those_of_all_frames_once(one, two):
    for rank in two:
        assert set(rank["metrics"]) == set(one["metrics"])
        for name, value in one["metrics"].items():
            assert rank["metrics"][name] == pytest.approx(value, rel=1e-6), name


def test_the_validation_loss_does_not_depend_on_the_batches():
    whole = train(size=3, frames=3)
    other = NAMES["loader"]
    NAMES["loader"] = lambda frames, size, *rest: other(frames, 1 if size == 2 else size, *rest)
    try:
        single = train(size=3, frames=3)
    finally:
        NAMES["loader"] = other
    for name, value in whole["metrics"].items():
        assert single["metrics"][name] == pytest.approx(value, rel=1e-6), name


def test_steps_over_several_batches_are_those_of_a_larger_batch():
    """Where all batches hold as many labels: the mean of their means is that of all."""
    ragged = NAMES["ragged"]
    NAMES["ragged"] = lambda frames: [f for f in frames if len(f.atoms) == 54][:8]
    try:
        several, larger = train(size=2, accumulate=2, frames=40), train(size=4, frames=40)
    finally:
        NAMES["ragged"] = ragged
    assert larger["steps"] == 2
    close(several, larger)


def test_a_batch_that_does_not_fit_is_split_with_the_same_result(capsys):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    whole, split = train(size=6), train(size=6, change=limit(150, error))
    assert split["splits"] > 2
    assert whole["splits"] == 0
    close(whole, split)
    told = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert 1 <= len(told) < split["splits"]  # once a size, not once a batch
    assert "data.batch" in told[0]


def test_memory_that_runs_out_in_the_backward_pass_leaves_no_trace():
    def change(potential):
        weight = next(potential.parameters())
        failed = []

        def refuse(gradient):
            if not failed:
                failed.append(True)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return gradient

        weight.register_hook(refuse)

    split = train(size=6, change=change)
    assert split["splits"] == 1
    close(train(size=6), split)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="sizes of tensors"):
        train(change=limit(10, RuntimeError("sizes of tensors must match")))


def test_a_frame_that_does_not_fit_is_told_apart():
    from mlip.training.step import FrameTooLargeError

    with pytest.raises(FrameTooLargeError, match=r"1 structure of \d+ atoms"):
        train(change=limit(10, torch.OutOfMemoryError("CUDA out of memory")))
