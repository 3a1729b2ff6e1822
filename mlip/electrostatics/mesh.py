"""A mesh in a periodic cell: charges to points, fields back to atoms, filters in wave vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.sparse import SparsePattern, index_type
from mlip.electrostatics.spline import spline_deconvolution, spline_weights

Filter = Callable[[Float[Tensor, " atoms"]], Float[Tensor, " atoms"]]


@dataclass(frozen=True)
class Mesh:
    """The atoms of one cell bound to a mesh: weights computed once, for any number of products.

    All methods are differentiable, to any order, in the charges or field, and in the positions and
    the cell that the mesh was bound to.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.
        shape: Mesh points along each lattice vector.
        order: Order of the B-spline.
        pattern: The mesh points (columns) of each atom (rows); atoms in the order ``sorting``.
        weights: (atoms * order³,) share of each point in its atom.
        sorting: (atoms,) atoms in the order of the mesh, so that memory is walked in order.
    """

    cell: Float[Tensor, "3 3"]
    shape: tuple[int, int, int]
    order: int
    pattern: SparsePattern
    weights: Float[Tensor, " entries"]
    sorting: Int[Tensor, " atoms"]

    def spread(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, "x y z"]:
        """Return the charge at each mesh point, in the unit of the charges."""
        flat = self.pattern.transposed_product(self.weights, charges.index_select(0, self.sorting))
        return flat.reshape(self.shape)

    def gather(self, field: Float[Tensor, "x y z"]) -> Float[Tensor, " atoms"]:
        """Return a field of the mesh at each atom; the transpose of :meth:`spread`."""
        sorted_values = self.pattern.product(self.weights, field.reshape(-1))
        return torch.zeros_like(sorted_values).index_copy(0, self.sorting, sorted_values)

    def squared_wave_vectors(self) -> Float[Tensor, "x y half_z"]:
        """Return |k|² of the wave vectors of a real transform, Å⁻²; 1 at k = 0.

        The kernel has no value at k = 0: a one there keeps functions of k² and their derivatives
        finite, and :meth:`filter` gives that wave vector no weight.
        """
        metric = (2 * math.pi) ** 2 * torch.linalg.inv(self.cell).T @ torch.linalg.inv(self.cell)
        x, y, z = (
            wave.reshape([-1 if axis == own else 1 for own in range(3)])
            for axis, wave in enumerate(self.waves())
        )
        squared = x**2 * metric[0, 0] + 2 * x * y * metric[0, 1] + y**2 * metric[1, 1]
        squared = squared + z * (2 * x * metric[0, 2] + 2 * y * metric[1, 2])
        squared = squared + z**2 * metric[2, 2]
        origin = torch.zeros_like(squared, dtype=torch.bool)
        origin[0, 0, 0] = True
        return torch.where(origin, torch.ones_like(squared), squared)

    def filter(self, radial: Callable[[Tensor], Tensor]) -> Filter:
        """Return the function q -> A q, ``A_ij = (1/V) Σ_{k≠0} w(k) cos k·(r_i - r_j)``.

        The wave vectors are those that the mesh resolves; the kernel is computed here, once.
        A kernel that still counts at the highest of them is aliased: choose the mesh so that
        ``w`` has decayed. A is symmetric, and positive where w is.

        Args:
            radial: w as a function of |k|² (Å⁻², any shape).
        """
        kernel = self.kernel(radial)

        def apply(charges: Tensor) -> Tensor:
            return self.gather(self.convolve(kernel, self.spread(charges)))

        return apply

    def kernel(self, radial: Callable[[Tensor], Tensor]) -> Float[Tensor, "x y half_z"]:
        """Return the kernel of :meth:`filter`: ``w(|k|²)/V``, deconvolved, without k = 0."""
        factors = [
            torch.as_tensor(spline_deconvolution(points, self.order), device=self.cell.device)
            for points in self.shape
        ]
        x, y, z = factors[0], factors[1], factors[2][: self.shape[2] // 2 + 1]
        factor = x[:, None, None] * y[:, None] * z
        factor[0, 0, 0] = 0.0
        return radial(self.squared_wave_vectors()) * (factor / torch.linalg.det(self.cell).abs())

    def diagonal(self, radial: Callable[[Tensor], Tensor]) -> Float[Tensor, ""]:
        """Return the diagonal of the matrix of :meth:`filter`, one for all atoms."""
        squared = self.squared_wave_vectors()
        copies = torch.full_like(squared, 2.0)  # of half of the wave vectors, the other is implied
        copies[..., 0] = 1.0
        if self.shape[2] % 2 == 0:
            copies[..., -1] = 1.0
        copies[0, 0, 0] = 0.0
        return (radial(squared) * copies).sum() / torch.linalg.det(self.cell).abs()

    def convolve(
        self, kernel: Float[Tensor, "x y half_z"], density: Float[Tensor, "x y z"]
    ) -> Float[Tensor, "x y z"]:
        """Return a density filtered by a kernel of real transforms."""
        waves = torch.fft.rfftn(density)
        # of a large mesh, a fresh array costs more time than the product itself
        waves = waves * kernel if kernel.requires_grad else waves.mul_(kernel)
        return torch.fft.irfftn(waves, s=self.shape, norm="forward")

    def waves(self) -> list[Float[Tensor, " points"]]:
        """Return whole wave numbers along each axis, of the last without its negative half."""
        waves = [
            torch.fft.fftfreq(points, 1 / points, dtype=self.cell.dtype, device=self.cell.device)
            for points in self.shape
        ]
        return [*waves[:2], waves[2][: self.shape[2] // 2 + 1]]


def bind(
    positions: Float[Tensor, "atoms 3"],
    cell: Float[Tensor, "3 3"],
    shape: tuple[int, int, int],
    order: int = 6,
) -> Mesh:
    """Bind atoms to a mesh of their cell; atoms outside the cell are wrapped into it.

    Args:
        positions: Å.
        cell: Three lattice vectors as rows, Å, periodic all.
        shape: Mesh points along each; at least ``order``, so that no atom meets itself.
        order: Order of the B-splines, 4, 6 or 8.

    Raises:
        ValueError: If the mesh has fewer points than the spline along a lattice vector.
    """
    if min(shape) < order:
        raise ValueError(
            f"the mesh {shape} has fewer points along a lattice vector than splines of order "
            f"{order} reach: give at least {order} points, or use method 'ewald' for a cell so thin"
        )
    points = torch.tensor(shape, dtype=positions.dtype, device=positions.device)
    scaled = (positions @ torch.linalg.inv(cell)) * points
    below = scaled.detach().floor()
    sorting = _flat(below.long() % points.long(), shape).argsort()
    below = below[sorting]
    weights = spline_weights(scaled[sorting] - below, order)
    entries = len(positions) * order**3
    kind = index_type(entries, math.prod(shape))
    reach = torch.arange(1 - order, 1, device=positions.device)
    near = (below.long()[:, :, None] + reach) % points.long()[:, None]
    x, y, z = near.to(kind).unbind(1)
    indices = (x[:, :, None] * shape[1] + y[:, None])[..., None] * shape[2] + z[:, None, None]
    along_x, along_y, along_z = weights.unbind(1)
    plane = along_x[:, :, None] * along_y[:, None]
    offsets = torch.arange(len(positions) + 1, device=positions.device, dtype=kind) * order**3
    return Mesh(
        cell=cell,
        shape=shape,
        order=order,
        pattern=SparsePattern(offsets, indices.reshape(-1), math.prod(shape)),
        weights=(plane[..., None] * along_z[:, None, None]).reshape(-1),
        sorting=sorting,
    )


def _flat(point: Int[Tensor, "atoms 3"], shape: tuple[int, int, int]) -> Int[Tensor, " atoms"]:
    return (point[:, 0] * shape[1] + point[:, 1]) * shape[2] + point[:, 2]
