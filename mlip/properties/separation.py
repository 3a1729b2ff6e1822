"""Work of separation of a grain boundary: what it costs to part a cell into its two slabs."""

from dataclasses import replace

from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.properties.excess import (
    BulkReference,
    ExcessEnergy,
    Mode,
    bulk_reference,
    evaluate,
    excess,
    normal_axis,
)
from mlip.properties.relax import Protocol


def work_of_separation(
    cell: Atoms,
    slab: Atoms | BulkReference,
    calculator: Calculator,
    *,
    mode: Mode = "static",
    axis: str | None = None,
    protocol: Protocol | None = None,
) -> ExcessEnergy:
    """Return W = (2 E_slab − E_gb) / 2A of a cell with two boundaries and two grains, in J/m².

    Each grain is the slab, so that W = 2γ − σ and neither a bulk energy nor a chemical potential
    enters: cells of any composition will do. Static is a single point of both at the geometries
    given. Relaxed frees the atoms of both, and the height of the boundary cell along its normal.

    Args:
        cell: Periodic cell of two grains; not modified.
        slab: One of the grains with vacuum, or its reference computed before.
        calculator: Any ASE calculator with energy and forces, and stress if relaxed.
        mode: ``static`` or ``relaxed``.
        axis: Cell vector out of the boundary, ``a``, ``b`` or ``c``; None reads
            ``cell.info["normal_axis"]``.
        protocol: Thresholds of the relaxation.

    Raises:
        ValueError: If the cell does not hold exactly two of the slab, for a missing or wrong axis,
            or an unknown mode.
        NotConvergedError: If the relaxation used up its steps.
        ExplodedError: If the structure fell apart.
        NonFiniteError: If an energy or a force is not finite.
    """
    index = normal_axis(cell, axis)
    if isinstance(slab, Atoms):
        slab = bulk_reference(slab, calculator, mode, protocol)
    _check_two_grains(cell, slab.composition)
    parted = excess(evaluate(cell, calculator, mode, protocol, free_axis=index), slab, index)
    return replace(parted, value=0.0 - parted.value)  # no negative zero


def _check_two_grains(cell: Atoms, slab: dict[str, int]) -> None:
    found = {str(symbol): int(count) for symbol, count in cell.symbols.formula.count().items()}
    if found != {symbol: 2 * count for symbol, count in slab.items()}:
        written = "".join(f"{symbol}{count}" for symbol, count in slab.items())
        raise ValueError(
            f"the cell {cell.get_chemical_formula()} does not hold two slabs {written}: give the "
            "slab that each of its two grains is"
        )
