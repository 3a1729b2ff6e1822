"""Which devices of this machine train, and whether there are enough of them."""

import torch
from omegaconf import DictConfig

from mlip import runtime


def accelerator(config: DictConfig) -> str:
    """Return what to train on; Lightning's own ``auto`` would take MPS, which has no float64."""
    wanted = config.trainer.accelerator
    return runtime.best_device() if wanted == "auto" else wanted


def count(config: DictConfig) -> int:
    """Return how many devices of this machine are to train.

    Raises:
        ValueError: If it has fewer, or the number is none.
    """
    wanted, gpu = config.trainer.devices, accelerator(config) in ("cuda", "gpu")
    if gpu:
        runtime.check_device("cuda")
    found = torch.cuda.device_count() if gpu else runtime.available_cores()
    if wanted == "auto" and not gpu:
        raise ValueError(
            "trainer.devices is auto, which counts GPUs, and there is none: give "
            "trainer.devices=2 for two processes on the CPU"
        )
    if wanted == "auto":
        return found
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
