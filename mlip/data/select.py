"""Choose frames of a stream: by element, source and size of the labels, at random or stratified."""

import hashlib
import re
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.data.groups import group_of
from mlip.errors import suggest


@dataclass(frozen=True)
class Selection:
    """Which frames to keep.

    With ``limit`` alone the first frames that pass are taken, and reading stops there. With a seed
    or strata everything is read once, and the choice depends on the frames and the seed, not on
    their order.

    Args:
        elements: Keep frames that hold no other element, not necessarily all of these (``Li,P,S``
            keeps Li3P and Li2S); all if empty.
        where: Windows such as ``max_force<10``; the names are those of ``QUANTITIES`` or numeric
            info keys; a key alone, such as ``converged``, must be true. A frame without the
            quantity is left out.
        source: Text that the frame's source (file and index) must hold.
        limit: Number of frames at most; None keeps all that pass.
        stratify: None takes any frames; ``elements`` or a kind of :func:`mlip.data.groups.group_of`
            (composition, prototype, info key, ...) takes the same number of each, as far as there
            are.
        seed: Another seed gives another choice; None takes the first frames, or is 0 with strata.

    Raises:
        ValueError: For a symbol that is no element, a window that cannot be read, or a limit below
            one.
    """

    elements: Sequence[str] = ()
    where: Sequence[str] = ()
    source: str = ""
    limit: int | None = None
    stratify: str | None = None
    seed: int | None = None
    windows: tuple["Window", ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}: give a number of frames, at least 1")
        for symbol in self.elements:
            if symbol not in atomic_numbers:
                raise ValueError(
                    f"elements has {symbol!r}, not an element{suggest(symbol, atomic_numbers)}"
                )
        object.__setattr__(self, "windows", tuple(Window.parse(text) for text in self.where))

    @property
    def whole_pass(self) -> bool:
        """Whether every frame must be seen before one is chosen."""
        return self.stratify is not None or (self.limit is not None and self.seed is not None)

    @property
    def manner(self) -> str:
        """How the frames are chosen, for a person."""
        if self.limit is None:
            return "all that pass"
        if not self.whole_pass:
            return "the first that pass (seed=0 or stratify=… would choose among all)"
        strata = f", the same number of each {self.stratify}" if self.stratify else ""
        return f"chosen at random with seed {self.seed or 0} among all that pass{strata}"

    def passes(self, frame: Frame) -> bool:
        """Return whether a frame is among those to choose from."""
        if self.elements and not set(frame.atoms.symbols) <= set(self.elements):
            return False
        return self.source in frame.source and all(w.holds(frame) for w in self.windows)


