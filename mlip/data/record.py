"""A record: one structure as the file gives it, before keys and units are interpreted."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class Record:
    """What a reader found, untouched.

    Args:
        atoms: Numbers, positions (Å), cell (Å) and pbc; no calculator and no other array.
        info: Values of the whole structure by source key.
        arrays: Values of each atom by source key, first dimension atoms.
        source: File and index, ``path#12`` (the first record is 0).
        constrained: (atoms, 3); True where the source holds a component fixed, so that its force
            says nothing. None when nothing is fixed.
    """

    atoms: Atoms
    info: dict[str, Any]
    arrays: dict[str, np.ndarray]
    source: str
    constrained: np.ndarray | None = field(default=None)
