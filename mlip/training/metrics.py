"""Validation loss and errors, accumulated over batches and devices, units in their names."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mlip.evaluation.metrics import QUANTITIES
from mlip.graph import AtomGraph
from mlip.training import ranks
from mlip.training.loss import LABEL_OF, Loss, per_atom

REPORTED = {
    "energy": "energy_per_atom",
    "forces": "forces",
    "stress": "stress",
    "charges": "charges",
    "dipole": "dipole",
    "born_effective_charges": "born_effective_charges",
    "magmoms": "magmoms",
    "direct_forces": "direct_forces",
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
            label = LABEL_OF.get(name, name)
            if name not in outputs or label not in batch:
                continue
            prediction, label = per_atom(name, outputs[name].detach(), batch[label], batch)
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
            unit, factor = QUANTITIES[LABEL_OF.get(label, label)]
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
        counts = label_counts(loss.final, batch)
        sums = torch.stack([means[name].detach() for name in loss.final]) * counts
        both = torch.stack([sums, counts])
        self._sums = both if self._sums is None else self._sums + both

    def compute(self, loss: Loss) -> Tensor:
        """Return the sum of the means over all labels, with the weights of the end."""
        if self._sums is None:
            raise RuntimeError("there is no batch to compute a loss of: update first")
        sums, counts = ranks.summed(self._sums)
        means = sums / counts.clamp(min=1)
        return sum(
            (weight * mean for weight, mean in zip(loss.final.values(), means, strict=True)),
            means.new_zeros(()),
        )


def label_counts(names: Iterable[str], batch: AtomGraph) -> Tensor:
    """Return how many components of each property have a label, (properties,), float64."""
    counts = [torch.isfinite(batch[LABEL_OF.get(name, name)]).sum() for name in names]
    return torch.stack(counts).to(torch.float64)
