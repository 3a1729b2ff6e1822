"""Output of CP2K: energies, forces, stress and charges; positions of later steps beside it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import Bohr, GPa, Hartree

from mlip.data.fields import ASE
from mlip.data.json_stream import DAMAGE, open_plain
from mlip.data.readers.charge_files import ChargesBeside
from mlip.data.readers.cp2k_files import SAME_ENERGY, Trajectory, fixed_by_input
from mlip.data.readers.dft import (
    UNCONVERGED,
    UNFINISHED,
    convergence,
    require_choice,
    require_finite,
    unfinished_run,
)
from mlip.data.readers.format import Format
from mlip.data.record import Record

_END = "PROGRAM ENDED AT"
_NUMBER = r"(-?\d+\.\d*(?:[Ee][-+]?\d+)?)"
_ENERGY = re.compile(r"ENERGY\| Total FORCE_EVAL.*?energy [\[(](?:a\.u\.|hartree)[\])]:?\s+(\S+)")
_COORDINATES = re.compile(
    r"ATOMIC COORDINATES IN angstrom\s*\n\s*Atom .*\n\s*\n?((?:\s*\d+\s+\d+\s+\S+\s+\d+\s.*\n)+)",
    re.IGNORECASE,
)
_VECTOR = re.compile(
    rf"^ CELL\| Vector [abc] \[angstrom\]:\s*{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}"
    rf"\s+\|.\| =\s*{_NUMBER}",
    re.MULTILINE,
)
_PERIODIC = re.compile(r"CELL\| Periodicity\s+(\S+)")
_CHARGE = re.compile(r"DFT\| Charge\s+(-?\d+)")
_FUNCTIONAL = re.compile(r"^ FUNCTIONAL\| ([^:\n]+):", re.MULTILINE)
_DISPERSION = re.compile(r"vdW POTENTIAL\|\s+(DFT-D\d)")
_DAMPING = re.compile(r"vdW POTENTIAL\|\s+(BJ|Zero) Damping")
_CUTOFF = re.compile(r"QS\| Density cutoff \[a\.u\.\]:\s+(\S+)")
_FORCES = re.compile(r"ATOMIC FORCES in \[a\.u\.\]\s*\n(?:.*#.*\n|\s*\n)*((?:\s*\d+\s+\d+\s.*\n)*)")
_FORCES_NEW = re.compile(
    r"FORCES\| Atomic forces \[hartree/bohr\].*\n\s*FORCES\|\s+Atom.*\n"
    r"((?:\s*FORCES\|\s+\d+\s.*\n)*)"
)
_STRESS = re.compile(
    r"STRESS(?: TENSOR|\| Analytical stress tensor|\| Numerical stress tensor) \[(\w+)\]"
    r"((?:.*\n){1,7})"
)
_HIRSHFELD = re.compile(r"Hirshfeld Charges\s*\n\s*\n?\s*#Atom.*\n((?:\s*\d+\s+\S+\s+\d+\s.*\n)+)")
_STRESS_UNITS = {"GPa": GPa, "bar": 1e-4 * GPa, "kbar": 0.1 * GPa}
_CHARGES = (None, "none", "hirshfeld", "bader", "ddec6")


def read_cp2k(
    path: Path,
    unconverged: str = "mark",
    unfinished: str = "refuse",
    charges: str | None = None,
) -> Iterator[Record]:
    """Yield the structures of a CP2K output whose positions are known.

    An output tells the positions of its first structure only; those of an optimisation or a
    dynamics are read from ``PROJECT-pos-1.xyz`` beside it (forces from ``-frc-1.xyz``, cells from
    ``-1.cell``, if there), each matched by its energy. Evaluations within a line search, which the
    trajectory leaves out, have no positions and give no frame. The energy is CP2K's total energy,
    electronic entropy included, to which the forces belong. Lattice vectors are printed with
    three decimals and their lengths with six: the lengths are used. Atoms held by FIXED_ATOMS are
    known from the input beside the output.

    Args:
        path: The file.
        unconverged: ``mark`` structures for which CP2K says "SCF run NOT converged" (info
            ``converged``), or ``refuse`` them.
        unfinished: ``refuse`` an output without "PROGRAM ENDED", or ``keep`` all evaluations
            but the last, which may be incomplete.
        charges: ``hirshfeld`` (the table in the output), ``bader``, ``ddec6`` (files beside it) or
            ``none``; None takes a file beside it, else the table if it is printed.

    Raises:
        ValueError: If the file is damaged or truncated, or positions are missing.
    """
    require_choice(path, "unconverged", unconverged, UNCONVERGED)
    require_choice(path, "unfinished", unfinished, UNFINISHED)
    require_choice(path, "charges", charges, _CHARGES)  # type: ignore[arg-type]
    beside = ChargesBeside(path, "none" if charges == "hirshfeld" else charges)
    text = _text(path)
    evaluations = _evaluations(path, text)
    if _END not in text.rpartition("CP2K| version string")[2]:  # of the last run in the file
        evaluations = evaluations[:-1]  # what follows its energy may be cut
        unfinished_run(path, len(evaluations), _END, unfinished)
    first, valences = _first_structure(path, text)
    common, fixed = _common(text), fixed_by_input(path, len(first))
    printed = charges == "hirshfeld" or (charges is None and beside.kind == "none")
    for index, (found, atoms, forces) in enumerate(_structures(path, text, evaluations, first)):
        source = f"{path}#{index}"
        record = found.record(atoms, forces, source, printed)
        info = {**record.info, "frame_id": index, **common}
        info |= convergence(source, found.converged, unconverged)
        yield beside.attach(Record(record.atoms, info, record.arrays, source, fixed), valences)
    beside.require_used()


@dataclass
class _Evaluation:
    """One energy, and what is printed with it."""

    energy: float  # hartree
    text: str
    after: str = field(repr=False, default="")

    @property
    def converged(self) -> bool:
        return "SCF run NOT converged" not in self.text

    def record(
        self, atoms: Atoms, forces: np.ndarray | None, source: str, hirshfeld: bool
    ) -> Record:
        info: dict[str, Any] = {"energy": self.energy * Hartree, "energy_kind": "free"}
        arrays: dict[str, np.ndarray] = {}
        if forces is None:
            forces = self._forces(source, len(atoms))
        if forces is not None:
            arrays["forces"] = forces * Hartree / Bohr
        if (stress := self._stress(source)) is not None:
            info["stress"] = stress
        if hirshfeld and (rows := _last(_HIRSHFELD, self.text)) is not None:
            table = [line.split() for line in rows.splitlines()]
            if len(table) != len(atoms):
                raise ValueError(f"{source} has {len(table)} Hirshfeld charges; it is damaged")
            arrays["charges"] = np.array([float(row[-1]) for row in table])
            info["charge_partition"] = "hirshfeld"
            if len(table[0]) == 8:  # two spins: populations of both, their difference, charge
                arrays["magmoms"] = np.array([float(row[-2]) for row in table])
        require_finite(source, {"energy": self.energy, **arrays})
        return Record(atoms, info, arrays, source)

    def _forces(self, source: str, natoms: int) -> np.ndarray | None:
        rows = _last(_FORCES, self.after) or _last(_FORCES_NEW, self.after)
        if rows is None:
            return None
        start, stop = (2, 5) if "FORCES|" in rows else (3, 6)
        table = _table(rows, start, stop, source)
        if table.shape != (natoms, 3):
            raise ValueError(f"{source} has {len(table)} forces for {natoms} atoms; it is damaged")
        return table

    def _stress(self, source: str) -> np.ndarray | None:
        """Return xx yy zz yz xz xy in eV/Å³, ASE's sign: CP2K prints a pressure."""
        found = _STRESS.search(self.after)
        if found is None:
            return None
        rows = re.findall(rf"[xyzXYZ]\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}", found[2])
        if len(rows) != 3 or found[1] not in _STRESS_UNITS:
            raise ValueError(f"{source}: the stress tensor in {found[1]} cannot be read")
        full = -np.array(rows, dtype=np.float64) * _STRESS_UNITS[found[1]]
        return full.ravel()[[0, 4, 8, 5, 2, 1]]


