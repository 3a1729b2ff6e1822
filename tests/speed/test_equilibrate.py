"""Charge equilibration from 10³ to 10⁵ atoms: growth, iterations, memory, beside what there is."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase.build import bulk
from torchpme import CoulombPotential, PMECalculator
from torchpme.tuning import tune_pme

from mlip.electrostatics.conjugate_gradient import ConjugateGradientSolver
from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.linear import Matrix
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.preconditioner import jacobi
from mlip.electrostatics.system import system_of
from mlip.neighbors import pair_list
from mlip.units import COULOMB

pytestmark = pytest.mark.speed
LOOSE = Settings("conjugate_gradient", 1e-6)
WIDTH, ACCURACY, PEER_CUTOFF = 0.5, 1e-4, 6.0
CRYSTALS = [(n, n, n) for n in (5, 8, 11, 16, 23)]
SLABS = [(8, 8, 2), (16, 16, 2), (26, 26, 2), (44, 44, 2), (76, 76, 2)]

MEMORY = """
import resource
import numpy as np, torch
from ase.build import bulk
from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of

torch.set_num_threads(1)
atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((23, 23, 24))
atoms.rattle(0.1, seed=0)
system = system_of([atoms], [np.full(len(atoms), 0.5)])
system.positions.requires_grad_()
sodium = torch.as_tensor(atoms.numbers == 11)
chi, hardness = (torch.where(sodium, *two).double() for two in ((2.843, 8.564), (4.592, 9.892)))
constraint = total_charge(system, torch.zeros(1).double())
found = equilibrate(plan_coulomb(system, 1e-4), system, chi, hardness, constraint,
                    Settings("conjugate_gradient", 1e-6))
