"""Slabs: two periodic directions, computed in a periodic box of our own height and corrected.

The caller's lattice vector of the open direction only says how high the cell is; it may be zero.
The box is as high as the slab plus the vacuum after which the images no longer matter: the more,
the wider it is. Where it is lower, a mesh sum takes a box that leaves the images out by itself.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from ase.geometry.minkowski_reduction import minkowski_reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mlip.electrostatics.system import ChargedSystem
from mlip.errors import StructureError
from mlip.units import COULOMB

VACUUM = 3.0
"""A declared open direction with less vacuum than this, Å, is suspect."""


@dataclass(frozen=True)
class Boxes:
    """The periodic box of every structure: its cell, or for a slab one with our own height.

    Args:
        slab: (graphs,) which structures are slabs.
        axis: (graphs,) the open direction of a slab; of no meaning for others.
        height: (graphs,) height of the box of a slab, Å.
        thickness: (graphs,) from the lowest to the highest atom of a slab, Å.
        decades: (graphs,) natural logarithm by which what images add must be damped.
        any_slab: Whether there is a slab among the structures.
    """

    slab: Bool[Tensor, " graphs"]
    axis: Int[Tensor, " graphs"]
    height: Float[Tensor, " graphs"]
    thickness: Float[Tensor, " graphs"]
    decades: Float[Tensor, " graphs"]
    any_slab: bool

    def normals(self, cell: Float[Tensor, "graphs 3 3"]) -> Float[Tensor, "graphs 3"]:
        """Return the unit vector normal to the periodic directions of each slab."""
        rows = torch.arange(cell.shape[0], device=cell.device)
        normal = torch.linalg.cross(
            cell[rows, (self.axis + 1) % 3], cell[rows, (self.axis + 2) % 3]
        )
        return normal / normal.square().sum(-1, keepdim=True).sqrt()

    def cells(self, cell: Float[Tensor, "graphs 3 3"]) -> Float[Tensor, "graphs 3 3"]:
        """Return the periodic boxes, differentiable in the cell, Å."""
        if not self.any_slab:
            return cell
        open_row = self.normals(cell) * self.height[:, None]
        rows = torch.arange(3, device=cell.device)
        replaced = (self.slab[:, None] & (rows == self.axis[:, None]))[:, :, None]
        return torch.where(replaced, open_row[:, None, :], cell)


def boxes_of(system: ChargedSystem, tolerance: float) -> Boxes:
    """Return boxes for structures with three periodic directions and for slabs.

    The first image of a slab acts through ``4π k_e/(A k) e^(-k g)``, with the gap g and the
    shortest wave vector k of the layer; g makes that, and the overlap of Gaussian tails, small.

    Args:
        system: Structures with two or three periodic directions.
        tolerance: What the images may add, as in :func:`mlip.electrostatics.plan.plan_coulomb`.

    Raises:
        ValueError: If a slab does not fit into its cell, or its vacuum is not along the open
            direction.
    """
    slab = system.pbc.sum(1) == 2
    axis = torch.where(slab, (~system.pbc).long().argmax(1), 0)
    zero = torch.zeros(system.graphs, dtype=torch.float64, device=slab.device)
    boxes = Boxes(slab, axis, zero, zero, zero, bool(slab.any()))
    if not boxes.any_slab:
        return boxes
    cell = system.cell.detach()
    normals = boxes.normals(cell)
    along = (system.positions.detach() * normals[system.batch]).sum(-1)
    thickness = _range(along, system.batch, system.graphs)
    height, decades = zero.clone(), zero.clone()
    for graph in torch.nonzero(slab)[:, 0].tolist():
        own = int(axis[graph])
        _require_vacuum(system, graph, own, float(thickness[graph]), normals[graph])
        decades[graph], gap = _gap(system, graph, own, tolerance)
        height[graph] = thickness[graph] + gap
    return Boxes(slab, axis, height, torch.where(slab, thickness, zero), decades, True)


def _range(values: Tensor, batch: Tensor, graphs: int) -> Tensor:
    high = values.new_full((graphs,), -math.inf).scatter_reduce(0, batch, values, "amax")
    low = values.new_full((graphs,), math.inf).scatter_reduce(0, batch, values, "amin")
    return high - low


def _gap(system: ChargedSystem, graph: int, axis: int, tolerance: float) -> tuple[float, float]:
    """Return by how much images must be damped, and the vacuum that does it, Å."""
    cell = system.cell[graph].detach().cpu().numpy().copy()
    cell[axis] = 0.0
    periodic = np.arange(3) != axis
    layer = np.asarray(minkowski_reduce(cell, pbc=periodic)[0])[periodic]
    shortest = float(np.linalg.norm(2 * math.pi * np.linalg.pinv(layer).T, axis=1).min())
    area = math.sqrt(np.linalg.det(layer @ layer.T))
    chosen = system.batch == graph
    width = float(system.widths[chosen].max()) * math.sqrt(2)
    strength = (
        4 * math.pi * COULOMB * math.sqrt(float(chosen.sum())) * max(1 / shortest, 1.0) / area
    )
    decades = math.log(max(strength, 1.0) / tolerance)
    return decades, max(decades / shortest, math.sqrt(2 * decades) * width, 1.0)


def _require_vacuum(
    system: ChargedSystem, graph: int, axis: int, thickness: float, normal: Tensor
) -> None:
    cell = system.cell[graph].detach()
    height = abs(float(cell[axis] @ normal))
    if height < 1e-8:
        return
    name = f"pbc is {system.pbc[graph].tolist()}, open along vector {axis}, "
    if thickness > height:
        raise StructureError(
            graph,
            f"{name}but its atoms span {thickness:.2f} Å there and the cell is {height:.2f} Å "
            "high: wrap the slab into one piece, or declare the direction periodic",
        )
    if height - thickness >= VACUUM:
        return
    for other in ((axis + 1) % 3, (axis + 2) % 3):
        void = _largest_void(system, graph, other)
        if void > 2 * VACUUM:
            raise StructureError(
                graph,
                f"{name}with {height - thickness:.2f} Å of vacuum there but {void:.2f} Å along "
                f"vector {other}, which is declared periodic: correct pbc, or the cell",
            )


def _largest_void(system: ChargedSystem, graph: int, axis: int) -> float:
    """Return the widest layer without atoms between the planes of a periodic direction, Å."""
    cell = system.cell[graph].detach().cpu().numpy()
    inverse = np.linalg.inv(cell)
    positions = system.positions[system.batch == graph].detach().cpu().numpy()
    fractions = np.sort((positions @ inverse[:, axis]) % 1.0)
    gaps = np.diff(np.append(fractions, fractions[0] + 1.0))
    return float(gaps.max() / np.linalg.norm(inverse[:, axis]))
