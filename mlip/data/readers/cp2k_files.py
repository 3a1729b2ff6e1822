"""What CP2K writes beside its output: positions, forces and cells of a run; fixed atoms."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

SAME_ENERGY = 1e-8
"""Hartree; a trajectory tells ten decimals of the energy that the output tells."""

_PROJECT = re.compile(r"GLOBAL\| Project name\s+(\S+)")
_STEP = re.compile(r"i =\s*(\d+)")
_ENERGY = re.compile(r"E =\s*(-?\d+\.\d+)")
_CELL_CHANGES = re.compile(r"Run type\s+CELL_OPT|Ensemble type\s+NP[TE]", re.IGNORECASE)
_FIXED = re.compile(r"&FIXED_ATOMS\b(.*?)&END", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Trajectory:
    """Structures of a run, with their energies in hartree.

    Args:
        path: The file of positions.
        steps: Number of each step.
        energies: Energy of each step.
        positions: (steps, atoms, 3), Å.
        forces: (steps, atoms, 3), hartree/bohr, or None.
        cells: Cell of each step number, rows in Å; empty if it does not change.
        first: The structure that the output begins with.
    """

    path: Path
    steps: list[int]
    energies: list[float]
    positions: np.ndarray
    forces: np.ndarray | None
    cells: dict[int, np.ndarray]
    first: Atoms

    @classmethod
    def beside(cls, output: Path, text: str, first: Atoms) -> "Trajectory | None":
        """Return the trajectory of the output's project, None if there is none.

        Raises:
            ValueError: If a file is damaged or of another structure.
        """
        project = _PROJECT.search(text)
        path = output.parent / f"{project[1] if project else output.stem}-pos-1.xyz"
        if not path.is_file():
            return None
        comments, positions = _read_xyz(path, first)
        steps = [_number(_STEP, comment, path) for comment in comments]
        energies = [_number(_ENERGY, comment, path) for comment in comments]
        forces_path = path.with_name(path.name.replace("-pos-1.xyz", "-frc-1.xyz"))
        forces = None
        if forces_path.is_file():
            told, forces = _read_xyz(forces_path, first)
            if [_number(_STEP, comment, forces_path) for comment in told] != steps:
                raise ValueError(
                    f"{forces_path} and {path.name} do not hold the same steps; print both at the "
                    "same steps, or take the forces away"
                )
        cells_path = path.with_name(path.name.replace("-pos-1.xyz", "-1.cell"))
        cells = _cells(cells_path)
        if _CELL_CHANGES.search(text) and not cells:
            raise ValueError(
                f"{output}: the cell changes during the run, and {cells_path.name}, which would "
                "tell the cell of each step, is not beside it; print it (MOTION/PRINT/CELL)"
            )
        return cls(path, [int(x) for x in steps], energies, positions, forces, cells, first)

    def starts_after(self, energy: float) -> bool:
        """Return whether the first structure of the run is not among these."""
        return abs(self.energies[0] - energy) > SAME_ENERGY

    def __iter__(self) -> Iterator[tuple[float, Atoms, np.ndarray | None]]:
        for k, (step, energy) in enumerate(zip(self.steps, self.energies, strict=True)):
            cell = self.cells.get(step, self.first.cell.array)
            if self.cells and step not in self.cells:
                raise ValueError(f"{self.path}: no cell is known for step {step}; print all cells")
            atoms = Atoms(self.first.numbers, self.positions[k], cell=cell, pbc=self.first.pbc)
            yield energy, atoms, None if self.forces is None else self.forces[k]


def fixed_by_input(output: Path, natoms: int) -> np.ndarray | None:
    """Return the components that FIXED_ATOMS of the input beside the output holds, or None.

    The input is the one named like the output, or the only ``.inp`` in the folder.

    Raises:
        ValueError: If the list names atoms that are not there.
    """
    inputs = sorted(output.parent.glob("*.inp"))
    chosen = [x for x in inputs if x.stem == output.stem] or inputs
    if len(chosen) != 1:
        return None
    fixed = np.zeros((natoms, 3), dtype=bool)
    for section in _FIXED.findall(chosen[0].read_text(encoding="utf-8", errors="replace")):
        components = re.search(r"COMPONENTS_TO_FIX\s+([XYZ]+)", section, re.IGNORECASE)
        axes = ["XYZ".index(axis) for axis in (components[1].upper() if components else "XYZ")]
        for line in re.findall(r"^\s*LIST\s+(.*)$", section, re.IGNORECASE | re.MULTILINE):
            for start, stop in re.findall(r"(\d+)(?:\.\.(\d+))?", line):
                last = int(stop or start)
                if not 1 <= int(start) <= last <= natoms:
                    raise ValueError(
                        f"{chosen[0]}: FIXED_ATOMS names atom {last} of {natoms}; it is not the "
                        f"input of {output.name}"
                    )
                fixed[np.ix_(range(int(start) - 1, last), axes)] = True
    return fixed if fixed.any() else None


def _read_xyz(path: Path, first: Atoms) -> tuple[list[str], np.ndarray]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    size, natoms = len(first) + 2, len(first)
    if not lines or len(lines) % size or any(x.split() != [str(natoms)] for x in lines[::size]):
        raise ValueError(
            f"{path} does not hold whole frames of {natoms} atoms; it is truncated or of another "
            "run: fetch it again"
        )
    symbols = first.get_chemical_symbols()
    frames = []
    for start in range(0, len(lines), size):
        rows = [line.split() for line in lines[start + 2 : start + size]]
        if [re.sub(r"[\d_].*", "", row[0]).capitalize() if row else "" for row in rows] != symbols:
            raise ValueError(f"{path} (line {start + 3}): its elements are not those of the output")
        try:
            frames.append([[float(word) for word in row[1:4]] for row in rows])
        except ValueError as error:
            raise ValueError(f"{path} (line {start + 3}): {error}; fetch the file again") from error
    return lines[1::size], np.array(frames)


def _number(pattern: re.Pattern[str], comment: str, path: Path) -> float:
    found = pattern.search(comment)
    if found is None:
        raise ValueError(f"{path}: the comment {comment!r} tells no step and energy as CP2K writes")
    return float(found[1])


def _cells(path: Path) -> dict[int, np.ndarray]:
    """Return the cell of each step: step, time, nine components in Å, volume."""
    if not path.is_file():
        return {}
    try:
        table = np.loadtxt(path, ndmin=2)
        return {int(row[0]): row[2:11].reshape(3, 3) for row in table}
    except ValueError as error:
        raise ValueError(f"{path} is no table of cells ({error}); fetch it again") from error
