"""Work of separation and softening against exact answers."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlip.calculators.controls import Zero
from mlip.properties.separation import work_of_separation
from mlip.properties.softening import softening


def copper(layers):
    """A slab with 20 Å of vacuum, and the perfect crystal of twice its layers."""
    slab = fcc100("Cu", (1, 1, layers), vacuum=10.0, periodic=True)
    cell = slab.copy()
    spacing = 3.61 / 2
    upper = slab.copy()
    upper.positions[:, 2] += layers * spacing
    cell += upper
    cell.cell[2, 2] = 2 * layers * spacing
    cell.info["normal_axis"] = slab.info["normal_axis"] = "c"
    return slab, cell


def test_parting_a_perfect_crystal_costs_two_surfaces():
    slab, cell = copper(6)
    found = work_of_separation(cell, slab, EMT())
    bulk = cell.copy()
    bulk.calc, alone = EMT(), slab.copy()
    alone.calc = EMT()
    per_atom = bulk.get_potential_energy() / len(bulk)
    gamma = (alone.get_potential_energy() - len(slab) * per_atom) / (2 * found.area) * 16.02176634
    assert found.value == pytest.approx(2 * gamma, rel=1e-9)
    assert 1.0 < found.value < 4.0  # J/m²


def test_relaxation_lowers_both_and_keeps_the_input():
    slab, cell = copper(4)
    before = cell.positions.copy()
    relaxed = work_of_separation(cell, slab, EMT(), mode="relaxed")
    assert relaxed.result.converged
    assert np.array_equal(cell.positions, before)


def test_zero_gives_zero_and_an_unequal_slab_is_refused():
    slab, cell = copper(4)
    assert str(work_of_separation(cell, slab, Zero()).value) == "0.0"
    with pytest.raises(ValueError, match="Cu8 does not hold two slabs Cu3"):
        work_of_separation(cell, slab[:3], Zero())


class Scaled(LennardJones):
    """Lennard-Jones with all forces multiplied."""

    factor = 0.5

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.results["forces"] * self.factor


def frame():
    atoms = Atoms("Ar4", [[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0], [0.2, 0.1, 1.15]])
    atoms.calc = LennardJones()
    atoms.set_array("reference_forces", atoms.get_forces())
    atoms.calc = None
    return atoms


def test_half_the_forces_are_a_slope_of_one_half():
    found = softening(frame(), Scaled())
    assert found.value == pytest.approx(0.5)
    assert found.extra["cosine"] == pytest.approx(1.0)
    assert found.extra["force_mae"] > 0
    assert softening(frame(), LennardJones()).value == pytest.approx(1.0)
    assert softening(frame(), Zero()).value == 0.0


def test_frames_without_forces_or_at_equilibrium_are_refused():
    atoms = frame()
    atoms.arrays["reference_forces"] *= 1e-6
    with pytest.raises(ValueError, match="give a frame off equilibrium"):
        softening(atoms, Zero())
    del atoms.arrays["reference_forces"]
    with pytest.raises(ValueError, match="has no array 'reference_forces'"):
        softening(atoms, Zero())
    with pytest.raises(ValueError, match="unknown mode 'relaxed'"):
        softening(frame(), Zero(), mode="relaxed")
