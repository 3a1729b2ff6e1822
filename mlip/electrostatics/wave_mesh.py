"""Large periodic structures of wide Gaussians: meshes alone, one for each width, and no pairs.

The sum of :mod:`mlip.electrostatics.waves` on a mesh. The atoms of one width share a density on
it, whose transform is damped by their own ``e^(-σ²k²/2)``; with a handful of widths, one an
element, that costs a few transforms more than particle mesh Ewald and saves all of real space,
which wide Gaussians make wide. Nothing of the plan depends on where the atoms are.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.mesh import Mesh, bind
from mlip.electrostatics.padding import Padding
from mlip.electrostatics.pme_tuning import MeshSettings, choose_wave_meshes
from mlip.electrostatics.slab import boxes_of
from mlip.electrostatics.system import ChargedSystem, MadeFor
from mlip.units import COULOMB

MOST_WIDTHS = 8
"""Structures with more different widths are summed by particle mesh Ewald."""
LEAST = 0.6
"""So are those with a narrower Gaussian, Å, whose mesh would be fine."""


@dataclass(frozen=True)
class WaveMeshPlan:
    """The mesh of each structure of a batch.

    Args:
        meshes: Spacing and order; their ``splitting`` is that of the narrowest pair.
        kinds: For each structure the atoms (counted in it) of each width.
        made_for: The batch.
    """

    meshes: tuple[MeshSettings, ...]
    kinds: tuple[tuple[Int[Tensor, " members"], ...], ...]
    made_for: MadeFor

    def operator(self, system: ChargedSystem) -> "WaveMeshOperator":
        """Bind atoms to meshes and compute kernels once, for any number of products."""
        self.made_for.require(system)
        return WaveMeshOperator(self, system)


class WaveMeshOperator:
    """The matrix of a batch of periodic structures, summed on meshes."""

    def __init__(self, plan: WaveMeshPlan, system: ChargedSystem) -> None:
        self._batch = system.batch
        self._counts = torch.bincount(system.batch, minlength=system.graphs).tolist()
        each = zip(
            system.positions.split(self._counts),
            system.cell,
            system.widths.split(self._counts),
            plan.meshes,
            plan.kinds,
            strict=True,
        )
        self._sums = [_WidthSum(*own) for own in each]

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, V."""
        each = zip(self._sums, charges.split(self._counts), strict=True)
        return torch.cat([own.potential(some) for own, some in each])

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV."""
        each = zip(self._sums, charges.split(self._counts), strict=True)
        return torch.stack([0.5 * some @ own.potential(some) for own, some in each])

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²."""
        return torch.cat([own.diagonal() for own in self._sums])

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros, eV/e²."""
        padding = Padding.of(self._batch, len(self._counts))
        return padding.columns(self.potential, self.diagonal())


class _WidthSum:
    """The sum of one structure: a density and a damping for the atoms of each width."""

    def __init__(
        self,
        positions: Float[Tensor, "atoms 3"],
        cell: Float[Tensor, "3 3"],
        widths: Float[Tensor, " atoms"],
        own: MeshSettings,
        kinds: tuple[Int[Tensor, " members"], ...],
    ) -> None:
        self._kinds, self._atoms = kinds, len(positions)
        self._meshes: list[Mesh] = [
            bind(positions.index_select(0, members), cell, own.shape, own.order)
            for members in kinds
        ]
        squared = self._meshes[0].squared_wave_vectors()
        self._variances = [widths.index_select(0, members).mean().square() for members in kinds]
        self._dampings = [torch.exp(-0.5 * variance * squared) for variance in self._variances]
        self._kernel = self._meshes[0].kernel(lambda k: 4 * math.pi * COULOMB / k)

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return the product with charges, V."""
        each = list(zip(self._meshes, self._kinds, self._dampings, strict=True))
        waves = torch.stack(
            [
                damping * torch.fft.rfftn(mesh.spread(charges.index_select(0, members)))
                for mesh, members, damping in each
            ]
        ).sum(0)
        waves = waves * self._kernel
        result = charges.new_zeros(self._atoms)
        for mesh, members, damping in each:
            field = torch.fft.irfftn(waves * damping, s=mesh.shape, norm="forward")
            result = result.index_add(0, members, mesh.gather(field))
        return result

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal, one value a width, eV/e²."""
        result = self._kernel.new_zeros(self._atoms)
        for mesh, members, variance in zip(self._meshes, self._kinds, self._variances, strict=True):
            value = mesh.diagonal(
                lambda k, own=variance: 4 * math.pi * COULOMB * torch.exp(-own * k) / k
            )
            result = result.index_add(0, members, value.expand(len(members)))
        return result


def plan_wave_mesh(system: ChargedSystem, tolerance: float = 1e-6) -> WaveMeshPlan:
    """Plan the mesh sums of a batch of structures with three periodic directions.

    Args:
        system: The structures, of few different widths. What is differentiated by the widths is
            right for their sum over the atoms of equal width: widths belong to elements.
        tolerance: As in :func:`mlip.electrostatics.plan.plan_coulomb`.
    """
    meshes = choose_wave_meshes(system, boxes_of(system, tolerance), tolerance)
    return WaveMeshPlan(meshes, tuple(kinds_of(system)), MadeFor.of(system))


def kinds_of(system: ChargedSystem) -> list[tuple[Int[Tensor, " members"], ...]]:
    """Return for each structure the atoms of each width, counted in the structure."""
    counts = torch.bincount(system.batch, minlength=system.graphs).tolist()
    found = []
    for widths in system.widths.detach().split(counts):
        values, kind = torch.unique(widths, return_inverse=True)
        found.append(tuple(torch.nonzero(kind == own)[:, 0] for own in range(len(values))))
    return found


def wide_and_few(system: ChargedSystem) -> np.ndarray:
    """Return whether each structure is periodic, of few widths and none below ``LEAST``, Å."""
    few = [len(kinds) <= MOST_WIDTHS for kinds in kinds_of(system)]
    counts = torch.bincount(system.batch, minlength=system.graphs).tolist()
    wide = [bool((widths >= LEAST).all()) for widths in system.widths.detach().split(counts)]
    return np.array(few) & np.array(wide) & system.pbc.all(1).cpu().numpy()
