"""Sums over waves alone, against Ewald's; when they are chosen; nothing is kept after a step."""

import gc

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import equilibrate
from mlip.electrostatics.ewald import EwaldPlan, plan_ewald
from mlip.electrostatics.implicit import Problem
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of
from mlip.electrostatics.waves import WavePlan, plan_waves

TOLERANCE = 1e-10
SAME = 2e-9  # eV, V, eV/e²


def cells(seed=0):
    generator = np.random.default_rng(seed)
    found = []
    for repeat in ((1, 1, 1), (2, 1, 1), (2, 2, 2)):
        atoms = bulk("LiCl", "rocksalt", 5.13, cubic=True) * repeat
        strain = np.eye(3) + 0.05 * generator.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += 0.1 * generator.normal(size=atoms.positions.shape)
        found.append(atoms)
    return found


def system(scale=1.0):
    structures = cells()
    return system_of(
        structures, [scale * np.where(a.symbols == "Li", 1.9, 1.6) for a in structures]
    )


def test_waves_are_ewalds_sum():
    charged = system()
    charges = torch.randn(charged.atoms, dtype=torch.float64, generator=torch.manual_seed(0))
    waves, ewald = (plan(charged, TOLERANCE).operator(charged) for plan in (plan_waves, plan_ewald))
    for name in ("potential", "energies"):
        own, other = (getattr(operator, name)(charges) for operator in (waves, ewald))
        torch.testing.assert_close(own, other, atol=SAME, rtol=0)
    torch.testing.assert_close(waves.matrix(), ewald.matrix(), atol=SAME, rtol=0)
    torch.testing.assert_close(waves.diagonal(), ewald.diagonal(), atol=SAME, rtol=0)


def test_wide_gaussians_are_summed_over_waves_and_narrow_ones_are_not():
    assert isinstance(plan_coulomb(system()), WavePlan)
    assert isinstance(plan_coulomb(system(0.05)), EwaldPlan)
    slab = cells()[0]
    slab.pbc = (True, True, False)
    charged = system_of([slab], [np.full(len(slab), 1.6)])
    assert isinstance(plan_coulomb(charged), EwaldPlan)
    with pytest.raises(ValueError, match="three periodic directions"):
        plan_waves(charged)


def test_nothing_of_a_step_is_kept():
    charged = system()
    positions = charged.positions.clone().requires_grad_()
    moved = type(charged)(positions, charged.cell, charged.pbc, charged.batch, charged.widths)
    for _ in range(3):
        found = equilibrate(
            plan_coulomb(charged),
            moved,
            torch.linspace(0, 1, charged.atoms, dtype=torch.float64),
            torch.full((charged.atoms,), 2.0, dtype=torch.float64),
            total_charge(charged, torch.zeros(3, dtype=torch.float64)),
        )
        (forces,) = torch.autograd.grad(found.energies.sum(), positions, create_graph=True)
        torch.autograd.grad(forces.square().sum(), positions)
    del found, forces
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Problem)]
