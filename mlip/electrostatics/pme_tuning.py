"""The split, the mesh and the cutoff of a mesh sum: the cheapest that meet a tolerance."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.fft import next_fast_len

from mlip.electrostatics.slab import Boxes
from mlip.electrostatics.spline import ORDERS
from mlip.electrostatics.system import ChargedSystem
from mlip.electrostatics.tuning import extent_of, real_cutoff, require_tolerance
from mlip.units import COULOMB

FORCE_ERROR = {4: 2.6e-2, 6: 3.2e-3, 8: 9e-4}
"""``c_p`` of the error of forces on unit charges of density n, a spline of order p and spacing h,
``c_p k_e √(nη)/η (h/η)^(p-1)``: the largest measured over densities, widths and spacings."""
COARSEST = 0.5
"""Spacings, in η, for which the constants hold."""
SAFETY = 0.4
"""The estimate is held to this part of the tolerance: crystals are not random."""
PAIR_TIME, WEIGHT_TIME, POINT_TIME = 10.0, 3.0, 12.0
"""Times of a product with the share of a solve in what is prepared for it, ns: a pair, a weight of
an atom, a mesh point."""
SPLITS = np.geomspace(0.15, 6.0, 60)
"""Widths η that are tried, Å."""


@dataclass(frozen=True)
class Layer:
    """A box that is more than twice as high as a slab and the tails of its smooth charges.

    Args:
        axis: The open direction.
        height: Å.
    """

    axis: int
    height: float


@dataclass(frozen=True)
class MeshSettings:
    """The mesh of one structure.

    Args:
        splitting: η, Å.
        order: Of the splines.
        shape: Points along each lattice vector.
        layer: The box of a slab whose images the mesh leaves out by itself.
    """

    splitting: float
    order: int
    shape: tuple[int, int, int]
    layer: Layer | None = None


@dataclass(frozen=True)
class _Structure:
    """What the choice depends on.

    Args:
        lengths: Of the lattice vectors of its periodic box, Å.
        density: 1/Å³.
        widths: Of its atoms, Å.
        axis: The open direction of a slab, else None.
        thickness: Of a slab, wherever its atoms move, Å.
        decades: As in :class:`mlip.electrostatics.slab.Boxes`.
    """

    lengths: Float[np.ndarray, " axes"]
    density: float
    widths: Float[np.ndarray, " atoms"]
    axis: int | None
    thickness: float
    decades: float


def choose_meshes(
    system: ChargedSystem, boxes: Boxes, tolerance: float, skin: float = 0.0
) -> tuple[tuple[MeshSettings, ...], Float[np.ndarray, " graphs"]]:
    """Return the cheapest mesh of each structure within the tolerance, and its cutoff, Å.

    A cell that is thin beside the splines gets a finer mesh than the tolerance asks for.

    Args:
        system: Structures with two or three periodic directions.
        boxes: Their periodic boxes.
        tolerance: Of forces, eV/Å, and of energies per atom, eV, for charges of 1 e.
        skin: Atoms may move half of it, Å.

    Raises:
        ValueError: If the tolerance is not between 1e-14 and 1.
    """
    require_tolerance(tolerance)
    extent = extent_of(system, boxes)
    chosen = []
    for graph in range(system.graphs):
        widths = system.widths[system.batch == graph].detach().cpu().numpy()
        own = _Structure(
            extent.lengths[graph],
            float(extent.density[graph]),
            widths,
            int(boxes.axis[graph]) if boxes.slab[graph] else None,
            float(boxes.thickness[graph]) + skin,
            float(boxes.decades[graph]),
        )
        tried = _candidates(own, tolerance)
        chosen.append(min(tried, key=lambda candidate, own=own: _time(own, *candidate)))
    meshes = tuple(settings for settings, _ in chosen)
    return meshes, np.array([cutoff for _, cutoff in chosen])


def choose_wave_meshes(
    system: ChargedSystem, boxes: Boxes, tolerance: float
) -> tuple[MeshSettings, ...]:
    """Return the cheapest mesh of each structure that sums its Gaussians without real space.

    Args:
        system: Structures with three periodic directions, all widths positive.
        boxes: Their periodic boxes.
        tolerance: As of :func:`choose_meshes`.
    """
    require_tolerance(tolerance)
    extent = extent_of(system, boxes)
    chosen = []
    for graph in range(system.graphs):
        widths = system.widths[system.batch == graph].detach().cpu().numpy()
        lengths, density = extent.lengths[graph], float(extent.density[graph])
        own = _Structure(lengths, density, widths, None, 0.0, 0.0)
        split = math.sqrt(2) * float(widths.min())
        tried = []
        for order in ORDERS:
            spacing = split * min(COARSEST, _spacing(own, split, order, tolerance))
            x, y, z = (_points(float(length) / spacing, order) for length in lengths)
            tried.append(MeshSettings(split, order, (x, y, z)))
        chosen.append(min(tried, key=lambda one, own=own: wave_time(own.widths, one)))
    return tuple(chosen)


def wave_time(widths: Float[np.ndarray, " atoms"], settings: MeshSettings) -> float:
    """Return the time of a product without real space, ns: transforms for each width."""
    points = POINT_TIME * math.prod(settings.shape) * len(np.unique(widths))
    return WEIGHT_TIME * settings.order**3 * len(widths) + points


def _candidates(own: _Structure, tolerance: float) -> Iterator[tuple[MeshSettings, float]]:
    least = max(math.sqrt(2) * float(own.widths.min()), SPLITS[0])
    splits = np.append(SPLITS[least < SPLITS], least)
    cutoffs = real_cutoff(splits, np.full(len(splits), own.density), tolerance)
    pairs = zip(splits.tolist(), cutoffs.tolist(), strict=True)
    for (split, cutoff), order in itertools.product(pairs, ORDERS):
        spacing = split * min(COARSEST, _spacing(own, split, order, tolerance))
        layer, lengths = _layer(own, split), own.lengths.copy()
        if layer is not None:
            lengths[layer.axis] = layer.height
        x, y, z = (_points(float(length) / spacing, order) for length in lengths)
        yield MeshSettings(split, order, (x, y, z), layer), cutoff


def _layer(own: _Structure, split: float) -> Layer | None:
    """Return the box in which Gaussians of the split's width see none of the images, if lower."""
    if own.axis is None:
        return None
    height = 2 * (own.thickness + split * math.sqrt(2 * own.decades))
    return Layer(own.axis, height) if height < own.lengths[own.axis] else None


def _points(least: float, order: int) -> int:
    """Return a number of points of which Fourier transforms are fast, and splines fit."""
    return int(next_fast_len(max(order, math.ceil(least)), real=True))  # type: ignore[arg-type]


def _spacing(own: _Structure, split: float, order: int, tolerance: float) -> float:
    """Solve the estimate of the error for h/η; the images of an atom in a thin cell add up."""
    images = max(1.0, 2 * split / float(own.lengths.min()))
    unit = FORCE_ERROR[order] * COULOMB * math.sqrt(own.density * split * images) / split
    return (SAFETY * tolerance / unit) ** (1 / (order - 1))


def _time(own: _Structure, settings: MeshSettings, cutoff: float) -> float:
    wider = np.maximum(1.0, math.sqrt(2) * own.widths / settings.splitting)
    pairs = own.density * 2 / 3 * math.pi * cutoff**3 * float((wider**3).mean())
    each = PAIR_TIME * pairs + WEIGHT_TIME * settings.order**3
    return each * len(own.widths) + POINT_TIME * math.prod(settings.shape)
