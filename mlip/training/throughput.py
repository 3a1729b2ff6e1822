"""Speed, loader wait, memory and device-hours of a training, measured while it runs."""

import resource
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from mlip.training import ranks


class Throughput(Callback):
    """Logs what an epoch cost, for all devices together.

    ``speed/structures_per_s``, ``atoms_per_s`` and ``edges_per_s`` are those of the training steps,
    waits for the loader included, validation not; ``speed/loader_wait`` is the share of that time
    in which the slowest device waited for its next batch; ``memory_GB`` the peak of the fullest
    device (of the process, without a GPU); ``device_hours`` are all so far, of earlier parts of a
    resumed run too, validation included, and ``device_hours_left`` those to the last epoch at
    the pace so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.last: dict[str, float] = {}
        self._reset()
        self._since = self._mark = time.perf_counter()

    def _reset(self) -> None:
        self._counts = torch.zeros(3, dtype=torch.float64)
        self._steps = self._waited = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start to wait for the first batch."""
        self._reset()
        self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the wait for a batch."""
        now = time.perf_counter()
        self._waited += now - self._mark
        self._steps += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a step, and start to wait for the next batch."""
        size = batch.cell.shape[0], batch.positions.shape[0], batch.edge_index.shape[1]
        self._counts += torch.tensor(size, dtype=torch.float64)
        now = time.perf_counter()
        self._steps += now - self._mark
        self._mark = now

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Log the epoch."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now
        steps = max(ranks.largest(self._steps), 1e-9)
        rates = (ranks.summed(self._counts) / steps).tolist()
        hours = self.seconds * trainer.world_size / 3600
        done = trainer.current_epoch + 1
        self.last = {
            "structures_per_s": rates[0],
            "atoms_per_s": rates[1],
            "edges_per_s": rates[2],
            "loader_wait": ranks.largest(self._waited) / steps,
            "memory_GB": ranks.largest(peak_memory(module.device)) / 1e9,
            "device_hours": hours,
            "device_hours_left": hours / done * ((trainer.max_epochs or done) - done),
            "splits": float(ranks.summed(torch.tensor(float(module.splits)))),
        }
        for name, value in self.last.items():
            module.log(f"speed/{name}", value)

    def state_dict(self) -> dict[str, float]:
        """Return the time spent so far, s."""
        return {"seconds": self.seconds + time.perf_counter() - self._since}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting where the interrupted run stood."""
        self.seconds = state_dict["seconds"]


def peak_memory(device: torch.device) -> int:
    """Return the largest memory used so far, bytes: of the GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
