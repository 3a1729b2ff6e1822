"""Evenly spread members of a stream of unknown length, in bounded memory."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class Thinned(Generic[Item]):
    """At least half of ``limit`` members of a stream, evenly spread, the same ones on every pass.

    Args:
        limit: Most members that are held, an even number.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.stride, self.count = limit, 1, 0
        self.items: list[Item] = []

    def add(self, item: Item) -> None:
        """Take one more member; it is kept if its turn comes."""
        if self.count % self.stride == 0:
            self.items.append(item)
            if len(self.items) == self.limit:
                self.items = self.items[::2]
                self.stride *= 2
        self.count += 1

    def spread(self, count: int) -> list[Item]:
        """Return at most ``count`` of the members held, evenly spread."""
        if len(self.items) <= count:
            return list(self.items)
        places = np.linspace(0, len(self.items) - 1, count).astype(int)
        return [self.items[place] for place in np.unique(places)]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Values:
    """Evenly spread values of a stream for a histogram, with the true number and extremes."""

    def __init__(self, limit: int = 100_000) -> None:
        self.limit, self.stride, self.count = limit, 1, 0
        self.minimum, self.maximum = np.inf, -np.inf
        self._parts: list[np.ndarray] = []
        self._held = 0

    def add(self, values: Iterable[float] | np.ndarray) -> None:
        """Take more values; what is not finite is left out."""
        flat = np.ravel(np.asarray(values, dtype=np.float64))
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        self.minimum = min(self.minimum, float(flat.min()))
        self.maximum = max(self.maximum, float(flat.max()))
        kept = flat[-self.count % self.stride :: self.stride].copy()
        self.count += flat.size
        self._parts.append(kept)
        self._held += kept.size
        while self._held > self.limit:
            self._parts = [np.concatenate(self._parts)[::2].copy()]
            self._held = self._parts[0].size
            self.stride *= 2

    def array(self) -> np.ndarray:
        """Return the values held, the extremes among them."""
        if not self.count:
            return np.zeros(0)
        return np.concatenate([*self._parts, [self.minimum, self.maximum]])
