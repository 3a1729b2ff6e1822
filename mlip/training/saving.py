"""The resumable state within an epoch, and after the signal of a queue."""

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mlip.training import ranks


class SaveState(Callback):
    """Writes the resumable state within an epoch, for a training that may be killed at any time.

    After SIGTERM, and on SLURM after SIGUSR1 and SIGUSR2, the state is written when the step at
    hand is done, whichever process was sent the signal. If somebody handled the signal before us
    (submitit, which requeues its job), that handler is called then; else the training stops.

    Args:
        path: The state, which is also written at the end of each epoch.
        minutes: Time between two of them; 0 writes it at every step, None only after a signal.
    """

    def __init__(self, path: Path, minutes: float | None) -> None:
        self.path = path
        self.minutes = math.inf if minutes is None else minutes
        self._last = time.monotonic()
        self._received = 0
        self._theirs = {number: signal.getsignal(number) for number in _signals()}

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Take the signals from Lightning, whose handler sends messages that nobody awaits."""
        if threading.current_thread() is threading.main_thread():
            for number in self._theirs:
                signal.signal(number, self._receive)  # Lightning puts them back

    def _receive(self, number: int, _: Any) -> None:
        self._received = number

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; the end of an epoch is not ours, nor gradients half added up."""
        timed = time.monotonic() - self._last >= 60 * self.minutes
        asked = ranks.largest(self._received or 0.5 * timed)
        between = (batch_idx + 1) % trainer.accumulate_grad_batches > 0
        if asked == 0 or between or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        trainer.save_checkpoint(self.path)
        self._last = time.monotonic()
        if asked >= 1:
            self._received = 0
            self._stop(int(asked))

    def _stop(self, number: int) -> None:
        handler = self._theirs.get(signal.Signals(number))
        if callable(handler):
            handler(number, None)
        if not ranks.any_of(callable(handler)):
            raise SIGTERMException


def _signals() -> list[signal.Signals]:
    """Return the signals that mean: save now."""
    wanted = [signal.SIGTERM]
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        if "SLURM_JOB_ID" in os.environ or callable(signal.getsignal(number)):
            wanted.append(number)
    return wanted
