"""Ewald sums of a batch: phases are products along the three axes, sums are matrix products.

Structures of similar size are padded and computed together. Only half of the k vectors is needed;
those of one structure fill the sphere ``k < k_c`` of its own box, whatever the padding.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mlip.electrostatics.slab import boxes_of
from mlip.electrostatics.split import SplitOperator, SplitPlan, plan_split
from mlip.electrostatics.system import ChargedSystem
from mlip.electrostatics.tuning import Splitting, choose_splitting
from mlip.units import COULOMB


@dataclass(frozen=True)
class EwaldBlock:
    """Structures of similar size, padded to the same number of atoms and k vectors.

    Args:
        graphs: (graphs,) which structures of the batch.
        slots: (graphs, slots) their atoms; a free slot holds the number of atoms of the batch.
        atoms: (members,) the atoms of all of them.
        places: (members,) where they are among the flattened slots.
        order: (graphs, 3) lattice vectors, the longest first: the first axis is the cheapest.
        limits: Largest index of the k vectors along each reciprocal vector, in that order.
        split: (graphs,) η, Å.
        count: (graphs, kx, ky·kz) how often a k vector counts: 2 with its opposite, else 1 or 0.
    """

    graphs: Int[Tensor, " graphs"]
    slots: Int[Tensor, "graphs slots"]
    atoms: Int[Tensor, " members"]
    places: Int[Tensor, " members"]
    order: Int[Tensor, "graphs 3"]
    limits: tuple[int, int, int]
    split: Float[Tensor, " graphs"]
    count: Float[Tensor, "graphs kx kyz"]


@dataclass(frozen=True)
class EwaldPlan:
    """Pairs of real space and k vectors of a batch of periodic structures and slabs."""

    real: SplitPlan
    blocks: tuple[EwaldBlock, ...]

    def operator(self, system: ChargedSystem) -> "EwaldOperator":
        """Return the matrix of a system with the same atoms and boundary conditions."""
        return EwaldOperator(self, system)


class EwaldOperator:
    """The matrix of :mod:`mlip.electrostatics.split` with its sum over k vectors."""

    def __init__(self, plan: EwaldPlan, system: ChargedSystem) -> None:
        self._real: SplitOperator = plan.real.operator(system)
        self._parts = [
            ReciprocalSum(block, system.positions, self._real.cells) for block in plan.blocks
        ]

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, V."""
        result = self._real.potential(charges)
        for part in self._parts:
            result = result.index_add(0, part.block.atoms, part.potential(charges))
        return result

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV."""
        result = self._real.energies(charges)
        for part in self._parts:
            result = result.index_add(0, part.block.graphs, part.energies(charges))
        return result

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²."""
        result = self._real.diagonal()
        for part in self._parts:
            result = result.index_add(0, part.block.atoms, part.diagonal())
        return result

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros, eV/e²."""
        result = self._real.matrix()
        for part in self._parts:
            own = part.matrix()
            free = result.shape[1] - own.shape[1]
            result = result.index_add(0, part.block.graphs, pad(own, (0, free, 0, free)))
        return result


class ReciprocalSum:
    """``Σ_{k≠0} (4π k_e/V k²) e^(-η²k²/2) cos k·r_ij`` of the structures of a block."""

    def __init__(
        self,
        block: EwaldBlock,
        positions: Float[Tensor, "atoms 3"],
        cells: Float[Tensor, "graphs 3 3"],
    ) -> None:
        self.block = block
        boxes = _ordered(cells, block.graphs, block.order)
        inverse = torch.linalg.inv(boxes)
        self.weights = _weights(block, boxes, inverse)
        padded = torch.cat([positions, positions.new_zeros(1, 3)])[block.slots]
        fractions = padded @ inverse
        x, y, z = (
            _phases(fractions[..., axis], axis > 0, limit)
            for axis, limit in enumerate(block.limits)
        )
        self._x = x
        self._yz = (y[..., :, None] * z[..., None, :]).flatten(2)

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " members"]:
        """Return the potential at the atoms of the block, V."""
        weighted = (self.weights * self._factors(charges)).transpose(1, 2)
        back = self._yz.conj() @ weighted
        values = (self._x.real * back.real + self._x.imag * back.imag).sum(-1)
        return values.flatten().index_select(0, self.block.places)

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return the energy of each structure of the block, eV."""
        factors = self._factors(charges)
        squares = factors.real.square() + factors.imag.square()
        return 0.5 * (self.weights * squares).sum((1, 2))

    def _factors(self, charges: Tensor) -> Complex[Tensor, "graphs kx kyz"]:
        padded = torch.cat([charges, charges.new_zeros(1)])[self.block.slots]
        return (padded[..., None] * self._x).transpose(1, 2) @ self._yz

    def diagonal(self) -> Float[Tensor, " members"]:
        """Return the diagonal at the atoms of the block, the same for all of a structure."""
        same = self.weights.sum((1, 2))[:, None].expand(self.block.slots.shape)
        return same.flatten().index_select(0, self.block.places)

    def matrix(self) -> Float[Tensor, "graphs slots slots"]:
        """Return the matrix of each structure of the block, padded with zeros."""
        slots = self.block.slots
        inside = torch.zeros_like(slots, dtype=self.weights.dtype).flatten()
        inside = inside.index_fill(0, self.block.places, 1.0).view(*slots.shape, 1)
        result = self.weights.new_zeros(*slots.shape, slots.shape[1])
        for own, weights in zip(self._x.unbind(2), self.weights.sqrt().unbind(1), strict=True):
            phases = self._yz * (own[..., None] * inside)
            waves = torch.cat([phases.real, phases.imag], 2) * weights.repeat(1, 2)[:, None]
            result = result + waves @ waves.transpose(1, 2)
        return result


