"""The gradient of one batch: normalised over all devices, in halves where memory is short."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlip.graph import AtomGraph, take
from mlip.models.potential import Potential
from mlip.training import ranks
from mlip.training.loss import Loss
from mlip.training.metrics import label_counts

_OUT_OF_MEMORY = ("out of memory", "defaultcpuallocator", "alloc_failed")


class FrameTooLargeError(RuntimeError):
    """A single structure that does not fit into memory.

    Args:
        message: What is too large.
        place: Which structure of its batch it is, from 0.
    """

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


@dataclass
class Step:
    """What a batch gave on this device; added up over the devices, the whole batch.

    Args:
        loss: Its part of the loss.
        parts: Its part of the unweighted loss of each property.
        gradients: Of each weight, or None where the loss does not depend on it.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    gradients: list[Tensor | None]

    def __add__(self, other: "Step") -> "Step":
        return Step(
            self.loss + other.loss,
            {name: self.parts[name] + other.parts[name] for name in self.parts},
            [_sum(*pair) for pair in zip(self.gradients, other.gradients, strict=True)],
        )


@dataclass(frozen=True)
class Goal:
    """What a step minimises.

    Args:
        loss: The loss.
        weights: Positive weights of its properties at this step.
        total: (properties,) labelled components of each in the batch of all devices, float64.
    """

    loss: Loss
    weights: Mapping[str, Any]
    total: Tensor


Compute = Callable[[Potential, Goal, AtomGraph], Step]


class Stepper:
    """Computes the gradients of batches.

    The loss is a mean over labels, and devices (or halves) hold different numbers of them: each
    mean is weighted by its share of all labels of its property in the batch of all devices.
    The sum over devices then is the gradient that one device would have found.

    Args:
        compute: What gives the gradients of a batch that memory suffices for.
    """

    def __init__(self, compute: Compute | None = None) -> None:
        self.splits = 0
        self._compute = compute or gradients
        self._least = math.inf

    def __call__(
        self, potential: Potential, loss: Loss, weights: Mapping[str, float], batch: AtomGraph
    ) -> tuple[Step, Tensor]:
        """Return the gradients, and how many structures the batch has on all devices.

        Args:
            potential: The potential.
            loss: Its loss.
            weights: Positive weights of the properties at this step; no other is computed.
            batch: Structures of this device.

        Raises:
            FrameTooLargeError: If memory does not suffice for one structure.
        """
        counts = label_counts(weights, batch)
        frames = counts.new_tensor([batch.cell.shape[0]])
        total = ranks.summed(torch.cat([counts, frames]))
        return self._step(potential, Goal(loss, weights, total[:-1]), batch, 0), total[-1]

    def _step(self, potential: Potential, goal: Goal, batch: AtomGraph, first: int) -> Step:
        found = self._attempt(potential, goal, batch)
        if found is not None:  # here nothing of a failed attempt is alive any more
            return found
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        frames = batch.cell.shape[0]
        if frames == 1:
            raise FrameTooLargeError(f"no memory for a step on {_size(batch)}", first)
        self._tell(batch)
        half = frames // 2
        return self._step(potential, goal, take(batch, 0, half), first) + self._step(
            potential, goal, take(batch, half, frames), first + half
        )

    def _attempt(self, potential: Potential, goal: Goal, batch: AtomGraph) -> Step | None:
        try:
            return self._compute(potential, goal, batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        return None

    def _tell(self, batch: AtomGraph) -> None:
        """Count every split, but speak of one only where no batch as small had failed before."""
        self.splits += 1
        edges = batch.edge_index.shape[1]
        if edges < self._least:
            self._least = edges
            print(  # noqa: T201
                f"out of memory with {_size(batch)}: taken in halves, which gives the same "
                "gradient but costs time; a lower data.batch avoids it"
            )


def gradients(potential: Potential, goal: Goal, batch: AtomGraph) -> Step:
    """Return the loss of a batch and its gradients; every operation is one of tensors."""
    outputs = potential(batch, outputs=tuple(goal.weights), differentiable=True)
    totals = dict(zip(goal.weights, goal.total.clamp(min=1), strict=True))
    parts = goal.loss.shares(outputs, batch, totals)
    value = sum((goal.weights[k] * part for k, part in parts.items()), goal.total.new_zeros(()))
    trained = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    # Not backward(): if memory runs out half-way, no gradient has been touched.
    found = torch.autograd.grad(value, trained, allow_unused=True)
    return Step(value.detach(), {k: part.detach() for k, part in parts.items()}, list(found))


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(word in text for word in _OUT_OF_MEMORY)


def _size(batch: AtomGraph) -> str:
    frames, atoms, edges = batch.cell.shape[0], len(batch.positions), batch.edge_index.shape[1]
    return f"{frames} structure{'s'[: frames > 1]} of {atoms:,} atoms and {edges:,} edges"


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
