"""What every potential must obey; import these checks to test your own."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from mlip.graph import collate, from_atoms
from mlip.models.checkpoint import load, save
from mlip.models.potential import Potential


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed deviation of a float64 potential.

    Args:
        exact: For symmetries and for batches, which only reorder sums: eV, eV/Å, eV/Å³.
        derivative: For forces (eV/Å) and stress (eV/Å³) against central differences.
        smooth: For the jump of the energy, eV, as an atom crosses the cutoff.
    """

    exact: float = 1e-10
    derivative: float = 1e-6
    smooth: float = 1e-8


STANDARD = Tolerance()
_STEP = 1e-4
"""Displacement (Å) and strain of the central differences."""


def example(symbols: list[str], seed: int = 0) -> Atoms:
    """Return a small rattled, sheared periodic cell that holds every symbol."""
    atoms = bulk(symbols[0], "bcc", 3.3, cubic=True) * (2, 2, 1)
    generator = np.random.default_rng(seed)
    names = [symbols[i % len(symbols)] for i in range(len(atoms))]
    generator.shuffle(names)
    atoms.set_chemical_symbols(names)
    strain = np.eye(3) + 0.03 * generator.normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += 0.1 * generator.normal(size=atoms.positions.shape)
    return atoms


def predict(potential: Potential, atoms: Atoms) -> dict[str, np.ndarray]:
    """Return every output for one structure, as arrays."""
    outputs = potential(from_atoms(atoms, potential.r_max))
    return {name: value.detach().numpy() for name, value in outputs.items()}


def check_forces(potential: Potential, atoms: Atoms, tolerance: Tolerance = STANDARD) -> None:
    """Forces are minus the gradient of the energy, by central differences on some atoms."""
    forces = predict(potential, atoms)["forces"]
    for atom, axis in [(0, 0), (1, 1), (len(atoms) - 1, 2)]:

        def moved(step: float, atom: int = atom, axis: int = axis) -> Atoms:
            copy = atoms.copy()
            copy.positions[atom, axis] += step
            return copy

        numerical = -_slope(potential, moved)
        _near(forces[atom, axis], numerical, tolerance.derivative, f"force {axis} on atom {atom}")


def check_stress(potential: Potential, atoms: Atoms, tolerance: Tolerance = STANDARD) -> None:
    """Stress is the strain derivative of the energy over the volume, positive in tension."""
    stress = predict(potential, atoms)["stress"][0]
    for i, j in [(0, 0), (1, 2), (2, 0)]:

        def strained(step: float, i: int = i, j: int = j) -> Atoms:
            strain = np.eye(3)
            strain[i, j] += step / 2
            strain[j, i] += step / 2
            copy = atoms.copy()
            copy.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            return copy

        numerical = _slope(potential, strained) / atoms.get_volume()
        _near(stress[i, j], numerical, tolerance.derivative, f"stress {i}{j}")


def check_training(potential: Potential, atoms: Atoms, tolerance: Tolerance = STANDARD) -> None:
    """A loss on the forces is differentiated by the weights, by central differences along one way.

    The forces being derivatives themselves, this is where second derivatives go wrong.
    """
    copy = deepcopy(potential)
    graph = from_atoms(atoms, copy.r_max)
    weights = [weight for weight in copy.parameters() if weight.requires_grad]
    generator = torch.Generator().manual_seed(0)
    ways = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]

    def loss(step: float) -> torch.Tensor:
        with torch.no_grad():
            for weight, way in zip(weights, ways, strict=True):
                weight += step * way
        return copy(graph, outputs=("forces",), differentiable=True)["forces"].square().mean()

    gradients = torch.autograd.grad(loss(0.0), weights, allow_unused=True)
    slope = sum(
        float((gradient * way).sum())
        for gradient, way in zip(gradients, ways, strict=True)
        if gradient is not None
    )
    step = 1e-2 * _STEP
    up, down = float(loss(step).detach()), float(loss(-2 * step).detach())
    numerical = (up - down) / (2 * step)
    allowed = 10 * tolerance.derivative * max(1.0, abs(slope))
    _near(slope, numerical, allowed, "gradient of a loss on the forces")


def check_symmetries(potential: Potential, atoms: Atoms, tolerance: Tolerance = STANDARD) -> None:
    """Rotation, inversion, translation and permutation of atoms act as they must."""
    reference = predict(potential, atoms)
    for sign in (1.0, -1.0):
        rotation = sign * Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix()
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ rotation.T)
        turned.positions = atoms.positions @ rotation.T
        result = predict(potential, turned)
        _near(result["energy"], reference["energy"], tolerance.exact, "energy of a rotated cell")
        _near(result["forces"], reference["forces"] @ rotation.T, tolerance.exact, "its forces")
        stress = rotation @ reference["stress"] @ rotation.T
        _near(result["stress"], stress, tolerance.exact, "its stress")
    moved = atoms.copy()
    moved.positions += [0.7, -5.0, 1.3]
    moved.wrap()
    _near(predict(potential, moved)["forces"], reference["forces"], tolerance.exact, "translation")
    order = np.random.default_rng(0).permutation(len(atoms))
    result = predict(potential, atoms[order])
    for name in ("energies", "forces"):
        _near(result[name], reference[name][order], tolerance.exact, f"{name} after permutation")


