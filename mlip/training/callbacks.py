"""Callbacks: the best potential as a checkpoint, exact writing, history, progress."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mlip.errors import DivergedError
from mlip.models.checkpoint import save


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes the resumable state beside its target and then renames, so that a kill loses none."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save under a temporary name, then replace."""
        partial = Path(path).with_name(f".{Path(path).name}.partial")
        super().save_checkpoint(checkpoint, partial, storage_options)
        partial.replace(path)


class SaveBest(Callback):
    """Writes ``best.safetensors`` whenever the monitored error falls, ``last`` at every epoch.

    Epochs of all stages compete: validation errors do not depend on the weights of a stage, and
    ``val/loss`` has those of the end of the training in all of them.

    Args:
        folder: Run folder.
        config: Resolved ``model`` config.
        monitor: Name of the validation error.
        card: What the checkpoint says of its training.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], monitor: str, card: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.config = config
        self.monitor = monitor
        self.card = dict(card)
        self.best = float("inf")
        self.best_epoch = -1

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save if this epoch is the best so far."""
        if trainer.sanity_checking:
            return
        errors = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        if self.monitor not in errors:
            raise ValueError(f"monitor is {self.monitor!r}: choose one of {', '.join(errors)}")
        if not math.isfinite(errors[self.monitor]):
            raise DivergedError(
                f"{self.monitor} is {errors[self.monitor]} at epoch {trainer.current_epoch}: the "
                "training diverged; lower optimizer.lr or trainer.gradient_clip_val. The "
                f"checkpoints in {self.folder} are those of the epoch before"
            )
        if not trainer.is_global_zero:
            return
        card = self.card | {"epoch": trainer.current_epoch, "validation": errors}
        if errors[self.monitor] < self.best:
            self.best, self.best_epoch = errors[self.monitor], trainer.current_epoch
            save(self.folder / "best.safetensors", module.best_guess, self.config, card)
        save(self.folder / "last.safetensors", module.best_guess, self.config, card)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must remember."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the best of the interrupted run."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class History(Callback):
    """Appends one row an epoch to ``metrics.csv``; a resumed run goes on in the same file.

    ``weight/…`` are the weights of the loss at the start of the epoch. What a stage does not
    compute is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Write the row of this epoch."""
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        weights = module.loss.weights_at(trainer.current_epoch)
        row |= {f"weight/{name}": weights.get(name, 0.0) for name in module.loss.names}
        row |= {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if not name.startswith("train/") or name in module.trained
        }  # Lightning still shows what an earlier stage computed
        rows = [old for old in read_history(self.path) if int(old["epoch"]) < row["epoch"]]
        rows = [*rows, row]
        names = dict.fromkeys(name for one in rows for name in one)
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(names))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.csv``, numbers as numbers."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {name: _number(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


class ProgressBar(Callback):
    """One bar over the whole training, with the current validation errors and the time left."""

    def __init__(self) -> None:
        self.console = Console()
        self.progress: Progress | None = None

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Open the bar where the run stands."""
        if not trainer.is_global_zero:
            return
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[errors]}"),
            console=self.console,
        )
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 0)
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        self.task = self.progress.add_task(
            "training", total=total or None, completed=done, errors=""
        )
        self.progress.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by one step."""
        if self.progress is not None:
            self.progress.advance(self.task)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Show the errors of this epoch; in a log file, print them."""
        if self.progress is None:
            return
        errors = _summary({k: float(v) for k, v in trainer.callback_metrics.items()})
        self.progress.update(self.task, errors=errors)
        if not self.console.is_terminal:
            self.console.print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {errors}")

    def teardown(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Close the bar, also after an error."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _summary(errors: Mapping[str, float]) -> str:
    shown = {
        "E": ("val/energy_per_atom_rmse_meV", "meV/atom"),
        "F": ("val/forces_rmse_meV_per_A", "meV/Å"),
        "S": ("val/stress_rmse_GPa", "GPa"),
    }
    return "  ".join(
        f"{short} {errors[name]:.3g} {unit}"
        for short, (name, unit) in shown.items()
        if name in errors
    )
