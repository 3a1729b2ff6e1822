"""Stages in a training: what is computed, what changes, and a kill -9 around the change."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mlip import config as configs
from mlip.data.card import load_frames
from mlip.models.checkpoint import read_header
from mlip.training import run as run_module
from mlip.training.run import run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.mace
STAGES = [
    "stages=direct_forces",
    "stages.direct.start=1",
    "stages.conservative.start=2",
    "stages.conservative.learning_rate=0.003",
]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A few small frames of lithium, as a file."""
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    moved = [f for f in load_frames("mlearn_li", "train") if abs(f.labels["forces"]).max() > 0.1]
    images = []
    for frame in sorted(moved, key=lambda frame: len(frame.atoms))[:14]:
        atoms = frame.atoms.copy()
        labels = frame.labels
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(labels["energy"]), forces=labels["forces"]
        )
        images.append(atoms)
    path = tmp_path_factory.mktemp("frames") / "li.extxyz"
    ase.io.write(path, images)
    return path


def overrides(frames, folder, *more):
    return [
        "model.backbone.channels=4", "model.backbone.max_ell=1", "model.backbone.max_l=1",
        "model.backbone.radial_network=[8]", "model.backbone.r_max=4.0", "threads=1",
        "trainer=cpu", "data=extxyz", f"data.path={frames}", "data.units=ase", "data.batch_size=4",
        "data.source.val_fraction=0.15", "data.source.test_fraction=0.0",
        "trainer.max_epochs=4", "save_minutes=0", f"output={folder}", *more,
    ]  # fmt: skip


