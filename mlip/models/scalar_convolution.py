"""Messages from scalar features: neighbours are summed by one matrix product an atom and degree."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ScalarConvolution(nn.Module):
    """Drop-in for a tensor-product convolution whose node features are all scalars.

    ``m_i^{lm} = Σ_j w_ij^l h_j Y_lm(r_ij)`` per channel. The general code forms
    ``w h Y`` for every edge, channel and component before it sums; here the sum over the
    neighbours of an atom is a matrix product, so nothing of that size is ever stored.

    Args:
        channels: Number of scalars of a node.
        degrees: Degree l of each path, in the order of the weights and of the output.
    """

    def __init__(self, channels: int, degrees: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        self.degrees = tuple(degrees)
        self.weight_numel = channels * len(self.degrees)

    def forward(
        self,
        nodes: Float[Tensor, "atoms channels"],
        harmonics: Float[Tensor, "atoms most components"],
        weights: Float[Tensor, "pairs weights"],
        ends: Int[Tensor, "2 slots"],
    ) -> Float[Tensor, "atoms irreps"]:
        """Return the summed messages, laid out as e3nn does: channel before component.

        Args:
            nodes: Scalars of every atom.
            harmonics: Spherical harmonics of every slot, degree after degree; 0 in empty ones.
            weights: Radial weights of every pair of opposite edges.
            ends: Neighbour and pair in every slot (:class:`mlip.models.slots.NeighborSlots`).
        """
        sender, pair = ends
        atoms, most, _ = harmonics.shape
        values = (
            weights[pair].view(-1, len(self.degrees), self.channels) * nodes[sender][:, None, :]
        )
        values = values.view(atoms, most, len(self.degrees) * self.channels)
        parts, start = [], {0: 0}
        for degree in range(max(self.degrees)):
            start[degree + 1] = start[degree] + 2 * degree + 1
        for path, degree in enumerate(self.degrees):
            left = values[:, :, path * self.channels : (path + 1) * self.channels]
            right = harmonics[:, :, start[degree] : start[degree] + 2 * degree + 1]
            parts.append(torch.bmm(left.transpose(1, 2), right).flatten(1))
        return torch.cat(parts, dim=1)
