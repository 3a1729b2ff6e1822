"""Real spherical harmonics, degree after degree by products with the vector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.runtime import import_e3nn


class Harmonics(nn.Module):
    """Real spherical harmonics of unit vectors, as e3nn normalises and orders them.

    Each degree is the highest part of the product of the one below with the vector; that takes
    fewer and larger operations, and differentiates faster, than the polynomials of e3nn.

    Args:
        max_l: Highest degree.
    """

    def __init__(self, max_l: int) -> None:
        super().__init__()
        o3 = import_e3nn()
        self.widths = [2 * degree + 1 for degree in range(max_l + 1)]
        axis = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
        for degree in range(2, max_l + 1):
            table = o3.wigner_3j(degree - 1, 1, degree, dtype=torch.float64).flatten(0, 1)
            below, wanted = (
                o3.spherical_harmonics(one, axis, True, "component") for one in (degree - 1, degree)
            )
            made = (below[:, :, None] * axis[:, None, :]).flatten(1) @ table
            factor = (made * wanted).sum() / made.square().sum()
            self.register_buffer(f"raise{degree}", factor * table, persistent=False)

    def forward(self, unit: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges components"]:
        """Return the harmonics, degree after degree."""
        found = [torch.ones_like(unit[:, :1]), 3**0.5 * unit][: len(self.widths)]
        for degree in range(2, len(self.widths)):
            product = (found[-1][:, :, None] * unit[:, None, :]).flatten(1)
            found.append(product @ self.get_buffer(f"raise{degree}"))
        return torch.cat(found, dim=1)
