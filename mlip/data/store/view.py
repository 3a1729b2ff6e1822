"""Part of a store as a sequence of frames that are made when asked for."""

from collections.abc import Sequence
from typing import Protocol, overload, runtime_checkable

import numpy as np

from mlip.data.frame import Frame
from mlip.data.groups import group_of
from mlip.data.splits import share
from mlip.data.store.reader import Store

_MIX = np.uint64(0x9E3779B97F4A7C15)


class StoreView(Sequence[Frame]):
    """Some frames of a store.

    Args:
        store: The store.
        indices: (frames,) numbers in the store.
    """

    def __init__(self, store: Store, indices: np.ndarray) -> None:
        self.store, self.indices = store, np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> "StoreView": ...

    def __getitem__(self, index: int | slice) -> "Frame | StoreView":
        if isinstance(index, slice):
            return StoreView(self.store, self.indices[index])
        return self.store[int(self.indices[index])]

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the whole store, in the order of the periodic table."""
        return tuple(self.store.manifest.elements)

    def take(self, chosen: np.ndarray) -> "StoreView":
        """Return some of the frames by their place in this view."""
        return StoreView(self.store, self.indices[chosen])


@runtime_checkable
class LazyFrames(Protocol):
    """Frames that are made when asked for, of which some can be chosen without making them."""

    def take(self, chosen: np.ndarray) -> Sequence[Frame]:
        """Return some of the frames by their place."""
        ...


def sample(frames: Sequence[Frame], limit: int) -> Sequence[Frame]:
    """Return at most ``limit`` frames of a store, spread evenly; a list as it is."""
    if not isinstance(frames, LazyFrames) or len(frames) <= limit:
        return frames
    return frames.take(np.linspace(0, len(frames) - 1, limit).astype(np.int64))


def divide(
    store: Store, val_fraction: float, test_fraction: float, seed: int, group: str | None = None
) -> tuple[StoreView, StoreView, StoreView]:
    """Return training, validation and test frames of a store.

    Frames that the source names ``val`` or ``test`` stay so. Of a set that has none, a share is
    held out by a hash of each structure (or of what ``group`` says) and the seed: equal structures
    are on one side, and a frame never changes sides when others are added.

    Args:
        store: The store.
        val_fraction: Share held out for validation, in [0, 1).
        test_fraction: Share held out for the test, in [0, 1).
        seed: Another seed gives another division.
        group: What must not be divided, ``material`` for instance (``mlip.data.groups``).

    Raises:
        ValueError: If the shares or groups leave nothing to train on or to validate with, or a
            frame has no ``group``.
    """
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(
            f"val_fraction is {val_fraction} and test_fraction is {test_fraction}: give shares "
            "in [0, 1) that leave something to train on"
        )
    named = {name: np.flatnonzero(store.splits == name) for name in ("val", "test")}
    rest = np.flatnonzero(~np.isin(store.splits, list(named)))
    place = _places(store, rest, seed, group)
    val_end = 0.0 if len(named["val"]) else val_fraction
    test_end = val_end + (0.0 if len(named["test"]) else test_fraction)
    val = np.concatenate([named["val"], rest[place < val_end]])
    test = np.concatenate([named["test"], rest[(place >= val_end) & (place < test_end)]])
    train = rest[place >= test_end]
    if group is not None and len(rest) and not (len(train) and (len(val) or not val_end)):
        raise ValueError(
            f"the groups by {group} are too few or too large to be divided: {len(train)} training "
            f"and {len(val)} validation frames. Take another group or another seed, or larger "
            "val_fraction and test_fraction"
        )
    return tuple(StoreView(store, i) for i in (train, val, test))  # type: ignore[return-value]


def _places(store: Store, indices: np.ndarray, seed: int, group: str | None) -> np.ndarray:
    """Return a number in [0, 1) of each frame, fixed by its structure (or group) and the seed."""
    if group is not None:
        return np.array([share(group_of(store[int(i)], group), seed) for i in indices])
    words = np.ascontiguousarray(store.fingerprints()[indices, :8]).view("<u8")[:, 0]
    with np.errstate(over="ignore"):  # splitmix64 (Steele et al., OOPSLA 2014)
        mixed = words + np.uint64(seed + 1) * _MIX
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64
