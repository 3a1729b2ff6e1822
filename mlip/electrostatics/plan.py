"""From a batch of structures to the plan of their Coulomb sums, each by its boundary conditions."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mlip.electrostatics.direct import plan_direct
from mlip.electrostatics.ewald import plan_ewald
from mlip.electrostatics.operator import CoulombOperator, CoulombPlan
from mlip.electrostatics.pme import plan_pme
from mlip.electrostatics.system import ChargedSystem, MadeFor
from mlip.electrostatics.tuning import require_tolerance
from mlip.electrostatics.wave_mesh import plan_wave_mesh, wide_and_few
from mlip.electrostatics.waves import plan_waves, wave_counts
from mlip.errors import StructureError, suggest

METHODS = ("auto", "direct", "waves", "wave_mesh", "ewald", "pme")
MESH_ATOMS = 1000
"""Structures with more atoms are summed on a mesh: from here on it is the faster one."""

MOST_WAVES = 4000
"""Smaller periodic structures are summed over waves alone if these are not more: wide Gaussians."""

PORTION = 1000
"""Atoms of small structures that are computed together on a processor."""


def plan_coulomb(
    system: ChargedSystem, tolerance: float = 1e-6, method: str = "auto", skin: float = 0.0
) -> CoulombPlan:
    """Plan the Coulomb sums of a batch of open structures, slabs and periodic structures.

    Open structures are summed directly; slabs and periodic ones by Ewald or, if large, on a mesh.
    Periodic structures of wide Gaussians need no real space, and a few waves do.

    Args:
        system: The structures; nothing of them is differentiated.
        tolerance: Error of forces, eV/Å, and of energies per atom, eV, for charges of 1 e; errors
            grow with the square of the charges.
        method: ``auto``, or ``ewald`` or ``pme`` for slabs and periodic structures of any size, or
            ``waves`` or ``wave_mesh`` for periodic ones; open structures are summed directly.
        skin: How much farther than needed pairs are listed, Å: the plan holds while no atom has
            moved by more than half of it. A plan does not notice when they have: its sums are then
            wrong, so plan again for structures that changed.

    Raises:
        ValueError: For an unknown method, impossible tolerance or negative skin, a structure with
            one periodic direction or without atoms, coordinates that are not finite, negative
            widths, overlapping atoms, a batch that is not sorted, a cell without volume, or a slab
            that does not fit its cell.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}{suggest(method, METHODS)}")
    require_tolerance(tolerance)
    if not 0 <= skin < math.inf:
        raise ValueError(
            f"skin is {skin}: give a finite length in Å, 0 to list no more than needed"
        )
    system = system.detach().double()
    _require_sound(system)
    kinds = _kinds(system, method, tolerance)
    parts = []
    for kind in kinds.unique().tolist():
        for graphs in _portions(system, torch.nonzero(kinds == kind)[:, 0]):
            part = Part.of(system, graphs)
            try:
                own = _plan(part.take(system), METHODS[kind], tolerance, skin)
            except StructureError as error:
                raise StructureError(int(graphs[error.index]), error.problem) from None
            parts.append((part, own))
    return parts[0][1] if len(parts) == 1 else MixedPlan(tuple(parts), MadeFor.of(system))


def _kinds(system: ChargedSystem, method: str, tolerance: float) -> Int[Tensor, " graphs"]:
    """Return how each structure is summed, an index into ``METHODS``."""
    if method == "direct":
        return torch.full_like(system.pbc[:, 0], METHODS.index("direct"), dtype=torch.long)
    periodic = torch.full_like(system.pbc[:, 0], METHODS.index(method), dtype=torch.long)
    if method == "auto":
        large = torch.bincount(system.batch, minlength=system.graphs) > MESH_ATOMS
        periodic = torch.where(large, METHODS.index("pme"), METHODS.index("ewald"))
        few = ~large & system.pbc.all(1) & _few_waves(system, tolerance)
        periodic = torch.where(few, METHODS.index("waves"), periodic)
        if large.any():
            suits = large & torch.as_tensor(wide_and_few(system), device=large.device)
            periodic = torch.where(suits, METHODS.index("wave_mesh"), periodic)
    return torch.where(system.pbc.any(1), periodic, METHODS.index("direct"))


def _few_waves(system: ChargedSystem, tolerance: float) -> Bool[Tensor, " graphs"]:
    whole = torch.nonzero(system.pbc.all(1))[:, 0]
    few = torch.zeros_like(system.pbc[:, 0])
    if len(whole):
        counts = wave_counts(Part.of(system, whole).take(system), tolerance)
        few[whole] = torch.as_tensor(counts <= MOST_WAVES, device=few.device)
    return few


def _portions(
    system: ChargedSystem, graphs: Int[Tensor, " chosen"]
) -> tuple[Int[Tensor, " portion"], ...]:
    """Divide structures so that what is computed together stays in the cache of a processor."""
    if system.positions.device.type != "cpu":
        return (graphs,)
    counts = torch.bincount(system.batch, minlength=system.graphs)[graphs]
    portion = (counts.cumsum(0) - counts) // PORTION
    return graphs.split(portion.unique_consecutive(return_counts=True)[1].tolist())


def _plan(system: ChargedSystem, method: str, tolerance: float, skin: float) -> CoulombPlan:
    if method == "direct":
        return plan_direct(system)
    if method in ("waves", "wave_mesh"):
        return (plan_waves if method == "waves" else plan_wave_mesh)(system, tolerance)
    return (plan_pme if method == "pme" else plan_ewald)(system, tolerance, skin)


