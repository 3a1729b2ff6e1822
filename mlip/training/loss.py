"""The loss: one weighted term a property, missing labels masked."""

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.errors import suggest
from mlip.graph import AtomGraph
from mlip.training.stages import Stages
from mlip.training.weights import Weight, WeightSchedule

PER_ATOM_SCALED = ("energy",)
"""Extensive labels, compared per atom so that large cells do not dominate."""
LABEL_OF = {"direct_forces": "forces"}
"""Outputs that are compared with the label of another name."""


class PropertyLoss(nn.Module):
    """Mean loss of one property over the components that have a label.

    Args:
        weight: Factor in the total loss: a number, or epoch -> number, ``{0: 1, 100: 10}``
            (:class:`mlip.training.weights.WeightSchedule`). A property is not computed while its
            weight is 0.
        function: ``mse``, ``mae`` or ``huber``.
        delta: Where Huber turns from quadratic to linear, in the unit of the property (eV/atom,
            eV/Å, eV/Å³).
        ramp: Whether a weight of several epochs changes linearly between them, not at once.
        optional: Whether a model that does not give the property is trained without this loss, so
            that one sweep compares models with and without charges; otherwise it is refused.
    """

    def __init__(
        self,
        weight: Weight,
        function: Literal["mse", "mae", "huber"] = "mse",
        delta: float = 0.01,
        ramp: bool = False,
        optional: bool = False,
    ) -> None:
        super().__init__()
        self.optional = optional
        if function not in _FUNCTIONS:
            raise ValueError(f"unknown loss function {function!r}{suggest(function, _FUNCTIONS)}")
        if function == "huber" and delta <= 0:
            raise ValueError(f"the Huber delta {delta} must be positive")
        self.weight = WeightSchedule(weight, ramp)
        self.function = function
        self.delta = delta

    def forward(self, prediction: Tensor, label: Tensor) -> tuple[Tensor, int]:
        """Return the mean over labelled components and how many there are."""
        known = torch.isfinite(label)
        count = int(known.sum())
        return self.summed(prediction, label) / max(count, 1), count

    def summed(self, prediction: Tensor, label: Tensor) -> Float[Tensor, ""]:
        """Return the sum over labelled components; no shape follows from which they are."""
        known = torch.isfinite(label)
        difference = torch.where(known, prediction - label, 0.0)
        return self.of(difference, torch.where(known, label, 0.0)).sum()

    def of(self, difference: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each component, zero where there is no difference."""
        return _FUNCTIONS[self.function](difference, self.delta)


class StratifiedHuber(PropertyLoss):
    """Huber loss of vectors whose delta falls with the length of the label.

    As the conditional Huber loss of MACE (Batatia et al., arXiv 2401.00096; ``UniversalLoss``) and
    ``StratifiedHuberForceLoss`` of NequIP (Tan et al., arXiv 2504.16068): the few enormous forces
    of a large data set count linearly, and the larger the flatter.

    Args:
        weight: As of :class:`PropertyLoss`.
        deltas: Smallest length of the label -> delta, both in its unit (eV/Å); the first is 0.
        ramp: As of :class:`PropertyLoss`.
    """

    lengths: Tensor
    delta_of: Tensor

    def __init__(self, weight: Weight, deltas: Mapping[float, float], ramp: bool = False) -> None:
        super().__init__(weight, "huber", ramp=ramp)
        ordered = sorted((float(length), float(delta)) for length, delta in deltas.items())
        if not ordered or ordered[0][0] != 0 or any(delta <= 0 for _, delta in ordered):
            raise ValueError(
                f"deltas is {dict(deltas)}: give positive deltas from length 0 on, as in "
                "{0: 0.01, 100: 0.001}"
            )
        lengths, values = zip(*ordered, strict=True)
        for name, numbers in (("lengths", lengths), ("delta_of", values)):
            numbers = torch.tensor(numbers, dtype=torch.float64)
            self.register_buffer(name, numbers, persistent=False)

    def of(self, difference: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each component, zero where there is no difference."""
        length = torch.linalg.vector_norm(label, dim=-1, keepdim=True)
        lengths, deltas = self.lengths.to(label.device), self.delta_of.to(label)
        stratum = torch.bucketize(length.double(), lengths, right=True) - 1
        delta, difference = deltas[stratum], difference.abs()
        near = difference.minimum(delta)  # quadratic up to delta, then linear
        return near * (difference - 0.5 * near)


class Loss(nn.Module):
    """Weighted sum over properties.

    Args:
        properties: A :class:`PropertyLoss` for each property, by the names of ``FIELDS``.
        stages: Epochs from which other weights hold.

    Raises:
        ValueError: If no property has a positive weight, at some epoch or in a stage.
    """

    def __init__(
        self, properties: Mapping[str, PropertyLoss], stages: Stages | None = None
    ) -> None:
        super().__init__()
        self.stages = stages or Stages()
        self.terms = nn.ModuleDict(dict(properties))
        self._check_stages()
        starts = {0.0, *(float(stage.start) for stage in self.stages.stages.values())}
        for term in properties.values():
            starts |= set(term.weight.points)
        reached = [self._weights(epoch) for epoch in sorted(starts)]
        positive = {name for weights in reached for name, weight in weights.items() if weight > 0}
        self.names = tuple(name for name in properties if name in positive)
        """Properties with a positive weight at some time: those a training has to have."""
        for epoch, weights in zip(sorted(starts), reached, strict=True):
            if not any(weights.values()):
                when = "" if len(starts) == 1 else f" at epoch {epoch:g}"
                raise ValueError(
                    f"every loss weight is 0{when}: give at least one property a weight"
                )
        self.final = {name: weight for name, weight in reached[-1].items() if weight > 0}
        """Weights of the end, by which validation compares epochs of all stages."""

    def in_stages(self, stages: Stages) -> "Loss":
        """Return the loss with the weights of stages."""
        return Loss(self._terms(), stages)

    def without(self, names: Collection[str]) -> "Loss":
        """Return the loss without some properties.

        Raises:
            ValueError: If none is left.
        """
        kept = {name: term for name, term in self._terms().items() if name not in names}
        if not any(name in kept for name in self.names):
            raise ValueError(f"no frame has any label of the loss: {', '.join(names)}")
        return Loss(kept, self.stages.without(names))

    def fitting(self, outputs: Collection[str]) -> "Loss":
        """Return the loss without the optional properties that a model does not give."""
        extra = [n for n, term in self._terms().items() if term.optional and n not in outputs]
        return self.without(extra) if extra else self

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that the properties are compared with."""
        return tuple(dict.fromkeys(LABEL_OF.get(name, name) for name in self.names))

    def weights_at(self, epoch: float) -> dict[str, float]:
        """Return the positive weights at an epoch, which may be a fraction.

        They follow from the epoch alone, so that a resumed training has those of the unbroken one.
        """
        return {name: weight for name, weight in self._weights(epoch).items() if weight > 0}

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        batch: AtomGraph,
        weights: Mapping[str, float] | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the total and the unweighted loss of each property.

        Args:
            outputs: Predictions: at least those with a weight.
            batch: Structures with labels.
            weights: Positive weights (:meth:`weights_at`); None takes those of the end.
        """
        parts: dict[str, Tensor] = {}
        total = torch.zeros((), dtype=torch.float64, device=batch.positions.device)
        for name, weight in (self.final if weights is None else weights).items():
            label = batch[LABEL_OF.get(name, name)]
            parts[name], _ = self.terms[name](*per_atom(name, outputs[name], label, batch))
            total = total + weight * parts[name]
        return total, parts

    def shares(
        self, outputs: Mapping[str, Tensor], batch: AtomGraph, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what a batch adds to the unweighted mean of each property over many batches.

        Args:
            outputs: Predictions.
            batch: Structures with labels.
            totals: Property -> its labelled components in all batches, at least 1.
        """
        parts: dict[str, Tensor] = {}
        for name, total in totals.items():
            label = batch[LABEL_OF.get(name, name)]
            term = self._terms()[name]
            parts[name] = term.summed(*per_atom(name, outputs[name], label, batch)) / total
        return parts

    def _weights(self, epoch: float) -> dict[str, float]:
        stage = self.stages.at(epoch)
        base = {name: term.weight.at(epoch) for name, term in self._terms().items()}
        return base if stage is None else base | dict(stage.weights)

    def _terms(self) -> dict[str, PropertyLoss]:
        return dict(self.terms.items())  # type: ignore[arg-type]

    def _check_stages(self) -> None:
        for name, stage in self.stages.stages.items():
            for wanted in stage.weights:
                if wanted not in self.terms:
                    raise ValueError(
                        f"stages.{name}.weights.{wanted} is no property of the loss"
                        f"{suggest(wanted, self.terms)}"
                    )


def per_atom(
    name: str, prediction: Tensor, label: Tensor, batch: AtomGraph
) -> tuple[Tensor, Tensor]:
    """Divide an extensive property by the number of atoms; of a moment take the size."""
    if name == "magmoms":  # without spin-orbit coupling the sign of all is a choice
        return prediction, label.abs()
    if name not in PER_ATOM_SCALED:
        return prediction, label
    counts = batch.ptr.diff()
    return prediction / counts, label / counts


def _huber(difference: Tensor, delta: float) -> Tensor:
    return nn.functional.huber_loss(
        difference, torch.zeros_like(difference), reduction="none", delta=delta
    )


_FUNCTIONS = {
    "mse": lambda difference, _: difference.square(),
    "mae": lambda difference, _: difference.abs(),
    "huber": _huber,
}