def plan_ewald(
    system: ChargedSystem,
    tolerance: float = 1e-6,
    skin: float = 0.0,
    splitting: Splitting | None = None,
) -> EwaldPlan:
    """Plan the Ewald sum of a batch of structures with two or three periodic directions.

    Args:
        system: The structures.
        tolerance: As in :func:`mlip.electrostatics.plan.plan_coulomb`.
        skin: How much farther than needed pairs are listed, Å: atoms may move half of it.
        splitting: Widths and cutoffs; None chooses the cheapest for the tolerance.

    Raises:
        ValueError: If atoms overlap, a cell has no volume, or a slab does not fit its cell.
    """
    boxes = boxes_of(system, tolerance)
    chosen = splitting or choose_splitting(system, boxes, tolerance)
    real = plan_split(system, boxes, chosen.split, chosen.cutoff, skin)
    cells = boxes.cells(system.cell.detach())
    lengths = torch.linalg.norm(cells, dim=2)
    order = lengths.argsort(dim=1, descending=True, stable=True)
    lengths = lengths.gather(1, order).cpu().numpy()
    limits = np.floor(chosen.k_cutoff[:, None] * lengths / (2 * math.pi)).astype(int)
    counts = torch.bincount(system.batch, minlength=system.graphs).cpu().numpy()
    blocks = [
        _block(members, counts, limits, cells, order, chosen)
        for members in _similar(counts, limits)
    ]
    return EwaldPlan(real, tuple(blocks))


def _similar(counts: np.ndarray, limits: np.ndarray) -> list[np.ndarray]:
    """Group structures so that padding costs each less than about a factor of four."""
    sizes = np.stack([counts, np.prod(2 * limits + 1, axis=1)], axis=1)
    octaves = np.round(np.log2(np.maximum(sizes, 1)) / 1.5).astype(int)
    _, group = np.unique(octaves, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return [np.nonzero(group == number)[0] for number in range(group.max() + 1)]


def _block(
    members: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
    cells: Tensor,
    order: Tensor,
    chosen: Splitting,
) -> EwaldBlock:
    starts = np.cumsum(counts) - counts
    slot = np.arange(counts[members].max())
    used = slot < counts[members][:, None]
    slots = np.where(used, starts[members][:, None] + slot, counts.sum())
    top = tuple(int(limit) for limit in limits[members].max(0))

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=cells.device)

    graphs = tensor(members)
    boxes = _ordered(cells, graphs, order[graphs])
    return EwaldBlock(
        graphs=graphs,
        slots=tensor(slots),
        atoms=tensor(slots[used]),
        places=tensor(np.nonzero(used.reshape(-1))[0]),
        order=order[graphs],
        limits=(top[0], top[1], top[2]),
        split=tensor(chosen.split[members]),
        count=_count(top, boxes, tensor(chosen.k_cutoff[members])),
    )


def _ordered(cells: Tensor, graphs: Tensor, order: Tensor) -> Float[Tensor, "graphs 3 3"]:
    """Return the cells of some structures with their rows in another order."""
    return cells.index_select(0, graphs).gather(1, order[:, :, None].expand(-1, -1, 3))


def _count(
    limits: tuple[int, ...], boxes: Float[Tensor, "graphs 3 3"], cutoff: Float[Tensor, " graphs"]
) -> Float[Tensor, "graphs kx kyz"]:
    squares = _squares(_indices(limits, boxes), torch.linalg.inv(boxes))
    inside = (squares > 0) & (squares < cutoff.square()[:, None, None])
    twice = torch.full((limits[0] + 1, 1), 2.0, dtype=boxes.dtype, device=boxes.device)
    twice[0] = 1.0
    return inside * twice


def _indices(limits: tuple[int, ...], like: Tensor) -> Float[Tensor, "k 3"]:
    ranges = [
        torch.arange(-limit if axis else 0, limit + 1, dtype=like.dtype, device=like.device)
        for axis, limit in enumerate(limits)
    ]
    return torch.cartesian_prod(*ranges).reshape(limits[0] + 1, -1, 3)


def _squares(indices: Tensor, inverse: Tensor) -> Float[Tensor, "graphs kx kyz"]:
    """Return k², from the metric of reciprocal space: six products of indices."""
    metric = 4 * math.pi**2 * (inverse.transpose(1, 2) @ inverse)
    products = (indices[..., :, None] * indices[..., None, :]).flatten(2)
    flat = metric.flatten(1) @ products.flatten(0, 1).T
    return flat.reshape(-1, *products.shape[:2])


def _weights(block: EwaldBlock, boxes: Tensor, inverse: Tensor) -> Float[Tensor, "graphs kx kyz"]:
    squares = _squares(_indices(block.limits, boxes), inverse)
    used = block.count > 0
    squares = torch.where(used, squares, 1.0)
    scale = 4 * math.pi * COULOMB / torch.linalg.det(boxes).abs()
    decay = torch.exp(-0.5 * block.split.square()[:, None, None] * squares)
    return scale[:, None, None] * block.count * decay / squares


def _phases(
    fractions: Float[Tensor, "graphs slots"], both: bool, limit: int
) -> Complex[Tensor, "graphs slots k"]:
    """Return ``e^(2πi m s)`` for m from 0, or from ``-limit``, to ``limit``."""
    orders = torch.arange(
        -limit if both else 0, limit + 1, dtype=fractions.dtype, device=fractions.device
    )
    angles = 2 * math.pi * fractions[..., None] * orders
    return torch.complex(angles.cos(), angles.sin())
