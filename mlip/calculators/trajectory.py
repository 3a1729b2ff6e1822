"""What is kept from one step of a dynamics to the next: plan of the Coulomb sums, charges."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlip.electrostatics.guess import ChargeHistory
from mlip.electrostatics.operator import CoulombPlan
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import ChargedSystem


@dataclass
class Trajectory:
    """The plan and the last charges of a structure whose atoms move.

    Args:
        skin: Pairs are kept while no atom has moved by half of it, Å.
        tolerance: Of the Coulomb sums, as :func:`mlip.electrostatics.plan.plan_coulomb` has it.
    """

    skin: float
    tolerance: float
    _plan: CoulombPlan | None = None
    _first: ChargedSystem | None = None

    def __post_init__(self) -> None:
        self.charges = ChargeHistory()

    def plan(self, system: ChargedSystem) -> CoulombPlan:
        """Return the plan of the steps before if it still holds, else a new one.

        Charges go on while the atoms are the same, and are forgotten with other atoms.
        """
        if self._plan is None or not self._holds(system):
            if not self._same_atoms(system):
                self.charges.clear()
            self._first = system.detach()
            self._plan = plan_coulomb(system, self.tolerance, skin=self.skin)
        return self._plan

    def guess(self) -> Tensor | None:
        """Return charges to start from, e; None before the first step."""
        return self.charges.guess()

    def _holds(self, system: ChargedSystem) -> bool:
        first = self._first
        if first is None or not self._same_atoms(system):
            return False
        if not torch.equal(first.cell, system.cell):
            return False
        moved = torch.linalg.vector_norm(system.positions - first.positions, dim=1)
        return bool(moved.max() < 0.5 * self.skin)

    def _same_atoms(self, system: ChargedSystem) -> bool:
        first = self._first
        return (
            first is not None
            and torch.equal(first.widths, system.widths)
            and torch.equal(first.pbc, system.pbc)
        )
