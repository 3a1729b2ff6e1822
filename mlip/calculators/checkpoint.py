"""ASE calculator of an mlip checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes, all_properties
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.calculators.charge import CHARGE_KEYS, stated_charge
from mlip.calculators.trajectory import Trajectory
from mlip.graph import AtomGraph, Surroundings, collate, from_atoms
from mlip.keys import FIELDS
from mlip.models.checkpoint import fingerprint
from mlip.models.loading import load, weights_file
from mlip.models.potential import BORN, Potential
from mlip.runtime import best_device

ELECTRODE = "electrode_potential"
"""Array of the potentials of electrodes, V, NaN for other atoms."""


class MlipCalculator(Calculator):
    """Energy, forces, stress, per-atom energies and what the heads give.

    Args:
        path: Checkpoint, such as ``runs/demo/best.safetensors``, a MACE ``.model`` file, or
            the name of a published model such as ``chgnet_0_3_0`` or ``sevennet_0``.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` (a GPU if there is one).
        head: Which head of a multi-head MACE model.
        batch_atoms: Largest number of atoms evaluated at once by :meth:`predict`.
        charge: Total charge, e, of structures that state none in ``info["total_charge"]``; None
            leaves it to the checkpoint, which refuses them unless it was trained with
            ``model.neutral=true``. Potentials without charges do not read it.
        field: External electric field, V/Å, in directions that are not periodic.
        skin: Of potentials with charges: pairs of the Coulomb sums are kept while no atom has moved
            by half of it, Å.
        residual: To which the charges of large structures are solved, relative; the error of the
            energy is of its square.

    Potentials with charges give ``charges`` (e), ``potentials`` (V) and ``charge_energies`` (eV) of
    the atoms. Their solves start from the charges of the steps before. Atoms with a finite value in
    ``atoms.arrays["electrode_potential"]`` (V) are held at it: they exchange charge with a
    reservoir, and the energy is the grand potential; in a slab it is a voltage against the rest,
    and the total charge stays.

    Raises:
        ValueError: If the checkpoint is damaged or of another format.
        UnsupportedElementError: On calculation, for an element it was not trained on.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energies",
    ]

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        head: str | None = None,
        batch_atoms: int = 1000,
        charge: float | None = None,
        field: Sequence[float] | None = None,
        skin: float = 1.0,
        residual: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if device == "auto":
            device = best_device()
        self.path = Path(path)
        self.potential: Potential = load(path, device, head)
        self.checkpoint_hash = fingerprint(weights_file(path))
        self.batch_atoms, self.charge, self.field = batch_atoms, charge, field
        charged = self.potential.charge_head
        if charged is None and field is not None:
            raise ValueError(f"field is {field}, but {path} has no charges to act on: leave it out")
        if charged is not None:
            charged.solve_to(residual)
        self.trajectory = None if charged is None else Trajectory(skin, charged.tolerance)
        self.derived = tuple(name for name in (BORN,) if name in self.potential.outputs)
        self.supported_elements = set(self.potential.elements)
        offered = [name for name in self.potential.outputs if name in all_properties]
        self.implemented_properties = list(  # type: ignore[misc]  of this potential, not the class
            dict.fromkeys([*type(self).implemented_properties, *offered])
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute every property at once; ASE calls this when positions, cell or atoms change."""
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None or len(self.atoms) == 0:
            raise ValueError("a structure has no atoms: nothing can be computed for it")
        self.results = self._evaluate([self.atoms], (), self.trajectory)[0]
        if self.trajectory is not None:
            self.trajectory.charges.add(torch.as_tensor(self.results["charges"]))
        if "stress" in self.results:
            self.results["stress"] = full_3x3_to_voigt_6_stress(self.results["stress"])
        self.results["free_energy"] = self.results["energy"]

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed; ASE does not look at what a structure states beside its atoms."""
        changes = super().check_state(atoms, tol)
        if self.trajectory is not None and self.atoms is not None:
            old, new = _stated(self.atoms), _stated(atoms)
            if len(old) != len(new) or not all(map(np.array_equal, old, new)):
                changes = [*changes, "initial_charges"]
        return changes

    def predict(
        self, structures: Sequence[Atoms], also: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Evaluate many structures in batches.

        Args:
            structures: The structures.
            also: What else is computed: any of ``derived`` (Born effective charges).

        Returns:
            For each structure ``energy`` (eV), ``energies`` (atoms,), ``forces`` (atoms, 3) eV/Å,
            ``stress`` (3, 3) eV/Å³ where the cell has a volume, and the outputs of other heads.
        """
        if any(len(atoms) == 0 for atoms in structures):
            raise ValueError("a structure has no atoms: nothing can be computed for it")
        results: list[dict[str, Any]] = []
        for group in self._groups(structures):
            results += self._evaluate(group, also)
        return results

    def _groups(self, structures: Sequence[Atoms]) -> list[list[Atoms]]:
        groups: list[list[Atoms]] = []
        size = 0
        for atoms in structures:
            if not groups or size + len(atoms) > self.batch_atoms:
                groups.append([])
                size = 0
            groups[-1].append(atoms)
            size += len(atoms)
        return groups

    def _evaluate(
        self,
        structures: Sequence[Atoms],
        also: Sequence[str],
        trajectory: Trajectory | None = None,
    ) -> list[dict[str, Any]]:
        potential = self.potential
        graphs = [from_atoms(atoms, potential.r_max) for atoms in structures]
        batch = collate(graphs).to(potential.device)
        around = None
        if potential.inputs:
            around = self._surroundings(structures, batch, trajectory)
        outputs = potential(batch, ("energy", "forces", "stress", *also), surroundings=around)
        ends = np.cumsum([len(atoms) for atoms in structures])
        rows: list[dict[str, Any]] = [{} for _ in structures]
        for name, value in outputs.items():
            array = value.cpu().numpy()
            per_atom = FIELDS[name].level == "atom"
            parts = np.split(array, ends[:-1]) if per_atom else array
            for row, part in zip(rows, parts, strict=True):
                row[name] = part if np.ndim(part) else float(part)
        for row, atoms in zip(rows, structures, strict=True):
            if atoms.cell.rank < 3:
                del row["stress"]
        return rows

    def _surroundings(
        self, structures: Sequence[Atoms], batch: AtomGraph, trajectory: Trajectory | None
    ) -> Surroundings:
        """Return what the structures state, with the plan and charges of the steps before."""
        like = batch.positions
        charges = [
            stated_charge(atoms, self.charge)
            if self.charge is not None or _states(atoms)
            else np.nan
            for atoms in structures
        ]
        spins = [float(atoms.info.get("spin", np.nan)) for atoms in structures]
        held = np.concatenate(
            [atoms.arrays.get(ELECTRODE, np.full(len(atoms), np.nan)) for atoms in structures]
        )
        around = Surroundings(
            total_charge=like.new_tensor(charges),
            spin=like.new_tensor(spins),
            field=None if self.field is None else like.new_tensor([self.field] * len(structures)),
            electrode=like.new_tensor(held) if np.isfinite(held).any() else None,
        )
        head = self.potential.charge_head
        if trajectory is None or head is None:
            return around
        plan = trajectory.plan(head.bare_system(batch, self.potential.species))
        guess = trajectory.guess()
        return replace(around, plan=plan, guess=None if guess is None else guess.to(like.device))


def _states(atoms: Atoms) -> bool:
    return any(key in atoms.info for key in CHARGE_KEYS)


def _stated(atoms: Atoms) -> list[np.ndarray]:
    """Return what a structure states beside its atoms, as arrays to compare."""
    infos = [str(atoms.info.get(key)) for key in (*CHARGE_KEYS, "spin")]
    held = np.nan_to_num(atoms.arrays.get(ELECTRODE, np.zeros(0)), nan=-1e300)
    return [np.array(infos), held]
