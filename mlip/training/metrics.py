"""Validation loss and errors, accumulated over batches and devices, units in their names."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from mlip.evaluation.metrics import QUANTITIES
from mlip.graph import AtomGraph
from mlip.training import ranks
from mlip.training.loss import Loss, per_atom

REPORTED = {
    "energy": "energy_per_atom",
    "forces": "forces",
    "stress": "stress",
    "magmoms": "magmoms",
}
"""Property -> the quantity of ``mlip.evaluation.metrics`` that its errors are reported as."""


class RunningErrors:
    """MAE and RMSE of every property over all batches seen since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self._absolute: dict[str, float] = defaultdict(float)
        self._squared: dict[str, float] = defaultdict(float)
        self._count: dict[str, int] = defaultdict(int)

    def update(self, outputs: Mapping[str, Tensor], batch: AtomGraph) -> None:
        """Add one batch; labels that are missing (NaN) do not count."""
        for name in REPORTED:
            if name not in outputs or name not in batch:
                continue
            prediction, label = per_atom(name, outputs[name].detach(), batch[name], batch)
            known = torch.isfinite(label)
            difference = (prediction[known] - label[known]).double()
            self._absolute[name] += float(difference.abs().sum())
            self._squared[name] += float(difference.square().sum())
            self._count[name] += int(known.sum())

    def compute(self) -> dict[str, float]:
        """Return for instance ``forces_rmse_meV_per_A``; properties without labels are absent."""
        kept = (self._absolute, self._squared, self._count)
        sums = torch.tensor(
            [[float(held[name]) for held in kept] for name in REPORTED], dtype=torch.float64
        )
        result = {}
        for name, found in zip(REPORTED, ranks.summed(sums).tolist(), strict=True):
            absolute, squared, count = found
            if count == 0:
                continue
            label = REPORTED[name]
            unit, factor = QUANTITIES[label]
            result[f"{label}_mae_{unit}"] = factor * absolute / count
            result[f"{label}_rmse_{unit}"] = factor * (squared / count) ** 0.5
        return result


class RunningLoss:
    """The loss of all batches seen since the last reset, as if they had been one."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self._sums: Tensor | None = None

    def update(self, loss: Loss, means: Mapping[str, Tensor], batch: AtomGraph) -> None:
        """Add one batch, of which ``means`` are the unweighted losses of the properties."""
        counts = label_counts(loss, batch)
        sums = torch.stack([means[name].detach() for name in loss.names]) * counts
        both = torch.stack([sums, counts])
        self._sums = both if self._sums is None else self._sums + both

    def compute(self, loss: Loss) -> Tensor:
        """Return the weighted sum over the properties of their means over all labels."""
        if self._sums is None:
            raise RuntimeError("there is no batch to compute a loss of: update first")
        sums, counts = ranks.summed(self._sums)
        means = sums / counts.clamp(min=1)
        return sum(
            (loss.weights[name] * mean for name, mean in zip(loss.names, means, strict=True)),
            means.new_zeros(()),
        )


def label_counts(loss: Loss, batch: AtomGraph) -> Tensor:
    """Return how many components of each property have a label, (properties,), float64."""
    counts = [torch.isfinite(batch[name]).sum() for name in loss.names]
    return torch.stack(counts).to(torch.float64)
