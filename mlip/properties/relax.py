"""Single points and guarded relaxations: an energy that can be trusted, or a typed error."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE, LBFGS


@dataclass(frozen=True)
class Protocol:
    """How a structure is relaxed and when the relaxation counts as lost.

    Args:
        fmax: Largest force on an atom at convergence, eV/Å.
        max_steps: Steps of FIRE and LBFGS together.
        fire_fmax: FIRE hands over to LBFGS below this force, eV/Å.
        force_limit: A larger force is an explosion, eV/Å.
        energy_drop_limit: A larger fall of the energy from its start is an explosion, eV/atom.
        contact_fraction: Two atoms closer than this fraction of the sum of their covalent radii
            are an explosion.
    """

    fmax: float = 0.02
    max_steps: int = 500
    fire_fmax: float = 0.10
    force_limit: float = 50.0
    energy_drop_limit: float = 10.0
    contact_fraction: float = 0.6


@dataclass(frozen=True)
class Relaxed:
    """A structure and what its calculator says about it.

    Args:
        atoms: Copy of the structure, with no calculator attached.
        energy: Potential energy, eV.
        steps: Optimiser steps taken; 0 for a single point.
        fmax: Largest force left on an atom (or on the free cell length, per atom), eV/Å.
        max_displacement: Largest displacement of an atom relative to the cell, less the drift of
            the whole structure, Å.
        converged: Whether ``fmax`` is below the threshold; True for a single point.
    """

    atoms: Atoms
    energy: float
    steps: int
    fmax: float
    max_displacement: float
    converged: bool


class PropertyError(RuntimeError):
    """A property could not be computed; ``reached`` tells how far it came."""

    def __init__(self, message: str, reached: Relaxed | None = None) -> None:
        super().__init__(message)
        self.reached = reached


class NotConvergedError(PropertyError):
    """The relaxation used up its steps."""


class ExplodedError(PropertyError):
    """The structure fell apart or collapsed."""


class NonFiniteError(PropertyError):
    """The calculator returned a NaN or infinite energy or force."""


def single_point(atoms: Atoms, calculator: Calculator) -> Relaxed:
    """Evaluate energy and forces at the given geometry.

    Raises:
        NonFiniteError: If the energy or a force is not finite.
    """
    return forces_at(atoms, calculator)[0]


def forces_at(atoms: Atoms, calculator: Calculator) -> tuple[Relaxed, np.ndarray]:
    """Return the single point and the forces, eV/Å, at the given geometry.

    Raises:
        NonFiniteError: If the energy or a force is not finite.
    """
    work = _copy(atoms)
    work.calc = calculator
    forces = _forces(work)
    return _state(work, forces, atoms, steps=0, converged=True), forces


def relax(
    atoms: Atoms,
    calculator: Calculator,
    protocol: Protocol | None = None,
    free_axis: int | None = None,
) -> Relaxed:
    """Relax a copy of ``atoms`` by FIRE, then LBFGS, under guard at every step.

    Args:
        atoms: Structure; its constraints are dropped, since every atom is free in the protocol.
        calculator: Any ASE calculator; needs ``stress`` if ``free_axis`` is given.
        protocol: Thresholds; the defaults of ``Protocol`` if None.
        free_axis: Cell vector (0, 1, 2) whose height above the plane of the other two may change;
            the two in-plane vectors stay. None keeps the whole cell.

    Raises:
        NotConvergedError: If ``max_steps`` steps do not reach ``fmax``.
        ExplodedError: If a force, the fall of the energy or a contact leaves its limits.
        NonFiniteError: If the energy or a force is not finite.
    """
    protocol = protocol or Protocol()
    start = _copy(atoms) if free_axis is None else _upright(_copy(atoms), free_axis)
    work = start.copy()
    work.calc = calculator
    target: Any = work if free_axis is None else FrechetCellFilter(work, mask=[0, 0, 1, 0, 0, 0])
    reference_energy, state = None, None
    for steps, converged in _steps(target, protocol):
        state = _state(work, target.get_forces(), start, steps, converged)
        reference_energy = state.energy if reference_energy is None else reference_energy
        _guard(state, reference_energy, protocol)
    if state is None or not state.converged:
        raise NotConvergedError(_unconverged(state, protocol), state)
    return state


def _steps(target: Any, protocol: Protocol) -> Iterator[tuple[int, bool]]:
    """Yield (steps so far, converged to the final threshold), first for the starting point."""
    done = 0
    for optimizer, fmax in ((FIRE, max(protocol.fire_fmax, protocol.fmax)), (LBFGS, protocol.fmax)):
        run: Any = optimizer(target, logfile=os.devnull)
        for _ in run.irun(fmax=fmax, steps=protocol.max_steps - done):
            converged = bool(_largest(target.get_forces()) < protocol.fmax)
            yield done + run.nsteps, converged
            if converged:
                return
        done += run.nsteps


def _copy(atoms: Atoms) -> Atoms:
    work = atoms.copy()
    work.set_constraint()
    work.calc = None
    return work


def _upright(atoms: Atoms, axis: int) -> Atoms:
    """Rotate the structure so that the two other cell vectors lie in the xy plane."""
    in_plane = [vector for index, vector in enumerate(atoms.cell.array) if index != axis]
    normal = np.cross(*in_plane)
    frame = np.array([in_plane[0], np.cross(normal, in_plane[0]), normal])
    frame /= np.linalg.norm(frame, axis=1, keepdims=True)
    cell = atoms.cell.array @ frame.T
    cell[[index for index in range(3) if index != axis], 2] = 0.0  # exactly: round-off would leak
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


def _forces(atoms: Atoms) -> np.ndarray:
    return np.asarray(atoms.get_forces(), dtype=float)


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max()) if len(forces) else 0.0


def _state(work: Atoms, forces: np.ndarray, start: Atoms, steps: int, converged: bool) -> Relaxed:
    energy = float(work.get_potential_energy())
    drift_free = work.get_positions() - start.get_scaled_positions(wrap=False) @ work.cell.array
    drift_free -= drift_free.mean(axis=0)
    state = Relaxed(
        atoms=_copy(work),
        energy=energy,
        steps=steps,
        fmax=_largest(forces),
        max_displacement=_largest(drift_free),
        converged=converged,
    )
    if not np.isfinite(energy) or not np.isfinite(forces).all():
        what = "force" if np.isfinite(energy) else "energy"
        raise NonFiniteError(
            f"the calculator returned a non-finite {what} for {work.get_chemical_formula()} "
            f"at step {steps}: the structure is outside what the potential can describe, or its "
            "weights are damaged",
            replace(state, converged=False),
        )
    return state


def _guard(state: Relaxed, reference_energy: float, protocol: Protocol) -> None:
    if state.fmax > protocol.force_limit:
        raise ExplodedError(
            f"a force of {state.fmax:.1f} eV/Å at step {state.steps} exceeds the limit of "
            f"{protocol.force_limit:g} eV/Å",
            state,
        )
    drop = (reference_energy - state.energy) / len(state.atoms)
    if drop > protocol.energy_drop_limit:
        raise ExplodedError(
            f"the energy fell by {drop:.1f} eV/atom within {state.steps} steps; the limit is "
            f"{protocol.energy_drop_limit:g} eV/atom",
            state,
        )
    radii = [protocol.contact_fraction * covalent_radii[number] for number in state.atoms.numbers]
    first, second, distance = neighbor_list("ijd", state.atoms, radii)
    if len(distance):
        pair = int(distance.argmin())
        symbols = state.atoms.get_chemical_symbols()
        raise ExplodedError(
            f"atoms {first[pair]} ({symbols[first[pair]]}) and {second[pair]} "
            f"({symbols[second[pair]]}) are {distance[pair]:.2f} Å apart at step {state.steps}, "
            f"closer than {protocol.contact_fraction:g} of the sum of their covalent radii",
            state,
        )


def _unconverged(state: Relaxed | None, protocol: Protocol) -> str:
    if state is None:
        return f"max_steps is {protocol.max_steps}: give at least 1"
    return (
        f"fmax is {state.fmax:.3f} eV/Å after {state.steps} steps; the protocol asks for "
        f"{protocol.fmax:g} eV/Å within {protocol.max_steps} steps"
    )
