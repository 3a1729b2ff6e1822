"""Calculators with a known answer, which show that the benchmarks measure what they say."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes

from mlip.errors import suggest

_SIGNALS = {"kill": signal.SIGKILL, "segfault": signal.SIGSEGV}


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


class Faulty(Zero):
    """Zero, but with a fault on structures of one size, to prove that it costs only their rows.

    Args:
        fault: ``exit`` (leaves the process), ``kill`` (SIGKILL, as the kernel does when memory runs
            out), ``segfault``, ``hang``, ``nan``, ``memory`` (MemoryError), or ``wait`` (one
            second for every structure, of whatever size).
        size: Number of atoms of the structures concerned.

    Raises:
        ValueError: For an unknown fault.
    """

    FAULTS = ("exit", "kill", "segfault", "hang", "wait", "nan", "memory")

    def __init__(self, fault: str, size: int, **kwargs: Any) -> None:
        if fault not in self.FAULTS:
            raise ValueError(f"unknown fault {fault!r}{suggest(fault, self.FAULTS)}")
        super().__init__(**kwargs)
        self.fault, self.size = fault, size

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Behave as ``Zero``, or fail as asked."""
        super().calculate(atoms, properties, system_changes)
        if self.fault == "wait":
            time.sleep(1)
        if self.fault == "wait" or len(self.atoms or ()) != self.size:
            return
        if self.fault == "exit":
            os._exit(3)
        if self.fault in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[self.fault])
        if self.fault == "memory":
            raise MemoryError("no memory left")
        if self.fault == "hang":
            time.sleep(3600)
        self.results["energy"] = float("nan")
