"""Screened nuclear repulsion at short distances."""

import torch
from ase.data import covalent_radii
from torch import Tensor

from mlip.graph import Geometry
from mlip.models.cutoff import polynomial_cutoff
from mlip.models.term import Term

_COULOMB = 14.3996
"""e²/4πε₀ in eV Å, at the precision of the published fit."""
_BOHR = 0.529
_WEIGHTS = (0.1818, 0.5099, 0.2802, 0.02817)
_DECAYS = (3.2, 0.9423, 0.4028, 0.2016)


class ZBL(Term):
    """Universal potential of Ziegler, Biersack and Littmark (The Stopping of Ions in Solids, 1985).

    Brought smoothly to zero at the sum of the covalent radii, so that bonded atoms do not feel it;
    constants and envelope as in MACE (Batatia et al., arXiv 2401.00096), whose foundation models
    it must reproduce.

    Args:
        power: Exponent p of the polynomial envelope.
        factor: Factor on the energy; foundation models of MACE scale theirs.
    """

    radii: Tensor
    exponent: Tensor
    prefactor: Tensor

    def __init__(self, power: int = 6, factor: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self.factor = factor
        self.register_buffer("radii", torch.tensor(covalent_radii, dtype=torch.float64))
        self.register_buffer("exponent", torch.tensor(0.300, dtype=torch.float64))
        self.register_buffer("prefactor", torch.tensor(0.4543, dtype=torch.float64))

    def forward(self, geometry: Geometry, outputs: dict[str, Tensor]) -> Tensor:
        """Return the repulsion energy of each atom, (atoms,), eV."""
        sender, receiver = geometry.edge_index
        radius = self.radii[geometry.atomic_numbers]
        reach = radius[sender] + radius[receiver]
        lengths = geometry.edge_lengths
        if geometry.most is None:  # few edges are so short; beyond, the envelope is zero
            near = (lengths.detach() < reach).nonzero().squeeze(-1)
            sender, receiver, reach, lengths = (
                sender[near], receiver[near], reach[near], lengths[near]
            )  # fmt: skip
        charge = geometry.atomic_numbers.to(lengths.dtype)
        screening = charge**self.exponent
        length_unit = self.prefactor * _BOHR / (screening[sender] + screening[receiver])
        x = lengths / length_unit
        phi = sum(w * torch.exp(-d * x) for w, d in zip(_WEIGHTS, _DECAYS, strict=True))
        pair = _COULOMB * charge[sender] * charge[receiver] / lengths * phi
        pair = 0.5 * self.factor * pair * polynomial_cutoff(lengths / reach, self.power)
        energies = lengths.new_zeros(geometry.atoms)
        return energies.index_add(0, receiver, pair.to(energies.dtype))
