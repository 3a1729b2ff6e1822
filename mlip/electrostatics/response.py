"""Dipoles, polarisation, Born effective charges, external fields, polarisability."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.electrostatics.system import ChargedSystem


def dipole(system: ChargedSystem, charges: Float[Tensor, " atoms"]) -> Float[Tensor, "graphs 3"]:
    """Return ``Σ q r`` about the origin, e·Å, with the positions as they are given.

    Along periodic directions it depends on which image of an atom is given; of a charged structure
    it depends on the origin.
    """
    moments = charges[:, None].double() * system.positions.double()
    return moments.new_zeros(system.graphs, 3).index_add(0, system.batch, moments)


def polarisation(
    system: ChargedSystem, charges: Float[Tensor, " atoms"]
) -> Float[Tensor, "graphs 3"]:
    """Return the dipole per volume, e/Å², of neutral periodic structures.

    Defined up to ``q_i a/V`` for each atom i and lattice vector a: compare only structures whose
    atoms have not been wrapped in between, or integrate Born effective charges along the path.

    Raises:
        ValueError: If a structure is not periodic in three directions or not neutral.
    """
    require_neutral(system, charges)
    if not system.pbc.all():
        graph = int((~system.pbc.all(1)).long().argmax())
        raise ValueError(
            f"structure {graph} has pbc {system.pbc[graph].tolist()} and so no volume: ask for its "
            "dipole instead"
        )
    volume = torch.linalg.det(system.cell.double()).abs()
    return dipole(system, charges) / volume[:, None]


def born_charges(
    system: ChargedSystem, charges: Float[Tensor, " atoms"], create_graph: bool = False
) -> Float[Tensor, "atoms 3 3"]:
    """Return Born effective charges ``Z*_iab = ∂μ_a/∂r_ib``, e.

    Charges that were computed from ``system.positions`` contribute how they change; other charges
    give ``q_i δ_ab``. Along periodic directions the dipole of the lattice coordinates s is

        Z*_i = Re[e^(-2πi s_i) ∂/∂r_i Σ_j q_j e^(2πi s_j) / 2πi]  times the lattice vector,

    (Zhong, Cheng, arXiv 2503.15455), which is independent of the image of every atom and exact
    when charge moves over distances that are short beside the cell.

    Args:
        system: The structures; its positions must require gradients.
        charges: q, e.
        create_graph: Whether the result is to be differentiated again.

    Raises:
        ValueError: If the positions do not require gradients.
    """
    positions = system.positions
    if not positions.requires_grad:
        raise ValueError(
            "positions do not require gradients: call requires_grad_() on them before the charges "
            "are computed"
        )
    charges = charges.double()
    periodic, dual, flat = _directions(system)
    mean = (_sums(system, charges) / _sums(system, torch.ones_like(charges)))[system.batch]
    result = positions.new_zeros(system.atoms, 3, 3)
    for vector in range(3):
        s = (positions * dual[system.batch, vector]).sum(-1)
        angle = 2 * math.pi * s
        # Without the mean charge: the phases of a charged cell would depend on the origin.
        real = _gradient(((charges - mean) * angle.sin()).sum() / (2 * math.pi), positions)
        imaginary = _gradient(-((charges - mean) * angle.cos()).sum() / (2 * math.pi), positions)
        along = angle.cos()[:, None] * real + angle.sin()[:, None] * imaginary
        along = along + mean[:, None] * dual[system.batch, vector]
        result = result + periodic[system.batch, vector, :, None] * along[:, None, :]
    for axis in range(3):
        across = (positions * flat[system.batch, axis]).sum(-1)
        result[:, axis] = result[:, axis] + _gradient((charges * across).sum(), positions)
    return result if create_graph else result.detach()


def field_term(system: ChargedSystem, field: Float[Tensor, "graphs 3"]) -> Float[Tensor, " atoms"]:
    """Return ``-E·r``, V, what a uniform field adds to the electronegativities.

    The energy at the minimum then holds ``-E·μ``, and its derivatives the force ``q E``.

    Args:
        system: The structures.
        field: E of each structure, V/Å.

    Raises:
        ValueError: If a field has a component along a periodic direction, where a uniform one has
            no potential.
    """
    field = field.double()
    periodic, *_ = _directions(system.detach())
    lengths = torch.linalg.vector_norm(periodic, dim=2)
    along = (periodic * field.detach()[:, None]).sum(-1).abs()
    bad = (along > 1e-10 * lengths * torch.linalg.vector_norm(field.detach(), dim=1)[:, None]).any(
        1
    )
    if bad.any():
        graph = int(bad.long().argmax())
        raise ValueError(
            f"structure {graph}: the field {field[graph].tolist()} V/Å has a component along a "
            f"periodic direction (pbc {system.pbc[graph].tolist()}): give one along the normal of "
            "a slab, or any to an open structure"
        )
    return -(field[system.batch] * system.positions.double()).sum(-1)


def polarisability(
    moments: Float[Tensor, "graphs 3"], field: Float[Tensor, "graphs 3"]
) -> Float[Tensor, "graphs 3 3"]:
    """Return ``∂μ_a/∂E_b``, e·Å²/V.

    Args:
        moments: Dipoles of charges that were equilibrated with :func:`field_term` of the field.
        field: The field; it must require gradients.
    """
    rows = [
        torch.autograd.grad(moments[:, axis].sum(), field, retain_graph=True)[0]
        for axis in range(3)
    ]
    return torch.stack(rows, dim=1)


def require_neutral(system: ChargedSystem, charges: Float[Tensor, " atoms"]) -> None:
    """Refuse structures with a net charge where nothing is defined for them.

    Raises:
        ValueError: Naming the structure and its charge.
    """
    net = _sums(system, charges.detach().double())
    bad = net.abs() > 1e-6
    if bad.any():
        graph = int(bad.long().argmax())
        raise ValueError(
            f"structure {graph} has the net charge {float(net[graph]):.6g} e: its polarisation "
            "depends on the origin; make it neutral"
        )


def _directions(system: ChargedSystem) -> tuple[Tensor, Tensor, Tensor]:
    """Return the periodic lattice vectors, their duals, and the projector on what is open."""
    periodic = torch.where(system.pbc[:, :, None], system.cell.double(), 0.0)
    dual = torch.linalg.pinv(periodic).transpose(1, 2)
    inside = periodic.transpose(1, 2) @ dual
    return periodic, dual, torch.eye(3, dtype=inside.dtype, device=inside.device) - inside


def _sums(system: ChargedSystem, values: Tensor) -> Float[Tensor, " graphs"]:
    return values.new_zeros(system.graphs).index_add(0, system.batch, values)


def _gradient(value: Tensor, positions: Tensor) -> Float[Tensor, "atoms 3"]:
    (gradient,) = torch.autograd.grad(value, positions, create_graph=True, retain_graph=True)
    return gradient
