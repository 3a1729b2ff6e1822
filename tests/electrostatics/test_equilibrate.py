"""Equilibrated charges: sums, independent oracles, batches, symmetries, size consistency."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from mlip.electrostatics.conjugate_gradient import condition
from mlip.electrostatics.constraints import fixed_potential, fragment_charges, total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.parameters import split_hardness
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of

DENSE, ITERATIVE = Settings("dense"), Settings("conjugate_gradient", 1e-10)
EXACT = 1e-10
CHARGE = 1e-6
ENERGY = 1e-8
SUM = 1e-8
TIGHT = 1e-11


def run(tensors, settings=DENSE, constraint=None, tolerance=TIGHT, method="auto"):
    system, chi, hardness, net = tensors
    plan = plan_coulomb(system, tolerance, method)
    constraint = constraint or total_charge(system, net)
    return equilibrate(plan, system, chi, hardness, constraint, settings)


def sums(system, charges):
    return charges.new_zeros(system.graphs).index_add(0, system.batch, charges)


@pytest.mark.parametrize(("settings", "tolerance"), [(DENSE, EXACT), (ITERATIVE, SUM)])
def test_charges_of_a_mixed_batch_add_up(batch, cases, settings, tolerance):
    tensors = batch(*cases)
    found = run(tensors, settings)
    assert torch.allclose(sums(tensors[0], found.charges), tensors[3], rtol=0, atol=tolerance)
    assert (found.residual < 1e-8).all()


def test_solvers_agree(batch, cases):
    """Which one is used does not matter, on charges, energies and chemical potentials."""
    tensors = batch(*cases)
    dense, iterative = run(tensors, DENSE), run(tensors, ITERATIVE)
    assert float((dense.charges - iterative.charges).abs().max()) < 1e-8
    assert float((dense.energies - iterative.energies).abs().max()) < ENERGY
    difference = dense.chemical_potential - iterative.chemical_potential
    assert float(difference.abs().max()) < 1e-7
    assert (dense.iterations == 0).all()
    assert (iterative.iterations > 0).all()


def test_a_batch_gives_what_each_structure_gives(batch, cases):
    together = run(batch(*cases))
    alone = [run(batch(one)) for one in cases]
    for name in ("charges", "energies"):
        joined = torch.cat([getattr(own, name) for own in alone])
        assert torch.allclose(getattr(together, name), joined, rtol=0, atol=EXACT)


def test_charges_solve_the_equations_of_an_independent_matrix(batch, one, naive):
    if one.atoms.pbc.sum() == 2:
        pytest.skip("the loops of the oracle know no slabs; they are compared to thick vacuum")
    found = run(batch(one))
    count = len(one.atoms)
    full = np.ones((count + 1, count + 1))
    full[:-1, :-1] = naive(one) + np.diag(one.hardness)
    full[-1, -1] = 0.0
    solution = np.linalg.solve(full, [*-one.chi, one.net])
    charges, multiplier = solution[:-1], solution[-1]
    energy = 0.5 * charges @ full[:-1, :-1] @ charges + one.chi @ charges
    assert found.charges.numpy() == pytest.approx(charges, abs=1e-9)
    assert float(found.energies) == pytest.approx(energy, abs=ENERGY)
    assert float(found.chemical_potential) == pytest.approx(-multiplier, abs=1e-8)


def test_dense_ewald_and_mesh_give_the_same(batch, rock_salt):
    tensors = batch(rock_salt(3))
    found = [
        run(tensors, DENSE, method="ewald", tolerance=1e-9),
        run(tensors, Settings("conjugate_gradient", 1e-9), method="ewald", tolerance=1e-9),
        run(tensors, Settings("conjugate_gradient", 1e-9), method="pme", tolerance=1e-9),
    ]
    atoms = tensors[0].atoms
    for other in found[1:]:
        assert float((found[0].charges - other.charges).abs().max()) < CHARGE
        assert float((found[0].energies - other.energies).abs().max()) / atoms < ENERGY


def test_rotation_translation_order_and_images_do_not_matter(batch, one):
    tensors = system, chi, hardness, net = batch(one)
    before = run(tensors)
    turn = torch.as_tensor(Rotation.from_euler("zyx", [0.4, 1.1, -0.7]).as_matrix())
    order = torch.as_tensor(np.random.default_rng(0).permutation(system.atoms))
    images = torch.randint(-2, 3, (system.atoms, 3)).double() * system.pbc
    positions = system.positions + images @ system.cell[0] + torch.tensor([0.3, -1.2, 5.0])
    moved = replace(
        system,
        positions=(positions @ turn.T)[order],
        cell=system.cell @ turn.T,
        widths=system.widths[order],
    )
    after = run((moved, chi[order], hardness[order], net))
    assert torch.allclose(after.charges, before.charges[order], rtol=0, atol=EXACT)
    assert torch.allclose(after.energies, before.energies, rtol=0, atol=EXACT)


def test_a_molecule_is_the_limit_of_a_large_box(batch):
    """The energy of a neutral molecule approaches that of the open one as 1/L³."""
    errors = []
    for length in (15.0, 30.0):
        energies = []
        for periodic in (False, True):
            atoms = molecule("H2O", cell=[length] * 3, pbc=periodic)
            chi = torch.as_tensor(np.where(atoms.numbers == 8, 8.7, 4.5))
            system = system_of([atoms], [np.full(3, 0.6)])
            tensors = system, chi, torch.full((3,), 2.0).double(), torch.zeros(1).double()
            energies.append(float(run(tensors).energies))
        errors.append(energies[1] - energies[0])
    assert errors[0] / errors[1] == pytest.approx(8.0, rel=0.05)


def test_a_supercell_has_the_charges_and_energies_of_its_cell(batch, one):
    if not one.atoms.pbc.all() or one.net:
        pytest.skip("only neutral periodic structures are extensive")
    small = run(batch(one), tolerance=1e-12)
    one.atoms = one.atoms.repeat((2, 1, 2))
    for name in ("chi", "hardness", "width"):
        setattr(one, name, np.tile(getattr(one, name), 4))
    large = run(batch(one), tolerance=1e-12)
    assert torch.allclose(large.charges, small.charges.repeat(4), atol=1e-8)
    assert float(large.energies / 4) == pytest.approx(float(small.energies), abs=1e-8)


def sodium_chloride(*distances):
    """Pairs of Na and Cl, 60 Å from each other, with tabulated parameters."""
    atoms = Atoms()
    for index, distance in enumerate(distances):
        atoms += Atoms("NaCl", [[0, 60.0 * index, 0], [distance, 60.0 * index, 0]])
    chi = torch.as_tensor(np.where(atoms.numbers == 11, 2.843, 8.564))
    whole = torch.as_tensor(np.where(atoms.numbers == 11, 4.592, 9.892))
    hardness, width = split_hardness(whole, 0.5)
    return system_of([atoms], [width.numpy()]), chi, hardness, torch.zeros(1).double()


def test_a_known_failure_charge_leaks_between_distant_atoms_and_fragments_cure_it():
    """Charge equilibration keeps 0.41 e on Na and Cl 50 Å apart (tabulated parameters)."""
    tensors = sodium_chloride(50.0)
    expected = (8.564 - 2.843) / (4.592 + 9.892 - 2 * 14.399645 / 50.0)
    leak = run(tensors).charges
    assert expected == pytest.approx(0.41, abs=0.005)
    assert float(leak[0]) == pytest.approx(expected, abs=1e-6)
    fragments = fragment_charges(tensors[0], torch.tensor([0, 1]), torch.zeros(2).double())
    assert float(run(tensors, constraint=fragments).charges.abs().max()) < EXACT


@pytest.mark.parametrize("settings", [DENSE, ITERATIVE])
def test_distant_fragments_of_fixed_charge_have_the_sum_of_their_energies(settings):
    one = run(sodium_chloride(2.5))
    assert float(one.charges[0]) > 0.5
    two = sodium_chloride(2.5, 2.5)
    far = replace(two[0], positions=two[0].positions * torch.tensor([1.0, 1e4, 1.0]))
    fragments = fragment_charges(far, torch.tensor([0, 0, 1, 1]), torch.zeros(2).double())
    both = run((far, *two[1:]), settings, fragments)
    assert float(both.energies) == pytest.approx(2 * float(one.energies), abs=1e-8)
    assert both.charges.tolist() == pytest.approx(one.charges.tolist() * 2, abs=1e-8)


def test_fixed_potential_is_total_charge_seen_from_the_reservoir(batch, one):
    if one.atoms.pbc.sum() == 2:
        pytest.skip("a slab charges without end: its potential has no reference but the vacuum")
    tensors = system, chi, hardness, net = batch(one)
    closed = run(tensors)
    for settings in (DENSE, ITERATIVE):
        shifted = (system, chi - float(closed.chemical_potential), hardness, net)
        electrode = run(shifted, settings, fixed_potential(system))
        assert torch.allclose(electrode.charges, closed.charges, atol=1e-8)
        grand = float(closed.energies) - float(closed.chemical_potential) * one.net
        assert float(electrode.energies) == pytest.approx(grand, abs=1e-8)


def test_a_molecule_of_fixed_charge_beside_an_electrode(batch, one):
    """Some atoms in a group, the others free: both solvers, the same."""
    if one.atoms.pbc.sum() == 2:
        pytest.skip("a slab charges without end")
    tensors = batch(one)
    fragment = torch.full((tensors[0].atoms,), -1)
    fragment[:2] = 0
    constraint = fragment_charges(tensors[0], fragment, torch.tensor([0.25]).double())
    dense, iterative = (run(tensors, own, constraint) for own in (DENSE, ITERATIVE))
    assert float(dense.charges[:2].sum()) == pytest.approx(0.25, abs=EXACT)
    assert torch.allclose(dense.charges, iterative.charges, atol=1e-8)


def test_the_matrix_is_positive_definite_for_any_widths_and_hardnesses(batch, cases):
    """No eigenvalue is below the smallest hardness; of slabs, among charges that add to 0."""
    random = np.random.default_rng(0)
    for _ in range(20):
        for one in cases:
            one.width = np.exp(random.uniform(np.log(0.05), np.log(3.0), len(one.atoms)))
            one.hardness = np.exp(random.uniform(np.log(0.05), np.log(20.0), len(one.atoms)))
        for one in cases:
            system, _, hardness, _ = batch(one)
            operator = plan_coulomb(system, 1e-10).operator(system)
            whole = operator.matrix()[0] + torch.diag(hardness)
            basis = torch.eye(system.atoms).double()
            if one.atoms.pbc.sum() == 2:
                basis = torch.linalg.qr(basis - basis.mean(0))[0][:, :-1]
            lowest = torch.linalg.eigvalsh(basis.T @ whole @ basis)[0]
            assert float(lowest) > float(hardness.min()) - 1e-8
        assert (run(batch(*cases), tolerance=1e-9).residual < 1e-7).all()


@pytest.mark.parametrize("repeat", [4])
def test_long_waves_are_screened_in_crystals_and_slabs(batch, rock_salt, repeat):
    """Rock salt of 512 atoms, soft and wide: no more steps than of 13,824 atoms (14)."""
    crystal = rock_salt(repeat, hardness=0.05, width=0.8)
    loose = Settings("conjugate_gradient", 1e-6)
    found = run(batch(crystal), loose, tolerance=1e-5)
    assert int(found.iterations) <= 16
    crystal.atoms.pbc = [True, True, False]
    crystal.atoms.center(vacuum=10.0, axis=2)
    found = run(batch(crystal), loose, tolerance=1e-5)
    assert int(found.iterations) <= 18


def test_a_guess_saves_iterations_and_changes_nothing(batch, rock_salt):
    tensors = system, chi, hardness, net = batch(rock_salt(3))
    plan, constraint = plan_coulomb(system), total_charge(system, net)
    cold = equilibrate(plan, system, chi, hardness, constraint, ITERATIVE)
    near = cold.charges + 1e-6 * torch.randn_like(cold.charges)
    warm = equilibrate(plan, system, chi, hardness, constraint, ITERATIVE, guess=near)
    assert int(warm.iterations) < 0.7 * int(cold.iterations)
    assert float((warm.charges - cold.charges).abs().max()) < 1e-8
    again = equilibrate(plan, system, chi, hardness, constraint, ITERATIVE, guess=cold.charges)
    assert int(again.iterations) <= 1
    assert tensors[0] is system


def test_precision_of_the_result_is_that_of_the_model(batch, one):
    system, chi, hardness, net = batch(one)
    single = equilibrate(
        plan_coulomb(system), system, chi.float(), hardness.float(), total_charge(system, net)
    )
    assert single.charges.dtype == single.energies.dtype == torch.float32
    double = run((system, chi.float().double(), hardness.float().double(), net))
    assert torch.allclose(single.charges.double(), double.charges, atol=1e-6)


def test_missing_net_charge_is_an_error(batch, one):
    system, chi, hardness, net = batch(one)
    with pytest.raises(ValueError, match="net charge is missing"):
        total_charge(system, None)
    with pytest.raises(ValueError, match="constraint on the charges is missing"):
        equilibrate(plan_coulomb(system), system, chi, hardness, None)
    with pytest.raises(ValueError, match="is nan"):
        total_charge(system, torch.full_like(net, torch.nan))
    with pytest.raises(ValueError, match="for 1 structures"):
        total_charge(system, torch.zeros(2))


def test_wrong_fragments_are_refused(batch, cases):
    system, *_ = batch(*cases[:2])
    with pytest.raises(ValueError, match=r"fragment 0 spans structures \[0, 1\]"):
        fragment_charges(system, torch.zeros_like(system.batch), torch.zeros(1))
    with pytest.raises(ValueError, match="fragment 1 has no atoms"):
        fragment_charges(system, 2 * system.batch, torch.zeros(3))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hardness", 0.0, "its hardness is 0.0; it must be finite and positive"),
        ("chi", np.nan, "its electronegativity is nan"),
        ("width", 0.0, "its width is 0.0"),
    ],
)
def test_values_without_a_minimum_are_refused(batch, one, name, value, words):
    getattr(one, name)[1] = value
    with pytest.raises(ValueError, match=f"structure 0, atom 1: {words}"):
        run(batch(one))


def test_a_solver_that_does_not_converge_says_so(batch, rock_salt):
    tensors = batch(rock_salt(2, hardness=0.05, width=0.8))
    with pytest.raises(RuntimeError, match=r"not converged in 4 .* condition number about \d") as e:
        run(tensors, Settings("conjugate_gradient", 1e-8, max_iterations=4))
    assert "raise max_iterations" in str(e.value)


def test_the_condition_number_is_that_of_the_matrix():
    """Of conjugate gradients on a diagonal matrix, run to the end."""
    values = np.array([1.0, 2.0, 5.0, 40.0])
    residual = direction = np.ones(4)
    lengths, turns = [], []
    for _ in range(4):
        product = values * direction
        lengths.append(residual @ residual / (direction @ product))
        after = residual - lengths[-1] * product
        turns.append(after @ after / (residual @ residual))
        residual, direction = after, after + turns[-1] * direction
    assert condition(np.array(lengths), np.array(turns)) == pytest.approx(40.0, rel=1e-6)


class Attractive:
    """A matrix that no charges make: it rewards the largest."""

    def __init__(self, system):
        self.atoms = system.atoms

    def operator(self, system):
        return self

    def potential(self, charges):
        return -20.0 * charges

    def energies(self, charges):
        raise NotImplementedError

    def diagonal(self):
        return torch.full((self.atoms,), -20.0).double()

    def matrix(self):
        return -20.0 * torch.eye(self.atoms).double()[None]


@pytest.mark.parametrize("settings", [DENSE, ITERATIVE])
def test_a_matrix_without_a_minimum_is_refused(batch, one, settings):
    system, chi, hardness, net = batch(one)
    with pytest.raises(RuntimeError, match="not positive definite"):
        equilibrate(Attractive(system), system, chi, hardness, total_charge(system, net), settings)
