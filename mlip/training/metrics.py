"""Validation errors, accumulated over batches, with their units in their names."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from mlip.evaluation.metrics import QUANTITIES
from mlip.graph import AtomGraph
from mlip.training.loss import LABEL_OF, per_atom

REPORTED = {
    "energy": "energy_per_atom",
    "forces": "forces",
    "stress": "stress",
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
        result = {}
        for name, count in self._count.items():
            if count == 0:
                continue
            label = REPORTED[name]
            unit, factor = QUANTITIES[LABEL_OF.get(label, label)]
            result[f"{label}_mae_{unit}"] = factor * self._absolute[name] / count
            result[f"{label}_rmse_{unit}"] = factor * (self._squared[name] / count) ** 0.5
        return result
