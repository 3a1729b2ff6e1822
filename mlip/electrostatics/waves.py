"""Periodic sums of wide Gaussians: a few plane waves, and no pairs of real space at all.

Dropping the term k = 0, the matrix of Gaussian charges is

    A_ij = (4π k_e/V) Σ_{k≠0} e^(-σ_i²k²/2) e^(-σ_j²k²/2) cos k·r_ij / k²,

which is Ewald's sum with each atom's own width in place of the split, and ``B Bᵀ`` with one row an
atom. The narrowest Gaussian decides how many waves are needed: some hundreds for a cell of a
hundred atoms and σ > 1 Å, as potentials that equilibrate charges have them. The plan lists only
these waves, so that it costs next to nothing and holds however far the atoms move.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mlip.electrostatics.slab import boxes_of
from mlip.electrostatics.system import ChargedSystem, MadeFor
from mlip.electrostatics.tuning import extent_of, k_space_cutoff
from mlip.errors import StructureError
from mlip.units import COULOMB


@dataclass(frozen=True)
class WaveBlock:
    """Structures of similar size, padded to the same number of atoms and waves.

    Args:
        graphs: (graphs,) which structures of the batch.
        slots: (graphs, slots) their atoms; a free slot holds the number of atoms of the batch.
        atoms: (members,) the atoms of all of them.
        places: (members,) where they are among the flattened slots.
        indices: (graphs, waves, 3) of the reciprocal vectors, of one of k and -k; zero where free.
    """

    graphs: Int[Tensor, " graphs"]
    slots: Int[Tensor, "graphs slots"]
    atoms: Int[Tensor, " members"]
    places: Int[Tensor, " members"]
    indices: Float[Tensor, "graphs waves 3"]


@dataclass(frozen=True)
class WavePlan:
    """The waves of a batch of periodic structures."""

    blocks: tuple[WaveBlock, ...]
    made_for: MadeFor

    def operator(self, system: ChargedSystem) -> "WaveOperator":
        """Return the matrix of a system with the same atoms and boundary conditions."""
        self.made_for.require(system)
        return WaveOperator(self.blocks, system)


class WaveOperator:
    """The matrix of a batch of periodic structures, ``B Bᵀ`` of each."""

    def __init__(self, blocks: tuple[WaveBlock, ...], system: ChargedSystem) -> None:
        self._blocks = blocks
        self._rows = [_rows(block, system) for block in blocks]
        self.atoms, self.graphs = system.atoms, system.graphs

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, V."""
        result = charges.new_zeros(self.atoms)
        for block, rows in zip(self._blocks, self._rows, strict=True):
            values = (rows @ _factors(block, rows, charges)).flatten()
            result = result.index_add(0, block.atoms, values.index_select(0, block.places))
        return result

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV."""
        result = charges.new_zeros(self.graphs)
        for block, rows in zip(self._blocks, self._rows, strict=True):
            own = 0.5 * _factors(block, rows, charges).square().sum((1, 2))
            result = result.index_add(0, block.graphs, own)
        return result

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²."""
        result = self._rows[0].new_zeros(self.atoms)
        for block, rows in zip(self._blocks, self._rows, strict=True):
            own = rows.square().sum(2).flatten().index_select(0, block.places)
            result = result.index_add(0, block.atoms, own)
        return result

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros, eV/e²."""
        size = max(rows.shape[1] for rows in self._rows)
        result = self._rows[0].new_zeros(self.graphs, size, size)
        for block, rows in zip(self._blocks, self._rows, strict=True):
            free = size - rows.shape[1]
            own = pad(rows @ rows.transpose(1, 2), (0, free, 0, free))
            result = result.index_add(0, block.graphs, own)
        return result


def plan_waves(system: ChargedSystem, tolerance: float = 1e-6) -> WavePlan:
    """Plan the sums of a batch of structures with three periodic directions.

    Args:
        system: The structures.
        tolerance: As in :func:`mlip.electrostatics.plan.plan_coulomb`.

    Raises:
        ValueError: If a structure is a slab, a cell has no volume or a width is zero.
    """
    slab = ~system.pbc.all(1)
    if slab.any():
        raise StructureError(
            int(slab.long().argmax()),
            f"pbc is {system.pbc[int(slab.long().argmax())].tolist()}, and sums of waves are for "
            "three periodic directions: use method='auto'",
        )
    cutoffs = wave_cutoffs(system, tolerance)
    counts = torch.bincount(system.batch, minlength=system.graphs).cpu().numpy()
    cells = system.cell.detach().double().cpu().numpy()
    waves = [_waves(cell, cutoff) for cell, cutoff in zip(cells, cutoffs, strict=True)]
    sizes = np.stack([counts, [len(own) for own in waves]], axis=1)
    octaves = np.round(np.log2(np.maximum(sizes, 1)) / 1.5).astype(int)
    _, group = np.unique(octaves, axis=0, return_inverse=True)
    members = [np.nonzero(group.reshape(-1) == number)[0] for number in range(group.max() + 1)]
    blocks = [_block(own, counts, waves, system.positions.device) for own in members]
    return WavePlan(tuple(blocks), MadeFor.of(system))


def wave_cutoffs(system: ChargedSystem, tolerance: float) -> Float[np.ndarray, " graphs"]:
    """Return the largest k of each structure, 1/Å; infinite with point charges."""
    extent = extent_of(system, boxes_of(system, tolerance))
    with np.errstate(divide="ignore", invalid="ignore"):
        cutoffs = k_space_cutoff(extent.narrowest, extent.density, tolerance)
    return np.where(extent.narrowest > 0, cutoffs, np.inf)


def wave_counts(system: ChargedSystem, tolerance: float) -> Float[np.ndarray, " graphs"]:
    """Return about how many waves each structure takes: half the sphere below the cutoff."""
    volumes = torch.linalg.det(system.cell.detach().double()).abs().cpu().numpy()
    return volumes * wave_cutoffs(system, tolerance) ** 3 / (12 * math.pi**2)


def _waves(cell: Float[np.ndarray, "3 3"], cutoff: float) -> Float[np.ndarray, "waves 3"]:
    """Return the indices of one of k and -k, for all k below the cutoff but 0."""
    if not math.isfinite(cutoff):
        raise ValueError("a charge has no width, and a sum of waves does not end: give it one")
    limits = np.floor(cutoff * np.linalg.norm(cell, axis=1) / (2 * math.pi)).astype(int)
    ranges = [np.arange(-limit if axis else 0, limit + 1) for axis, limit in enumerate(limits)]
    indices = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    first, second, third = indices.T
    upper = (first > 0) | ((first == 0) & ((second > 0) | ((second == 0) & (third > 0))))
    indices = indices[upper]
    vectors = 2 * math.pi * indices @ np.linalg.inv(cell).T
    return indices[(vectors**2).sum(1) < cutoff**2].astype(float)


def _block(
    members: np.ndarray, counts: np.ndarray, waves: list[np.ndarray], device: torch.device
) -> WaveBlock:
    starts = np.cumsum(counts) - counts
    slot = np.arange(counts[members].max())
    used = slot < counts[members][:, None]
    slots = np.where(used, starts[members][:, None] + slot, counts.sum())
    indices = np.zeros((len(members), max(len(waves[own]) for own in members), 3))
    for row, own in enumerate(members):
        indices[row, : len(waves[own])] = waves[own]
    arrays = (members, slots, slots[used], np.nonzero(used.reshape(-1))[0], indices)
    return WaveBlock(*(torch.as_tensor(array, device=device) for array in arrays))


def _rows(block: WaveBlock, system: ChargedSystem) -> Float[Tensor, "graphs slots twice_waves"]:
    """Return B: cosines and sines of each atom, zero in free slots and for free waves."""
    cells = system.cell.index_select(0, block.graphs)
    inverse = torch.linalg.inv(cells)
    metric = 4 * math.pi**2 * (inverse.transpose(1, 2) @ inverse)
    squares = ((block.indices @ metric) * block.indices).sum(-1)
    used = block.indices.abs().sum(-1) > 0
    squares = torch.where(used, squares, 1.0)
    scale = 8 * math.pi * COULOMB / torch.linalg.det(cells).abs()
    strengths = (scale[:, None] / squares).sqrt() * used
    zero = system.positions.new_zeros(1, 3)
    positions = torch.cat([system.positions, zero]).index_select(0, block.slots.flatten())
    fractions = positions.view(*block.slots.shape, 3) @ inverse
    angles = 2 * math.pi * fractions @ block.indices.transpose(1, 2)
    widths = torch.cat([system.widths, zero[0, :1]]).index_select(0, block.slots.flatten())
    variances = widths.view(*block.slots.shape, 1).square()
    filled = (block.slots < system.atoms)[..., None]
    height = torch.exp(-0.5 * variances * squares[:, None]) * strengths[:, None] * filled
    return torch.cat([height * angles.cos(), height * angles.sin()], dim=2)


def _factors(block: WaveBlock, rows: Tensor, charges: Tensor) -> Float[Tensor, "graphs waves 1"]:
    padded = torch.cat([charges, charges.new_zeros(1)]).index_select(0, block.slots.flatten())
    return rows.transpose(1, 2) @ padded.view(*block.slots.shape, 1)