@pytest.fixture
def train(frames, tmp_path, monkeypatch):
    """Run in this process, without the report; return the rows of metrics.csv."""
    monkeypatch.setattr(run_module, "_report", lambda *args: None)

    def trained(*more, name="out"):
        folder = tmp_path / name
        run(configs.compose("train", overrides(frames, folder, *more)))
        with (folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    return trained


class Asked:
    """Counts what the potential is asked for in each training step, and derivatives taken."""

    def __init__(self, monkeypatch):
        from mlip.models.potential import Potential
        from mlip.training.module import TrainingModule

        self.steps, self.inside, self.derivatives = [], False, 0
        step, grad, forward = TrainingModule.training_step, torch.autograd.grad, Potential.forward

        def training_step(module, *args):
            self.inside, self.derivatives = True, 0
            result = step(module, *args)
            self.steps.append((module.current_epoch, self.outputs, self.derivatives))
            self.inside = False
            return result

        def counted(*args, **kwargs):
            self.derivatives += bool(kwargs.get("create_graph"))  # else by the weights
            return grad(*args, **kwargs)

        def forward_seen(potential, graph, **kwargs):
            result = forward(potential, graph, **kwargs)
            if self.inside:
                self.outputs = set(result)
            return result

        monkeypatch.setattr(TrainingModule, "training_step", training_step)
        monkeypatch.setattr(torch.autograd, "grad", counted)
        monkeypatch.setattr(Potential, "forward", forward_seen)

    def of(self, epoch):
        return {
            (frozenset(out - {"energy", "energies"}), n) for e, out, n in self.steps if e == epoch
        }


def test_each_stage_computes_what_it_trains_and_no_more(train, monkeypatch, tmp_path):
    asked = Asked(monkeypatch)
    rows = train(*STAGES, "schedule=constant")
    assert asked.of(0) == {(frozenset({"forces"}), 1)}  # the frames have no stress
    assert asked.of(1) == {(frozenset({"direct_forces"}), 0)}
    assert asked.of(2) == asked.of(3) == {(frozenset({"forces"}), 1)}
    columns = ("weight/energy", "weight/forces", "weight/direct_forces", "learning_rate")
    assert [tuple(float(row[name]) for name in columns) for row in rows] == [
        (50, 10, 0, 0.01), (50, 0, 10, 0.01), (50, 10, 0, 0.003), (50, 10, 0, 0.003),
    ]  # fmt: skip
    assert [bool(row["train/forces_loss"]) for row in rows] == [True, False, True, True]
    assert [bool(row["train/direct_forces_loss"]) for row in rows] == [False, True, False, False]
    assert all(row["val/forces_rmse_meV_per_A"] for row in rows)
    for name in ("best", "last"):
        path = tmp_path / "out" / f"{name}.safetensors"
        assert list(read_header(path)["config"]["heads"]) == ["energy"]
        assert not [key for key in load_file(path) if "direct" in key]


def test_a_training_of_energies_pays_for_no_forces(train, monkeypatch):
    asked = Asked(monkeypatch)
    rows = train("loss.properties.forces.weight=0", "loss.properties.stress.weight=0",
                 "trainer.max_epochs=1")  # fmt: skip
    assert asked.of(0) == {(frozenset(), 0)}
    assert rows[0]["val/forces_rmse_meV_per_A"]  # their errors are told all the same


def test_a_weight_may_change_within_an_epoch(train, monkeypatch):
    """Three steps an epoch, so that epoch 1.5 is before the third step of the second."""
    asked = Asked(monkeypatch)
    train("loss.properties.forces.weight={0: 0, 1.5: 10}", "trainer.max_epochs=3")
    assert [n for epoch, _, n in asked.steps] == [0] * 5 + [1] * 4


def test_validation_compares_epochs_by_the_weights_of_the_end(train):
    change = "loss.properties.forces.weight={0: 0, 1: 10}"
    staged = train("trainer.max_epochs=2", change, "optimizer.lr=1e-12", name="staged")
    frozen = train("trainer.max_epochs=1", "optimizer.lr=1e-12", name="frozen")
    assert float(staged[0]["val/loss"]) == pytest.approx(float(frozen[0]["val/loss"]), rel=1e-6)
    assert float(staged[0]["train/loss"]) < float(frozen[0]["train/loss"])  # that one changes


def test_patience_waits_for_the_last_stage(train):
    still = ["optimizer.lr=1e-12", "schedule=constant", "patience=1", "ema_decay=0"]
    assert len(train(*still, name="plain")) < 4
    late = ["stages=two", "stages.energies.start=2", "stages.energies.learning_rate=1e-12"]
    assert len(train(*still, *late, name="late")) == 4


def test_the_average_begins_anew_with_a_stage(train, tmp_path):
    stage = ["stages=two", "stages.energies.start=2", "trainer.max_epochs=3"]
    train(*stage, "stages.energies.restart_average=true", name="anew")
    train(*stage, name="on")
    counts = [
        int(torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
            ["averaged.n_averaged"])
        for name in ("anew", "on")
    ]  # fmt: skip
    assert counts == [3, 9]


KILLS = """
import json, os, signal, sys
from pathlib import Path
from mlip import config
from mlip.training import run as module
from mlip.training.callbacks import SaveState
from mlip.training.stages import StageChange

folder, overrides, kills = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
module._report = lambda *args: None

def killed_at(hook, step):
    owner, name = {"before": (StageChange, "on_train_batch_start"),
                   "after": (SaveState, "on_train_batch_end")}[hook]
    original = getattr(owner, name)
    def deadly(self, trainer, *args):
        if hook == "before" and trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, trainer, *args)
        if hook == "after" and trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, deadly)

def child(name, kill=None):
    pid = os.fork()
    if pid == 0:
        if kill:
            killed_at(*kill)
        words = [*overrides, f"output={folder / name}", "resume=auto"]
        try:
            module.run(config.compose("train", words))
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(child("whole"))
for hook, step in kills:
    print(child(f"{hook}_{step}", (hook, step)), child(f"{hook}_{step}"))
"""


def test_a_kill_around_a_change_of_stage_changes_no_bit(frames, tmp_path):
    """Three steps an epoch: the stages begin with steps 3 and 6, counted from 0."""
    kills = [("after", 6), ("before", 6), ("after", 7)]
    words = overrides(frames, "unused", *STAGES, "trainer.max_epochs=3")
    words = [word for word in words if not word.startswith("output=")]
    result = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), json.dumps(words), json.dumps(kills)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    codes = [line for line in result.stdout.splitlines() if line in ("0", "-9 0")]
    assert codes == ["0"] + ["-9 0"] * len(kills), result.stdout + result.stderr
    whole = tmp_path / "whole"
    for hook, step in kills:
        cut = tmp_path / f"{hook}_{step}"
        assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text(), cut.name
        for name in ("last", "best"):
            expected = load_file(whole / f"{name}.safetensors")
            for key, value in load_file(cut / f"{name}.safetensors").items():
                assert torch.equal(value, expected[key]), (cut.name, key)
