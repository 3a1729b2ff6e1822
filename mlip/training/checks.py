"""Options of a run refused before anything loads, each with its remedy."""

from typing import Any

import torch
from omegaconf import DictConfig

from mlip import runtime
from mlip.errors import suggest

STRATEGIES = ("auto", "ddp")
_NO_FSDP = (
    "trainer.strategy is fsdp, which cannot train forces: they need a derivative of a derivative, "
    "for which the weights of a layer are gone once FSDP has sharded it; and the memory of a "
    "training is that of its edges, not of its weights: take trainer.strategy=ddp and a smaller "
    "data.batch, with trainer.accumulate_grad_batches to keep the size of a step"
)
MATMUL = ("highest", "high", "medium")


def check(config: DictConfig) -> None:
    """Refuse values that no training can have.

    Raises:
        ValueError: Naming the option, its value and what to give.
    """
    trainer = config.trainer
    _whole("trainer.max_epochs", trainer.max_epochs)
    _whole("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches)
    _whole("trainer.num_nodes", trainer.num_nodes)
    if trainer.strategy == "fsdp":
        raise ValueError(_NO_FSDP)
    _one_of("trainer.strategy", trainer.strategy, STRATEGIES)
    _one_of("matmul", config.matmul, MATMUL)
    patience, minutes, decay = config.patience, config.save_minutes, config.ema_decay
    if patience is not None and (not isinstance(patience, int) or patience < 1):
        raise ValueError(f"patience is {patience!r}: give epochs, from 1, or null for no limit")
    if minutes is not None and (not isinstance(minutes, int | float) or minutes < 0):
        raise ValueError(f"save_minutes is {minutes!r}: give minutes, or null for epochs only")
    if not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise ValueError(f"ema_decay is {decay!r}: give a number from 0 (off) to below 1")
    if trainer.accelerator in ("gpu", "cuda"):
        runtime.check_device("cuda")


def accelerator(config: DictConfig) -> str:
    """Return what to train on; Lightning's own ``auto`` would take MPS, which has no float64."""
    wanted = config.trainer.accelerator
    return runtime.best_device() if wanted == "auto" else wanted


def devices(config: DictConfig) -> int:
    """Return how many devices of this machine are to train.

    Raises:
        ValueError: If it has fewer, or the number is none.
    """
    wanted, gpu = config.trainer.devices, accelerator(config) in ("cuda", "gpu")
    found = torch.cuda.device_count() if gpu else runtime.available_cores()
    if wanted == "auto" and not gpu:
        raise ValueError(
            "trainer.devices is auto, which counts GPUs, and there is none: give "
            "trainer.devices=2 for two processes on the CPU"
        )
    if wanted == "auto":
        return found
    _whole("trainer.devices", wanted)
    if wanted > found:
        kind = "GPUs" if gpu else "cores"
        raise ValueError(f"trainer.devices is {wanted}, but this machine has {found} {kind}")
    return wanted


def check_validation(frames: int, processes: int) -> None:
    """Refuse fewer validation frames than devices: none may wait for the others with nothing.

    Raises:
        ValueError: With both numbers.
    """
    if frames < processes:
        raise ValueError(
            f"{frames} validation frames for {processes} devices: each needs one; raise "
            "data.source.val_fraction, or take fewer devices"
        )


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}: give a whole number from 1")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"{name} is {value!r}: give {' or '.join(known)}{suggest(str(value), known)}"
        )
