"""Calculators with a known answer, which show that the benchmarks measure what they say."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes


class Zero(Calculator):
    """No interaction at all: every energy, force and stress is zero, and so is every excess."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill the results with zeros of the right shape."""
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = {
            "energy": 0.0,
            "free_energy": 0.0,
            "forces": np.zeros((len(self.atoms or ()), 3)),
            "stress": np.zeros(6),
        }


class Raising(Zero):
    """Fails on every structure, as a potential with a bug would."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Raise, always.

        Raises:
            CalculatorError: Always.
        """
        raise CalculatorError("this control fails on every structure")
