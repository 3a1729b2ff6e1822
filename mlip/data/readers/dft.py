"""What readers of DFT outputs share: options, and runs that did not converge or finish."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mlip.errors import suggest

UNCONVERGED = ("mark", "refuse")
UNFINISHED = ("refuse", "keep")


def require_choice(path: Path, option: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a value that an option does not have.

    Raises:
        ValueError: Naming file, option and near matches.
    """
    known = tuple(known)
    if value not in known:
        raise ValueError(
            f"{path}: {option} is {value!r}; known: {', '.join(known)}{suggest(str(value), known)}"
        )


def convergence(source: str, converged: bool, unconverged: str) -> dict[str, bool]:
    """Return what the info of a frame says of its electronic steps.

    Raises:
        ValueError: If they did not converge and ``unconverged`` is ``refuse``.
    """
    if not converged and unconverged == "refuse":
        raise ValueError(
            f"{source}: the electronic steps did not converge, so energy and forces are not to be "
            "learnt from; repeat the calculation with more steps or other mixing, or give "
            "options={unconverged: mark} and leave it out by mlip data select … where=converged"
        )
    return {"converged": converged}


def unfinished_run(path: Path, complete: int, missing: str, unfinished: str) -> None:
    """Refuse a file that ends before its run did, unless its complete steps are wanted.

    Args:
        path: The file.
        complete: Number of complete ionic steps in it.
        missing: The last line of a finished run.
        unfinished: ``refuse``, or ``keep`` to be content with the complete steps.

    Raises:
        ValueError: Naming the last complete step and how to keep the steps.
    """
    if unfinished == "keep" and complete:
        return
    last = f"its last complete ionic step is #{complete - 1}" if complete else "no step is complete"
    raise ValueError(
        f"{path} does not end with {missing!r}: the run did not finish or the file is truncated; "
        f"{last}. Finish the run or fetch the file again"
        + ("; to use the complete steps, give options={unfinished: keep}" if complete else "")
    )


def require_finite(source: str, values: dict[str, Any]) -> None:
    """Refuse numbers that are not finite, which VASP and others print where a run has failed.

    Raises:
        ValueError: Naming the step and the quantity.
    """
    for name, value in values.items():
        if value is not None and not np.isfinite(value).all():
            raise ValueError(
                f"{source}: {name} is not finite; the calculation failed at this step: repeat it"
            )


def masked(fixed: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
    """Return the fixed Cartesian components of lattice directions that are held fixed.

    A fixed lattice direction touches every Cartesian component unless the lattice vectors lie
    along the axes.

    Args:
        fixed: (atoms, 3), True where the atom may not move along a lattice vector.
        cell: (3, 3) lattice vectors as rows.

    Returns:
        (atoms, 3), or None if nothing is fixed.
    """
    if not fixed.any():
        return None
    along_axes = np.allclose(cell, np.diag(np.diag(cell)), atol=1e-8)
    held = np.any(fixed, axis=1, keepdims=True)
    return fixed.copy() if along_axes else np.broadcast_to(held, fixed.shape).copy()
