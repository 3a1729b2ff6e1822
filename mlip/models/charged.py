"""What heads that know charges share: net charges, sums over structures, a small network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.electrostatics.system import ChargedSystem
from mlip.graph import Geometry


def system_of_geometry(geometry: Geometry, widths: Float[Tensor, " atoms"]) -> ChargedSystem:
    """Return the structures as Gaussian charges, differentiable in positions and cells."""
    return ChargedSystem(
        positions=geometry.positions,
        cell=geometry.cell,
        pbc=geometry.pbc,
        batch=geometry.batch,
        widths=widths.double(),
    )


def net_charges(geometry: Geometry, neutral: bool, owner: str) -> Float[Tensor, " graphs"]:
    """Return the total charge of each structure, e, float64.

    Args:
        geometry: The structures.
        neutral: Whether structures that state no total charge have none; otherwise they are
            refused.
        owner: The head that asks, for the message.

    Raises:
        ValueError: Naming the first structure without a total charge.
    """
    stated = geometry.surroundings.total_charge
    if stated is None:
        stated = geometry.positions.new_full((geometry.graphs,), torch.nan)
    missing = ~torch.isfinite(stated)
    if missing.any() and not neutral:
        raise ValueError(
            f"structure {int(missing.long().argmax())} of the batch states no total charge, which "
            f"the head {owner} needs: give total_charge (e) in the info of every structure, or "
            "train with model.neutral=true if those without one are neutral"
        )
    return torch.where(missing, 0.0, stated.to(geometry.positions))


def summed(values: Float[Tensor, " atoms"], geometry: Geometry) -> Float[Tensor, " graphs"]:
    """Return the sum over the atoms of each structure."""
    return values.new_zeros(geometry.graphs).index_add(0, geometry.batch, values)


class Network(nn.Module):
    """One number an atom from the invariants of all layers, zero before it is trained.

    Args:
        channels: Invariants after each layer of the backbone.
        hidden: Width of the hidden layer.
    """

    def __init__(self, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(sum(channels), hidden)
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, invariant: Sequence[Float[Tensor, "atoms channels"]]
    ) -> Float[Tensor, " atoms"]:
        """Return the number of each atom."""
        hidden = nn.functional.silu(self.first(torch.cat(list(invariant), dim=1)))
        return self.last(hidden).squeeze(-1)
