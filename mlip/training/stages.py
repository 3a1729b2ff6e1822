"""Stages of a training: from an epoch on other loss weights, learning rate, average."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping


@dataclass(frozen=True)
class Stage:
    """What changes from an epoch on, until the next stage.

    Published ones: stage two of MACE (Batatia et al., NeurIPS 2022; ``--start_swa``) raises the
    weight of the energies and lowers the learning rate for the last quarter; eSEN (Fu et al., arXiv
    2502.12147) trains direct forces first and conservative ones after.

    Args:
        start: Epoch, counted from 0, at which it begins; between 0 and 1 the share of
            ``trainer.max_epochs`` that lies before it.
        weights: Property -> weight in the loss during this stage; others keep that of ``loss``.
        learning_rate: Learning rate that it begins with, from which the schedule goes on; null
            leaves it. Groups of weights with different rates keep their ratio.
        restart_average: Whether the moving average of the weights begins anew.

    Raises:
        ValueError: If a number has no meaning.
    """

    start: int | float
    weights: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float | None = None
    restart_average: bool = False

    def __post_init__(self) -> None:
        if self.start < 0 or (self.start != int(self.start) and self.start > 1):
            raise ValueError(f"start is {self.start}: give an epoch from 0, or a share below 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a number above 0, "
                             "or null to leave it")  # fmt: skip
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"weights.{name} is {weight}: give 0 or more")


class Stages:
    """The stages of a training in the order of their epochs; there may be none.

    Args:
        stages: Name -> stage, with starts in whole epochs.
    """

    def __init__(self, stages: Mapping[str, Stage] | None = None) -> None:
        self.stages = dict(sorted((stages or {}).items(), key=lambda item: item[1].start))

    @classmethod
    def of(cls, stages: Mapping[str, Stage | None] | None, epochs: int) -> "Stages":
        """Return the stages of a config in a training of so many epochs.

        Args:
            stages: Name -> stage; a stage that is None is left out.
            epochs: ``trainer.max_epochs``.

        Raises:
            ValueError: If two stages begin together, or one after the end.
        """
        placed: dict[str, Stage] = {}
        for name, stage in (stages or {}).items():
            if stage is None:
                continue
            start = stage.start if stage.start >= 1 else math.ceil(stage.start * epochs)
            if start >= epochs:
                raise ValueError(
                    f"stages.{name}.start is {stage.start}, but trainer.max_epochs is {epochs}: "
                    "give an earlier start, or more epochs"
                )
            for other, before in placed.items():
                if before.start == start:
                    raise ValueError(
                        f"stages.{name}.start and stages.{other}.start are both epoch "
                        f"{int(start)}: give them different ones"
                    )
            placed[str(name)] = replace(stage, start=int(start))
        return cls(placed)

    def name_at(self, epoch: float) -> str | None:
        """Return the name of the stage at an epoch; None before the first."""
        begun = [name for name, stage in self.stages.items() if stage.start <= epoch]
        return begun[-1] if begun else None

    def at(self, epoch: float) -> Stage | None:
        """Return the stage at an epoch; None before the first."""
        name = self.name_at(epoch)
        return None if name is None else self.stages[name]

    def without(self, names: Collection[str]) -> "Stages":
        """Return the stages without the weights of some properties."""
        return Stages(
            {
                name: replace(
                    stage, weights={k: v for k, v in stage.weights.items() if k not in names}
                )
                for name, stage in self.stages.items()
            }
        )

    def is_last(self, epoch: float) -> bool:
        """Whether no stage begins after this epoch."""
        return all(stage.start <= epoch for stage in self.stages.values())


class StageChange(Callback):
    """Begins each stage before its first step, once, also in a training that was resumed.

    The loss weights follow from the epoch alone (:meth:`mlip.training.loss.Loss.weights_at`).

    Args:
        stages: The stages.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.entered: str | None = None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Change learning rate and average if this is the first step of a stage."""
        name = self.stages.name_at(trainer.current_epoch)
        if name is None or name == self.entered:
            return
        self.entered = name
        stage = self.stages.stages[name]
        if stage.learning_rate is not None:
            _set_learning_rate(trainer, stage.learning_rate)
        if stage.restart_average and module.averaged is not None:
            module.averaged.n_averaged.zero_()  # the next update copies the weights

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must remember."""
        return {"entered": self.entered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the stage of the interrupted run."""
        self.entered = state_dict["entered"]


class Patience(EarlyStopping):
    """Stops a training that no longer improves, but never before its last stage has begun.

    Args:
        monitor: Name of the validation error.
        patience: Epochs without improvement, counted in the last stage.
        stages: The stages.
    """

    def __init__(self, monitor: str, patience: int, stages: Stages) -> None:
        super().__init__(monitor, patience=patience)
        self.stages = stages

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Look in the last stage only."""
        if self.stages.is_last(trainer.current_epoch):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Look in the last stage only."""
        if self.stages.is_last(trainer.current_epoch):
            super().on_validation_end(trainer, pl_module)


def _set_learning_rate(trainer: lightning.Trainer, rate: float) -> None:
    """Give the first group of weights this rate, the others in proportion, and schedules too."""
    before = trainer.optimizers[0].param_groups[0]["lr"]
    for group in trainer.optimizers[0].param_groups:
        group["lr"] = rate * (group["lr"] / before)
    for config in trainer.lr_scheduler_configs:
        base = getattr(config.scheduler, "base_lrs", None)
        if base is not None:  # those that compute the rate from the first one
            config.scheduler.base_lrs = [rate * (old / before) for old in base]
