"""The split and the cutoffs of an Ewald sum: the cheapest that meet a tolerance.

Errors are estimated as by Kolafa and Perram, Mol. Simul. 9, 351 (1992): the root mean square error
of the force on a unit charge among unit charges of density ρ, with ``α = 1/(√2 η)``, is

    real space         2 k_e √(ρ/r_c) e^(-α² r_c²)
    reciprocal space   k_e α √(8 ρ/k_c) e^(-k_c²/4α²)
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mlip.electrostatics.slab import Boxes
from mlip.electrostatics.system import ChargedSystem
from mlip.units import COULOMB

SAFETY = 0.1
"""Estimates are held to this part of the tolerance: crystals are not random."""
PAIR_COST, PHASE_COST, PRODUCT_COST = 60.0, 20.0, 1.5
"""Times of an energy with forces, ns: a pair, an atom's phase, a term of a structure factor."""
SPLITS = np.geomspace(0.15, 6.0, 60)
"""Widths η that are tried, Å."""


@dataclass(frozen=True)
class Splitting:
    """How an Ewald sum is divided between the two spaces.

    Args:
        split: (graphs,) η, Å.
        cutoff: (graphs,) of real space, Å.
        k_cutoff: (graphs,) of reciprocal space, 1/Å.
    """

    split: Float[np.ndarray, " graphs"]
    cutoff: Float[np.ndarray, " graphs"]
    k_cutoff: Float[np.ndarray, " graphs"]


@dataclass(frozen=True)
class Extent:
    """What the choice depends on, of each structure.

    Args:
        atoms: Number of atoms.
        lengths: (graphs, 3) of the lattice vectors of the periodic box, Å.
        volume: Of that box, Å³.
        density: Atoms in the part of the box that is filled, 1/Å³.
        narrowest: The smallest γ of two like atoms, Å.
    """

    atoms: Float[np.ndarray, " graphs"]
    lengths: Float[np.ndarray, "graphs 3"]
    volume: Float[np.ndarray, " graphs"]
    density: Float[np.ndarray, " graphs"]
    narrowest: Float[np.ndarray, " graphs"]


def choose_splitting(system: ChargedSystem, boxes: Boxes, tolerance: float) -> Splitting:
    """Return the cheapest split whose estimated errors are within the tolerance.

    Args:
        system: Structures with two or three periodic directions.
        boxes: Their periodic boxes.
        tolerance: Of forces, eV/Å, and of energies per atom, eV, for charges of 1 e.

    Raises:
        ValueError: If the tolerance is not between 1e-14 and 1.
    """
    require_tolerance(tolerance)
    extent = extent_of(system, boxes)
    tried = np.broadcast_to(SPLITS, (system.graphs, len(SPLITS)))
    density = extent.density[:, None]
    cutoff, k_cutoff = (
        real_cutoff(tried, density, tolerance),
        k_space_cutoff(tried, density, tolerance),
    )
    best = np.argmin(_cost(extent, cutoff, k_cutoff), axis=1)
    split = np.maximum(SPLITS[best], extent.narrowest)
    return Splitting(
        split=split,
        cutoff=real_cutoff(split, extent.density, tolerance),
        k_cutoff=k_space_cutoff(split, extent.density, tolerance),
    )


def real_cutoff(split: np.ndarray, density: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the cutoff of real space for widths η, Å: the estimate above, solved for r_c."""
    cutoff = 4.0 * split
    for _ in range(8):
        error = 2 * COULOMB * np.sqrt(density / cutoff) / (SAFETY * tolerance)
        cutoff = split * np.sqrt(2 * np.log(np.maximum(error, math.e)))
    return cutoff


def k_space_cutoff(split: np.ndarray, density: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the cutoff of reciprocal space for widths η, 1/Å: the estimate, solved for k_c."""
    cutoff = 6.0 / split
    for _ in range(8):
        error = COULOMB * 2 * np.sqrt(density / cutoff) / (split * SAFETY * tolerance)
        cutoff = np.sqrt(2 * np.log(np.maximum(error, math.e))) / split
    return cutoff


def extent_of(system: ChargedSystem, boxes: Boxes) -> Extent:
    """Return what the choice depends on."""
    cells = boxes.cells(system.cell.detach())
    volume = torch.linalg.det(cells).abs()
    filled = torch.where(
        boxes.slab, volume * boxes.thickness.clamp(min=2.0) / boxes.height.clamp(min=2.0), volume
    )
    atoms = torch.bincount(system.batch, minlength=system.graphs).double()
    widths = system.widths.detach()
    least = widths.new_full((system.graphs,), math.inf)
    least = least.scatter_reduce(0, system.batch, widths, "amin")
    values = (atoms, torch.linalg.norm(cells, dim=2), volume, atoms / filled, math.sqrt(2) * least)
    return Extent(*(value.cpu().numpy() for value in values))


def require_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that float64 cannot reach or that means nothing.

    Raises:
        ValueError: If it is not between 1e-14 and 1.
    """
    if not 1e-14 <= tolerance <= 1.0:
        raise ValueError(
            f"tolerance is {tolerance}: give the error allowed for unit charges, between 1e-14 "
            "and 1 (eV/Å of forces, eV of the energy of an atom)"
        )


def _cost(extent: Extent, cutoff: np.ndarray, k_cutoff: np.ndarray) -> np.ndarray:
    neighbors = extent.density[:, None] * 2 * math.pi / 3 * cutoff**3
    lengths = np.sort(extent.lengths, axis=1)[:, None]
    orders = 1 + 2 * np.floor(k_cutoff[:, :, None] * lengths / (2 * math.pi))
    phases = orders[:, :, 0] * orders[:, :, 1]
    products = phases * (orders[:, :, 2] + 1) / 2
    each = PAIR_COST * neighbors + PHASE_COST * phases + PRODUCT_COST * products
    return extent.atoms[:, None] * each
