"""What every Coulomb sum offers: a plan of what does not change, and the matrix that it gives."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.system import ChargedSystem


class CoulombOperator(Protocol):
    """The symmetric matrix A of a batch, block diagonal in its structures, eV/e².

    The energy of the charges is ``½ qᵀ A q``: it includes the self energy of each Gaussian,
    ``A_ii = k_e/(σ_i √π) + …``, and the terms of charged cells and slabs. Every method is
    differentiable, twice, in what the operator was made from and in the charges.
    """

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, the electrostatic potential at each atom (its own included), V."""
        ...

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV, cheaper to differentiate than the product."""
        ...

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²; of a mesh, to the accuracy of a preconditioner."""
        ...

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros to the largest, eV/e²."""
        ...


class CoulombPlan(Protocol):
    """All that does not depend on the derivatives: method, splitting width, pairs, mesh, k vectors.

    A plan may be kept while atoms move less than its ``skin`` allows.
    """

    def operator(self, system: ChargedSystem) -> CoulombOperator:
        """Return the operator of a system with the same atoms, boundary conditions and batch."""
        ...
