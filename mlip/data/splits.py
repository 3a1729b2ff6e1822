"""Hold-out splits that depend on the frames alone, so that they survive new data."""

import hashlib
from collections.abc import Sequence
from math import floor

from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.errors import suggest


def hold_out(
    frames: Sequence[Frame], fraction: float, seed: int, stratify: str | None = None
) -> tuple[list[Frame], list[Frame]]:
    """Return (train, held), both in the order given; see ``hold_out_indices``."""
    train, held = hold_out_indices(frames, fraction, seed, stratify)
    return [frames[i] for i in train], [frames[i] for i in held]


def hold_out_indices(
    frames: Sequence[Frame], fraction: float, seed: int, stratify: str | None = None
) -> tuple[list[int], list[int]]:
    """Return the indices of the frames to train on and of those to hold out.

    Each frame is held out when the hash of its structure and the seed, read as a number in [0, 1),
    is below ``fraction``. Its side therefore does not change when other frames are added, removed
    or reordered, and equal structures are never on both sides; the price is that the number held
    scatters around ``fraction * len(frames)`` as in a coin toss. Two rules guard small sets, each
    stratum by itself: of fewer than ``1 / fraction`` frames none is held out, and of more the one
    with the lowest hash is held out even when no hash is below the fraction.

    Args:
        frames: Frames to divide.
        fraction: Share to hold out, in [0, 1).
        seed: Another seed gives another split.
        stratify: Info key, ``group`` for instance; frames without it form one stratum.

    Raises:
        ValueError: If the fraction is outside [0, 1), or no frame has the key ``stratify``.
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction is {fraction}; give the share to hold out, in [0, 1)")
    held: set[int] = set()
    for members in _strata(frames, stratify).values():
        if floor(len(members) * fraction) == 0:
            continue
        shares = {index: _share(frames[index], seed) for index in members}
        limit = max(fraction, min(shares.values()) * (1 + 1e-12))
        held |= {index for index, share in shares.items() if share < limit}
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


def _share(frame: Frame, seed: int) -> float:
    """Return a number in [0, 1) that depends on structure and seed only."""
    digest = hashlib.blake2b(
        fingerprint(frame.atoms), digest_size=6, key=str(seed).encode()
    ).digest()
    return int.from_bytes(digest, "big") / 2**48
