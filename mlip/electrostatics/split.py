"""What Ewald and mesh sums share: real space, self terms, charged cells and slabs.

The matrix of a periodic structure, with the width η of the split, is

    A_ij = Σ_{k≠0} (4π/V k²) e^(-η²k²/2) cos k·r_ij                            reciprocal space
         + Σ_R [erfc(R/√2η) - erfc(R/√2γ_ij)]/R + δ_ij [1/(σ_i√π) - √(2/π)/η]   here
         - (2π/V) (η² - γ_ij²)                                                 here

times k_e, with ``γ_ij² = σ_i² + σ_j²``. The last line makes a charged structure independent of η:
it is then the sum over the Gaussians with the term k = 0 left out. To a slab of box height L comes
``-(2π/V) (z_ij² + γ_ij² + L²/6)``: Yeh and Berkowitz, JCP 111, 3155 (1999), with net charge as in
Ballenegger, Arnold, Cerdà, JCP 131, 094107 (2009), averaged over the Gaussians; the result does
not depend on L.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.kernels import self_interaction, short_range
from mlip.electrostatics.padding import Padding
from mlip.electrostatics.pairs import Pairs, pairs_within
from mlip.electrostatics.slab import Boxes
from mlip.electrostatics.system import ChargedSystem, MadeFor
from mlip.units import COULOMB


@dataclass(frozen=True)
class SplitPlan:
    """Everything of a split sum but its reciprocal space.

    Args:
        split: (graphs,) η, Å.
        cutoff: (graphs,) of real space, for pairs narrower than the split, Å.
        boxes: The periodic boxes.
        pairs: Pairs of real space.
        made_for: The batch.
    """

    split: Float[Tensor, " graphs"]
    cutoff: Float[np.ndarray, " graphs"]
    boxes: Boxes
    pairs: Pairs
    made_for: MadeFor

    def operator(self, system: ChargedSystem) -> "SplitOperator":
        """Return the matrix without reciprocal space."""
        self.made_for.require(system)
        return SplitOperator(self, system)


class SplitOperator:
    """The matrix of a batch of periodic structures and slabs without reciprocal space.

    Attributes:
        cells: (graphs, 3, 3) periodic boxes, Å.
        volumes: (graphs,) of the boxes, Å³.
    """

    def __init__(self, plan: SplitPlan, system: ChargedSystem) -> None:
        self.plan = plan
        self.batch = system.batch
        self.cells = plan.boxes.cells(system.cell)
        self.volumes = torch.linalg.det(self.cells).abs()
        self._pairs = plan.pairs.values(
            lambda distances, variances, graph: short_range(
                distances, variances, plan.split.index_select(0, graph)
            ),
            replace(system, cell=self.cells),
        )
        self._self = (
            self_interaction(system.widths)
            - COULOMB * math.sqrt(2 / math.pi) / plan.split[system.batch]
        )
        self._squares = system.widths.square()
        self._heights = self._heights_above_centre(system) if plan.boxes.any_slab else None

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return the product with the charges, V."""
        return self.plan.pairs.multiply(self._pairs, charges) + self._rest(charges)

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return half the quadratic form of each structure, eV."""
        near = self.plan.pairs.energies(self._pairs, charges, self.volumes.shape[0])
        return near + self._sum(0.5 * charges * self._rest(charges))

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal, eV/e²."""
        near = self._self + self.plan.pairs.diagonal(self._pairs)
        flat = self._offset()[self.batch] - self._gaussian() * 2 * self._squares
        return near - (2 * math.pi * COULOMB / self.volumes)[self.batch] * flat

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return the matrix of each structure, padded with zeros, eV/e²."""
        padding = Padding.of(self.batch, self.volumes.shape[0])
        near = padding.symmetric(self._pairs, self.plan.pairs.first, self.plan.pairs.second)
        inside = padding.rows(torch.ones_like(self._squares))
        squares = padding.rows(self._gaussian() * self._squares)
        flat = self._offset()[:, None, None] - squares[:, :, None] - squares[:, None]
        if self._heights is not None:
            z = padding.rows((1 - self._gaussian()) * self._heights)
            flat = flat + (z[:, :, None] - z[:, None]).square()
        flat = flat * inside[:, :, None] * inside[:, None]
        scale = (2 * math.pi * COULOMB / self.volumes)[:, None, None]
        return near + padding.diagonal(self._self) - scale * flat

    def _rest(self, charges: Tensor) -> Tensor:
        """Return the product without the pairs."""
        scale = (2 * math.pi * COULOMB / self.volumes)[self.batch]
        return self._self * charges - scale * self._uniform(charges)

    def _uniform(self, charges: Tensor) -> Tensor:
        """Return Σ_j q_j (η² - γ_ij²), or for a slab Σ_j q_j (η² + z_ij² + L²/6)."""
        total = self._sum(charges)
        gaussian = self._gaussian()
        result = (self._offset() * total)[self.batch] - gaussian * self._squares * total[self.batch]
        result = result - gaussian * self._sum(charges * self._squares)[self.batch]
        if self._heights is None:
            return result
        z = self._heights
        first, second = self._sum(charges * z), self._sum(charges * z.square())
        slab = total[self.batch] * z.square() - 2 * z * first[self.batch] + second[self.batch]
        return result + (1 - gaussian) * slab

    def _offset(self) -> Tensor:
        """Return η², for a slab η² + L²/6, of each structure."""
        return self.plan.split.square() + self.plan.boxes.height.square() / 6

    def _gaussian(self) -> Tensor:
        """Return 1 for the atoms of structures with three periodic directions, 0 for slabs."""
        return (~self.plan.boxes.slab).double()[self.batch]

    def _sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.volumes.shape[0]).index_add(0, self.batch, values)

    def _heights_above_centre(self, system: ChargedSystem) -> Tensor:
        """Return the height of each atom of a slab above the mean one, Å."""
        normals = self.plan.boxes.normals(self.cells)
        heights = (system.positions * normals[self.batch]).sum(-1)
        atoms = self._sum(torch.ones_like(heights))
        return heights - (self._sum(heights) / atoms)[self.batch]


def plan_split(
    system: ChargedSystem,
    boxes: Boxes,
    split: Float[np.ndarray, " graphs"],
    cutoff: Float[np.ndarray, " graphs"],
    skin: float = 0.0,
) -> SplitPlan:
    """List the pairs of real space for a given split.

    A pair of Gaussians wider than the split reaches farther by the ratio of the widths.

    Args:
        system: Structures with two or three periodic directions.
        boxes: Their periodic boxes.
        split: η, Å.
        cutoff: For pairs narrower than the split, Å.
        skin: How much farther pairs are listed, Å.

    Raises:
        ValueError: As :func:`mlip.electrostatics.pairs.pairs_within`.
    """
    widths = system.widths.detach()
    widest = widths.new_zeros(system.graphs).scatter_reduce(0, system.batch, widths, "amax")
    reach = np.maximum(1.0, math.sqrt(2) * widest.cpu().numpy() / split)
    cells = boxes.cells(system.cell.detach())
    pairs = pairs_within(system, cells, cutoff * reach + skin)
    eta, limit = (torch.as_tensor(x, device=widths.device) for x in (split, cutoff))
    if (reach > 1).any():
        with torch.no_grad():
            near = pairs.values(
                lambda r, variances, graph: (
                    r - skin < limit[graph] * (variances.sqrt() / eta[graph]).clamp(min=1.0)
                ),
                replace(system, cell=cells),
            )
        pairs = pairs.keep(near)
    return SplitPlan(eta, cutoff, boxes, pairs, MadeFor.of(system))