def check_vectors(
    potential: Potential, atoms: Atoms, name: str, tolerance: Tolerance = STANDARD
) -> None:
    """Vectors of the atoms that a head gives turn with the structure and are not all zero."""

    def vectors(one: Atoms) -> np.ndarray:
        graph = from_atoms(one, potential.r_max)
        return potential(graph, outputs=(name,))[name].detach().numpy()

    reference = vectors(atoms)
    if not np.abs(reference).max() > 1e3 * tolerance.exact:
        raise AssertionError(f"{name} is zero everywhere: nothing can be said of it")
    for sign in (1.0, -1.0):
        rotation = sign * Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix()
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ rotation.T)
        turned.positions = atoms.positions @ rotation.T
        _near(vectors(turned), reference @ rotation.T, tolerance.exact, f"{name} of a rotated cell")
    order = np.random.default_rng(0).permutation(len(atoms))
    _near(vectors(atoms[order]), reference[order], tolerance.exact, f"{name} after permutation")


def check_batching(potential: Potential, atoms: Atoms, tolerance: Tolerance = STANDARD) -> None:
    """A structure has the same energy and forces in a batch as alone."""
    other = atoms.copy() * (2, 1, 1)
    isolated = Atoms(atoms.symbols[:1], positions=[[0.0, 0.0, 0.0]])
    group = [atoms, isolated, other]
    outputs = potential(collate([from_atoms(one, potential.r_max) for one in group]))
    start = 0
    for index, one in enumerate(group):
        alone = predict(potential, one)
        end = start + len(one)
        _near(outputs["energy"][index], alone["energy"][0], tolerance.exact, "energy in a batch")
        _near(outputs["forces"][start:end], alone["forces"], tolerance.exact, "forces in a batch")
        start = end


def check_extensive(potential: Potential, atoms: Atoms, tolerance: Tolerance = STANDARD) -> None:
    """Twice the cell has twice the energy and the same stress."""
    once, twice = predict(potential, atoms), predict(potential, atoms * (1, 1, 2))
    _near(twice["energy"], 2 * once["energy"], 10 * tolerance.exact, "energy of a doubled cell")
    _near(twice["stress"], once["stress"], tolerance.exact, "stress of a doubled cell")


def check_isolated_atom(potential: Potential, tolerance: Tolerance = STANDARD) -> None:
    """An atom alone has its reference energy and no force."""
    for index, symbol in enumerate(potential.elements):
        result = predict(potential, Atoms(symbol, positions=[[0.0, 0.0, 0.0]]))
        reference = float(potential.energy_references[index])
        _near(result["energy"][0], reference, tolerance.exact, f"energy of one {symbol} atom")
        _near(result["forces"], np.zeros((1, 3)), tolerance.exact, f"force on one {symbol} atom")


def check_cutoff(potential: Potential, tolerance: Tolerance = STANDARD) -> None:
    """Energy and force go smoothly to those of separate atoms at the cutoff."""
    symbol, r_max = potential.elements[0], potential.r_max
    inside, outside = (
        predict(potential, Atoms(f"{symbol}2", positions=[[0, 0, 0], [0, 0, r_max + shift]]))
        for shift in (-1e-4, 1e-4)
    )
    _near(inside["energy"], outside["energy"], tolerance.smooth, "energy across the cutoff")
    _near(inside["forces"], outside["forces"], 1e3 * tolerance.smooth, "force across the cutoff")


def check_checkpoint(
    potential: Potential,
    config: dict[str, Any],
    atoms: Atoms,
    folder: Path,
    tolerance: Tolerance = STANDARD,
) -> None:
    """A potential read back from its checkpoint predicts the same."""
    again = load(save(folder / "potential.safetensors", potential, config))
    old, new = predict(potential, atoms), predict(again, atoms)
    for name, value in old.items():
        _near(new[name], value, tolerance.exact, f"{name} after saving and loading")


def _slope(potential: Potential, structure: Callable[[float], Atoms]) -> float:
    up, down = (predict(potential, structure(step))["energy"][0] for step in (_STEP, -_STEP))
    return float(up - down) / (2 * _STEP)


def _near(value: Any, expected: Any, tolerance: float, what: str) -> None:
    value, expected = (
        item.detach().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
        for item in (value, expected)
    )
    deviation = float(np.abs(value - expected).max()) if value.size else 0.0
    if not deviation <= tolerance:
        raise AssertionError(f"{what}: off by {deviation:.3g}, more than {tolerance:.3g}")
