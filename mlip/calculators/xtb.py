"""GFN2-xTB through tblite: energies, forces, stress, charges and dipole without a licence."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes

from mlip.calculators.charge import CHARGE_KEYS, stated_charge
from mlip.errors import suggest

METHODS = ("GFN2-xTB", "GFN1-xTB")
MULTIPLICITY_KEYS = ("multiplicity", "spin_multiplicity")


class XTB(Calculator):
    """Extended tight binding (Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019)).

    The total charge is read from ``atoms.info["total_charge"]`` (e), the multiplicity from
    ``atoms.info["multiplicity"]``; without it the lowest that the number of electrons allows.
    Charges are Mulliken's, the dipole is in e·Å about the origin. Every calculation starts from
    the same guess, so that a result does not depend on what was computed before. One thread is
    used unless ``OMP_NUM_THREADS`` says otherwise.

    Args:
        method: ``GFN2-xTB`` or ``GFN1-xTB``.
        charge: Total charge (e) of structures that state none; None refuses them.
        accuracy: Accuracy of tblite: 1 is its default, smaller is tighter.
        electronic_temperature: Of the Fermi smearing, K.
        max_iterations: Limit of the self-consistent cycles.

    Raises:
        ValueError: For an unknown method; on calculation, if the total charge is not stated or
            not a whole number, or the multiplicity does not fit the number of electrons.
        ModuleNotFoundError: If the package tblite is not installed, with the command for it.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]

    def __init__(
        self,
        method: str = "GFN2-xTB",
        charge: int | None = None,
        accuracy: float = 0.1,
        electronic_temperature: float = 300.0,
        max_iterations: int = 250,
        **kwargs: Any,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r} of xTB{suggest(method, METHODS)}")
        if find_spec("tblite") is None:
            raise ModuleNotFoundError(
                "the calculator gfn2_xtb needs the package tblite: pip install 'mlip-suite[xtb]'",
                name="tblite",
            )
        # tblite reads it when it is loaded. Threads cost more than they bring below 100 atoms.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        super().__init__(**kwargs)
        self.charge = charge
        self.settings = {
            "method": method,
            "accuracy": accuracy,
            "electronic_temperature": electronic_temperature,
            "max_iterations": max_iterations,
        }

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed; ASE does not look at ``info``, where the charge is."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None and _state(self.atoms) != _state(atoms):
            changes = [*changes, "initial_charges"]
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute every property at once.

        Raises:
            ValueError: For a missing or impossible charge or multiplicity.
            CalculatorError: If the cycles do not converge.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise ValueError("XTB has no structure: give it atoms")
        from tblite.ase import TBLite

        charge = total_charge(self.atoms, self.charge)
        structure = self.atoms.copy()
        inner = TBLite(
            **self.settings,
            charge=charge,
            multiplicity=multiplicity(structure, charge),
            verbosity=0,
        )
        inner.calculate(structure, ["energy"], all_changes)
        offered = (*self.implemented_properties,)
        self.results = {name: inner.results[name] for name in offered if name in inner.results}
        if not np.isfinite(self.results["energy"]):
            raise CalculatorError(f"xTB gives the energy {self.results['energy']}")


def total_charge(atoms: Atoms, default: int | None = None) -> int:
    """Return the total charge (e) that a structure states in its ``info``, else ``default``.

    Raises:
        ValueError: If neither says it, or it is not a whole number.
    """
    stated = stated_charge(atoms, default)
    if abs(stated - round(stated)) > 1e-6:
        raise ValueError(
            f"total_charge of {atoms.get_chemical_formula()} is {stated}: xTB takes whole "
            "electrons only; correct it"
        )
    return round(stated)


def multiplicity(atoms: Atoms, charge: int) -> int:
    """Return 2S+1: what the structure states, else the lowest for its number of electrons.

    Raises:
        ValueError: If the stated one is impossible.
    """
    electrons = int(atoms.numbers.sum()) - charge
    lowest = 1 + electrons % 2
    stated = next((atoms.info[key] for key in MULTIPLICITY_KEYS if key in atoms.info), lowest)
    if int(stated) < 1 or (int(stated) - lowest) % 2:
        raise ValueError(
            f"multiplicity of {atoms.get_chemical_formula()} with charge {charge:+d} is {stated}, "
            f"which {electrons} electrons cannot have; give {lowest}, {lowest + 2}, ..."
        )
    return int(stated)


def _state(atoms: Atoms) -> tuple[Any, ...]:
    return tuple(atoms.info.get(key) for key in (*CHARGE_KEYS, *MULTIPLICITY_KEYS))
