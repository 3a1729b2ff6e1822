"""Cheap approximate inverses of ``A + J``: its diagonal, and what long waves add to it.

The slow modes of conjugate gradients are long waves of charge, whose Coulomb energy ``4π k_e/k²``
grows with the structure. With D the diagonal, B the interpolation to a mesh and n the density of
1/D around each atom, the product of a factor with its own transpose,

    M⁻¹ = (1 - D⁻¹ W) D⁻¹ (1 - W D⁻¹),   W = n^(-1/2) B w Bᵀ n^(-1/2)
    w(k) = e^(-k²/k_0²) [1 - 1/√(1 + n̄ v)],   v = 4π k_e/k²

screens them like a jellium, by ``1/(1 + n v)`` (Kerker, PRB 23, 3082 (1981)), and is positive
definite whatever n is. The density is local: surfaces and vacuum do not dilute it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.mesh import Mesh, bind
from mlip.electrostatics.slab import boxes_of
from mlip.electrostatics.system import ChargedSystem
from mlip.units import COULOMB

LOW_PASS = 1.5
"""k_0, 1/Å: shorter waves are left to the diagonal."""
AROUND = 0.7
"""Low pass of the density around an atom, 1/Å: over more than the distances between atoms."""
THINNEST = 0.2
"""No density counts for less than this part of the largest: single atoms on surfaces."""
SPACING = 1.2
"""Of the mesh, Å: it resolves the waves that pass."""
ORDER = 4
GAP = 10.0
"""Vacuum of the mesh of a slab, Å: its images may be felt here."""
MESH_ATOMS = 300
"""Structures with fewer atoms have no wave long enough to be worth a mesh."""
Preconditioner = Callable[[Float[Tensor, " atoms"]], Float[Tensor, " atoms"]]


def jacobi(diagonal: Float[Tensor, " atoms"]) -> Preconditioner:
    """Return the inverse of the diagonal."""
    return lambda residual: residual / diagonal


@dataclass(frozen=True)
class Screen:
    """The long waves of one structure.

    Args:
        atoms: (members,) the atoms of the structure.
        mesh: What they are bound to.
        kernel: w.
        scale: (members,) ``n^(-1/2)``.
    """

    atoms: Int[Tensor, " members"]
    mesh: Mesh
    kernel: Float[Tensor, "x y half_z"]
    scale: Float[Tensor, " members"]

    def waves(self, charges: Float[Tensor, " members"]) -> Float[Tensor, " members"]:
        """Return W times charges."""
        density = self.mesh.spread(self.scale * charges)
        return self.scale * self.mesh.gather(self.mesh.convolve(self.kernel, density))


def screened(system: ChargedSystem, diagonal: Float[Tensor, " atoms"]) -> Preconditioner:
    """Return the inverse with the long waves of every large periodic structure and slab.

    Args:
        system: The structures; nothing is differentiated.
        diagonal: D, eV/e², positive.
    """
    with torch.no_grad():
        screens = [_screen(system, graph, diagonal) for graph in _large(system)]

    def waves(values: Tensor) -> Tensor:
        result = torch.zeros_like(values)
        for screen in screens:
            result[screen.atoms] = screen.waves(values[screen.atoms])
        return result

    def apply(residual: Tensor) -> Tensor:
        middle = (residual - waves(residual / diagonal)) / diagonal
        return middle - waves(middle) / diagonal

    return apply if screens else jacobi(diagonal)


def _large(system: ChargedSystem) -> list[int]:
    atoms = torch.bincount(system.batch, minlength=system.graphs)
    return torch.nonzero((atoms >= MESH_ATOMS) & system.pbc.any(1))[:, 0].tolist()


def _screen(system: ChargedSystem, graph: int, diagonal: Tensor) -> Screen:
    atoms = torch.nonzero(system.batch == graph)[:, 0]
    own = ChargedSystem(
        positions=system.positions[atoms],
        cell=system.cell[graph : graph + 1],
        pbc=system.pbc[graph : graph + 1],
        batch=torch.zeros_like(atoms),
        widths=system.widths[atoms],
    )
    boxes = boxes_of(own, tolerance=1e-2)
    low = replace(boxes, height=torch.minimum(boxes.height, boxes.thickness + GAP))
    cell = low.cells(own.cell)[0]
    lengths = torch.linalg.vector_norm(cell, dim=1)
    x, y, z = (max(ORDER, math.ceil(float(length) / SPACING)) for length in lengths)
    mesh = bind(own.positions, cell, (x, y, z), ORDER)
    weights = 1 / diagonal[atoms]
    density = _density(mesh, weights)
    mean = (density * weights).sum() / weights.sum()

    def screening(squared: Tensor) -> Tensor:
        bare = (1 + mean * 4 * math.pi * COULOMB / squared).rsqrt()
        return torch.exp(-squared / LOW_PASS**2) * (1 - bare)

    return Screen(atoms, mesh, mesh.kernel(screening), density.rsqrt())


def _density(mesh: Mesh, weights: Float[Tensor, " members"]) -> Float[Tensor, " members"]:
    """Return the density of weights around each atom, 1/Å³."""
    around = mesh.filter(lambda squared: torch.exp(-squared / AROUND**2))(weights)
    density = around + weights.sum() / torch.linalg.det(mesh.cell).abs()
    return density.clamp(min=THINNEST * float(density.max()))
