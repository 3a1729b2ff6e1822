"""Open structures: every pair of atoms, once."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.kernels import coulomb, self_interaction
from mlip.electrostatics.padding import Padding
from mlip.electrostatics.pairs import Pairs, all_pairs
from mlip.electrostatics.system import ChargedSystem, MadeFor
from mlip.errors import StructureError


@dataclass(frozen=True)
class DirectPlan:
    """The pairs of a batch of open structures; they never change, however far atoms move."""

    pairs: Pairs
    made_for: MadeFor

    def operator(self, system: ChargedSystem) -> "DirectOperator":
        """Return the matrix of a batch of open structures."""
        self.made_for.require(system)
        return DirectOperator(self.pairs, system)


class DirectOperator:
    """``A_ij = k_e erf(R_ij/(√2 γ_ij))/R_ij`` and ``A_ii = k_e/(σ_i √π)``, eV/e²."""

    def __init__(self, pairs: Pairs, system: ChargedSystem) -> None:
        self.pairs = pairs
        self._batch, self._graphs = system.batch, system.graphs
        distances = pairs.distances(system.positions, system.cell)
        self._pairs = coulomb(distances, pairs.variances(system.widths))
        self._self = self_interaction(system.widths)

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, V."""
        return self.pairs.multiply(self._pairs, charges) + self._self * charges

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV."""
        result = self.pairs.energies(self._pairs, charges, self._graphs)
        return result.index_add(0, self._batch, 0.5 * self._self * charges.square())

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²."""
        return self._self

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros, eV/e²."""
        padding = Padding.of(self._batch, self._graphs)
        pairs = padding.symmetric(self._pairs, self.pairs.first, self.pairs.second)
        return pairs + padding.diagonal(self._self)


def plan_direct(system: ChargedSystem) -> DirectPlan:
    """Return the plan of a batch of structures without periodic directions.

    Raises:
        ValueError: If a structure has periodic directions, or two atoms overlap.
    """
    if system.pbc.any():
        graph = int(system.pbc.any(1).long().argmax())
        raise StructureError(
            graph,
            f"pbc is {system.pbc[graph].tolist()} and the direct sum is for open structures; use "
            "method='ewald' or 'pme', or set pbc to False",
        )
    return DirectPlan(all_pairs(system), MadeFor.of(system))
