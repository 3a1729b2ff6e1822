"""Equilibrated charges of slabs: their limit, capacitors, minima however large, what is refused."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc100

from mlip.electrostatics.constraints import fixed_potential, total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of

DENSE, ITERATIVE = Settings("dense"), Settings("conjugate_gradient", 1e-10)
CHARGE = 1e-6
ENERGY = 1e-8
TIGHT = 1e-11


def run(tensors, settings=DENSE, tolerance=TIGHT, method="auto"):
    system, chi, hardness, net = tensors
    plan = plan_coulomb(system, tolerance, method)
    return equilibrate(plan, system, chi, hardness, total_charge(system, net), settings)


def test_a_slab_is_the_limit_of_thick_vacuum(batch):
    """Of a slab without net charge or dipole, the periodic cell converges to it."""
    sodium = Atoms("NaClNaCl", [[0, 0, 0], [2.8, 2.8, 0], [0, 2.8, 2.8], [2.8, 0, 2.8]])
    sodium.set_cell([5.6, 5.6, 60.0])
    sodium.positions += np.array([[0, 0, 0], [0, 0, 0.3], [0, 0, 0], [0, 0, -0.3]])
    chi, hardness = np.array([2.8, 8.6, 2.8, 8.6]), np.array([2.0, 3.0, 2.0, 3.0])
    results = []
    for pbc in ([True, True, False], True):
        atoms = sodium.copy()
        atoms.pbc = pbc
        system = system_of([atoms], [np.full(4, 0.8)])
        tensors = system, torch.as_tensor(chi), torch.as_tensor(hardness), torch.zeros(1).double()
        results.append(run(tensors))
    assert torch.allclose(results[0].charges, results[1].charges, atol=CHARGE)
    assert float((results[0].energies - results[1].energies).abs()) < 4 * ENERGY


@pytest.mark.parametrize("settings", [DENSE, ITERATIVE])
def test_a_slab_takes_the_charge_of_a_capacitor_from_a_voltage(settings):
    """Two layers d apart, χ of one shifted by U: ``σ = ε₀ U/d`` up to the layers themselves.

    What they take up themselves does not depend on d, so that it drops out of the slope of U/σ.
    """
    voltage, slopes = 2.0, []
    for gap in (10.0, 20.0):
        place = [[x, y, z] for z in (0.0, gap) for x in (0.0, 2.0) for y in (0.0, 2.0)]
        atoms = Atoms("Li8", place, cell=[4.0, 4.0, 0.0], pbc=[True, True, False])
        chi = torch.tensor([0.0] * 4 + [voltage] * 4).double()
        system = system_of([atoms], [np.full(8, 1.0)])
        tensors = system, chi, torch.full((8,), 0.5).double(), torch.zeros(1).double()
        density = float(run(tensors, settings).charges[:4].sum()) / 16.0
        slopes.append(voltage / density)
    vacuum = 4 * np.pi * 14.3996454784
    assert (slopes[1] - slopes[0]) / 10.0 == pytest.approx(vacuum, rel=1e-6)


@pytest.mark.parametrize("net", [0.0, 1.0])
def test_large_slabs_have_a_minimum(net):
    """Wide and thin, wide and thick: only charges of a given sum, and for those both solvers."""
    for shape in ((12, 12, 1), (3, 3, 12)):
        atoms = fcc100("Na", shape, a=5.64, vacuum=8.0, periodic=False)
        atoms.symbols[::2] = "Cl"
        random = np.random.default_rng(0)
        chi = torch.as_tensor(random.uniform(2, 9, len(atoms)))
        system = system_of([atoms], [np.full(len(atoms), 2.0)])
        tensors = system, chi, torch.full_like(chi, 0.05), torch.tensor([net]).double()
        dense, iterative = (run(tensors, own, tolerance=1e-9) for own in (DENSE, ITERATIVE))
        assert torch.allclose(dense.charges, iterative.charges, atol=CHARGE)
        assert torch.allclose(dense.chemical_potential, iterative.chemical_potential, atol=CHARGE)


def test_iterations_do_not_grow_with_the_length_of_a_slab(batch, rock_salt):
    """Waves along a slab of one layer of cells, 0.13 µm long: 14 steps, as of a short one."""
    iterations = []
    for length in (24, 240):
        layer = rock_salt((length, 3, 1), hardness=0.05, width=0.8)
        layer.atoms.pbc = [True, True, False]
        layer.atoms.center(vacuum=10.0, axis=2)
        tensors = batch(layer)
        loose = Settings("conjugate_gradient", 1e-6)
        iterations.append(int(run(tensors, loose, tolerance=1e-3, method="pme").iterations))
    assert iterations[1] <= iterations[0] + 1


def test_a_slab_at_fixed_potential_is_refused(batch, cases):
    system, chi, hardness, _ = batch(*cases)
    message = "structure 4 is a slab with atoms in no group of fixed charge.* give total_charge"
    with pytest.raises(ValueError, match=message):
        equilibrate(plan_coulomb(system), system, chi, hardness, fixed_potential(system))