def _structures(
    path: Path, text: str, evaluations: list[_Evaluation], first: Atoms
) -> Iterator[tuple[_Evaluation, Atoms, np.ndarray | None]]:
    trajectory = Trajectory.beside(path, text, first)
    if trajectory is None:
        if len(evaluations) > 1:
            raise ValueError(
                f"{path} tells {len(evaluations)} energies but the positions of the first only: "
                "put the trajectory that CP2K wrote (PROJECT-pos-1.xyz) beside it"
            )
        yield evaluations[-1], first, None
        return
    place = 0
    if trajectory.starts_after(evaluations[0].energy):
        yield evaluations[0], first, None
        place = 1
    for energy, atoms, forces in trajectory:
        near = [k for k in range(place, len(evaluations))
                if abs(evaluations[k].energy - energy) < SAME_ENERGY]  # fmt: skip
        if not near:
            raise ValueError(
                f"{trajectory.path} has a structure of energy {energy} hartree that {path} does "
                "not tell; the two files are not of the same run: take the files of one run"
            )
        yield evaluations[near[0]], atoms, forces
        place = near[0] + 1


def _evaluations(path: Path, text: str) -> list[_Evaluation]:
    found = list(_ENERGY.finditer(text))
    ends = [0, *(match.end() for match in found), len(text)]
    evaluations = []
    for k, match in enumerate(found):
        try:
            energy = float(match[1])
        except ValueError as error:
            raise ValueError(
                f"{path}#{k}: the energy is {match[1]!r}, not a number; the calculation failed"
            ) from error
        following = found[k + 1].start() if k + 1 < len(found) else len(text)
        before, after = text[ends[k] : match.start()], text[match.end() : following]
        evaluations.append(_Evaluation(energy, before, after.split("SCF WAVEFUNCTION", 1)[0]))
    if not evaluations:
        raise ValueError(f"{path} tells no energy: the calculation failed or has not begun")
    return evaluations


