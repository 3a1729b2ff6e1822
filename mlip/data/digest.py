"""What the checks need to know of a frame: under a kilobyte of numbers, whatever its size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from mlip.data.fingerprint import fingerprint
from mlip.data.frame import Frame
from mlip.keys import FIELDS

SEARCH_RADIUS = 3.5
"""Å; how far the close atoms are looked for, and how far the invariants of a structure see."""

_TOLD = (
    "functional", "xc", "xc_functional", "level_of_theory", "run_type", "corrections",
    "energy_kind", "charge_partition", "pseudopotentials", "encut", "converged",
    "source_id", "trajectory_id",
)  # fmt: skip
_NOT_KEYS = ("unread_arrays", "constrained")
_UNKNOWN = (np.nan, 0, 0)


@dataclass(frozen=True, slots=True)
class Digest:
    """One frame in numbers; NaN where a label is missing or not finite.

    Args:
        file: Part of the source before the last ``#``.
        number: Part after it.
        composition: Atomic numbers and how many atoms each has.
        labels: Names of the labels.
        keys: Other keys of the source.
        info: What the source says of its level of theory, and its ids.
        energy: eV.
        force: Largest length of a force, eV/Å.
        net_force: Largest component of the sum of all forces, eV/Å.
        zero_forces: Atoms whose force is exactly zero while others' are not.
        masked: Force components marked as constrained.
        stress: Largest component, eV/Å³.
        skew: Largest difference to the transposed stress, eV/Å³.
        pressure: Minus the mean normal stress of a periodic frame, eV/Å³.
        volume: Of a periodic frame, Å³ per atom.
        charges: Sum of the partial charges, e.
        total_charge: e.
        closest: Smallest distance and the two atoms; infinite where no two are within 3.5 Å.
        pair: Atomic numbers of these two.
        fingerprint: 16 bytes, empty for a frame whose geometry makes no sense.
        shape: Sums over pairs of atoms that no rotation, translation or renumbering changes.
        defects: Sentences on what is not finite or impossible, by kind.
    """

    file: str
    number: str
    composition: tuple[tuple[int, int], ...]
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    info: Mapping[str, Any]
    energy: float
    force: float
    net_force: float
    zero_forces: int
    masked: int
    stress: float
    skew: float
    pressure: float
    volume: float
    charges: float
    total_charge: float
    closest: tuple[float, int, int]
    pair: tuple[int, ...]
    fingerprint: bytes
    shape: tuple[float, float]
    defects: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return sum(count for _, count in self.composition)

    @property
    def source(self) -> str:
        """File and frame, for messages."""
        return f"{self.file}#{self.number}" if self.file else self.number

    @property
    def symbols(self) -> tuple[str, ...]:
        """Elements of the frame."""
        return tuple(chemical_symbols[number] for number, _ in self.composition)

    @property
    def formula(self) -> tuple[tuple[int, int], ...]:
        """The composition with the smallest whole numbers."""
        divisor = int(np.gcd.reduce([count for _, count in self.composition]))
        return tuple((number, count // divisor) for number, count in self.composition)


class Digester:
    """Makes digests; parts that many frames share are held once."""

    def __init__(self) -> None:
        from vesin import NeighborList  # imports torch where it is installed: seconds, so only here

        self._shared: dict[Any, Any] = {}
        self._pairs = NeighborList(cutoff=SEARCH_RADIUS, full_list=False, n_threads=1)

    def __call__(self, frame: Frame) -> Digest:
        """Return the digest of a frame."""
        file, _, number = frame.source.rpartition("#")
        defects = _geometry(frame) + _not_finite(frame)
        sound = not any(kind == "geometry" for kind, _ in defects)
        closest, shape = self._close(frame.atoms) if sound else (_UNKNOWN, (np.nan, np.nan))
        numbers, counts = np.unique(frame.atoms.numbers, return_counts=True)
        keys = {str(key) for key in frame.info if key not in _NOT_KEYS}
        keys |= set(frame.info.get("unread_arrays", ()))
        constrained = frame.info.get("constrained")
        periodic = sound and bool(frame.atoms.pbc.all())
        return Digest(
            file=self._share(file),
            number=number,
            composition=self._share(tuple(zip(numbers.tolist(), counts.tolist(), strict=True))),
            labels=self._share(tuple(sorted(frame.labels))),
            keys=self._share(tuple(sorted(keys))),
            info=self._told(frame.info),
            energy=_number(frame, "energy"),
            masked=0 if constrained is None else int(np.count_nonzero(constrained)),
            volume=frame.atoms.get_volume() / len(frame) if periodic else np.nan,
            charges=_number(frame, "charges"),
            total_charge=_number(frame, "total_charge"),
            closest=closest,
            pair=self._share(tuple(frame.atoms.numbers[list(closest[1:])].tolist())),
            fingerprint=fingerprint(frame.atoms) if sound else b"",
            shape=shape,
            defects=defects,
            **_forces(frame),
            **_stress(frame, periodic),
        )

    def _share(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)

    def _told(self, info: Mapping[str, Any]) -> Mapping[str, Any]:
        told = tuple((key, _plain(info[key])) for key in _TOLD if key in info)
        ids = {key: value for key, value in told if key.endswith("_id")}
        if ids:  # not held for good: there may be one for each frame
            return dict(told)
        return self._shared.setdefault(("told", told), dict(told))

    def _close(self, atoms: Atoms) -> tuple[tuple[float, int, int], tuple[float, float]]:
        first, second, distance = self._pairs.compute(
            atoms.positions, atoms.cell.array, atoms.pbc.tolist(), "ijd"
        )
        if not len(distance):
            return (np.inf, 0, 0), (0.0, 0.0)
        pair = int(distance.argmin())
        # Smooth at the radius, so that a pair at its edge does not decide.
        weight = (1.0 - distance / SEARCH_RADIUS) ** 3
        heavy = np.sqrt(atoms.numbers)
        products = heavy[first] * heavy[second] * weight
        shape = float(weight.sum() / len(atoms)), float(products.sum() / len(atoms))
        return (float(distance[pair]), int(first[pair]), int(second[pair])), shape


def digests(frames: Iterable[Frame | Digest]) -> list[Digest]:
    """Return the digest of every frame that is not one already."""
    digester: Digester | None = None
    found = []
    for frame in frames:
        if isinstance(frame, Frame):
            digester = digester or Digester()
            frame = digester(frame)
        found.append(frame)
    return found


def spans(atoms: Atoms) -> bool:
    """Return whether the cell is finite and has a vector for every periodic direction."""
    if not np.isfinite(atoms.cell.array).all():
        return False
    periodic = atoms.cell.array[np.asarray(atoms.pbc)]
    return not len(periodic) or bool(np.linalg.matrix_rank(periodic) == len(periodic))


def _geometry(frame: Frame) -> tuple[tuple[str, str], ...]:
    atoms = frame.atoms
    found = []
    if not np.isfinite(atoms.positions).all():
        atom = int(np.argmax(~np.isfinite(atoms.positions).all(axis=1)))
        where = f"the position of atom {atom} is {atoms.positions[atom].tolist()}"
        found.append(("geometry", f"{frame.source}: {where}; correct or remove the frame"))
    if not spans(atoms):
        text = (
            f"{frame.source}: pbc is {atoms.pbc.tolist()} but the cell "
            f"{atoms.cell.array.tolist()} does not span these directions; correct pbc or the cell"
        )
        found.append(("geometry", text))
    return tuple(found)


def _not_finite(frame: Frame) -> tuple[tuple[str, str], ...]:
    found = []
    constrained = frame.info.get("constrained")
    for label, values in frame.labels.items():
        bad = ~np.isfinite(np.atleast_1d(values))
        if label == "forces" and constrained is not None:
            bad &= ~np.asarray(constrained)
        if not bad.any():
            continue
        where = np.argwhere(bad)[0]
        value = np.atleast_1d(values)[tuple(where)]
        at = f" of atom {where[0]}" if FIELDS[label].level == "atom" else ""
        text = (
            f"{frame.source}: {label}{at} is not finite ({value}); remove the label or the frame, "
            "or mark fixed atoms with a move_mask column"
        )
        found.append(("finite", text))
    return tuple(found)


def _forces(frame: Frame) -> dict[str, Any]:
    if "forces" not in frame.labels:
        return {"force": np.nan, "net_force": np.nan, "zero_forces": 0}
    forces = frame.labels["forces"]
    size = np.sqrt((np.where(np.isfinite(forces), forces, 0.0) ** 2).sum(axis=1))
    zero = int(np.count_nonzero((forces == 0.0).all(axis=1)))
    return {
        "force": float(size.max()),
        "net_force": float(np.abs(forces.sum(axis=0)).max()),  # NaN where atoms are fixed
        "zero_forces": zero if zero < len(frame) else 0,
    }


def _stress(frame: Frame, periodic: bool) -> dict[str, Any]:
    stress = frame.labels.get("stress")
    if stress is None or not np.isfinite(stress).all():
        return {"stress": np.nan, "skew": np.nan, "pressure": np.nan}
    return {
        "stress": float(np.abs(stress).max()),
        "skew": float(np.abs(stress - stress.T).max()),
        "pressure": -float(np.trace(stress)) / 3 if periodic else np.nan,
    }


def _number(frame: Frame, label: str) -> float:
    return float(np.sum(frame.labels[label])) if label in frame.labels else np.nan


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else str(value)