(gradient,) = torch.autograd.grad(found.energies.sum(), system.positions)
assert torch.isfinite(gradient).all()
print(len(atoms), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


def rock_salt(repeat, slab=False, moved=0.0):
    """Rattled rock salt, what equilibrates its charges; atoms ``moved`` by as much (Å)."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=0)
    if slab:
        atoms.pbc = [True, True, False]
        atoms.center(vacuum=10.0, axis=2)
    atoms.positions += moved * np.random.default_rng(1).normal(size=atoms.positions.shape)
    system = system_of([atoms], [np.full(len(atoms), WIDTH)])
    sodium = torch.as_tensor(atoms.numbers == 11)
    chi = torch.where(sodium, 2.843, 8.564).double()
    hardness = torch.where(sodium, 4.592, 9.892).double()
    return system, chi, hardness, total_charge(system, torch.zeros(1).double())


def solve(plan, tensors, guess=None):
    with torch.no_grad():
        start = time.perf_counter()
        found = equilibrate(plan, *tensors, LOOSE, guess)
        return time.perf_counter() - start, found


@pytest.mark.parametrize(("name", "repeats"), [("rock salt", CRYSTALS), ("a slab", SLABS)])
def test_growth_and_iterations(record, name, repeats):
    torch.set_num_threads(1)
    rows = []
    for repeat in repeats:
        tensors = rock_salt(repeat, name == "a slab")
        plan = plan_coulomb(tensors[0], ACCURACY, "pme", skin=0.2)
        seconds, cold = solve(plan, tensors)
        _, warm = solve(plan, rock_salt(repeat, name == "a slab", 0.01), cold.charges)
        rows.append((tensors[0].atoms, seconds, int(cold.iterations), int(warm.iterations)))
        print("\n{} atoms: {:.2f} s, {} iterations, {} warm".format(*rows[-1]))
    atoms, seconds, cold, warm = (np.array(column) for column in zip(*rows, strict=True))
    exponent = float(np.polyfit(np.log(atoms), np.log(seconds), 1)[0])
    spread = 100.0 * (cold.max() - cold.min()) / cold.min()
    for figure, value, unit, target in (
        ("growth", exponent, "exponent", 1.15),
        ("spread of iterations", spread, "%", 20.0),
        ("warm iterations to 1e-6 at most", float(warm.max()), "", 10.0),
    ):
        record(
            f"charge equilibration of {name}, 10³ to 10⁵ atoms: {figure}",
            value,
            unit=unit,
            target=target,
            better="lower",
            peer="none",
            threads=1,
        )


class Peer:
    """A + J by torch-pme's mesh calculator, points made Gaussians over its pairs."""

    def __init__(self, system):
        self.place, self.cell = system.positions, system.cell[0]
        lists = pair_list(self.place.numpy(), self.cell.numpy(), np.ones(3, bool), PEER_CUTOFF)
        first, second, shift = (torch.as_tensor(some) for some in lists)
        self.pairs = torch.stack([first, second], 1)
        vectors = self.place[second] - self.place[first] + shift.double() @ self.cell
        self.distances = vectors.norm(dim=1)
        sign = torch.where(torch.arange(system.atoms) % 2 == 0, 1.0, -1.0).double()[:, None]
        smearing, options, _ = tune_pme(
            sign,
            self.cell,
            self.place,
            PEER_CUTOFF,
            self.pairs,
            self.distances,
            accuracy=10 * ACCURACY,
            prefactor=COULOMB,
            nodes_lo=5,
        )
        potential = CoulombPotential(smearing=smearing, prefactor=COULOMB).double()
        self.calculator = PMECalculator(potential, **options).double()
        self.narrow = COULOMB * torch.erfc(self.distances / (2 * WIDTH)) / self.distances

    def potential(self, charges):
        call = (charges[:, None], self.cell, self.place, self.pairs, self.distances)
        first, second = self.pairs.T
        near = torch.zeros_like(charges)
        near = near.index_add(0, first, self.narrow * charges[second])
        near = near.index_add(0, second, self.narrow * charges[first])
        own = COULOMB / (math.sqrt(math.pi) * WIDTH) * charges
        return 2 * self.calculator(*call)[:, 0] - near + own


def test_beside_conjugate_gradients_on_torch_pme(record):
    """The same equations, residual and accuracy; the diagonal as preconditioner there."""
    torch.set_num_threads(1)
    system, chi, hardness, constraint = tensors = rock_salt((11, 11, 11))
    plan, peer = plan_coulomb(system, 10 * ACCURACY, "pme"), Peer(system)
    diagonal = hardness + COULOMB / (math.sqrt(math.pi) * WIDTH)
    matrix = Matrix(peer, hardness, constraint, system.batch, 1)
    solver = ConjugateGradientSolver(matrix, jacobi(diagonal), diagonal, 1e-6, 500)
    ours, theirs = [], []
    for _ in range(3):
        seconds, found = solve(plan, tensors)
        ours.append(seconds)
        start = time.perf_counter()
        other = solver.solve(-chi, constraint.charges)
        theirs.append(time.perf_counter() - start)
    difference = float((found.charges - other.values).abs().max())
    assert difference < 1e-3
    print(
        f"\n{system.atoms} atoms: {min(ours):.2f} s, {int(found.iterations)} iterations; torch-pme "
        f"{min(theirs):.2f} s, {int(other.iterations)}; charges differ by {difference:.1e} e"
    )
    record(
        "charge equilibration of 10,648 atoms, whole solve",
        min(theirs) / min(ours),
        unit="times as fast",
        target=5.0,
        better="higher",
        peer="conjugate gradients on torch-pme PMECalculator, diagonal preconditioner",
        threads=1,
    )


def test_beside_a_dense_matrix(record):
    """LU of as many unknowns, the matrix itself not counted; at 10⁵ atoms it would take 80 GB."""
    torch.set_num_threads(1)
    tensors = rock_salt((8, 8, 8))
    count = tensors[0].atoms
    seconds, _ = solve(plan_coulomb(tensors[0], ACCURACY, "pme"), tensors)
    dense = torch.rand(count, count, dtype=torch.float64) + count * torch.eye(count).double()
    start = time.perf_counter()
    torch.linalg.solve(dense, torch.ones(count).double())
    record(
        f"charge equilibration of {count:,} atoms, whole solve, beside dense LU",
        (time.perf_counter() - start) / seconds,
        unit="times as fast",
        target=1.0,
        better="higher",
        peer="torch.linalg.solve of a dense matrix",
        threads=1,
    )


def test_memory_of_a_hundred_thousand_atoms(record):
    ran = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    count, gigabytes = ran.stdout.split()
    assert int(count) > 100_000
    record(
        "memory of equilibrated charges and forces of 101,568 atoms",
        float(gigabytes),
        unit="GB",
        target=8.0,
        better="lower",
        peer="none",
        threads=1,
    )