def _first_structure(path: Path, text: str) -> tuple[Atoms, np.ndarray]:
    """Return the structure that the output begins with, and the valence electrons of its atoms."""
    found, vectors = _COORDINATES.search(text), _VECTOR.findall(text)[:3]
    if found is None or len(vectors) != 3:
        raise ValueError(
            f"{path} tells no coordinates or no cell; run CP2K with PRINT_LEVEL MEDIUM"
        )
    rows = [line.split() for line in found[1].splitlines()]
    numbers = [int(row[3]) for row in rows]
    table = _table(found[1], 4, 8, str(path))
    cell = np.array(vectors, dtype=np.float64)
    norms = np.linalg.norm(cell[:, :3], axis=1, keepdims=True)
    periodic = _PERIODIC.search(text)
    named = periodic[1].upper() if periodic else "XYZ"
    pbc = [axis in named and named != "NONE" for axis in "XYZ"]
    atoms = Atoms(numbers, table[:, :3], cell=cell[:, :3] * cell[:, 3:] / norms, pbc=pbc)
    return atoms, table[:, 3]


def _common(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = [name.strip() for name in _FUNCTIONAL.findall(text) if "=" not in name]
    if names:
        name = "+".join(dict.fromkeys(names))
        if dispersion := _DISPERSION.search(text):
            damping = _DAMPING.search(text)
            name += dispersion[1].removeprefix("DFT")
            name += "(BJ)" if damping and damping[1] == "BJ" else ""
        found["functional"] = name
    if cutoff := _CUTOFF.search(text):
        found["encut"] = round(float(cutoff[1]) * Hartree, 6)
    if charge := _CHARGE.search(text):
        found["total_charge"] = float(charge[1])
    return found


def _table(rows: str, start: int, stop: int, source: str) -> np.ndarray:
    try:
        return np.array([line.split()[start:stop] for line in rows.splitlines()], dtype=np.float64)
    except ValueError as error:
        raise ValueError(
            f"{source}: a table of atoms is damaged ({error}); fetch it again"
        ) from error


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1] if found else None


def _text(path: Path) -> str:
    try:
        with open_plain(path) as handle:
            return handle.read().decode("utf-8", errors="replace")
    except DAMAGE as error:
        raise ValueError(
            f"{path} cannot be decompressed ({error}): the file is truncated or damaged: fetch it "
            "again"
        ) from error


FORMAT = Format(
    name="cp2k-out",
    read=read_cp2k,
    fields=ASE,
    claims=lambda path, head: path.is_file() and b"CP2K|version" in head,
)
