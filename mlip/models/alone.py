"""Energies that a network gives to atoms without neighbours."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.graph import Geometry
from mlip.models.potential import Potential


def energies_alone(potential: Potential) -> Float[Tensor, " elements"]:
    """Return ``scale · f(h_alone)`` of the energy head for each element, eV; 0 where h is zero.

    Published models count it as energy of interaction; here it belongs to the energy references.
    """
    head: Any = potential.heads["energy"]
    with torch.no_grad():
        alone = potential.backbone(_nothing(potential.dtype)).alone
        if alone is None:
            return torch.zeros(len(potential.elements), dtype=potential.dtype)
        return head.scale * head.read_out(alone)


def _nothing(dtype: torch.dtype) -> Geometry:
    """Return a batch without structures."""
    indices = torch.zeros(0, dtype=torch.int64)
    return Geometry(
        atomic_numbers=indices,
        species=indices,
        positions=torch.zeros(0, 3, dtype=torch.float64),
        cell=torch.zeros(0, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(0, 3, dtype=torch.bool),
        edge_index=indices.reshape(2, 0),
        edge_vectors=torch.zeros(0, 3, dtype=dtype),
        edge_lengths=torch.zeros(0, dtype=dtype),
        edge_pair=indices,
        batch=indices,
        graphs=0,
    )
