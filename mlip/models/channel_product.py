"""Products of features and harmonics, channel by channel: all paths of a degree at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.runtime import import_e3nn


class ChannelProduct(nn.Module):
    """Drop-in for the ``uvu`` tensor product of e3nn with weights for every edge.

    ``m_uk = w_u Σ_ij C_ijk h_ui Y_j`` for each path from a degree of ``h`` and one of ``Y`` to one
    of ``m``. The general code cuts weights and features path by path, and differentiating a cut
    makes zeros of the size of the whole. Here the harmonics are contracted with ``C`` first, for
    all paths of one degree of ``h`` together, which leaves one small matrix product an edge.

    Args:
        irreps_in1: Features ``h``.
        irreps_in2: Harmonics ``Y``, each with one channel.
        irreps_out: Messages ``m``, one part a path.
        instructions: Paths, as e3nn has them: parts of ``h``, ``Y`` and ``m``, ``"uvu"``, True.
        shared_weights: False; there for the signature.
        internal_weights: False; there for the signature.
    """

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        irreps_out: Any,
        instructions: Sequence[Sequence[Any]],
        shared_weights: bool = False,
        internal_weights: bool = False,
    ) -> None:
        super().__init__()
        o3 = import_e3nn()
        product = o3.TensorProduct(
            irreps_in1, irreps_in2, irreps_out, [tuple(one) for one in instructions],
            shared_weights=shared_weights, internal_weights=internal_weights,
            compile_left_right=False, compile_right=False,
        )  # fmt: skip
        irreps_in1, irreps_in2, irreps_out = (
            o3.Irreps(irreps) for irreps in (irreps_in1, irreps_in2, irreps_out)
        )
        self.weight_numel = int(product.weight_numel)
        self.parts = [(mul, irrep.dim) for mul, irrep in irreps_in1]
        self.weights = [ins.path_shape[0] for ins in product.instructions]
        self.groups: list[tuple[int, list[int], list[int]]] = []  # part of h, paths, widths of m
        groups = defaultdict(list)
        for path, ins in enumerate(product.instructions):
            groups[ins.i_in1].append((path, ins))
        for part, members in groups.items():
            tables = []
            for _, ins in members:
                irreps = irreps_in1[part].ir, irreps_in2[ins.i_in2].ir, irreps_out[ins.i_out].ir
                table = torch.zeros(irreps_in2.dim, irreps[0].dim, irreps[2].dim)
                coefficients = o3.wigner_3j(*(irrep.l for irrep in irreps), dtype=table.dtype)
                table[irreps_in2.slices()[ins.i_in2]] = coefficients.transpose(0, 1)
                tables.append(ins.path_weight * table)
            widths = [table.shape[2] for table in tables]
            joined = torch.cat(tables, dim=2)
            self.register_buffer(f"table{len(self.groups)}", joined.flatten(1), persistent=False)
            self.groups.append((part, [path for path, _ in members], widths))
        outputs = [ins.i_out for ins in product.instructions]
        self.order = sorted(range(len(outputs)), key=outputs.__getitem__)

    def forward(
        self,
        features: Float[Tensor, "edges irreps"],
        harmonics: Float[Tensor, "edges components"],
        weights: Float[Tensor, "edges weights"],
    ) -> Float[Tensor, "edges messages"]:
        """Return the message of each edge, laid out as e3nn does: channel before component."""
        edges = features.shape[0]
        parts = features.split([mul * dim for mul, dim in self.parts], dim=1)
        factors = weights.split(self.weights, dim=1)
        found: dict[int, Tensor] = {}
        for number, (part, paths, widths) in enumerate(self.groups):
            mul, dim = self.parts[part]
            table = self.get_buffer(f"table{number}")
            matrices = (harmonics @ table).view(edges, dim, sum(widths))
            products = torch.bmm(parts[part].reshape(edges, mul, dim), matrices)
            for path, piece in zip(paths, products.split(widths, dim=2), strict=True):
                found[path] = (piece * factors[path].unsqueeze(2)).flatten(1)
        return _Join.apply(*(found[path] for path in self.order))  # type: ignore[return-value]


class _Join(torch.autograd.Function):
    """``torch.cat`` along dimension 1, differentiated twice without zeros of the whole size."""

    @staticmethod
    def forward(ctx: Any, *pieces: Tensor) -> Tensor:
        """Join."""
        ctx.widths = [piece.shape[1] for piece in pieces]
        return torch.cat(pieces, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Split at once: the gradient of that is one join."""
        return tuple(gradients[0].split(ctx.widths, dim=1))
