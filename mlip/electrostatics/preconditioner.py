"""Cheap approximate inverses of ``A + J``: its diagonal, and what long waves add to it.

The slow modes of conjugate gradients are long waves of charge, whose Coulomb energy ``4π k_e/k²``
grows with the structure. With D the diagonal, B the interpolation to a mesh and n the density of
1/D around each atom, the product of a factor with its own transpose,

    M⁻¹ = (1 - D⁻¹ W) D⁻¹ (1 - W D⁻¹),   W = s B w Bᵀ s,   s ≈ n^(-1/2)
    w(k) = e^(-k²/k_0²) [1 - 1/√(1 + n̄ v)],   v = 4π k_e/k²

screens them like a jellium, by ``1/(1 + n v)`` (Kerker, PRB 23, 3082 (1981)), and is positive
definite whatever s is. The density is local: surfaces and vacuum do not dilute it. Long waves are
screened by nothing but what s leaves of them: it is balanced (as by Sinkhorn and Knopp) so that
``W D⁻¹ 1 ≈ 1``. A slab is continued by its mirror image: a wave along it is then even across it
and not cut off by vacuum, which would leave it unscreened in part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.mesh import Mesh, bind
from mlip.electrostatics.slab import Boxes, boxes_of
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
        mesh: What they are bound to, the mirror images of a slab after the atoms.
        kernel: w.
        scale: (members,) s.
        copies: 2 of a slab, else 1.
    """

    atoms: Int[Tensor, " members"]
    mesh: Mesh
    kernel: Float[Tensor, "x y half_z"]
    scale: Float[Tensor, " members"]
    copies: int

    def waves(self, charges: Float[Tensor, " members"]) -> Float[Tensor, " members"]:
        """Return W times charges."""
        density = self.mesh.spread((self.scale * charges).repeat(self.copies))
        found = self.mesh.gather(self.mesh.convolve(self.kernel, density))
        return self.scale * found.view(self.copies, -1).mean(0)  # of all copies: W is symmetric


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
    box = boxes_of(own, tolerance=1e-2)
    positions, cell = _mirrored(own, box) if box.any_slab else (own.positions, own.cell[0])
    copies = len(positions) // len(atoms)
    lengths = torch.linalg.vector_norm(cell, dim=1)
    x, y, z = (max(ORDER, math.ceil(float(length) / SPACING)) for length in lengths)
    mesh = bind(positions, cell, (x, y, z), ORDER)
    weights = 1 / diagonal[atoms]
    around = mesh.kernel(lambda squared: torch.exp(-squared / AROUND**2))
    density = _smooth(mesh, around, weights, copies)
    density = density.clamp(min=THINNEST * float(density.max()))
    mean = (density * weights).sum() / weights.sum()
    free = _free(mesh, int(box.axis[0])) if box.any_slab else 1.0

    def screening(squared: Tensor) -> Tensor:
        bare = (1 + mean * 4 * math.pi * COULOMB * free / squared).rsqrt()
        return torch.exp(-squared / LOW_PASS**2) * (1 - bare)

    kernel, scale = mesh.kernel(screening), density.rsqrt()
    left = scale * _smooth(mesh, kernel, scale * weights, copies)
    balanced = scale / left.clamp(min=THINNEST).sqrt()
    return Screen(atoms, mesh, kernel, balanced.clamp(max=float(scale.max())), copies)


def _mirrored(own: ChargedSystem, box: Boxes) -> tuple[Tensor, Tensor]:
    """Return the atoms of a slab with those of its mirror image below it, and the cell of both."""
    normal = box.normals(own.cell)[0]
    heights = own.positions @ normal
    rest = replace(box, height=box.thickness.clamp(min=1.0)).cells(own.cell)[0]
    margin = 0.5 * float((torch.linalg.det(rest).abs() / len(heights)) ** (1 / 3))
    above = heights - heights.min() + margin
    image = own.positions - 2 * above[:, None] * normal
    both = replace(box, height=2 * (box.thickness + 2 * margin))
    return torch.cat([own.positions, image]), both.cells(own.cell)[0]


def _free(mesh: Mesh, axis: int) -> Float[Tensor, "x y half_z"]:
    """Return the part of ``4π/k²`` that a slab without images has: less in waves along it.

    Of a layer of thickness h, uniform across it, that is ``1 - (1 - e^(-kh))/(kh)``.
    """
    squared = mesh.squared_wave_vectors()
    part = torch.ones_like(squared)
    along = squared.select(axis, 0).sqrt() * torch.linalg.vector_norm(mesh.cell[axis]) / 2
    part.select(axis, 0).copy_(1 + torch.expm1(-along) / along)
    return part


def _smooth(
    mesh: Mesh, kernel: Tensor, values: Float[Tensor, " members"], copies: int
) -> Float[Tensor, " members"]:
    """Return the density of values around each atom by a kernel that is 1 at k = 0, 1/Å³."""
    all_values = values.repeat(copies)
    waves = mesh.gather(mesh.convolve(kernel, mesh.spread(all_values)))
    mean = all_values.sum() / torch.linalg.det(mesh.cell).abs()
    return waves.view(copies, -1).mean(0) + mean
