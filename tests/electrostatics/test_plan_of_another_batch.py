"""A plan is refused for a batch that it was not made for."""

import pytest
import torch
from ase.build import bulk, molecule

from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.energy import electrostatics
from mlip.electrostatics.equilibrate import equilibrate
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of


def system(*structures):
    return system_of(structures, [[0.8] * len(atoms) for atoms in structures])


SALT = bulk("NaCl", "rocksalt", a=5.64)
STRETCHED = SALT.copy()
STRETCHED.set_cell(1.3 * SALT.cell, scale_atoms=True)
MOLECULE = molecule("NaCl")
OTHERS = {
    "other periodic directions": (MOLECULE,),
    "other atoms": (SALT.repeat(2),),
    "another cell": (STRETCHED,),
}


@pytest.mark.parametrize("differs", OTHERS)
def test_a_plan_of_another_batch_is_refused(differs):
    plan = plan_coulomb(system(*OTHERS[differs]))
    batch = system(SALT)
    charges = torch.tensor([1.0, -1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=differs):
        electrostatics(batch, charges, plan)
    with pytest.raises(ValueError, match=differs):
        equilibrate(plan, batch, charges, 3 + charges, total_charge(batch, torch.zeros(1)))


def test_a_plan_of_parts_is_refused_too():
    plan = plan_coulomb(system(SALT, MOLECULE))
    charges = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    for derivatives in ((), ("forces",)):
        with pytest.raises(ValueError, match="other periodic directions"):
            electrostatics(system(MOLECULE, SALT), charges, plan, derivatives)


def test_a_plan_serves_a_strained_cell():
    strained = SALT.copy()
    strained.set_cell(1.02 * SALT.cell, scale_atoms=True)
    charges = torch.tensor([1.0, -1.0], dtype=torch.float64)
    found = electrostatics(system(strained), charges, plan_coulomb(system(SALT), skin=1.0))
    fresh = electrostatics(system(strained), charges)
    torch.testing.assert_close(found.energies, fresh.energies, rtol=1e-6, atol=1e-6)