@dataclass(frozen=True)
class Part:
    """Some structures of a batch.

    Args:
        graphs: (chosen,) which structures.
        atoms: (members,) their atoms.
        batch: (members,) structure of each atom, counted among the chosen.
    """

    graphs: Int[Tensor, " chosen"]
    atoms: Int[Tensor, " members"]
    batch: Int[Tensor, " members"]

    @classmethod
    def of(cls, system: ChargedSystem, graphs: Int[Tensor, " chosen"]) -> "Part":
        """Return the part of a batch that holds these structures, in rising order."""
        number = torch.full_like(system.pbc[:, 0], -1, dtype=torch.long)
        number[graphs] = torch.arange(graphs.shape[0], device=graphs.device)
        batch = number[system.batch]
        atoms = torch.nonzero(batch >= 0)[:, 0]
        return cls(graphs, atoms, batch[atoms])

    def take(self, system: ChargedSystem) -> ChargedSystem:
        """Return these structures as a system, differentiable in the whole one."""
        return ChargedSystem(
            positions=system.positions.index_select(0, self.atoms),
            cell=system.cell.index_select(0, self.graphs),
            pbc=system.pbc[self.graphs],
            batch=self.batch,
            widths=system.widths.index_select(0, self.atoms),
        )


@dataclass(frozen=True)
class MixedPlan:
    """Plans of the parts of a batch with different boundary conditions."""

    parts: tuple[tuple[Part, CoulombPlan], ...]
    made_for: MadeFor

    def operator(self, system: ChargedSystem) -> "MixedOperator":
        """Return the matrix of the whole batch."""
        self.made_for.require(system)
        return MixedOperator(
            [(part, plan.operator(part.take(system))) for part, plan in self.parts], system
        )


class MixedOperator:
    """The block-diagonal matrix of parts with different boundary conditions."""

    def __init__(self, parts: list[tuple[Part, CoulombOperator]], system: ChargedSystem) -> None:
        self.parts = parts
        self.atoms, self.graphs = system.atoms, system.graphs

    def potential(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """Return ``A q``, V."""
        return self._join(
            [operator.potential(charges.index_select(0, p.atoms)) for p, operator in self.parts]
        )

    def energies(self, charges: Float[Tensor, " atoms"]) -> Float[Tensor, " graphs"]:
        """Return ``½ qᵀ A q`` of each structure, eV."""
        result = charges.new_zeros(self.graphs)
        for part, operator in self.parts:
            own = operator.energies(charges.index_select(0, part.atoms))
            result = result.index_add(0, part.graphs, own)
        return result

    def diagonal(self) -> Float[Tensor, " atoms"]:
        """Return the diagonal of A, eV/e²."""
        return self._join([operator.diagonal() for _, operator in self.parts])

    def matrix(self) -> Float[Tensor, "graphs size size"]:
        """Return A of each structure, padded with zeros, eV/e²."""
        each = [operator.matrix() for _, operator in self.parts]
        size = max(own.shape[1] for own in each)
        result = each[0].new_zeros(self.graphs, size, size)
        for (part, _), own in zip(self.parts, each, strict=True):
            free = size - own.shape[1]
            result = result.index_add(0, part.graphs, pad(own, (0, free, 0, free)))
        return result

    def _join(self, values: list[Tensor]) -> Float[Tensor, " atoms"]:
        result = values[0].new_zeros(self.atoms)
        for (part, _), value in zip(self.parts, values, strict=True):
            result = result.index_add(0, part.atoms, value)
        return result


def _require_sound(system: ChargedSystem) -> None:
    if (system.batch.diff() < 0).any():
        raise ValueError("batch is not sorted: put the atoms of each structure side by side")
    counts = torch.bincount(system.batch, minlength=system.graphs)
    if (counts == 0).any():
        raise StructureError(int((counts == 0).long().argmax()), "it has no atoms; leave it out")
    one = system.pbc.sum(1) == 1
    if one.any():
        raise StructureError(
            int(one.long().argmax()),
            "it is periodic in one direction only, and wires are not supported; set pbc in two "
            "(slab) or three directions and leave vacuum around it, or in none",
        )
    _require_cells(system)
    for name, values in (("position", system.positions), ("width", system.widths)):
        bad = ~torch.isfinite(values).reshape(system.atoms, -1).all(1)
        if name == "width":
            bad |= values < 0
        if bad.any():
            atom = int(bad.long().argmax())
            graph = int(system.batch[atom])
            local = atom - int((system.batch < graph).sum())
            raise StructureError(
                graph,
                f"the {name} of atom {local} is {values[atom].tolist()} Å; it must be finite"
                + (" and not negative" if name == "width" else ""),
            )


def _require_cells(system: ChargedSystem) -> None:
    """Refuse cells without volume, for slabs without area."""
    used = torch.where(system.pbc[:, :, None], system.cell, 0.0)
    cross = torch.linalg.cross(used, used.roll(-1, 1))
    area = cross.square().sum((1, 2)).sqrt()
    volume = torch.linalg.det(system.cell).abs()
    measure = torch.where(system.pbc.all(1), volume, area)
    bad = system.pbc.any(1) & ~(torch.isfinite(used).all(-1).all(-1) & (measure > 1e-6))
    if bad.any():
        graph = int(bad.long().argmax())
        raise StructureError(
            graph,
            f"pbc is {system.pbc[graph].tolist()} and the cell is {system.cell[graph].tolist()} Å, "
            "which has no volume (a slab: no area) or is not finite; set the periodic lattice "
            "vectors, or pbc to False",
        )
