"""The random numbers of every process, saved and restored with the state of a run."""

import random
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from mlip.training import ranks


class RandomStates(Callback):
    """Keeps the generators of all processes in the state, and sets each where it stood."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Add the generators of every process; Lightning calls this in all of them."""
        checkpoint["random_states"] = ranks.gathered(_states())

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Remember those of this process."""
        states = checkpoint.get("random_states", [])
        self._restored = states[ranks.rank()] if ranks.rank() < len(states) else None

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Set the generators last: what comes before a training may draw numbers itself."""
        if self._restored is not None:
            _restore(self._restored)
        elif ranks.rank() > 0:  # with one seed all would draw the same numbers
            torch.manual_seed(torch.initial_seed() + ranks.rank())


def _states() -> dict[str, Any]:
    """Return the states as tensors and plain containers, which loading without pickle allows."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
