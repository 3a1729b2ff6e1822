"""The loss: one weighted term a property, missing labels masked."""

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.errors import suggest
from mlip.graph import AtomGraph

PER_ATOM_SCALED = ("energy",)
"""Extensive labels, compared per atom so that large cells do not dominate."""


class PropertyLoss(nn.Module):
    """Mean loss of one property over the components that have a label.

    Args:
        weight: Factor in the total loss; a property of weight 0 is not computed at all.
        function: ``mse``, ``mae`` or ``huber``.
        delta: Where Huber turns from quadratic to linear, in the unit of the property (eV/atom,
            eV/Å, eV/Å³).
    """

    def __init__(
        self, weight: float, function: Literal["mse", "mae", "huber"] = "mse", delta: float = 0.01
    ) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"the weight {weight} of a loss is negative: give 0 or more")
        if function not in _FUNCTIONS:
            raise ValueError(f"unknown loss function {function!r}{suggest(function, _FUNCTIONS)}")
        if function == "huber" and delta <= 0:
            raise ValueError(f"the Huber delta {delta} must be positive")
        self.weight = weight
        self.function = function
        self.delta = delta

    def forward(self, prediction: Tensor, label: Tensor) -> tuple[Tensor, int]:
        """Return the mean over labelled components and how many there are."""
        known = torch.isfinite(label)
        count = int(known.sum())
        if count == 0:
            return (prediction * 0).nansum(), 0
        difference = prediction[known] - label[known]
        return _FUNCTIONS[self.function](difference, self.delta).mean(), count


class Loss(nn.Module):
    """Weighted sum over properties.

    Args:
        properties: A :class:`PropertyLoss` for each property, by the names of ``FIELDS``.

    Raises:
        ValueError: If no property has a positive weight.
    """

    def __init__(self, properties: Mapping[str, PropertyLoss]) -> None:
        super().__init__()
        active = {name: term for name, term in properties.items() if term.weight > 0}
        if not active:
            raise ValueError("every loss weight is 0: give at least one property a weight")
        self.properties = nn.ModuleDict(active)
        self.weights = {name: term.weight for name, term in active.items()}

    def without(self, names: Collection[str]) -> "Loss":
        """Return the loss without some properties.

        Raises:
            ValueError: If none is left.
        """
        kept = {name: term for name, term in self.properties.items() if name not in names}
        if not kept:
            raise ValueError(f"no frame has any label of the loss: {', '.join(names)}")
        return Loss(kept)  # type: ignore[arg-type]

    @property
    def names(self) -> tuple[str, ...]:
        """Properties with a positive weight: those a training has to compute."""
        return tuple(self.properties)

    def forward(
        self, outputs: Mapping[str, Tensor], batch: AtomGraph
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the total and the unweighted loss of each property."""
        parts: dict[str, Tensor] = {}
        total = torch.zeros((), dtype=torch.float64, device=batch.positions.device)
        for name, term in self.properties.items():
            prediction, label = per_atom(name, outputs[name], batch[name], batch)
            parts[name], _ = term(prediction, label)
            total = total + self.weights[name] * parts[name]
        return total, parts


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
