"""Batches of so many frames, edges or atoms, balanced across ranks, restorable anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.utils.data import DataLoader, Sampler

from mlip.data.findings import Finding
from mlip.errors import suggest

_UNITS = ("frames", "edges", "atoms")
_PROBED = 4  # epochs whose batches are counted beforehand
_TRIES = 100  # shuffles of an epoch, should it need more batches than those


@dataclass(frozen=True)
class Budget:
    """How much a batch may hold; what is None is not limited.

    Args:
        edges: Largest number of directed edges within the model's cutoff.
        atoms: Largest number of atoms.
        frames: Largest number of structures.
    """

    edges: int | None = None
    atoms: int | None = None
    frames: int | None = None

    @classmethod
    def from_config(cls, batch: Mapping[str, Any]) -> "Budget":
        """Return the budget of a config's ``data.batch``.

        Raises:
            ValueError: If it is not a mapping of frames, edges and atoms to whole numbers from 1.
        """
        for name, value in batch.items():
            if name not in _UNITS:
                raise ValueError(f"data.batch has no option {name!r}{suggest(str(name), _UNITS)}")
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"data.batch.{name} is {value!r}: give a whole number from 1")
        if not any(batch.values()):
            raise ValueError(
                "data.batch is empty: give {frames: 8}, {edges: 20000}, {atoms: 500}, or several"
            )
        return cls(**batch)


class BudgetSampler(Sampler[list[int]]):
    """Yields the frames of each batch: every frame once an epoch, in an order fixed by the seed.

    Frames are shuffled and put into batches until the next would exceed the budget. Batches are
    then dealt to the ranks in groups of nearly equal cost, so that no rank waits for another. A
    frame larger than the budget is a batch of its own (:meth:`findings` says so): nothing is
    dropped. All ranks and epochs get the same number of batches; the costliest are cut in two to
    make it so, and where all hold one frame already, up to ranks - 1 frames are repeated. Without
    shuffling, as in a validation, nothing is repeated: some ranks then have a batch less.

    Args:
        edges: (frames,) number of edges.
        atoms: (frames,) number of atoms.
        budget: What a batch may hold.
        seed: Seed of the order.
        shuffle: Another order in each epoch; False keeps that of the frames within a batch.
        rank: This process; None asks torch.distributed.
        ranks: Number of processes; None asks torch.distributed.

    Raises:
        ValueError: If there is no frame, or the counts have different lengths.
    """

    def __init__(
        self,
        edges: Sequence[int] | np.ndarray,
        atoms: Sequence[int] | np.ndarray,
        budget: Budget,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        self.counts = {
            "frames": np.ones(len(edges), dtype=np.int64),
            "edges": np.asarray(edges, dtype=np.int64),
            "atoms": np.asarray(atoms),
        }
        if not len(edges) or len(edges) != len(atoms):
            raise ValueError(
                f"{len(edges)} edge counts and {len(atoms)} atom counts: give both for each frame"
            )
        self.budget, self.seed, self.shuffle = budget, seed, shuffle
        self._rank, self._ranks = rank, ranks
        self.epoch = self.position = 0
        self._planned: tuple[int, int, list[np.ndarray]] | None = None

    @property
    def sampler(self) -> "BudgetSampler":
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; a restored position within it is kept."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __len__(self) -> int:
        return len(self.mine())

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.mine()[self.position :]:
            yield batch.tolist()

    def mine(self) -> list[np.ndarray]:
        """Return the batches of this process."""
        return self.plan()[self.rank :: self.ranks]

    @property
    def rank(self) -> int:
        """Number of this process."""
        if self._rank is None:
            return distributed.get_rank() if distributed.is_initialized() else 0
        return self._rank

    @property
    def ranks(self) -> int:
        """Number of processes."""
        if self._ranks is None:
            return distributed.get_world_size() if distributed.is_initialized() else 1
        return self._ranks

    def pretend(self, ranks: int) -> None:
        """Be the first of so many processes that are not there, to tell what a run would cost."""
        self._rank, self._ranks = 0, ranks

    def plan(self) -> list[np.ndarray]:
        """Return the batches of all ranks, ``plan()[rank::ranks]`` those of one."""
        key = (self.epoch, self.ranks)
        if self._planned is None or self._planned[:2] != key:
            count = -(-self._most // self.ranks) * self.ranks
            filled = next(
                (b for b in map(self._filled, range(_TRIES)) if len(b) <= count),
                self._filled(0, epoch=0),
            )
            batches = _split(filled, count, self.counts["edges"])
            if self.shuffle:
                batches += [batches[i % len(batches)] for i in range(count - len(batches))]
            self._planned = (*key, self._deal(batches))
        return self._planned[2]

    @cached_property
    def _most(self) -> int:
        """Batches of all ranks, the same in every epoch: a trainer asks once."""
        epochs = range(_PROBED if self.shuffle else 1)
        return max(len(self._filled(0, epoch)) for epoch in epochs)

    def _filled(self, attempt: int, epoch: int | None = None) -> list[np.ndarray]:
        order = np.arange(len(self.counts["edges"]))
        if self.shuffle:
            epoch = self.epoch if epoch is None else epoch
            np.random.default_rng([self.seed, epoch, attempt]).shuffle(order)
        return self._fill(order)

    def findings(self) -> list[Finding]:
        """Return a warning if frames are larger than the budget."""
        over = np.zeros(len(self.counts["edges"]), dtype=bool)
        for name in _UNITS:
            limit = getattr(self.budget, name)
            if limit is not None:
                over |= self.counts[name] > limit
        if not over.any():
            return []
        edges, atoms = (int(self.counts[name].max()) for name in ("edges", "atoms"))
        return [
            Finding(
                "warning",
                f"{np.count_nonzero(over)} of {len(over)} frames are larger than data.batch and "
                f"are batches of their own; the largest has {atoms} atoms and {edges} edges: raise "
                "the budget to these figures, or remove the frames if memory does not suffice",
            )
        ]

    def state_dict(self) -> dict[str, int]:
        """Return where the epoch stands."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another run stood.

        Raises:
            ValueError: If that run had another seed.
        """
        if state["seed"] != self.seed:
            raise ValueError(
                f"the saved position is of seed {state['seed']}, but seed is {self.seed}: the "
                "order of the batches would differ; give the same seed"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _fill(self, order: np.ndarray) -> list[np.ndarray]:
        limits = [(n, getattr(self.budget, n)) for n in _UNITS if getattr(self.budget, n)]
        sums = [(np.cumsum(self.counts[name][order]), limit) for name, limit in limits]
        batches, start = [], 0
        while start < len(order):
            before = [int(total[start - 1]) if start else 0 for total, _ in sums]
            ends = [
                int(np.searchsorted(total, held + limit, side="right"))
                for (total, limit), held in zip(sums, before, strict=True)
            ]
            stop = max(min(ends), start + 1)
            batches.append(order[start:stop])
            start = stop
        return batches

    def _deal(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        if self.ranks == 1:
            return batches
        edges = self.counts["edges"]
        ordered = sorted(batches, key=lambda batch: -int(edges[batch].sum()))
        steps = [ordered[i : i + self.ranks] for i in range(0, len(ordered), self.ranks)]
        places = np.arange(len(steps))
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(places)
        return [batch for place in places for batch in steps[place]]


class BudgetLoader(DataLoader):
    """A loader whose place within an epoch is saved and restored, prefetched batches not counted.

    ``given`` holds the frames of the batch given out last.

    Args:
        dataset: What makes the graphs.
        batch_sampler: The batches.
        options: As for ``DataLoader``.
    """

    def __init__(self, dataset: Any, batch_sampler: BudgetSampler, **options: Any) -> None:
        # A generator of its own: that of the process is left to the model, and so can be resumed.
        generator = torch.Generator().manual_seed(batch_sampler.seed)
        super().__init__(dataset, batch_sampler=batch_sampler, generator=generator, **options)
        self.batches = batch_sampler
        self.given: list[int] = []

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        mine = self.batches.mine()
        total = len(mine)
        for batch in super().__iter__():
            self.given = mine[self.batches.position].tolist()
            self.batches.position += 1
            if self.batches.position >= total:
                self.batches.position = 0
                self.batches.epoch += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return where the epoch stands, by the batches given out."""
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another run stood."""
        self.batches.load_state_dict(state)


def _split(batches: list[np.ndarray], count: int, edges: np.ndarray) -> list[np.ndarray]:
    """Cut the costliest batches in two until there are ``count`` of them, or no more to cut."""
    heap = [(-int(edges[b].sum()), place) for place, b in enumerate(batches) if len(b) > 1]
    heapify(heap)
    batches = list(batches)
    while len(batches) < count and heap:
        _, place = heappop(heap)
        whole = batches[place]
        batches[place] = whole[: len(whole) // 2]
        batches.append(whole[len(whole) // 2 :])
        for new in (place, len(batches) - 1):
            if len(batches[new]) > 1:
                heappush(heap, (-int(edges[batches[new]].sum()), new))
    return batches
