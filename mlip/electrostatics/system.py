"""The structures that carry charges: positions, cells, boundary conditions and Gaussian widths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ChargedSystem:
    """A batch of structures whose atoms carry Gaussian charges.

    The density of atom i is ``q_i exp(-r²/2σ_i²) / (2πσ_i²)^(3/2)``; σ = 0 is a point charge.
    Any precision is taken, and summed in float64; positions, cell and widths may require gradients.

    Args:
        positions: (atoms, 3) Å; atoms may lie outside the cell.
        cell: (graphs, 3, 3) Å, rows are lattice vectors; rows of open directions may be zero.
        pbc: (graphs, 3) periodic directions: none (open), two (slab) or three.
        batch: (atoms,) structure of each atom, sorted.
        widths: (atoms,) σ, Å.
    """

    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "graphs 3 3"]
    pbc: Bool[Tensor, "graphs 3"]
    batch: Int[Tensor, " atoms"]
    widths: Float[Tensor, " atoms"]

    @property
    def atoms(self) -> int:
        """Number of atoms of all structures."""
        return self.positions.shape[0]

    @property
    def graphs(self) -> int:
        """Number of structures."""
        return self.cell.shape[0]

    def double(self) -> "ChargedSystem":
        """Return the same system in float64, differentiable in this one."""
        return replace(
            self,
            positions=self.positions.double(),
            cell=self.cell.double(),
            widths=self.widths.double(),
        )

    def detach(self) -> "ChargedSystem":
        """Return the same system outside any graph of derivatives."""
        return replace(
            self,
            positions=self.positions.detach(),
            cell=self.cell.detach(),
            widths=self.widths.detach(),
        )


@dataclass(frozen=True)
class MadeFor:
    """The batch that a plan was made for, by what must not change while the plan is used.

    Args:
        batch: (atoms,) structure of each atom.
        pbc: (graphs, 3) periodic directions.
        cell: (graphs, 3, 3) Å.
    """

    batch: Int[Tensor, " atoms"]
    pbc: Bool[Tensor, "graphs 3"]
    cell: Float[Tensor, "graphs 3 3"]

    @classmethod
    def of(cls, system: ChargedSystem) -> "MadeFor":
        """Return what to remember of a batch."""
        return cls(system.batch, system.pbc, system.cell.detach())

    def require(self, system: ChargedSystem) -> None:
        """Refuse another batch; a cell may be strained by a tenth.

        Raises:
            ValueError: Naming what differs.
        """
        differs = None
        if not torch.equal(self.batch, system.batch):
            differs = "other atoms"
        elif not torch.equal(self.pbc, system.pbc):
            differs = "other periodic directions"
        else:
            size = torch.linalg.vector_norm(self.cell, dim=2).amax(1)
            moved = (self.cell - system.cell.detach()).abs().amax((1, 2))
            if (moved > _STRAIN * size).any():
                differs = "another cell"
        if differs is not None:
            raise ValueError(
                f"the plan was made for a batch with {differs}: make one for this batch, "
                "plan_coulomb(system)"
            )


_STRAIN = 0.1  # of the longest vector of a cell, beyond which pairs and cutoffs no longer serve


def system_of(
    structures: Sequence[Atoms],
    widths: Sequence[Sequence[float] | np.ndarray],
    device: str | torch.device = "cpu",
) -> ChargedSystem:
    """Return a batch of ASE structures as one system.

    Args:
        structures: Structures; they are not modified.
        widths: σ of the atoms of each structure, Å.
        device: Where the tensors live.

    Raises:
        ValueError: If a structure has no atoms, or widths do not match it.
    """
    for index, (atoms, some) in enumerate(zip(structures, widths, strict=True)):
        if len(atoms) == 0 or len(some) != len(atoms):
            raise ValueError(
                f"structure {index} has {len(atoms)} atoms and {len(some)} widths: give one width "
                "(Å) for each of at least one atom"
            )

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(values), device=device)

    counts = [len(atoms) for atoms in structures]
    return ChargedSystem(
        positions=tensor(np.concatenate([atoms.positions for atoms in structures])),
        cell=tensor(np.stack([atoms.cell.array for atoms in structures])),
        pbc=tensor(np.stack([atoms.pbc for atoms in structures])),
        batch=tensor(np.repeat(np.arange(len(counts)), counts)),
        widths=tensor(np.concatenate([np.asarray(some, dtype=float) for some in widths])),
    )
