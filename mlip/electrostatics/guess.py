"""First guesses of the charges of the next step of a trajectory, from those of the last ones.

The weights are those of the always stable predictor: Kolafa, J. Comput. Chem. 25, 335 (2004). They
are nearly symmetric in time, which keeps the small errors of loose solves from adding up to drift.
"""

from collections import deque
from dataclasses import dataclass, field
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class ChargeHistory:
    """Charges of the last steps, all of the same atoms.

    Args:
        length: How many are kept: 1 repeats the last, 2 extrapolates linearly, more damp noise.
    """

    length: int = 4
    _last: deque[Tensor] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length of a charge history is {self.length}: give at least 1")

    def add(self, charges: Float[Tensor, " atoms"]) -> None:
        """Keep the charges of a step; those of other atoms are forgotten."""
        if self._last and self._last[0].shape != charges.shape:
            self._last.clear()
        self._last.appendleft(charges.detach())
        if len(self._last) > self.length:
            self._last.pop()

    def clear(self) -> None:
        """Forget everything: the next structure does not continue the trajectory."""
        self._last.clear()

    def guess(self) -> Float[Tensor, " atoms"] | None:
        """Return a guess of the next charges, e; None before the first step."""
        if not self._last:
            return None
        weights = predictor(len(self._last))
        return torch.stack([w * q for w, q in zip(weights, self._last, strict=True)]).sum(0)


def predictor(length: int) -> list[float]:
    """Return the weights of the last steps, the latest first; they sum to 1.

    Weight j of n is ``(-1)^(j+1) j C(2n, n-j)/C(2n-2, n-1)``: 2, -1 or 2.8, -2.8, 1.2, -0.2.
    """
    scale = comb(2 * length - 2, length - 1)
    return [
        (-1) ** (j + 1) * j * comb(2 * length, length - j) / scale for j in range(1, length + 1)
    ]
