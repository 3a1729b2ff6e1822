"""Bulk moduli against exact answers and the fit of ASE."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.eos import EquationOfState

from mlip.calculators.controls import Zero
from mlip.properties.bulk_modulus import bulk_modulus
from mlip.properties.relax import NotConvergedError, PropertyError
from mlip.units import GPA_PER_EV_A3


class Spring(Calculator):
    """E = k (V − V0)² / 2V0, whose bulk modulus is k."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, stiffness, volume):
        super().__init__()
        self.stiffness, self.volume = stiffness, volume

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        energy = self.stiffness * (self.atoms.get_volume() - self.volume) ** 2 / 2 / self.volume
        self.results = {"energy": energy, "forces": np.zeros((len(self.atoms), 3))}


def test_a_spring_in_the_volume_gives_its_stiffness():
    crystal = bulk("Cu", cubic=True)
    before = crystal.copy()
    found = bulk_modulus(crystal, Spring(0.8, crystal.get_volume() * 1.01))
    assert found.value == pytest.approx(0.8 * GPA_PER_EV_A3, rel=1e-2)
    assert found.extra["volume_ratio"] == pytest.approx(1.01, abs=1e-3)
    assert crystal == before


def test_copper_agrees_with_the_fit_of_ase():
    crystal = bulk("Cu", a=3.62)
    volumes, energies = [], []
    for ratio in (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06):
        atoms = crystal.copy()
        atoms.set_cell(atoms.cell * ratio ** (1 / 3), scale_atoms=True)
        atoms.calc = EMT()
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    v0, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    found = bulk_modulus(crystal, EMT())
    assert found.value == pytest.approx(modulus * GPA_PER_EV_A3, rel=1e-3)
    assert found.extra["volume_ratio"] == pytest.approx(v0 / crystal.get_volume(), rel=1e-4)


class Jumping(Spring):
    """As where a shell of neighbours leaves the cutoff."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["energy"] += 0.1 * len(self.atoms) * (self.atoms.get_volume() > self.volume)


def test_a_potential_that_jumps_has_no_modulus():
    crystal = bulk("Cu", cubic=True)
    with pytest.raises(PropertyError, match="the energy is not smooth in the volume"):
        bulk_modulus(crystal, Jumping(0.8, crystal.get_volume() * 1.01))


def test_no_minimum_within_the_volumes_is_no_value():
    crystal = bulk("Cu", cubic=True)
    for volume in (1.2, 0.8):
        with pytest.raises(NotConvergedError, match="wants another volume"):
            bulk_modulus(crystal, Spring(1.0, crystal.get_volume() * volume))
    with pytest.raises(NotConvergedError):
        bulk_modulus(crystal, Zero())
    with pytest.raises(ValueError, match="unknown mode 'relaxed'"):
        bulk_modulus(crystal, EMT(), mode="relaxed")
