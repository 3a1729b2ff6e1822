"""The weight of a property in the loss: a number, or one that changes with the epochs."""

import math
from bisect import bisect_right
from collections.abc import Mapping

Weight = float | Mapping[float, float]
"""What a config may give: a number, or points epoch -> weight."""


class WeightSchedule:
    """A weight that takes given values at given epochs.

    Epochs count from 0 and may be fractions: 0.5 is the middle of the first, so that a training of
    few long epochs is steered by its steps.

    Args:
        weight: A number, or epoch -> weight with 0 as the first epoch: ``{0: 1, 100: 10}`` is 10
            from epoch 100 on.
        linear: Whether the weight goes from one point to the next in a straight line; it stays
            after the last.

    Raises:
        ValueError: If there is no point at 0, or an epoch or a weight is negative or not finite.
    """

    def __init__(self, weight: Weight, linear: bool = False) -> None:
        points = weight if isinstance(weight, Mapping) else {0: weight}
        self.points = {float(epoch): float(value) for epoch, value in sorted(points.items())}
        self.linear = linear
        for epoch, value in self.points.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"the weight of a loss is {value:g} at epoch {epoch:g}, negative "
                                 "or infinite: give 0 or more")  # fmt: skip
        if not self.points or min(self.points) != 0:
            raise ValueError(
                f"the weight of a loss is {dict(points)}: give it from epoch 0 on, as in "
                "{0: 1.0, 100: 10.0}"
            )

    def at(self, epoch: float) -> float:
        """Return the weight at an epoch, which may be a fraction."""
        epochs = list(self.points)
        index = bisect_right(epochs, epoch) - 1
        before = self.points[epochs[index]]
        if not self.linear or index + 1 == len(epochs):
            return before
        after = self.points[epochs[index + 1]]
        share = (epoch - epochs[index]) / (epochs[index + 1] - epochs[index])
        return before + share * (after - before)

    @property
    def final(self) -> float:
        """The weight that it ends with."""
        return self.points[max(self.points)]

    @property
    def ever(self) -> bool:
        """Whether it is positive at any time."""
        return any(weight > 0 for weight in self.points.values())
