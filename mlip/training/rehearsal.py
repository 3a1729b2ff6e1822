"""A training that is not run: one step on its largest batch, and what the whole would cost."""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlip.data.batching import BudgetLoader
from mlip.errors import DivergedError
from mlip.graph import AtomGraph, collate
from mlip.models.potential import Potential
from mlip.training.loss import Loss

_SECONDS = 5.0  # of steps that are timed
_MOST = 20


@dataclass(frozen=True)
class Rehearsal:
    """What a training would cost.

    Args:
        parameters: Weights that are trained.
        batches: Steps an epoch.
        largest: Structures, atoms and edges of the largest batch.
        loss: Loss of that batch before any training.
        memory: Peak memory of a step on it, bytes: of the GPU, else of this process.
        step: Seconds of a step on a batch of median size.
        validation: Seconds of a validation.
        epochs: Epochs asked for.
    """

    parameters: int
    batches: int
    largest: tuple[int, int, int]
    loss: float
    memory: int
    step: float
    validation: float
    epochs: int

    @property
    def epoch(self) -> float:
        """Seconds of an epoch with its validation."""
        return self.batches * self.step + self.validation

    def to_text(self) -> str:
        """Return a page for the terminal."""
        structures, atoms, edges = self.largest
        rows = (
            ("weights", f"{self.parameters:,}"),
            ("largest batch", f"{structures} structures, {atoms:,} atoms, {edges:,} edges"),
            ("its loss", f"{self.loss:.4g}, before any step"),
            ("memory", f"{self.memory / 1e9:.2f} GB for a step on it"),
            ("step", f"{self.step:.3g} s on a batch of median size"),
            ("epoch", f"{_duration(self.epoch)} ({self.batches} steps and the validation)"),
            ("in all", f"{_duration(self.epochs * self.epoch)} for {self.epochs} epochs"),
        )
        return "\n".join(f"{name:<14}{told}" for name, told in rows)


def rehearse(
    potential: Potential,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    train: BudgetLoader,
    val: Sequence[AtomGraph],
    epochs: int,
) -> Rehearsal:
    """Take a step on the largest batch, time some of median size, and tell what all would cost.

    Args:
        potential: The potential, on its device; its weights change.
        loss: What would be minimised.
        optimizer: Optimiser of its weights.
        train: Batches of the training.
        val: Graphs to validate with.
        epochs: Epochs asked for.

    Raises:
        DivergedError: If loss or gradient of the first step is not a number.
    """
    sampler, graphs = train.batches, train.dataset
    plan = sampler.plan()
    order = np.argsort([int(sampler.counts["edges"][batch].sum()) for batch in plan])

    def batch_of(place: int) -> AtomGraph:
        chosen = plan[int(order[place])]
        return collate([graphs[int(i)] for i in chosen]).to(potential.device)  # type: ignore[index]

    largest = batch_of(len(plan) - 1)
    first = _step(potential, loss, optimizer, largest)
    memory = _peak_memory(potential.device)
    median = batch_of(len(plan) // 2)
    return Rehearsal(
        parameters=sum(p.numel() for p in potential.parameters() if p.requires_grad),
        batches=len(train),
        largest=(largest.cell.shape[0], len(largest.positions), largest.edge_index.shape[1]),
        loss=first,
        memory=memory,
        step=_timed(lambda: _step(potential, loss, optimizer, median)),
        validation=_validation(potential, val),
        epochs=epochs,
    )


def _step(
    potential: Potential, loss: Loss, optimizer: torch.optim.Optimizer, batch: AtomGraph
) -> float:
    optimizer.zero_grad()
    weights = dict.fromkeys(loss.names, 0.0) | loss.final  # of all stages: the dearest step
    total, _ = loss(potential(batch, outputs=loss.names, differentiable=True), batch, weights)
    total.backward()
    gradients = [p.grad for p in potential.parameters() if p.grad is not None]
    if not torch.isfinite(total) or not all(bool(torch.isfinite(g).all()) for g in gradients):
        raise DivergedError(
            f"the loss of the first step is {float(total.detach()):.4g}, and it or its gradient is "
            "not a number: check the labels (mlip data doctor) and the loss weights"
        )
    optimizer.step()
    return float(total.detach())


def _validation(potential: Potential, graphs: Sequence[AtomGraph]) -> float:
    """Return the seconds of a validation, from a few of its frames."""
    some = [graphs[i] for i in range(min(len(graphs), 8))]
    batch = collate(some).to(potential.device)
    return _timed(lambda: potential(batch)) * len(graphs) / len(some)


def _timed(function) -> float:  # noqa: ANN001
    """Return the shortest of some calls, s, the first of which does not count."""
    function()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < _SECONDS and len(times) < _MOST):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{seconds:.1f} s"
