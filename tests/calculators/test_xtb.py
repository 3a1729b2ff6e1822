"""GFN2-xTB: charges add up, forces and stress are derivatives, the charge state matters."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

pytest.importorskip("tblite")

from mlip import config
from mlip.calculators.build import build_calculator
from mlip.calculators.xtb import XTB


def ion(name, charge):
    atoms = molecule(name)
    atoms.info["total_charge"] = charge
    atoms.calc = XTB()
    return atoms


@pytest.mark.parametrize("charge", [-1, 0, 1])
def test_charges_add_up(charge):
    assert ion("H2O", charge).get_charges().sum() == pytest.approx(charge, abs=1e-6)


def test_forces_are_minus_the_gradient():
    atoms = ion("CH3OH", 1)
    atoms.rattle(0.05, seed=1)
    atoms.calc = XTB(accuracy=1e-3)
    forces, step = atoms.get_forces(), 1e-3
    for atom, axis in ((0, 0), (1, 2), (4, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = XTB(accuracy=1e-3)
            energies.append(moved.get_potential_energy())
        numeric = -(energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(numeric, abs=2e-4)


def test_stress_is_the_strain_derivative():
    atoms = bulk("LiF", "rocksalt", a=4.2)
    atoms.info["total_charge"] = 0
    atoms.calc = XTB(accuracy=1e-3)
    stress, step, energies = atoms.get_stress(voigt=False), 1e-3, []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array * (1 + sign * step), scale_atoms=True)
        strained.calc = XTB(accuracy=1e-3)
        energies.append(strained.get_potential_energy())
    numeric = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    assert np.trace(stress) == pytest.approx(numeric, abs=1e-3)


def test_dipole_is_in_e_angstrom():
    assert np.linalg.norm(ion("H2O", 0).get_dipole_moment()) == pytest.approx(0.45, abs=0.05)


def test_a_changed_charge_is_a_new_calculation():
    atoms = ion("H2O", 0)
    neutral = atoms.get_potential_energy()
    atoms.info["total_charge"] = 1
    assert atoms.get_potential_energy() > neutral + 5.0


def test_a_result_does_not_depend_on_what_came_before():
    calculator, first, second = XTB(), ion("H2O", 0), ion("CH4", 0)
    fresh = second.get_potential_energy()
    for atoms in (first, second):
        atoms.calc = calculator
        energy = atoms.get_potential_energy()
    assert energy == fresh


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "states no total charge"),
        ({"total_charge": 0.5}, "whole electrons"),
        ({"total_charge": 1, "multiplicity": 1}, "give 2, 4"),
    ],
)
def test_refusals(info, message):
    atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], info=info)
    atoms.calc = XTB()
    with pytest.raises(ValueError, match=message):
        atoms.get_potential_energy()


def test_unknown_method():
    with pytest.raises(ValueError, match=r"did you mean .*'GFN1-xTB'"):
        XTB(method="GFN-xTB1")


def test_the_config_builds_it():
    content = config.compose("label", ["calculator=gfn2_xtb"])
    assert isinstance(build_calculator(content.calculator.build), XTB)
