"""The Lightning module: one step, validation with averaged weights, optimiser and schedule."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlip.graph import AtomGraph
from mlip.models.potential import Potential
from mlip.training import ranks
from mlip.training.loss import Loss
from mlip.training.metrics import RunningErrors, RunningLoss
from mlip.training.step import Compute, Stepper


class TrainingModule(lightning.LightningModule):
    """Trains a potential.

    Args:
        potential: The potential; its weights are trained in place.
        loss: What to minimise.
        optimizer: Parameters -> optimiser.
        schedule: Optimiser -> scheduler stepped once an epoch, or None for a constant rate.
        ema_decay: Decay a step of the exponential moving average that validation and checkpoints
            use; 0 switches it off.
        compute: What gives the gradients of a batch; None takes the uncompiled step.
    """

    def __init__(
        self,
        potential: Potential,
        loss: Loss,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any] | None = None,
        ema_decay: float = 0.0,
        compute: Compute | None = None,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.loss = loss
        self.averaged = (
            AveragedModel(potential, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
            if ema_decay > 0
            else None
        )
        if self.averaged is not None:
            self.averaged.requires_grad_(False)
        self._optimizer = optimizer
        self._schedule = schedule
        self._errors, self._val = RunningErrors(), RunningLoss()
        self._stepper = Stepper(compute)
        self._gradients: list[Tensor | None] = []
        self._sums: dict[str, Tensor] = {}
        self.trained: set[str] = set()  # names of the training errors of the last epoch

    @property
    def best_guess(self) -> Potential:
        """The averaged potential if there is one, else the trained one."""
        return self.potential if self.averaged is None else cast(Potential, self.averaged.module)

    def training_step(self, batch: AtomGraph, batch_idx: int) -> Tensor:
        """Return the loss of one batch; what has no weight at this step is not computed."""
        epoch = self.current_epoch + batch_idx / self.trainer.num_training_batches
        weights = self.loss.weights_at(epoch)
        step, frames = self._stepper(self.potential, self.loss, weights, batch)
        self._gradients = step.gradients
        parts = {"loss": step.loss, **{f"{name}_loss": part for name, part in step.parts.items()}}
        self._add(parts, frames, batch.cell.shape[0])
        if self.trainer.is_last_batch:
            self._log_epoch()
        return step.loss

    def _log_epoch(self) -> None:
        """Log the means over the frames at which each property had a weight."""
        sums = self._summed()
        for name in [name for name in sums if not name.startswith("frames/")]:
            mean = sums[name] / sums[f"frames/{name}"]
            self.log(f"train/{name}", mean, on_step=False, on_epoch=True)
        self.trained = {f"train/{name}" for name in sums}
        self._sums = {}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Hand the gradients of the step to the weights."""
        trained = [p for p in self.potential.parameters() if p.requires_grad]
        for parameter, gradient in zip(trained, self._gradients, strict=True):
            if gradient is not None:
                scaled = gradient / self.trainer.accumulate_grad_batches
                parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled
        self._gradients = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Add up the gradients of all devices, before they are clipped."""
        ranks.sum_gradients(self.potential.parameters())

    @property
    def splits(self) -> int:
        """Batches split so far for want of memory, on this device."""
        return self._stepper.splits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the training errors of the epoch so far, for a state that is saved within it."""
        checkpoint["train_sums"] = self._summed()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the training errors of the epoch."""
        sums = checkpoint.get("train_sums", {})
        mine = 1.0 if ranks.rank() == 0 else 0.0  # they are those of all devices
        self._sums = {name: mine * value.to(self.device) for name, value in sums.items()}

    def _add(self, values: Mapping[str, Tensor], frames: Tensor, own: int) -> None:
        """Add to the sums over the frames of an epoch, without waiting for the device."""
        weighted = {name: value.double() * frames for name, value in values.items()}
        counts = {f"frames/{name}": frames.new_tensor(float(own)) for name in values}
        for name, value in {**weighted, **counts}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _summed(self) -> dict[str, Tensor]:
        """Return the sums of all devices."""
        return {name: ranks.summed(value) for name, value in self._sums.items()}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step and let the average follow, before anything can save the state."""
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            self.averaged.update_parameters(self.potential)

    def validation_step(self, batch: AtomGraph, _: int) -> None:
        """Accumulate the errors and the loss of one batch.

        Forces and stress are computed whatever the loss asks for: that the potential will be used
        for, and their first derivative costs little. ``val/loss`` has the weights of the end of
        the training, so that it can choose between epochs of all stages.
        """
        outputs = self.best_guess(batch, outputs=("forces", "stress", *self.loss.names))
        _, means = self.loss(outputs, batch)
        self._val.update(self.loss, means, batch)
        self._errors.update(outputs, batch)

    def on_validation_epoch_end(self) -> None:
        """Log loss and errors over the whole split, however it was cut into batches."""
        self.log("val/loss", self._val.compute(self.loss), prog_bar=True)
        self._val.reset()
        for name, value in self._errors.compute().items():
            self.log(f"val/{name}", value, prog_bar=name.startswith("forces_rmse"))
        self._errors.reset()

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and its schedule if there is one."""
        optimizer = self._optimizer(self.potential.parameters())
        if self._schedule is None:
            return optimizer
        scheduler = self._schedule(optimizer)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"},
            }
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
