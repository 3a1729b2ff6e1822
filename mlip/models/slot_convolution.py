"""Messages summed over neighbours by matrix products, one an atom and path."""

from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.runtime import import_e3nn


class SlotConvolution(nn.Module):
    """Drop-in for the tensor product of a convolution and the sum over neighbours behind it.

    ``m_i^u = Σ_j w_ij^u Σ C h_j^u Y(r_ij)`` for each path and channel u. The general code forms
    ``w h C Y`` for every edge, channel and component before it sums. Here ``C Y`` is formed
    without channels, and sum over neighbours and product are one matrix product.

    Args:
        product: The ``uvu`` tensor product of e3nn with weights for every edge.
    """

    def __init__(self, product: Any) -> None:
        super().__init__()
        o3 = import_e3nn()
        self.irreps = product.irreps_in1, product.irreps_in2, product.irreps_out
        self.instructions = [
            (ins.i_in1, ins.i_in2, ins.i_out, "uvu", True) for ins in product.instructions
        ]
        self.weight_numel = int(product.weight_numel)
        self.parts = [(mul, irrep.dim) for mul, irrep in product.irreps_in1]
        self.weights = [ins.path_shape[0] for ins in product.instructions]
        self.groups: list[tuple[int, list[int], list[int]]] = []  # part of h, paths, widths of m
        groups = defaultdict(list)
        for path, ins in enumerate(product.instructions):
            groups[ins.i_in1].append((path, ins))
        for part, members in groups.items():
            tables = []
            for _, ins in members:
                irreps = [product.irreps_in1[part].ir, product.irreps_in2[ins.i_in2].ir,
                          product.irreps_out[ins.i_out].ir]  # fmt: skip
                table = torch.zeros(product.irreps_in2.dim, irreps[0].dim, irreps[2].dim)
                coefficients = o3.wigner_3j(*(irrep.l for irrep in irreps), dtype=table.dtype)
                table[product.irreps_in2.slices()[ins.i_in2]] = coefficients.transpose(0, 1)
                tables.append(ins.path_weight * table)
            widths = [table.shape[2] for table in tables]
            joined = torch.cat(tables, dim=2).flatten(1)
            self.register_buffer(f"table{len(self.groups)}", joined, persistent=False)
            self.groups.append((part, [path for path, _ in members], widths))
        outputs = [ins.i_out for ins in product.instructions]
        self.order = sorted(range(len(outputs)), key=outputs.__getitem__)

    def forward(
        self,
        nodes: Float[Tensor, "atoms irreps"],
        harmonics: Float[Tensor, "atoms most components"],
        weights: Float[Tensor, "pairs weights"],
        ends: Int[Tensor, "2 slots"],
    ) -> Float[Tensor, "atoms messages"]:
        """Return the summed messages, laid out as e3nn does: channel before component.

        Args:
            nodes: Features of every atom.
            harmonics: Spherical harmonics of every slot, degree after degree; 0 in empty ones.
            weights: Radial weights of every pair of opposite edges.
            ends: Neighbour and pair in every slot (:class:`mlip.models.slots.NeighborSlots`).
        """
        sender, pair = ends
        atoms, most, _ = harmonics.shape
        parts = nodes.split([mul * dim for mul, dim in self.parts], dim=1)
        factors = weights[pair].split(self.weights, dim=1)
        found: dict[int, Tensor] = {}
        for number, (part, paths, widths) in enumerate(self.groups):
            mul, dim = self.parts[part]
            sent = parts[part].reshape(atoms, mul, dim).transpose(1, 2).contiguous()[sender]
            table = self.get_buffer(f"table{number}")
            angular = (harmonics.flatten(0, 1) @ table).view(atoms, most * dim, sum(widths))
            for path, piece in zip(paths, angular.split(widths, dim=2), strict=True):
                left = (factors[path][:, None, :] * sent).view(atoms, most * dim, mul)
                found[path] = torch.bmm(left.transpose(1, 2), piece).flatten(1)
        return torch.cat([found[path] for path in self.order], dim=1)
