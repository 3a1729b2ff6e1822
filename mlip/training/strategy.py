"""Which Lightning strategy and cluster environment a run gets."""

from typing import Any

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from mlip.training import launch, ranks


class SummedGradients(DDPStrategy):
    """A copy of the weights on each device, whose gradients are added up before each step.

    The sum is ours (:func:`mlip.training.ranks.sum_gradients`), once a step, and not that of
    ``DistributedDataParallel`` during the backward pass: a device that has to split its batch, or
    whose batch leaves a weight without gradient, then never waits for a message of another.
    """

    def _configure_launcher(self) -> None:
        """Our processes are there already (:mod:`mlip.training.launch`)."""
        self._launcher = None

    def _setup_model(self, model: nn.Module) -> Any:
        ranks.share_weights(model)
        return model

    def _register_ddp_hooks(self) -> None:
        """There is no reducer to hook into."""


def cluster() -> ClusterEnvironment:
    """Return where Lightning reads the number of this process from.

    SLURM requeues through our own saved state, so Lightning's second kind of state is off.
    """
    if launch.torchrun_processes() > 1:
        return TorchElasticEnvironment()
    if launch.slurm_processes() > 1:
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()
