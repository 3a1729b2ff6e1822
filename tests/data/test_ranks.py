"""Two real processes of torch.distributed share the batches of an epoch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlip.data.card import load_frames
from mlip.data.loader import to_graphs

ROOT = Path(__file__).parents[2]
WORKER = """
import json, sys
import torch.distributed as distributed
from mlip.data.card import load_frames
from mlip.data.loader import batches, to_graphs

rank, meeting, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
graphs = to_graphs(load_frames("mlearn_li", "train"), 4.0, ("energy",))
loader = batches(graphs, {"batch": {"edges": 6000}, "workers": 0}, shuffle=True, seed=3)
epochs = []
for epoch in range(2):
    loader.batch_sampler.set_epoch(epoch)
    indices = list(loader.batch_sampler)
    edges = [batch.edge_index.shape[1] for batch in loader]
    epochs.append({"indices": indices, "edges": edges})
    distributed.barrier()
open(f"{output}/{rank}.json", "w").write(json.dumps(epochs))
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """What each rank saw in each epoch: [rank][epoch]."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-c", WORKER]
    started = [
        subprocess.Popen([*command, str(rank), str(folder / "meeting"), str(folder)], cwd=ROOT)
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_ranks_are_disjoint_and_together_complete(epochs):
    everything = set(range(len(load_frames("mlearn_li", "train"))))
    for one, two in zip(*epochs, strict=True):
        first, second = ({i for batch in rank["indices"] for i in batch} for rank in (one, two))
        assert not first & second
        assert first | second == everything
    assert epochs[0][0]["indices"] != epochs[0][1]["indices"]


def test_ranks_take_as_many_steps_of_nearly_the_same_cost(epochs):
    graphs = to_graphs(load_frames("mlearn_li", "train"), 4.0, ("energy",))
    largest = max(graph.edge_index.shape[1] for graph in graphs)
    for pair in zip(*epochs, strict=True):
        edges = [rank["edges"] for rank in pair]
        assert len(edges[0]) == len(edges[1])
        costs = np.array(edges)
        assert costs.max() <= max(6000, largest)
        # A step takes as long as its slowest rank.
        assert costs.max(axis=0).sum() / costs.mean(axis=0).sum() < 1.1
