"""Structures with what equilibrates their charges, and a slow, independent matrix to check with.

What must hold, and the tests that hold it (test_ left out; QEq: in tests/calculators/test_qeq*.py):

1. Charges add up: equilibrate ``charges_of_a_mixed_batch_add_up``; QEq ``charges_add_up``.
2. Forces are central differences, and add up to zero: equilibrate_derivatives
   ``forces_and_stress_are_central_differences`` (energies stationary in the charges and not),
   ``charges_held_fixed_…``; QEq ``forces_are_central_differences``; pme
   ``forces_and_stress_by_finite_differences``.
3. Stress is that of finite strain, tilted slabs and charged cells too: as 2, with charges held
   fixed coulomb_derivatives ``stress_at_fixed_charges_…``; ``open_structures_have_no_stress``.
4. Symmetry: equilibrate ``rotation_translation_order_and_images_do_not_matter``; forces, stress and
   dipoles QEq ``vectors_and_tensors_turn_with_the_structure``; Born charges response
   ``images_and_rotation``; on a mesh pme ``atoms_outside_the_cell_and_translations_…``.
5. Madelung constants, points as a limit, the splitting width does not matter: coulomb_limits.
6. Dense, Ewald and mesh agree: equilibrate ``dense_ewald_and_mesh_give_the_same``, and with loops
   ``charges_solve_the_equations_of_an_independent_matrix``; a large box equilibrate
   ``a_molecule_is_the_limit_of_a_large_box``; thick vacuum equilibrate_slab; torch-pme
   coulomb_limits ``torch_pme_agrees``.
7. Size: equilibrate ``distant_fragments_of_fixed_charge_…``, ``a_known_failure_charge_leaks_…``,
   ``a_supercell_has_…``.
8. One minimum: equilibrate ``the_matrix_is_positive_definite_…``, slabs ``large_slabs_…``.
9. Second derivatives: equilibrate_derivatives ``first_and_second_derivatives_in_everything``,
   ``a_loss_on_forces_and_stress_has_finite_gradients``.
10. Energy of dynamics: tests/calculators/test_qeq_dynamics.py.
11. Charges of a published network: none, its weights are not among the data that we have.
12. A batch is its structures one by one, and net charge is never assumed: equilibrate
    ``a_batch_gives_what_each_structure_gives``, ``missing_net_charge_is_an_error``; QEq likewise.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc100, molecule
from scipy.special import erf, erfc

from mlip.electrostatics.system import system_of

COULOMB = 14.3996454784


@dataclass
class Case:
    """One structure: χ (V), J (eV/e²), σ (Å) of its atoms and its net charge (e)."""

    atoms: Atoms
    chi: np.ndarray
    hardness: np.ndarray
    width: np.ndarray
    net: float


def case(atoms, net=0.0, seed=0):
    random = np.random.default_rng(seed)
    count = len(atoms)
    chi, hardness = random.uniform(2, 9, count), random.uniform(0.6, 4, count)
    return Case(atoms, chi, hardness, random.uniform(0.4, 1.1, count), net)


def triclinic():
    random = np.random.default_rng(1)
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((1, 2, 2))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.08 * random.normal(size=(3, 3))), True)
    atoms.positions += 0.2 * random.normal(size=(8, 3))
    return atoms


def slab():
    atoms = fcc100("Ag", (2, 1, 3), a=4.09, vacuum=8.0, periodic=False)
    atoms.positions += 0.2 * np.random.default_rng(2).normal(size=(6, 3))
    return atoms


def tilted_slab():
    """In no direction along an axis: an oblique layer, its open vector not along the normal."""
    atoms = slab()
    cell = atoms.cell.array.copy()
    cell[1] += [0.9, 0.2, 0.0]
    atoms.set_cell(cell, scale_atoms=True)
    cell[2] += [2.0, -1.0, 0.0]
    atoms.set_cell(cell)
    atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    return atoms


def hydronium():
    return molecule("H2O") + Atoms("H", positions=[[0.2, 0.1, 1.1]])


CASES = {
    "open": lambda: case(molecule("CH3OH"), seed=3),
    "open, charged": lambda: case(hydronium(), 1.0, seed=4),
    "triclinic": lambda: case(triclinic(), seed=5),
    "triclinic, charged": lambda: case(triclinic(), 0.5, seed=5),
    "slab": lambda: case(slab(), seed=6),
    "slab, charged": lambda: case(slab(), -0.5, seed=6),
    "tilted slab": lambda: case(tilted_slab(), 0.5, seed=7),
}


@pytest.fixture(params=list(CASES))
def one(request):
    """Each structure in turn."""
    return CASES[request.param]()


@pytest.fixture
def cases():
    """All of them: open, periodic and slabs, neutral and charged."""
    return [make() for make in CASES.values()]


@pytest.fixture
def batch():
    """Return the function that makes tensors of cases: system, χ, J, net charges."""

    def tensors(*some):
        joined = (np.concatenate([getattr(c, n) for c in some]) for n in ("chi", "hardness"))
        system = system_of([c.atoms for c in some], [c.width for c in some])
        return system, *map(torch.as_tensor, joined), torch.tensor([c.net for c in some]).double()

    return tensors


@pytest.fixture
def rock_salt():
    """Return the function that makes rattled rock salt of n³ cubic cells, as a case."""

    def make(repeat, rattle=0.1, hardness=1.0, width=0.7):
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
        atoms.rattle(rattle, seed=1)
        sodium = atoms.numbers == 11
        chi, own = np.where(sodium, 2.843, 8.564), np.where(sodium, 4.592, 9.892)
        return Case(atoms, chi, hardness * own, np.full(len(atoms), width), 0.0)

    return make


@pytest.fixture
def naive():
    """Return the function that gives the matrix A of an open or a periodic case, by loops."""

    def matrix(c):
        positions, count = c.atoms.positions, len(c.atoms)
        gamma = np.sqrt(2 * (c.width[:, None] ** 2 + c.width**2))
        vectors = positions[:, None] - positions
        if not c.atoms.pbc.any():
            r = np.linalg.norm(vectors, axis=2) + np.eye(count)
            result = erf(r / gamma) / r
            np.fill_diagonal(result, 1 / (c.width * math.sqrt(math.pi)))
            return COULOMB * result
        cell, eta, volume = c.atoms.cell.array, 1.3, c.atoms.get_volume()
        result = -2 * np.pi / volume * (eta**2 - gamma**2 / 2)
        result += np.diag(1 / (c.width * math.sqrt(math.pi)) - math.sqrt(2 / math.pi) / eta)
        reciprocal = 2 * np.pi * np.linalg.inv(cell).T
        for n in itertools.product(range(-6, 7), repeat=3):
            if n == (0, 0, 0):
                continue
            k = n @ reciprocal
            weight = 4 * np.pi / volume * math.exp(-(eta**2) * (k @ k) / 2) / (k @ k)
            result += weight * np.cos(vectors @ k)
        for n in itertools.product(range(-4, 5), repeat=3):
            r = np.linalg.norm(vectors + n @ cell, axis=2)
            far = r > 1e-9
            r = np.where(far, r, 1.0)
            near = (erfc(r / (math.sqrt(2) * eta)) - erfc(r / gamma)) / r
            result += np.where(far, near, 0.0)
        return COULOMB * result

    return matrix
