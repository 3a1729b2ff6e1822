"""Charge equilibration with one electronegativity and one hardness for each element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from mlip.calculators.charge import CHARGE_KEYS, stated_charge
from mlip.calculators.trajectory import Trajectory
from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import Equilibrium, Settings, equilibrate
from mlip.electrostatics.operator import CoulombPlan
from mlip.electrostatics.parameters import split_hardness
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import ChargedSystem, system_of
from mlip.errors import UnsupportedElementError, suggest


class QEq(Calculator):
    """Charges that minimise the electrostatic energy (Rappé, Goddard, J. Phys. Chem. 95, 3358).

    The energy ``½ qᵀ A q + Σ χ q + ½ J q²`` of Gaussian charges has neither bonds nor repulsion:
    it is for charges, and to test the solver, not for relaxations. Charges flow between fragments
    however distant (NaCl at 50 Å keeps 0.4 e), as they do in any charge equilibration without
    fragments.

    The total charge is read from ``atoms.info["total_charge"]`` (e). The dipole is in e·Å about
    the origin; of a slab only its component along the normal has a meaning, and structures with
    three periodic directions have none. The stress is that of structures with a cell. Energies and
    charges of consecutive steps of large structures start from those before, and depend on them
    within ``residual``.

    Args:
        elements: Electronegativity χ (V) and hardness (eV/e²) of each symbol. The hardness is the
            whole diagonal of the matrix, the self energy of the Gaussian included.
        charge: Total charge (e) of structures that state none; None refuses them.
        gaussian_share: Part of the hardness that is the self energy ``k_e/(σ√π)`` of the Gaussian,
            between 0 and 1; it sets the widths σ. Larger ones make charges of crystals softer.
        tolerance: Of the Coulomb sums, as :func:`mlip.electrostatics.plan.plan_coulomb` has it.
        residual: Of the charges of large structures, relative.
        skin: Pairs are kept while no atom has moved by half of it, Å.

    Raises:
        ValueError: For a hardness, share or residual that is not a positive number; on calculation,
            if the total charge is not stated.
        UnsupportedElementError: On calculation, for an element without parameters.
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
        elements: Mapping[str, Sequence[float]],
        charge: float | None = None,
        gaussian_share: float = 0.5,
        tolerance: float = 1e-6,
        residual: float = 1e-8,
        skin: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.elements = _elements(elements, gaussian_share)
        self.supported_elements = set(self.elements)
        if charge is not None and not np.isfinite(charge):
            raise ValueError(f"charge is {charge}: give a finite number of e, or None")
        if not 0 <= skin < np.inf:
            raise ValueError(f"skin is {skin}: give a length in Å, 0 or more")
        self.charge = charge
        self.tolerance = tolerance
        self.settings = Settings(tolerance=residual)
        self._trajectory = Trajectory(skin, tolerance)
        self.iterations = 0

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed; ASE does not look at ``info``, where the charge is."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None and _stated(self.atoms) != _stated(atoms):
            changes = [*changes, "initial_charges"]
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute every property at once.

        Raises:
            ValueError: For a missing charge or a structure that cannot be summed.
            UnsupportedElementError: For an element without parameters.
            RuntimeError: If the charges do not converge.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise ValueError("QEq has no structure: give it atoms")
        system = self._system([self.atoms])
        kept = self._trajectory
        plan = kept.plan(system)
        self.results = self._evaluate([self.atoms], system, plan, kept.guess())[0]
        kept.charges.add(torch.as_tensor(self.results["charges"]))
        if "stress" in properties and "stress" not in self.results:
            raise PropertyNotImplementedError(
                "stress is energy by volume, and this cell has none: give the structure three "
                "cell vectors, that of an open direction too"
            )
        if "stress" in self.results:
            self.results["stress"] = full_3x3_to_voigt_6_stress(self.results["stress"])

    def predict(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Evaluate structures as one batch, none with the charges of another.

        Returns:
            For each structure what ``implemented_properties`` names; the stress is (3, 3), eV/Å³.
        """
        system = self._system(structures)
        plan = plan_coulomb(system, self.tolerance)
        return self._evaluate(structures, system, plan, None)

    def _system(self, structures: Sequence[Atoms]) -> ChargedSystem:
        for atoms in structures:
            if unknown := sorted(set(atoms.symbols) - self.supported_elements):
                raise UnsupportedElementError(
                    f"{atoms.get_chemical_formula()}: no electronegativity and hardness of "
                    f"{', '.join(unknown)}; known: {', '.join(self.elements)}. Add others under "
                    "calculator.build.elements, as symbol: [χ (V), hardness (eV/e²)]"
                )
        widths = [[self.elements[symbol].width for symbol in atoms.symbols] for atoms in structures]
        return system_of(structures, widths)

    def _evaluate(
        self,
        structures: Sequence[Atoms],
        system: ChargedSystem,
        plan: CoulombPlan,
        guess: Tensor | None,
    ) -> list[dict[str, Any]]:
        symbols = [symbol for atoms in structures for symbol in atoms.symbols]
        charges = [stated_charge(atoms, self.charge) for atoms in structures]
        strain = torch.zeros_like(system.cell).requires_grad_()
        positions = system.positions.clone().requires_grad_()
        found = equilibrate(
            plan,
            _strained(system, positions, strain),
            _tensor([self.elements[symbol].electronegativity for symbol in symbols]),
            _tensor([self.elements[symbol].hardness for symbol in symbols]),
            total_charge(system, _tensor(charges)),
            self.settings,
            guess,
        )
        self.iterations = int(found.iterations.max())
        slopes = torch.autograd.grad(found.energies.sum(), (positions, strain))
        return _rows(structures, system, found, *slopes)


@dataclass(frozen=True)
class _Element:
    """χ (V), J beyond the Gaussian (eV/e²) and σ (Å)."""

    electronegativity: float
    hardness: float
    width: float


def _elements(table: Mapping[str, Sequence[float]], gaussian_share: float) -> dict[str, _Element]:
    from ase.data import chemical_symbols

    elements = {}
    for symbol, values in table.items():
        if symbol not in chemical_symbols[1:]:
            known = chemical_symbols[1:]
            raise ValueError(f"elements name {symbol!r}, which is none{suggest(symbol, known)}")
        values = np.atleast_1d(values)
        if len(values) != 2 or not np.isfinite(values).all() or values[1] <= 0:
            raise ValueError(
                f"{symbol} has the parameters {list(values)}: give its electronegativity (V) and "
                "its hardness (eV/e²), the latter positive"
            )
        hardness, width = split_hardness(_tensor([float(values[1])]), gaussian_share)
        elements[symbol] = _Element(float(values[0]), float(hardness), float(width))
    return elements


def _strained(system: ChargedSystem, positions: Tensor, strain: Tensor) -> ChargedSystem:
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    moved = torch.einsum("ai,aij->aj", positions, symmetric[system.batch])
    return replace(system, positions=positions + moved, cell=system.cell + system.cell @ symmetric)


def _rows(
    structures: Sequence[Atoms],
    system: ChargedSystem,
    found: Equilibrium,
    slopes: Tensor,
    virial: Tensor,
) -> list[dict[str, Any]]:
    ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
    energies = found.energies.detach().numpy()
    charges = np.split(found.charges.detach().numpy(), ends)
    forces = np.split(-slopes.numpy(), ends)
    rows = []
    for index, atoms in enumerate(structures):
        energy = float(energies[index])
        row = {"energy": energy, "free_energy": energy}
        row |= {"forces": forces[index], "charges": charges[index]}
        if not atoms.pbc.all():
            row["dipole"] = charges[index] @ atoms.positions
        if atoms.cell.rank == 3:
            periodic = float(atoms.pbc.any())
            row["stress"] = periodic * virial[index].numpy() / atoms.get_volume()
        rows.append(row)
    return rows


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _stated(atoms: Atoms) -> tuple[Any, ...]:
    return tuple(atoms.info.get(key) for key in CHARGE_KEYS)
