"""A frame: one structure, its labels in internal units, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class Frame:
    """One labelled structure.

    Args:
        atoms: The structure only; no calculator, no arrays beside numbers, positions, cell, pbc.
        labels: Known labels by the names of ``mlip.keys.FIELDS``, in internal units: ``energy`` a
            scalar, ``forces`` (atoms, 3), ``stress`` (3, 3). An absent label is an absent key;
            a force component that must not be learnt from is NaN.
        source: File and index, ``path#12``; what an error message names.
        info: Anything else the source says (group, description, functional, ids).
    """

    atoms: Atoms
    labels: Mapping[str, np.ndarray]
    source: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.atoms)
