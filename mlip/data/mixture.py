"""Several sources as one sequence of frames, their energies on the scale of one of them."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from mlip.data.frame import Frame
from mlip.graph import AtomGraph


@dataclass(frozen=True)
class Part:
    """Frames of one source.

    Args:
        name: Name of the source; errors are reported by it.
        frames: Frames in memory or of a store.
        shift: Energy of an atom of each element that is subtracted, eV.
        indices: (seen,) which frames an epoch sees; some twice where a source weighs more than
            one, some not where it weighs less.
    """

    name: str
    frames: Sequence[Frame]
    shift: Mapping[str, float]
    indices: np.ndarray

    @property
    def shift_by_number(self) -> np.ndarray:
        """(118 + 1,) the shift by atomic number, eV."""
        shift = np.zeros(len(chemical_symbols))
        for symbol, value in self.shift.items():
            shift[atomic_numbers[symbol]] = value
        return shift


class Mixture(Sequence[Frame]):
    """The frames of several sources one after the other; those of a store stay on the disk.

    A frame comes with its energy on the common scale and with ``info["group"]``, the source.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.ends = np.cumsum([len(part.indices) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> "Mixture": ...

    def __getitem__(self, index: int | slice) -> "Frame | Mixture":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        number, place = self.locate(index)
        part = self.parts[number]
        frame = part.frames[place]
        info = {**frame.info, "group": part.name}
        labels = dict(frame.labels)
        if "energy" in labels:
            labels["energy"] = labels["energy"] - part.shift_by_number[frame.atoms.numbers].sum()
        return replace(frame, labels=labels, info=info)

    def locate(self, index: int) -> tuple[int, int]:
        """Return the part of a frame and its place in the frames of that part.

        Raises:
            IndexError: If there is no such frame.
        """
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        number = int(np.searchsorted(self.ends, index, side="right"))
        before = 0 if number == 0 else int(self.ends[number - 1])
        return number, int(self.parts[number].indices[index - before])

    def take(self, chosen: np.ndarray) -> "Mixture":
        """Return some of the frames, source by source."""
        before = np.concatenate([[0], self.ends[:-1]])
        return Mixture([
            replace(part, indices=part.indices[chosen[(chosen >= low) & (chosen < high)] - low])
            for part, low, high in zip(self.parts, before, self.ends, strict=True)
        ])  # fmt: skip


class MixtureGraphs(Sequence[AtomGraph]):
    """Graphs of a mixture: those of each source, energies shifted when asked for.

    Args:
        frames: The mixture.
        graphs: Graphs of the frames of each part, as they are in its source.
        edge_counts: Edges of each graph of each part.
        atom_counts: Atoms of each graph of each part.
    """

    def __init__(
        self,
        frames: Mixture,
        graphs: Sequence[Sequence[AtomGraph]],
        edge_counts: Sequence[np.ndarray],
        atom_counts: Sequence[np.ndarray],
    ) -> None:
        self.frames, self.graphs = frames, tuple(graphs)
        self.shifts = [torch.as_tensor(part.shift_by_number) for part in frames.parts]
        self.edge_counts = _seen(frames, edge_counts)
        self.atom_counts = _seen(frames, atom_counts)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> AtomGraph:  # type: ignore[override]
        number, place = self.frames.locate(index)
        graph = copy(self.graphs[number][place])
        if "energy" in graph:
            graph.energy = graph.energy - self.shifts[number][graph.atomic_numbers].sum()
        return graph


def seen(frames: int, weight: float, seed: int) -> np.ndarray:
    """Return which of a number of frames an epoch sees: ``weight`` times as many.

    The whole part of the weight repeats all frames; of the rest, a share is drawn once by the seed.

    Raises:
        ValueError: If the weight is not a positive number, or so small that nothing is left.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise ValueError(f"weight is {weight!r}: give a positive number, 1 for every frame once")
    whole, rest = divmod(weight, 1)
    drawn = np.random.default_rng(seed).permutation(frames)[: round(rest * frames)]
    chosen = np.sort(np.concatenate([*[np.arange(frames)] * int(whole), drawn]))
    if frames and not len(chosen):
        raise ValueError(f"weight is {weight}: it leaves none of {frames} frames")
    return chosen.astype(np.int64)


def _seen(frames: Mixture, counts: Sequence[np.ndarray]) -> np.ndarray:
    parts = zip(frames.parts, counts, strict=True)
    return np.concatenate([np.asarray(count)[part.indices] for part, count in parts])
