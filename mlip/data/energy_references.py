"""Energy of each element, fitted, given or of isolated atoms, that a model adds to its output."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlip.data.frame import Frame
from mlip.errors import suggest

_COLUMNS = len(chemical_symbols) + 1  # by atomic number, and the energy
_CHUNK = 2_000  # rows that are held at once
_ISOLATED = 8.0  # Å between an atom and its images, from which on it counts as isolated


@dataclass(frozen=True)
class EnergyReferences:
    """Reference energies of the elements.

    Args:
        values: Energy of one atom by symbol, eV.
        rank: Independent compositions in the fit; 0 when given.
        n_elements: Number of elements.
        rms_residual: Root mean square of what the references leave, eV/atom; NaN when given.
        note: A sentence when the fit is not unique, else the empty string.
    """

    values: Mapping[str, float]
    rank: int
    n_elements: int
    rms_residual: float
    note: str = ""

    def total(self, numbers: np.ndarray) -> float:
        """Return the sum over atoms, eV.

        Raises:
            ValueError: If an element has no reference, naming it.
        """
        symbols = [chemical_symbols[number] for number in numbers]
        _require(self.values, symbols)
        return float(sum(self.values[symbol] for symbol in symbols))


def fit_energy_references(frames: Iterable[Frame]) -> EnergyReferences:
    """Fit one energy an element to the total energies of frames, in float64.

    Frames without a finite energy are left out; see :func:`fit_compositions`.

    Raises:
        ValueError: If no frame has a finite energy.
    """
    return _fit(_row(frame) for frame in frames if _has_energy(frame))


def fit_compositions(
    frames: Iterable[tuple[Sequence[tuple[int, int]], float]],
) -> EnergyReferences:
    """Fit one energy an element to compositions (atomic number, count) and energies (eV).

    Minimises the sum over frames of ``(E/N - sum_k x_k e_k)**2`` with ``x_k`` the fraction of
    element k: every frame weighs the same, whatever its size.

    Raises:
        ValueError: If there are none.
    """
    return _fit(_weighed(composition, energy) for composition, energy in frames)


def _fit(rows: Iterator[np.ndarray]) -> EnergyReferences:
    reduced: np.ndarray = np.zeros((0, _COLUMNS))
    compositions = 0
    while chunk := list(islice(rows, _CHUNK)):
        compositions += len(chunk)
        table = np.concatenate([reduced, np.stack(chunk)])
        # A QR factor has the solution and residual of all rows so far, whatever their number.
        reduced = np.asarray(np.linalg.qr(table, mode="r")) if len(table) > _CHUNK else table
    if not compositions:
        raise ValueError(
            "energy references cannot be fitted: no frame has a finite energy; give them "
            "(energy_references: {Li: -0.29, ...}) or correct the data"
        )
    present = np.flatnonzero(np.abs(reduced[:, :-1]).max(axis=0))
    symbols = [chemical_symbols[z] for z in present]
    solution, _, rank, _ = np.linalg.lstsq(reduced[:, present], reduced[:, -1], rcond=None)
    residual = reduced[:, -1] - reduced[:, present] @ solution
    return EnergyReferences(
        values=dict(zip(symbols, map(float, solution), strict=True)),
        rank=int(rank),
        n_elements=len(symbols),
        rms_residual=float(np.sqrt((residual**2).sum() / compositions)),
        note=_note(int(rank), symbols),
    )


def given_energy_references(
    values: Mapping[str, float], elements: Iterable[str]
) -> EnergyReferences:
    """Return references given by the user, eV an atom.

    Args:
        values: Energy by symbol; further elements are allowed.
        elements: Symbols that must be there.

    Raises:
        ValueError: If an element is missing, a name is no element, or a value is not finite.
    """
    for symbol, value in values.items():
        if atomic_numbers.get(str(symbol), 0) == 0:
            raise ValueError(
                f"energy_references names {symbol!r}, which is not an element"
                f"{suggest(str(symbol), chemical_symbols[1:])}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"energy_references.{symbol} is {value!r}; give a finite number in eV")
    _require(values, elements)
    return EnergyReferences({k: float(v) for k, v in values.items()}, 0, len(values), float("nan"))


def is_isolated(frame: Frame) -> bool:
    """Return whether a frame is one atom, at least 8 Å from its periodic images if it has any."""
    atoms = frame.atoms
    if len(atoms) != 1:
        return False
    periodic = atoms.cell.array[np.asarray(atoms.pbc)]
    if not len(periodic):
        return True
    lengths = np.linalg.norm(atoms.cell.minkowski_reduce()[0].array, axis=1)
    lengths = lengths[np.asarray(atoms.pbc)]
    return bool(lengths.min() >= _ISOLATED)


def isolated_energy_references(
    frames: Iterable[Frame], elements: Iterable[str]
) -> EnergyReferences:
    """Return the energies of the isolated atoms among frames, eV.

    Args:
        frames: Frames; those of one atom without neighbours count.
        elements: Symbols that must be there.

    Raises:
        ValueError: If an element has no isolated atom, or has two of different energies.
    """
    found: dict[str, tuple[float, str]] = {}
    for frame in frames:
        if not (is_isolated(frame) and _has_energy(frame)):
            continue
        symbol, energy = str(frame.atoms.symbols[0]), float(frame.labels["energy"])
        other, source = found.setdefault(symbol, (energy, frame.source))
        if abs(other - energy) > 1e-3:
            raise ValueError(
                f"{frame.source} and {source} are both an isolated {symbol}, with {energy} and "
                f"{other} eV: keep the one of the right spin state"
            )
    if missing := [symbol for symbol in elements if symbol not in found]:
        raise ValueError(
            f"energy_references is isolated, but there is no isolated atom of {', '.join(missing)} "
            f"(found: {', '.join(found) or 'none'}): add a frame of each atom alone in a box of at "
            "least 8 Å, name a file of them (energy_references={isolated: FILE, units: ase}), or "
            "use energy_references=fit"
        )
    values = {symbol: energy for symbol, (energy, _) in found.items()}
    return EnergyReferences(values, 0, len(values), float("nan"))


def _has_energy(frame: Frame) -> bool:
    return "energy" in frame.labels and bool(np.isfinite(frame.labels["energy"]))


def _row(frame: Frame) -> np.ndarray:
    """Return the fraction of each element by atomic number, and the energy per atom."""
    row = np.empty(_COLUMNS)
    row[:-1] = np.bincount(frame.atoms.numbers, minlength=_COLUMNS - 1) / len(frame)
    row[-1] = float(frame.labels["energy"]) / len(frame)
    return row


def _weighed(composition: Sequence[tuple[int, int]], energy: float) -> np.ndarray:
    row = np.zeros(_COLUMNS)
    for number, count in composition:
        row[number] = count
    size = row.sum()
    row[-1] = energy
    return row / size


def _note(rank: int, symbols: Sequence[str]) -> str:
    if rank == len(symbols):
        return ""
    return (
        f"The compositions determine only {rank} of {len(symbols)} energy references "
        f"({', '.join(symbols)}): the solution of least norm is used. Energies of the compositions "
        "in the data are right; those of other compositions, of single elements and of reactions "
        "between them are arbitrary. Add frames of other compositions, or give the references."
    )


def _require(values: Mapping[str, float], elements: Iterable[str]) -> None:
    if missing := sorted(set(elements) - set(values)):
        raise ValueError(
            f"energy_references has no value for {', '.join(missing)}; known: "
            f"{', '.join(sorted(values))}. Give one for every element of the data"
        )
