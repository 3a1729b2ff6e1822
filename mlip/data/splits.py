"""Hold-out splits that depend on the frames alone, so that they hardly change with new data."""

import hashlib
from collections.abc import Sequence
from math import floor

from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.data.groups import group_of
from mlip.errors import suggest


def hold_out(
    frames: Sequence[Frame],
    fraction: float,
    seed: int,
    stratify: str | None = None,
    group: str | None = None,
) -> tuple[list[Frame], list[Frame]]:
    """Return (train, held), both in the order given; see ``hold_out_indices``."""
    train, held = hold_out_indices(frames, fraction, seed, stratify, group)
    return [frames[i] for i in train], [frames[i] for i in held]


def hold_out_indices(
    frames: Sequence[Frame],
    fraction: float,
    seed: int,
    stratify: str | None = None,
    group: str | None = None,
) -> tuple[list[int], list[int]]:
    """Return the indices of the frames to train on and of those to hold out.

    The frames of each stratum are ordered by the hash of their structure and the seed, and the
    first ``floor(n * fraction)`` are held out; of a stratum so small that this is zero, none is.
    So the split does not depend on the order of the file, an added or removed frame changes the
    side of at most one other, and equal structures are never on both sides of a stratum (for
    that, one or two more than ``floor(n * fraction)`` may be held).

    With ``group`` whole groups are held out: those whose hash with the seed is below the fraction.
    A group's side then depends on its name alone and never changes when data are added; the share
    that is held is the fraction only on average.

    Args:
        frames: Frames to divide.
        fraction: Share to hold out, in [0, 1).
        seed: Another seed gives another split.
        stratify: Info key, ``group`` for instance; frames without it form one stratum.
        group: What must stay together: ``material``, ``composition``, ``prototype``,
            ``trajectory`` or an info key; not with ``stratify``.

    Raises:
        ValueError: If the fraction is outside [0, 1), no frame has the key ``stratify``, a frame
            has no ``group``, or both are given.
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction is {fraction}; give the share to hold out, in [0, 1)")
    if group is not None:
        if stratify is not None:
            raise ValueError(f"group is {group!r} and stratify is {stratify!r}; give one of them")
        names = [group_of(frame, group) for frame in frames]
        apart = {name for name in set(names) if share(name, seed) < fraction}
        kept = [i for i, name in enumerate(names) if name not in apart]
        return kept, [i for i, name in enumerate(names) if name in apart]
    held: set[int] = set()
    for members in _strata(frames, stratify).values():
        count = floor(len(members) * fraction + 1e-9)  # 100 * 0.29 is 28.999...
        if count == 0:
            continue
        places = {index: _place(frames[index], seed) for index in members}
        last = sorted(places.values())[count - 1]
        held |= {index for index, place in places.items() if place <= last}
    return [i for i in range(len(frames)) if i not in held], sorted(held)


def _strata(frames: Sequence[Frame], key: str | None) -> dict[str, list[int]]:
    if key is not None and frames and not any(key in frame.info for frame in frames):
        known = {name for frame in frames for name in frame.info}
        raise ValueError(
            f"stratify is {key!r}, which no frame has in its info{suggest(key, known)}"
        )
    strata: dict[str, list[int]] = {}
    for index, frame in enumerate(frames):
        value = "" if key is None else repr(frame.info.get(key))
        strata.setdefault(value, []).append(index)
    return strata


def share(name: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on the name of the group and the seed only."""
    digest = hashlib.blake2b(name.encode(), key=str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _place(frame: Frame, seed: int) -> bytes:
    """Return what decides the order: a hash of structure and seed only."""
    return hashlib.blake2b(fingerprint(frame.atoms), key=str(seed).encode()).digest()
