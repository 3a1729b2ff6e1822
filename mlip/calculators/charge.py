"""The total charge that a structure states about itself."""

import math

from ase import Atoms

CHARGE_KEYS = ("total_charge", "charge")


def stated_charge(atoms: Atoms, default: float | None = None) -> float:
    """Return the total charge (e) in the ``info`` of a structure, else ``default``.

    Raises:
        ValueError: If neither says it, it is not a finite number, or two keys differ.
    """
    found = {key: atoms.info[key] for key in CHARGE_KEYS if key in atoms.info}
    if len(set(map(str, found.values()))) > 1 and len(set(found.values())) > 1:
        told = " and ".join(f"{key} is {value!r}" for key, value in found.items())
        raise ValueError(f"in {atoms.get_chemical_formula()}, {told}: keep one of them")
    key, stated = next(iter(found.items()), ("the charge given to the calculator", default))
    if stated is None:
        raise ValueError(
            f"{atoms.get_chemical_formula()} states no total charge: put total_charge (e) in its "
            "info, or give calculator.build.charge=0 when every structure is neutral"
        )
    try:
        charge = float(stated)
    except (TypeError, ValueError):
        charge = math.nan
    if not math.isfinite(charge):
        raise ValueError(
            f"{key} of {atoms.get_chemical_formula()} is {stated!r}: give a finite number of e"
        )
    return charge
