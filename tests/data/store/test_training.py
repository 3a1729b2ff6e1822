"""Training from a store: the same graphs as from frames, lazily, in workers, by budget."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlip.data.loader import StoreGraphs, average_neighbors, batches, force_scale, to_graphs
from mlip.data.sources import from_store
from mlip.data.store.convert import convert
from mlip.data.store.layout import Layout
from mlip.data.store.view import StoreView, divide, sample

ROOT = Path(__file__).parents[3]
TINY = [
    "model.backbone.channels=4",
    "model.backbone.max_ell=1",
    "model.backbone.radial_network=[8]",
    "model.backbone.r_max=4.0",
    "threads=1",
    "trainer=cpu",
    "data=store",
    "data.workers=1",
]


@pytest.fixture
def view(lithium):
    return StoreView(lithium, np.arange(60))


def assert_equal(one, two):
    one, two = one.to_dict(), two.to_dict()
    assert set(one) == set(two)
    for name, value in one.items():
        assert np.array_equal(value, two[name], equal_nan=True), name


def test_graphs_of_a_store_are_those_of_its_frames(view):
    expect = ("energy", "forces", "stress", "charges")
    lazy, eager = (to_graphs(frames, 4.5, expect) for frames in (view, list(view)))
    assert isinstance(lazy, StoreGraphs)
    for one, two in zip(lazy, eager, strict=True):
        assert_equal(one, two)
    assert force_scale(view) == force_scale(list(view))


@pytest.mark.parametrize("batch", [None, {"frames": 7}, {"edges": 4000}])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers_or_origin(view, batch, workers):
    data = {"batch_size": 5, "batch": batch, "workers": workers}
    stored = batches(to_graphs(view, 5.0, ("energy",)), data, shuffle=True, seed=3)
    data = {"batch_size": 5, "batch": batch, "workers": 0}
    memory = batches(to_graphs(list(view), 5.0, ("energy",)), data, shuffle=True, seed=3)
    for one, two in zip(stored, memory, strict=True):
        assert_equal(one, two)


def test_stored_neighbour_lists_give_the_same_graphs(tmp_path):
    store = convert("mlearn_cu", tmp_path / "s", layout=Layout(cutoff=4.0, neighbors=True))
    frames = StoreView(store, np.arange(len(store)))
    graphs = StoreGraphs(frames, 4.0, ("energy",))
    assert graphs.stored_edges
    for one, two in zip(graphs, to_graphs(list(frames), 4.0, ("energy",)), strict=True):
        assert_equal(one, two)
    assert average_neighbors(graphs) == average_neighbors(to_graphs(list(frames), 4.0, ()))


def test_the_splits_of_the_source_are_kept(lithium):
    splits = from_store(lithium.folder, val_fraction=0.1, test_fraction=0.5)
    assert len(splits.test) == 29
    assert {frame.source for frame in splits.test}.isdisjoint(f.source for f in splits.train)
    assert len(splits.train) + len(splits.val) == 241
    assert 10 < len(splits.val) < 45
    assert splits.elements == ["Li"]


def test_a_frame_keeps_its_side(lithium):
    whole = divide(lithium, 0.2, 0.0, 1)[1].indices
    part = StoreView(lithium, np.arange(100))
    assert isinstance(part[:50], StoreView)
    again = divide(lithium, 0.3, 0.0, 1)[1].indices
    assert set(whole) <= set(again)
    assert set(whole) != set(divide(lithium, 0.2, 0.0, 2)[1].indices)


def test_groups_stay_together(lithium):
    train, val, _ = divide(lithium, 0.3, 0.0, 5, group="group")
    assert {f.info["group"] for f in train}.isdisjoint(f.info["group"] for f in val)
    with pytest.raises(ValueError, match="has no 'mp_id', so that frames"):
        divide(lithium, 0.3, 0.0, 5, group="mp_id")


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.6, 0.4)])
def test_impossible_shares_are_refused(lithium, shares):
    with pytest.raises(ValueError, match="leave something to train on"):
        divide(lithium, *shares, 0)


def test_samples_are_spread_over_the_store(lithium):
    frames = sample(StoreView(lithium, np.arange(270)), 10)
    assert len(frames) == 10
    assert frames[0].source == lithium[0].source
    assert frames[9].source == lithium[269].source


def train(store, folder, *overrides):
    return [
        sys.executable,
        "train.py",
        *TINY,
        f"data.path={store.folder}",
        f"output={folder}",
        *overrides,
    ]


@pytest.mark.mace
def test_a_training_from_a_store_resumes_after_a_kill(lithium, tmp_path):
    options = ["data.batch={edges: 3000}", "resume=auto", "trainer.max_epochs=3"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    result = subprocess.run(
        train(lithium, straight, *options), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads((straight / "summary.json").read_text())
    assert summary["frames"]["test"] == 29
    process = subprocess.Popen(train(lithium, killed, *options), cwd=ROOT)
    while not (killed / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    command = train(lithium, killed, *options)
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert learnt(killed) == learnt(straight)


@pytest.mark.mace
@pytest.mark.parametrize("workers", [0, 2])
def test_a_kill_in_mid_epoch_changes_nothing(lithium, tmp_path, workers):
    options = [
        "data.batch={edges: 3000}",
        f"data.workers={workers}",
        "resume=auto",
        "trainer.max_epochs=2",
        "save_minutes=0",
    ]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    result = subprocess.run(train(lithium, straight, *options), **run)
    assert result.returncode == 0, result.stderr
    process = subprocess.Popen(
        train(lithium, killed, *options), cwd=ROOT, stdout=subprocess.DEVNULL, process_group=0
    )
    while (place := position(killed / "last.ckpt")) is None or place < (0, 5):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _, batch = position(killed / "last.ckpt")
    assert batch > 0, "the state is not one within an epoch"
    result = subprocess.run(train(lithium, killed, *options), **run)
    assert result.returncode == 0, result.stderr
    one, two = (load_file(folder / "last.safetensors") for folder in (straight, killed))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert learnt(killed) == learnt(straight)


def learnt(folder):
    """Rows of metrics.csv without how fast they came."""
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in rows]


def position(path):
    """Epoch and batch of a state, None while there is none."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True, map_location="cpu")
    (loader,) = state["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return loader["epoch"], loader["position"]
