"""Sums over the processes of a run; with one process, what it gives is the sum."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn


def size() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, on its own device."""
    return _reduced(values, distributed.ReduceOp.SUM)


def largest(value: float) -> float:
    """Return the largest of a number that each process gives."""
    return float(_reduced(torch.tensor(value, dtype=torch.float64), distributed.ReduceOp.MAX))


def any_of(flag: bool) -> bool:
    """Return whether any process says yes."""
    return largest(float(flag)) > 0


def gathered(thing: Any) -> list[Any]:
    """Return what each process gives, in the order of the processes."""
    if size() == 1:
        return [thing]
    found: list[Any] = [None] * size()
    distributed.all_gather_object(found, thing)
    return found


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one message for each precision.

    A weight without a gradient in any process keeps none, so that an optimiser passes it over as
    it would in a training by one process.
    """
    if size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for dtype in dict.fromkeys(parameter.dtype for parameter in trained):
        group = [parameter for parameter in trained if parameter.dtype == dtype]
        present = torch.stack([p.new_tensor(float(p.grad is not None)) for p in group])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
        total = summed(torch.cat([present, *(gradient.flatten() for gradient in gradients)]))
        found = total[: len(group)].tolist()
        pieces = total[len(group) :].split([p.numel() for p in group])
        for parameter, has, piece in zip(group, found, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone() if has else None


def share_weights(module: nn.Module) -> None:
    """Give every process the weights and buffers of the first."""
    if size() == 1:
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        sent = tensor.detach().byte() if tensor.dtype == torch.bool else tensor.detach()
        held = sent.to(_device(), copy=True)
        distributed.broadcast(held, src=0)
        with torch.no_grad():
            tensor.copy_(held)


def _reduced(values: Tensor, operation: Any) -> Tensor:
    if size() == 1:
        return values
    total = values.detach().to(_device(), copy=True)
    distributed.all_reduce(total, op=operation)
    return total.to(values.device)


def _device() -> torch.device:
    """Where messages have to lie: NCCL sends from GPUs only."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
