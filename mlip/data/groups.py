"""What belongs together and must not be split: material, composition, prototype, trajectory."""

from collections import Counter
from string import ascii_uppercase
from typing import Any

from mlip.data.frame import Frame
from mlip.errors import suggest

GROUPS = ("material", "composition", "prototype", "trajectory")
_INFO = {"material": "source_id", "trajectory": "trajectory_id"}
_SYMPREC = 0.1


def group_of(frame: Frame, by: str) -> str:
    """Return the name of the group that a frame belongs to.

    Args:
        frame: The frame.
        by: ``material`` (``source_id`` of the reader), ``trajectory`` (``trajectory_id``),
            ``composition`` (reduced formula), ``prototype`` (the ``prototype_label`` of the source,
            else anonymous formula and, for a crystal, the space group by spglib at 0.1 Å), or any
            info key.

    Raises:
        ValueError: If the frame does not say, naming it and what it does say.
    """
    if by == "composition":
        return frame.atoms.symbols.get_chemical_formula(mode="hill", empirical=True)
    if by == "prototype":
        return _prototype(frame)
    key = _INFO.get(by, by)
    if key not in frame.info:
        raise ValueError(
            f"{frame.source} has no {key!r}, so that frames cannot be grouped by {by}"
            f"{suggest(by, (*GROUPS, *map(str, frame.info)))}"
        )
    return str(frame.info[key])


def _prototype(frame: Frame) -> str:
    if label := frame.info.get("prototype_label"):
        return str(label)
    counts = sorted(Counter(frame.atoms.symbols.formula.reduce()[0].count()).items())
    amounts = sorted(amount for _, amount in counts)
    letters = [ascii_uppercase[k % 26] + "'" * (k // 26) for k in range(len(amounts))]
    formula = "".join(f"{x}{n}" for x, n in zip(letters, amounts, strict=True))
    if not frame.atoms.pbc.all():
        return formula
    import spglib

    cell: Any = (frame.atoms.cell.array, frame.atoms.get_scaled_positions(), frame.atoms.numbers)
    found = spglib.get_spacegroup(cell, symprec=_SYMPREC)
    return f"{formula}#{found.rpartition('(')[2].rstrip(')') if found else 'unknown'}"
