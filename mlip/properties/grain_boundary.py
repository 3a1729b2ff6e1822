"""Grain-boundary energies of periodic cells with two equivalent boundaries."""

from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.properties.excess import (
    BulkReference,
    ExcessEnergy,
    Mode,
    bulk_reference,
    check_stoichiometry,
    evaluate,
    excess,
    normal_axis,
)
from mlip.properties.relax import Protocol


def grain_boundary_energy(
    cell: Atoms,
    bulk: Atoms | BulkReference,
    calculator: Calculator,
    *,
    mode: Mode = "static",
    axis: str | None = None,
    protocol: Protocol | None = None,
) -> ExcessEnergy:
    """Return σ = (E_gb − N·e_bulk) / 2A of a periodic cell with two boundaries, in J/m².

    Static is a single point at the geometry given. Relaxed frees all atoms and the height of the
    cell along the boundary normal; the in-plane vectors stay at the reference lattice, as those of
    the bulk do (Zheng et al., Acta Mater. 186, 40 (2020), eq. 1).

    Args:
        cell: Periodic cell, stoichiometric; not modified.
        bulk: Bulk cell at the reference lattice, or its reference computed before.
        calculator: Any ASE calculator with energy and forces, and stress if relaxed.
        mode: ``static`` or ``relaxed``.
        axis: Cell vector out of the boundary, ``a``, ``b`` or ``c``; None reads
            ``cell.info["normal_axis"]``.
        protocol: Thresholds of the relaxation.

    Raises:
        ValueError: For a cell that is no multiple of the bulk formula, a missing or wrong axis,
            or an unknown mode.
        NotConvergedError: If the relaxation used up its steps.
        ExplodedError: If the structure fell apart.
        NonFiniteError: If an energy or a force is not finite.
    """
    index = normal_axis(cell, axis)
    if isinstance(bulk, Atoms):
        bulk = bulk_reference(bulk, calculator, mode, protocol)
    check_stoichiometry(cell, bulk.composition)
    return excess(evaluate(cell, calculator, mode, protocol, free_axis=index), bulk, index)
