"""ASE calculator of an mlip checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes, all_properties
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.graph import collate, from_atoms
from mlip.keys import FIELDS
from mlip.models.checkpoint import fingerprint
from mlip.models.loading import load, weights_file
from mlip.models.potential import Potential
from mlip.runtime import best_device


class MlipCalculator(Calculator):
    """Energy, forces, stress, per-atom energies and what the heads give.

    Args:
        path: Checkpoint, such as ``runs/demo/best.safetensors``, a MACE ``.model`` file, or
            the name of a published model such as ``chgnet_0_3_0`` or ``sevennet_0``.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` (a GPU if there is one).
        head: Which head of a multi-head MACE model.
        batch_atoms: Largest number of atoms evaluated at once by :meth:`predict`.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if device == "auto":
            device = best_device()
        self.path = Path(path)
        self.potential: Potential = load(path, device, head)
        self.checkpoint_hash = fingerprint(weights_file(path))
        self.batch_atoms = batch_atoms
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
        self.results = self.predict([self.atoms])[0]  # type: ignore[list-item]
        if "stress" in self.results:
            self.results["stress"] = full_3x3_to_voigt_6_stress(self.results["stress"])
        self.results["free_energy"] = self.results["energy"]

    def predict(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Evaluate many structures in batches.

        Returns:
            For each structure ``energy`` (eV), ``energies`` (atoms,), ``forces`` (atoms, 3) eV/Å,
            ``stress`` (3, 3) eV/Å³ where the cell has a volume, and the outputs of other heads.
        """
        if any(len(atoms) == 0 for atoms in structures):
            raise ValueError("a structure has no atoms: nothing can be computed for it")
        results: list[dict[str, Any]] = []
        for group in self._groups(structures):
            results += self._evaluate(group)
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

    def _evaluate(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        r_max = self.potential.r_max
        batch = collate([from_atoms(atoms, r_max) for atoms in structures])
        outputs = self.potential(batch.to(self.potential.device))
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
