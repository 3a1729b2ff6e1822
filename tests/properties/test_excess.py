"""Surface and boundary energies against exact limits."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100, fcc111, make_supercell
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from mlip.properties.excess import check_stoichiometry, plane_area
from mlip.properties.grain_boundary import grain_boundary_energy
from mlip.properties.relax import ExplodedError, NonFiniteError, NotConvergedError, Protocol, relax
from mlip.properties.surface import surface_energy

A = 3.61
EV_A2_IN_J_M2 = 16.02176634


class Linear(Calculator):
    """Energy = sum of given values per element; forces given; for exact answers."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, per_atom: float = 0.0, force: float = 0.0, offset: float = 0.0):
        super().__init__()
        self.per_atom, self.force, self.offset = per_atom, force, offset

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = self.force
        energy = self.per_atom * len(atoms) + (self.offset if len(atoms) > 4 else 0.0)
        self.results = {"energy": energy, "forces": forces, "stress": np.zeros(6)}


def slab100(layers=6, size=1):
    atoms = fcc100("Cu", (size, size, layers), a=A, vacuum=8.0, periodic=True)
    atoms.info["normal_axis"] = "c"
    return atoms


@pytest.mark.parametrize("build", [fcc100, fcc111])
def test_static_surface_equals_energy_difference_of_emt(build):
    slab = build("Cu", (1, 1, 6), a=A, vacuum=8.0, periodic=True)
    cell = bulk("Cu", a=A)
    value = surface_energy(slab, cell, EMT(), axis="c").value
    alone = slab.copy()
    alone.calc = EMT()
    crystal = bulk("Cu", a=A, cubic=True).repeat(2)  # another cell, the same energy per atom
    crystal.calc = EMT()
    per_atom = crystal.get_potential_energy() / len(crystal)
    area = A**2 / 2 if build is fcc100 else A**2 * np.sqrt(3) / 4
    expected = (alone.get_potential_energy() - 6 * per_atom) / (2 * area) * EV_A2_IN_J_M2
    assert value == pytest.approx(expected, abs=1e-9)
    assert 0.5 < value < 2.5


def test_units_and_sign_are_exact():
    slab = Atoms("Cu8", positions=[[0, 0, 2.0 * i] for i in range(8)], cell=[2, 5, 40], pbc=True)
    crystal = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2]], cell=[2, 5, 4], pbc=True)
    result = surface_energy(slab, crystal, Linear(per_atom=-3.0, offset=2.0), axis="c")
    assert result.area == pytest.approx(10.0)
    assert result.value == pytest.approx(2.0 / 20.0 * EV_A2_IN_J_M2)  # positive: costs energy


def test_relaxation_lowers_the_surface_energy():
    static = surface_energy(slab100(), bulk("Cu", a=A), EMT())
    relaxed = surface_energy(slab100(), bulk("Cu", a=A), EMT(), mode="relaxed")
    assert relaxed.value < static.value
    assert relaxed.result.converged
    assert relaxed.result.fmax < 0.02
    assert relaxed.result.steps > 0
    assert relaxed.result.max_displacement > 0.001
    assert np.allclose(relaxed.result.atoms.cell, slab100().cell)


@pytest.mark.parametrize("mode", ["static", "relaxed"])
def test_doubling_in_plane_changes_nothing(mode):
    one = surface_energy(slab100(), bulk("Cu", a=A), EMT(), mode=mode).value
    two = surface_energy(slab100(size=2), bulk("Cu", a=A), EMT(), mode=mode).value
    assert two == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("mode", ["static", "relaxed"])
@pytest.mark.parametrize("axis", ["a", "b", "c"])
def test_perfect_crystal_has_no_boundary_energy(mode, axis):
    a = 3.5896  # close to the minimum of EMT, so that the free length hardly moves
    crystal = bulk("Cu", a=a, cubic=True)
    repeats = {"a": (3, 1, 1), "b": (1, 3, 1), "c": (1, 1, 3)}[axis]
    result = grain_boundary_energy(crystal.repeat(repeats), crystal, EMT(), mode=mode, axis=axis)
    assert result.value == pytest.approx(0.0, abs=2e-4)
    assert result.area == pytest.approx(a**2)


def test_only_the_normal_length_changes():
    crystal = bulk("Cu", a=3.70, cubic=True)
    sheared = make_supercell(crystal, [[1, 0, 0], [0, 1, 0], [1, 1, 3]])
    sheared.rotate(37, (1, 2, 3), rotate_cell=True)
    result = relax(sheared, EMT(), free_axis=2)
    before, after = sheared.cell, result.atoms.cell
    assert np.allclose(before.lengths()[:2], after.lengths()[:2], atol=1e-10)
    assert after.angles()[2] == pytest.approx(before.angles()[2], abs=1e-8)
    height = [cell.volume / plane_area(Atoms(cell=cell), 2) for cell in (before, after)]
    assert height[1] < height[0] - 0.1  # 3.70 is stretched


def test_callers_atoms_are_untouched():
    slab, cell = slab100(), bulk("Cu", a=A)
    before = slab.copy()
    surface_energy(slab, cell, EMT(), mode="relaxed")
    assert slab == before
    assert slab.calc is None
    assert cell.calc is None


def test_non_stoichiometric_slab_is_refused():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    slab = salt.repeat((1, 1, 2))
    del slab[0]
    with pytest.raises(ValueError, match="not a whole multiple of the bulk formula Na1Cl1"):
        surface_energy(slab, salt, Linear(), axis="c")
    assert check_stoichiometry(salt.repeat(2), {"Na": 4, "Cl": 4}) == 32


@pytest.mark.parametrize("axis", [None, "z"])
def test_missing_axis_is_refused(axis):
    with pytest.raises(ValueError, match="normal_axis of Cu4"):
        grain_boundary_energy(bulk("Cu", cubic=True), bulk("Cu"), Linear(), axis=axis)


def test_unknown_mode_has_near_match():
    with pytest.raises(ValueError, match="did you mean 'static'"):
        surface_energy(slab100(), bulk("Cu"), Linear(), mode="statick")


def test_not_converged_carries_what_was_reached():
    with pytest.raises(NotConvergedError, match="after 3 steps") as caught:
        relax(slab100(), EMT(), Protocol(fmax=1e-6, max_steps=3))
    assert caught.value.reached.steps == 3
    assert caught.value.reached.fmax > 1e-6


def test_budget_covers_both_optimisers():
    slab = slab100(size=2)
    slab.rattle(0.1, seed=1)
    with pytest.raises(NotConvergedError) as caught:
        relax(slab, EMT(), Protocol(fmax=1e-12, max_steps=20, fire_fmax=0.5))
    assert caught.value.reached.steps == 20


def test_explosions_are_named():
    with pytest.raises(ExplodedError, match=r"60.0 eV/Å"):
        relax(slab100(), Linear(force=60.0))
    close = Atoms("Cu2", positions=[[0, 0, 0], [0.5, 0, 0]], cell=[9, 9, 9], pbc=True)
    with pytest.raises(ExplodedError, match=r"0\.50 Å apart"):
        relax(close, Linear())


def test_non_finite_is_named():
    with pytest.raises(NonFiniteError, match="non-finite energy"):
        surface_energy(slab100(), bulk("Cu", a=A), Linear(per_atom=float("nan")))
