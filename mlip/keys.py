"""The one table of every field: its level, shape and unit."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Field:
    """One named quantity.

    Args:
        level: ``graph`` (one a structure), ``atom`` (one an atom) or ``edge``.
        shape: Shape of one item, without the leading dimension.
        unit: Internal unit; the empty string for pure numbers.
        description: What it is, sign convention included.
    """

    level: Literal["graph", "atom", "edge"]
    shape: tuple[int, ...]
    unit: str
    description: str


FIELDS: dict[str, Field] = {
    "positions": Field("atom", (3,), "Å", "Cartesian positions"),
    "atomic_numbers": Field("atom", (), "", "element of each atom"),
    "cell": Field(
        "graph", (3, 3), "Å", "rows are the lattice vectors; zero rows where not periodic"
    ),
    "pbc": Field("graph", (3,), "", "periodic along each lattice vector"),
    "energy": Field("graph", (), "eV", "total potential energy"),
    "energies": Field("atom", (), "eV", "energy of each atom; sums to the total energy"),
    "forces": Field("atom", (3,), "eV/Å", "minus the gradient of the energy"),
    "direct_forces": Field("atom", (3,), "eV/Å", "of a head, no gradient; helps a training only"),
    "stress": Field("graph", (3, 3), "eV/Å³", "virial stress, positive in tension (ASE sign)"),
    "charges": Field("atom", (), "e", "partial charges"),
    "potentials": Field("atom", (), "V", "electrostatic, its own Gaussian charge included"),
    "charge_energies": Field("atom", (), "eV", "of the charges; part of the energies"),
    "electronegativities": Field("atom", (), "V", "what draws charge to an atom, of 4G potentials"),
    "total_charge": Field("graph", (), "e", "net charge of the structure"),
    "spin": Field("graph", (), "", "number of unpaired electrons"),
    "magmoms": Field("atom", (), "μB", "magnetic moment of each atom"),
    "dipole": Field("graph", (3,), "e·Å", "dipole moment"),
    "born_effective_charges": Field("atom", (3, 3), "e", "dP_i/du_j of each atom"),
}

LABELS = (
    "energy",
    "forces",
    "stress",
    "charges",
    "total_charge",
    "spin",
    "magmoms",
    "dipole",
    "born_effective_charges",
)
"""Fields that a data set may give as labels to learn from."""