@dataclass(frozen=True)
class Window:
    """A comparison of one quantity with a number."""

    quantity: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Return the window that a text such as ``energy_per_atom>=-8`` describes.

        Raises:
            ValueError: If it cannot be read.
        """
        flag = text.strip()
        if flag.isidentifier() and flag not in QUANTITIES:
            return cls(flag, "==", 1.0)
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(<=|>=|<|>|==)\s*(\S+)\s*", text)
        try:
            if match is None:
                raise ValueError
            return cls(match[1], match[2], float(match[3]))
        except ValueError:
            raise ValueError(
                f"where has {text!r}: write a quantity, one of < <= == >= > and a number, such as "
                f"max_force<10; quantities are {', '.join(QUANTITIES)} and numeric info keys. An "
                "info key that is true or false, such as converged, stands alone"
            ) from None

    def holds(self, frame: Frame) -> bool:
        """Return whether the frame has the quantity and it lies within."""
        value = quantity(frame, self.quantity)
        if value is None or not np.isfinite(value):
            return False
        return bool(_SIGNS[self.sign](value, self.limit))


def select(frames: Iterable[Frame], selection: Selection) -> list[Frame]:
    """Return the frames chosen, in the order in which they came.

    At most one pass, and no more than about three times ``limit`` frames in memory. Each frame has
    a place by the hash of its structure and the seed; of each kind the first places are taken, one
    of each kind in turn.

    Raises:
        ValueError: If nothing passes, saying how many frames there were.
    """
    if not selection.whole_pass:
        return list(stream(frames, selection))
    kinds: dict[Any, list[tuple[bytes, int, Frame]]] = {}
    seen = held = 0
    for index, frame in enumerate(frames):
        seen += 1
        if not selection.passes(frame):
            continue
        kind = _kind(frame, selection.stratify)
        insort(
            kinds.setdefault(kind, []), (_place(frame, selection.seed or 0), index, frame), key=_key
        )
        held += 1
        if selection.limit is not None and held > 2 * selection.limit + 100:
            kinds = _first(kinds, selection.limit)
            held = sum(map(len, kinds.values()))
    _require_some(held, seen, selection)
    if selection.limit is not None:
        kinds = _first(kinds, selection.limit)
    chosen = [item for items in kinds.values() for item in items]
    return [frame for _, _, frame in sorted(chosen, key=lambda item: item[1])]


def stream(frames: Iterable[Frame], selection: Selection) -> Iterator[Frame]:
    """Yield the frames that pass, at most ``limit`` of them, as they come.

    Raises:
        ValueError: If nothing passes, when all was read.
    """
    held = seen = 0
    for frame in frames:
        seen += 1
        if selection.passes(frame):
            held += 1
            yield frame
        if held == selection.limit:
            break
    _require_some(held, seen, selection)


def _require_some(held: int, seen: int, selection: Selection) -> None:
    if not held:
        raise ValueError(
            f"none of the {seen} frames passes; widen elements={','.join(selection.elements)} "
            f"where={','.join(selection.where)} source={selection.source}. A frame without the "
            f"quantity passes no window on it; known are {', '.join(QUANTITIES)} and numeric info "
            "keys"
        )


def quantity(frame: Frame, name: str) -> float | None:
    """Return a number that a frame can be chosen by, None if the frame lacks it."""
    if name in QUANTITIES:
        return QUANTITIES[name](frame)
    value = frame.info.get(name)
    is_number = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _label(frame: Frame, name: str, reduce: Callable[[np.ndarray], float]) -> float | None:
    values = frame.labels.get(name)
    return None if values is None else reduce(np.asarray(values))


def _longest(forces: np.ndarray) -> float:
    return float(np.sqrt(np.max(np.nansum(forces**2, axis=1))))


QUANTITIES: dict[str, Callable[[Frame], float | None]] = {
    "atoms": lambda f: float(len(f)),
    "energy_per_atom": lambda f: _label(f, "energy", lambda x: float(x) / len(f)),
    "max_force": lambda f: _label(f, "forces", _longest),
    "max_stress": lambda f: _label(f, "stress", lambda x: float(np.abs(x).max())),
    "total_charge": lambda f: _label(f, "total_charge", float),
    "volume_per_atom": lambda f: f.atoms.get_volume() / len(f) if f.atoms.pbc.all() else None,
}
"""Name -> value: eV/atom, eV/Å (longest force), eV/Å³ (largest component), e, Å³."""

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    "==": lambda x, y: x == y,
    ">=": lambda x, y: x >= y,
    ">": lambda x, y: x > y,
}


def _first(kinds: dict[Any, list[Any]], limit: int) -> dict[Any, list[Any]]:
    """Keep the ``limit`` frames of lowest rank within their kind, then of lowest place.

    What is dropped could never be chosen later: more frames only push it further back.
    """
    ranked = sorted(
        (rank, item[0], item[1], kind)
        for kind, items in enumerate(kinds.values())
        for rank, item in enumerate(items)
    )
    counts = np.bincount([kind for *_, kind in ranked[:limit]], minlength=len(kinds))
    return {
        name: items[: int(count)]
        for (name, items), count in zip(kinds.items(), counts, strict=True)
        if count
    }


def _key(item: tuple[bytes, int, Frame]) -> tuple[bytes, int]:
    return item[0], item[1]


def _place(frame: Frame, seed: int) -> bytes:
    return hashlib.blake2b(fingerprint(frame.atoms), key=str(seed).encode()).digest()


def _kind(frame: Frame, stratify: str | None) -> str:
    if stratify is None:
        return ""
    if stratify == "elements":
        return "-".join(sorted(set(frame.atoms.symbols)))
    return group_of(frame, stratify)
