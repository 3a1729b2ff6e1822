"""Batches within a budget: every frame once, equal on all ranks, restorable anywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlip.data.batching import Budget, BudgetLoader, BudgetSampler

COUNTS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 4000)), min_size=1, max_size=80)


def samplers(counts, budget, ranks, seed=0, epoch=0):
    atoms, edges = np.array(counts).T
    made = [
        BudgetSampler(edges, atoms, budget, seed=seed, rank=r, ranks=ranks) for r in range(ranks)
    ]
    for sampler in made:
        sampler.set_epoch(epoch)
    return made


@given(
    COUNTS,
    st.integers(1, 5000) | st.none(),
    st.integers(1, 100) | st.none(),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 7),
)
def test_every_frame_once_within_the_budget(counts, edges, atoms, ranks, seed, epoch):
    if edges is None and atoms is None:
        edges = 1000
    made = samplers(counts, Budget(edges, atoms), ranks, seed, epoch)
    per_rank = [list(sampler) for sampler in made]
    assert len({len(batches) for batches in per_rank}) == 1
    assert [len(sampler) for sampler in made] == [len(batches) for batches in per_rank]
    flat = [batch for batches in per_rank for batch in batches]
    seen = sorted(index for batch in flat for index in batch)
    assert set(seen) == set(range(len(counts)))
    assert len(seen) - len(counts) < ranks
    if len(seen) > len(counts):
        assert all(len(batch) == 1 for batch in flat)
    for batch in flat:
        if len(batch) > 1:
            assert edges is None or sum(counts[i][1] for i in batch) <= edges
            assert atoms is None or sum(counts[i][0] for i in batch) <= atoms


@given(COUNTS, st.integers(0, 3), st.integers(0, 50))
def test_the_order_depends_on_seed_and_epoch_alone(counts, seed, epoch):
    one, two = (samplers(counts, Budget(edges=4000), 1, seed, epoch)[0] for _ in range(2))
    list(two)
    assert list(one) == list(two)
    lengths = set()
    for later in range(6):
        one.set_epoch(later)
        lengths.add(len(one))
    assert len(lengths) == 1


def test_epochs_and_seeds_differ():
    counts = [(10, 100 + i) for i in range(200)]
    orders = {
        str(list(samplers(counts, Budget(edges=1500), 1, seed, epoch)[0]))
        for seed in range(2)
        for epoch in range(3)
    }
    assert len(orders) == 6


def test_ranks_get_equal_work_at_every_step():
    generator = np.random.default_rng(0)
    counts = [(1, int(e)) for e in generator.lognormal(6, 1, 3000)]
    made = samplers(counts, Budget(edges=20_000), 4)
    costs = np.array([[sum(counts[i][1] for i in b) for b in sampler] for sampler in made])
    assert costs.shape[0] == 4
    # A step takes as long as its slowest rank.
    assert costs.max(axis=0).sum() / costs.mean(axis=0).sum() < 1.02


def test_a_frame_above_the_budget_is_told_and_kept():
    (sampler,) = samplers([(5, 100), (50, 9000), (5, 100)], Budget(edges=1000), 1)
    assert [1] in list(sampler)
    (finding,) = sampler.findings()
    assert finding.message.startswith("1 of 3 frames are larger than data.batch")
    assert "50 atoms and 9000 edges" in finding.message
    assert not samplers([(5, 100)], Budget(edges=1000), 1)[0].findings()


@given(COUNTS, st.integers(0, 30), st.integers(1, 3))
def test_the_place_within_an_epoch_is_restored(counts, stop, ranks):
    def run(sampler):
        return BudgetLoader(torch.arange(len(counts)), sampler)

    whole = [x.tolist() for x in run(samplers(counts, Budget(edges=4000), ranks, 1, 2)[0])]
    stop = stop % len(whole)
    first = run(samplers(counts, Budget(edges=4000), ranks, 1, 2)[0])
    taken = [x.tolist() for _, x in zip(range(stop), first, strict=False)]
    second = run(samplers(counts, Budget(edges=4000), ranks, 1)[0])
    second.load_state_dict(first.state_dict())
    second.batches.set_epoch(2)
    assert taken + [x.tolist() for x in second] == whole
    assert second.state_dict() == {"epoch": 3, "position": 0, "seed": 1}


def test_prefetched_batches_do_not_count():
    loader = BudgetLoader(
        torch.arange(40),
        BudgetSampler([10] * 40, [1] * 40, Budget(edges=20), rank=0, ranks=1),
        num_workers=2,
    )
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    assert loader.state_dict()["position"] == 3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"edge": 3}, "no option 'edge'; did you mean 'edges'"),
        ({"edges": 0}, "whole number from 1"),
        ({"edges": None}, "is empty"),
        ({"atoms": "many"}, "'many'"),
    ],
)
def test_bad_budgets_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        Budget.from_config(batch)


def test_another_seed_cannot_be_resumed():
    sampler = BudgetSampler([1], [1], Budget(edges=5), seed=1)
    with pytest.raises(ValueError, match="seed 2, but seed is 1"):
        sampler.load_state_dict({"epoch": 0, "position": 0, "seed": 2})
