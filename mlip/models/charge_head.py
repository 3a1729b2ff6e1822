"""What a head is that gives charges: Gaussian widths of its elements and Coulomb sums."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlip.electrostatics.operator import CoulombPlan
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import ChargedSystem
from mlip.graph import AtomGraph, Geometry
from mlip.models.elements import ElementParameters
from mlip.models.head import Head


class ChargeHead(Head):
    """Gives the charge of every atom, and their energy.

    Args:
        elements: Symbols that the potential knows.
        neutral: Whether structures that state no total charge are neutral; false refuses them.
        tolerance: Error of the Coulomb sums for charges of 1 e, eV and eV/Å.
    """

    gives = ("charges", "potentials", "charge_energies")
    needs = ("elements", "channels")
    inputs = ("total_charge",)

    def __init__(self, elements: Sequence[str], neutral: bool, tolerance: float) -> None:
        super().__init__()
        self.neutral, self.tolerance = neutral, tolerance
        self.element_parameters = ElementParameters(elements)

    def system(self, geometry: Geometry) -> tuple[ChargedSystem, CoulombPlan]:
        """Return the charged system and the plan of its sums: the one given, or a new one."""
        widths = self.element_parameters.widths(geometry.species).double()
        system = ChargedSystem(
            positions=geometry.positions,
            cell=geometry.cell,
            pbc=geometry.pbc,
            batch=geometry.batch,
            widths=widths,
        )
        return system, geometry.surroundings.plan or plan_coulomb(system, self.tolerance)

    def solve_to(self, residual: float) -> None:
        """Set how well charges are solved, relative; heads that solve nothing ignore it."""

    def bare_system(self, graph: AtomGraph, species: Tensor) -> ChargedSystem:
        """Return the charged system of structures as they are, to plan their sums beforehand."""
        atoms = graph.atomic_numbers
        batch = graph["batch"] if "batch" in graph else torch.zeros_like(atoms)
        widths = self.element_parameters.widths(species[atoms]).double()
        return ChargedSystem(graph.positions, graph.cell, graph.pbc, batch, widths).detach()
