"""The same number of slots for the neighbours of every atom, so that sums are matrix products."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mlip.graph import Geometry


def slots(
    receiver: Int[Tensor, " edges"], atoms: int, most: int | None = None
) -> tuple[Int[Tensor, " edges"], int]:
    """Return the slot of every edge, ``most`` slots an atom, and ``most``.

    Args:
        receiver: Receiver of every edge, sorted, as :func:`mlip.neighbors.neighbor_list` gives it.
        atoms: Number of atoms.
        most: The largest number of neighbours where it is known, else None.
    """
    count = receiver.new_zeros(atoms).index_add(0, receiver, torch.ones_like(receiver))
    if most is None:
        most = int(count.max()) if len(receiver) else 0
    first = torch.cumsum(count, 0) - count
    place = torch.arange(receiver.shape[0], device=receiver.device) - first[receiver]
    return receiver * most + place, most


@dataclass(frozen=True)
class NeighborSlots:
    """Which neighbour is in each slot; empty slots name atom 0 and pair 0.

    Args:
        most: Slots of an atom, the largest number of neighbours.
        sender: The neighbour.
        pair: The pair that atom and neighbour form.
        sign: 1 where the pair's own edge points to the atom, -1 where its reverse does, 0 where
            the slot is empty.
    """

    most: int
    sender: Int[Tensor, " slots"]
    pair: Int[Tensor, " slots"]
    sign: Int[Tensor, " slots"]

    @classmethod
    def of(cls, geometry: Geometry) -> "NeighborSlots":
        """Return the slots of all atoms."""
        sender, receiver = geometry.edge_index
        slot, most = slots(receiver, geometry.atoms, geometry.most)
        sign = torch.full_like(sender, -1).index_fill(0, geometry.pair_edges, 1)

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(geometry.atoms * most).index_copy(0, slot, values)

        return cls(most, spread(sender), spread(geometry.edge_pair), spread(sign))

    @property
    def filled(self) -> Bool[Tensor, " slots"]:
        """Whether a slot has a neighbour."""
        return self.sign != 0
