"""Parts of batches, random numbers across a resume, and the clock of a training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlip.data.batching import Budget, BudgetLoader, BudgetSampler
from mlip.data.card import load_frames
from mlip.data.loader import counts, to_graphs
from mlip.graph import collate, take
from mlip.training import randomness, throughput
from mlip.training.step import _is_out_of_memory


@pytest.fixture(scope="module")
def graphs():
    return to_graphs(load_frames("mlearn_li", "train")[::40], 4.0, ("energy", "forces", "magmoms"))


@pytest.mark.parametrize(("start", "stop"), [(0, 2), (2, 5), (4, 5), (0, 5)])
def test_a_part_of_a_batch_is_the_batch_of_that_part(graphs, start, stop):
    part, expected = take(collate(graphs[:5]), start, stop), collate(graphs[start:stop])
    assert set(part.to_dict()) == set(expected.to_dict())
    for name, value in expected.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(part[name].nan_to_num(7.0), value.nan_to_num(7.0)), name
    assert part.num_nodes == expected.num_nodes


def test_a_structure_without_edges_can_be_taken(graphs):
    from ase import Atoms

    lone = to_graphs(load_frames("mlearn_li", "train")[:1], 4.0, ())[0]
    from mlip.graph import from_atoms

    batch = collate([lone, from_atoms(Atoms("Li"), 4.0), lone])
    assert take(batch, 1, 2).edge_index.shape == (2, 0)
    assert torch.equal(take(batch, 2, 3).edge_index, lone.edge_index)


def test_every_validation_frame_is_seen_once_by_one_process(graphs):
    edges, atoms = counts(graphs)
    for ranks in (2, 3, 5):
        seen = []
        for rank in range(ranks):
            budget = Budget(frames=1)
            sampler = BudgetSampler(edges, atoms, budget, shuffle=False, rank=rank, ranks=ranks)
            assert 0 < len(list(sampler)) == len(sampler)
            seen += [index for batch in sampler for index in batch]
        assert sorted(seen) == list(range(len(graphs)))


def test_the_loader_tells_which_frames_it_gave(graphs):
    sampler = BudgetSampler(*counts(graphs), Budget(frames=2), seed=3)
    loader = BudgetLoader(graphs, sampler, collate_fn=collate)
    for batch in loader:
        positions = torch.cat([graphs[i].positions for i in loader.given])
        assert torch.equal(batch.positions, positions)


def test_the_loader_leaves_the_random_numbers_to_the_model(graphs):
    loader = BudgetLoader(graphs, BudgetSampler(*counts(graphs), Budget(frames=2)),
                          collate_fn=collate)  # fmt: skip
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(loader)
    assert torch.equal(torch.rand(3), expected)


def test_random_numbers_go_on_after_a_resume():
    import random

    checkpoint: dict = {}
    saving = randomness.RandomStates()
    saving.on_save_checkpoint(None, None, checkpoint)
    expected = torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    resuming = randomness.RandomStates()
    resuming.on_load_checkpoint(None, None, checkpoint)
    resuming.on_train_start(None, None)
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])  # noqa: NPY002
    assert random.random() == expected[2]


def test_random_states_are_read_without_pickle(tmp_path):
    checkpoint: dict = {}
    randomness.RandomStates().on_save_checkpoint(None, None, checkpoint)
    torch.save(checkpoint, tmp_path / "state")
    torch.load(tmp_path / "state", weights_only=True)


def test_the_clock_tells_waiting_from_working(graphs, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    speed, logged = throughput.Throughput(), {}
    module = SimpleNamespace(device=torch.device("cpu"), splits=3, log=logged.__setitem__)
    trainer = SimpleNamespace(world_size=1, current_epoch=1, max_epochs=4)
    batch = collate(graphs[:3])
    speed.load_state_dict({"seconds": 3600.0})  # of an earlier part of the run
    speed.on_train_start(trainer, module)
    speed.on_train_epoch_start(trainer, module)
    for _ in range(2):
        now[0] += 0.25  # the loader
        speed.on_train_batch_start(trainer, module, batch, 0)
        now[0] += 0.75  # the step
        speed.on_train_batch_end(trainer, module, None, batch, 0)
    now[0] += 1.0  # the validation
    speed.on_train_epoch_end(trainer, module)
    assert logged["speed/loader_wait"] == pytest.approx(0.25)
    assert logged["speed/structures_per_s"] == pytest.approx(6 / 2)
    edges, atoms = batch.edge_index.shape[1], len(batch.positions)
    assert logged["speed/edges_per_s"] == pytest.approx(2 * edges / 2)
    assert logged["speed/atoms_per_s"] == pytest.approx(2 * atoms / 2)
    assert logged["speed/device_hours"] == pytest.approx((3600 + 3) / 3600)
    assert logged["speed/device_hours_left"] == pytest.approx(logged["speed/device_hours"])
    assert logged["speed/splits"] == 3


def test_workers_do_not_answer_the_signals_of_a_queue():
    import signal

    from mlip.data.loader import _leave_signals

    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    try:
        _leave_signals(0)
        for number in numbers:
            signal.raise_signal(number)  # would end this process
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("sizes of tensors must match"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, is_memory):
    assert _is_out_of_memory(error) == is_memory


def test_saving_is_no_wait_for_data_and_the_speed_is_in_the_history(tmp_path):
    from mlip.config import compose
    from mlip.training import run
    from mlip.training.stages import Stages

    config = compose("train", ["trainer=cpu"])
    trainer = run._trainer(config, tmp_path, 1, Stages(), [throughput.Throughput()])
    names = [type(callback).__name__ for callback in trainer.callbacks]
    assert names.index("SaveState") < names.index("Throughput") < names.index("History")
