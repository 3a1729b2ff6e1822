"""Surface energies of symmetric, stoichiometric slabs."""

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


def surface_energy(
    slab: Atoms,
    bulk: Atoms | BulkReference,
    calculator: Calculator,
    *,
    mode: Mode = "static",
    axis: str | None = None,
    protocol: Protocol | None = None,
) -> ExcessEnergy:
    """Return γ = (E_slab − N·e_bulk) / 2A of a slab with two equivalent faces, in J/m².

    Static is a single point of slab and bulk at the geometries given. Relaxed frees all atoms of
    both at fixed cells (Tran et al., Sci. Data 3, 160080 (2016), eq. 1, at the reference lattice).

    Args:
        slab: Slab with vacuum, stoichiometric; not modified.
        bulk: Bulk cell at the lattice the slab was cut from, or its reference computed before.
        calculator: Any ASE calculator with energy and forces.
        mode: ``static`` or ``relaxed``.
        axis: Cell vector out of the surface, ``a``, ``b`` or ``c``; None reads
            ``slab.info["normal_axis"]``.
        protocol: Thresholds of the relaxation.

    Raises:
        ValueError: For a slab that is no multiple of the bulk formula, a missing or wrong axis,
            or an unknown mode.
        NotConvergedError: If the relaxation used up its steps.
        ExplodedError: If the structure fell apart.
        NonFiniteError: If an energy or a force is not finite.
    """
    index = normal_axis(slab, axis)
    if isinstance(bulk, Atoms):
        bulk = bulk_reference(bulk, calculator, mode, protocol)
    check_stoichiometry(slab, bulk.composition)
    return excess(evaluate(slab, calculator, mode, protocol), bulk, index)
