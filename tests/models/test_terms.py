"""ZBL: the published screening function, and silence beyond the covalent radii."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii

from mlip.graph import from_atoms
from mlip.models.backbone import Backbone, Features
from mlip.models.cutoff import polynomial_cutoff
from mlip.models.head import Head
from mlip.models.potential import Potential
from mlip.models.terms.zbl import ZBL


class Nothing(Backbone):
    r_max, channels = 5.0, (1,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, geometry):
        return Features([torch.zeros(geometry.atoms, 1)], [])


class Zero(Head):
    gives = ("energies",)

    def forward(self, features, geometry, outputs):
        return {"energies": torch.zeros(geometry.atoms, dtype=torch.float64)}


def energy(symbols, distance):
    potential = Potential(["Li", "O"], Nothing(), {"energy": Zero()}, {"zbl": ZBL()})
    atoms = Atoms(symbols, positions=[[0, 0, 0], [0, 0, distance]])
    return float(potential(from_atoms(atoms, 5.0))["energy"])


@pytest.mark.parametrize(("symbols", "z"), [("Li2", (3, 3)), ("LiO", (3, 8)), ("O2", (8, 8))])
def test_against_the_published_formula(symbols, z):
    distance = 0.6
    length = 0.4543 * 0.529 / (z[0] ** 0.3 + z[1] ** 0.3)
    x = distance / length
    phi = (
        0.1818 * np.exp(-3.2 * x)
        + 0.5099 * np.exp(-0.9423 * x)
        + 0.2802 * np.exp(-0.4028 * x)
        + 0.02817 * np.exp(-0.2016 * x)
    )
    reach = covalent_radii[z[0]] + covalent_radii[z[1]]
    envelope = float(polynomial_cutoff(torch.tensor(distance / reach, dtype=torch.float64), 6))
    assert energy(symbols, distance) == pytest.approx(
        14.3996 * z[0] * z[1] / distance * phi * envelope
    )


def test_bonded_atoms_do_not_feel_it():
    assert energy("Li2", 2 * covalent_radii[3] + 1e-3) == 0.0
    assert energy("Li2", 2 * covalent_radii[3] - 0.3) > 0.0


def test_envelope_ends_smoothly():
    x = torch.tensor([0.0, 1.0 - 1e-4, 1.0], dtype=torch.float64)
    values = polynomial_cutoff(x, 6)
    assert values[0] == 1.0
    assert 0.0 < values[1] < 1e-10
    assert values[2] == 0.0
