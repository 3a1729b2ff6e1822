"""What the charges must add up to: the structure, its fragments, or nothing (fixed potential)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.electrostatics.system import ChargedSystem

NET_CHARGE = "give total_charge (e) of every structure, 0 for neutral ones"


@dataclass(frozen=True)
class ChargeConstraint:
    """A partition of the atoms into groups of fixed charge; an atom may be in none of them.

    Args:
        group: (atoms,) group of each atom; -1 is an atom whose charge is free to flow in from a
            reservoir.
        charges: (groups,) their charges, e; may require gradients.
    """

    group: Int[Tensor, " atoms"]
    charges: Float[Tensor, " groups"]

    def sums(self, values: Float[Tensor, " atoms"]) -> Float[Tensor, " groups"]:
        """Return ``C v``: the sum of values over each group."""
        padded = values.new_zeros(len(self.charges) + 1)
        return padded.index_add(0, self.slot, values)[:-1]

    def spread(self, values: Float[Tensor, " groups"]) -> Float[Tensor, " atoms"]:
        """Return ``Cᵀ v``: the value of the group of each atom, 0 for free ones."""
        return torch.cat([values, values.new_zeros(1)]).index_select(0, self.slot)

    @property
    def slot(self) -> Int[Tensor, " atoms"]:
        """Group of each atom; one past the last for free ones."""
        return torch.where(self.group < 0, len(self.charges), self.group)


def total_charge(
    system: ChargedSystem, charges: Float[Tensor, " graphs"] | None
) -> ChargeConstraint:
    """Fix the total charge of each structure.

    Args:
        system: The structures.
        charges: (graphs,) e.

    Raises:
        ValueError: If it is None, does not match the structures, or is not finite.
    """
    if charges is None:
        raise ValueError(f"the net charge is missing: {NET_CHARGE}")
    charges = _known(charges, system.graphs, "total charges", "structures")
    return ChargeConstraint(system.batch, charges)


def fragment_charges(
    system: ChargedSystem,
    fragment: Int[Tensor, " atoms"],
    charges: Float[Tensor, " fragments"],
) -> ChargeConstraint:
    """Fix the charge of each fragment, so that none leaks between distant ones.

    Args:
        system: The structures.
        fragment: (atoms,) fragment of each atom, counted through the batch from 0; -1 leaves the
            atom to a reservoir.
        charges: (fragments,) e.

    Raises:
        ValueError: If a fragment is empty, spans two structures or has no charge.
    """
    if fragment.shape != (system.atoms,):
        raise ValueError(
            f"fragment has shape {tuple(fragment.shape)} and the batch has {system.atoms} atoms: "
            "give the fragment of each atom"
        )
    charges = _known(charges, int(fragment.max()) + 1, "fragment charges", "fragments")
    for index in range(len(charges)):
        owners = system.batch[fragment == index].unique()
        if len(owners) != 1:
            what = f"spans structures {owners.tolist()}" if len(owners) else "has no atoms"
            raise ValueError(
                f"fragment {index} {what}: number the fragments through the batch from 0, each "
                "within one structure"
            )
    return ChargeConstraint(fragment.to(system.batch.device).long(), charges)


def fixed_potential(system: ChargedSystem) -> ChargeConstraint:
    """Fix no charge: electrodes at a given chemical potential μ, subtracted from χ by the caller.

    What is minimised is then the grand potential ``E - μ Σ q``. Of slabs only differences of
    potential have a meaning: keep their total charge, and shift χ of one electrode.
    """
    free = torch.full_like(system.batch, -1)
    return ChargeConstraint(free, system.positions.new_zeros(0).double())


def _known(charges: Tensor, count: int, name: str, owners: str) -> Float[Tensor, " groups"]:
    if charges.shape != (count,):
        raise ValueError(
            f"{name} have shape {tuple(charges.shape)} for {count} {owners}: give one each, in e"
        )
    bad = ~torch.isfinite(charges.detach())
    if bad.any():
        index = int(bad.long().argmax())
        raise ValueError(f"{name}: number {index} is {float(charges[index])}; {NET_CHARGE}")
    return charges
