"""Particle mesh Ewald of Gaussian charges: quasi-linear in the atoms, differentiable twice."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.mesh import Mesh, bind
from mlip.electrostatics.padding import Padding
from mlip.electrostatics.pme_tuning import Layer, MeshSettings, choose_meshes
from mlip.electrostatics.slab import boxes_of
from mlip.electrostatics.split import SplitOperator, SplitPlan, plan_split
from mlip.electrostatics.system import ChargedSystem
from mlip.units import COULOMB


@dataclass(frozen=True)
class PmePlan:
    """Pairs of real space of a batch, and the mesh of each of its structures."""

    real: SplitPlan
    meshes: tuple[MeshSettings, ...]

    def operator(self, system: ChargedSystem) -> "PmeOperator":
        """Bind atoms to meshes, compute kernels and pairs once, for any number of products."""
        return PmeOperator(self, system)


class PmeOperator:
    """The matrix of :mod:`mlip.electrostatics.split` with its reciprocal sum on meshes."""

    def __init__(self, plan: PmePlan, system: ChargedSystem) -> None:
        self._real: SplitOperator = plan.real.operator(system)
        self._counts = torch.bincount(system.batch, minlength=system.graphs).tolist()
        each = zip(system.positions.split(self._counts), self._real.cells, plan.meshes, strict=True)
        self._smooth = [SmoothSum(*own) for own in each]

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, V."""
        each = zip(self._smooth, charges.split(self._counts), strict=True)
        smooth = torch.cat([own.potential(some) for own, some in each])
        return smooth + self._real.potential(charges)

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV."""
        each = zip(self._smooth, charges.split(self._counts), strict=True)
        smooth = torch.stack([0.5 * some @ own.potential(some) for own, some in each])
        return smooth + self._real.energies(charges)

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²."""
        each = zip(self._smooth, self._counts, strict=True)
        smooth = torch.cat([own.diagonal().expand(count) for own, count in each])
        return smooth + self._real.diagonal()

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros, eV/e²."""
        padding = Padding.of(self._real.batch, len(self._counts))
        return padding.columns(self.potential, self._real.diagonal())


class SmoothSum:
    """``Σ_{k≠0} (4π k_e/V k²) e^(-η²k²/2) cos k·r_ij`` of one structure, on a mesh.

    Of a slab in a box of height L that is more than twice as high, waves along it have the factor
    ``1 - (-1)^m e^(-κL/2)``, with κ the part of k along the slab and m the number of waves across
    the box: 1/r is cut off between heights L/2 apart, so that no image is felt however wide the
    slab is (Rozzi et al., PRB 73, 205119 (2006); Sohier, Calandra, Mauri, PRB 96, 075448 (2017)).
    """

    def __init__(
        self, positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "3 3"], own: MeshSettings
    ) -> None:
        self._half = own.splitting**2 / 2
        self._mesh = bind(positions, cell, own.shape, own.order)
        self._images = None if own.layer is None else _without_images(self._mesh, own.layer)
        self._filter = self._mesh.filter(self._radial)

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return the sum times charges, V."""
        return self._filter(charges)

    def diagonal(self) -> Float[Tensor, ""]:
        """Return its diagonal, one for all atoms, eV/e²."""
        return self._mesh.diagonal(self._radial)

    def _radial(self, squared: Tensor) -> Tensor:
        kernel = 4 * math.pi * COULOMB * torch.exp(-self._half * squared) / squared
        return kernel if self._images is None else kernel * self._images


def _without_images(mesh: Mesh, layer: Layer) -> Float[Tensor, "x y half_z"]:
    """Return the factor of waves along a slab; 1 of those across it, corrected elsewhere."""
    squared = mesh.squared_wave_vectors().select(layer.axis, 0)
    across = torch.zeros_like(squared, dtype=torch.bool)
    across[0, 0] = True
    along = torch.where(across, 0.0, torch.exp(-0.5 * layer.height * squared.sqrt()))
    shape = [1, 1, 1]
    shape[layer.axis] = -1
    sign = 1 - 2 * (mesh.waves()[layer.axis] % 2)
    return 1 - sign.reshape(shape) * along.unsqueeze(layer.axis)


def plan_pme(system: ChargedSystem, tolerance: float = 1e-6, skin: float = 0.0) -> PmePlan:
    """Plan the mesh sum of a batch of structures with two or three periodic directions.

    Args:
        system: The structures; large ones, for which an Ewald sum is slow.
        tolerance: As in :func:`mlip.electrostatics.plan.plan_coulomb`.
        skin: How much farther than needed pairs are listed, Å: atoms may move half of it.

    Raises:
        ValueError: If atoms overlap, a cell has no volume, a slab does not fit its cell, or the
            tolerance is out of the reach of a mesh.
    """
    boxes = boxes_of(system, tolerance)
    meshes, cutoff = choose_meshes(system, boxes, tolerance, skin)
    heights = boxes.height.clone()
    for graph, own in enumerate(meshes):
        if own.layer is not None:
            heights[graph] = own.layer.height
    boxes = replace(boxes, height=heights)
    split = np.array([own.splitting for own in meshes])
    return PmePlan(plan_split(system, boxes, split, cutoff, skin), meshes)
