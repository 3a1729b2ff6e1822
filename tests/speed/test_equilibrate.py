"""Charge equilibration from 10³ to 10⁵ atoms: time, iterations, memory, beside what there is.

Draws ``benchmarks/charge_equilibration.png`` from the structures that this run has measured.
"""

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ase.build import bulk
from torchpme import CoulombPotential, PMECalculator
from torchpme.tuning import tune_pme

from mlip import paths
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
WIDTH, ACCURACY, PEER_CUTOFF = 0.5, 1e-3, 6.0
ROUNDS = 3
CRYSTALS = [(n, n, n) for n in (5, 8, 11, 16, 23)]
SLABS = [(n, n, 2) for n in (8, 16, 26, 44, 76)]
PEER = CRYSTALS[:3]
"""For torch-pme: 8 n³ atoms, the largest takes a minute."""
DENSE = [(n, n, n) for n in (5, 8, 10)]
"""For dense LU: 10⁵ atoms would need 76 GB, and hours."""


@dataclass(frozen=True)
class Row:
    """One solve: processor time (s) and memory beyond the program itself (MB) of a cold start."""

    atoms: int
    seconds: float
    megabytes: float
    iterations: int = 0
    warm: int = 0
    charges: np.ndarray | None = None


@pytest.fixture(scope="module")
def curves():
    """What this run has measured, by the name of its curve."""
    return {}


def alone(measure, *arguments):
    """Measure in a process of its own, on one thread, so that memory is that of one solve."""
    torch.set_num_threads(1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(measure, *arguments).result()


def megabytes(name):
    """Return the resident memory of this process now (VmRSS) or at its peak (VmHWM)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(status[name].split()[0]) / 1024


def fastest(call, atoms):
    """Return the least processor time of some rounds, of one round for large structures."""
    times = []
    for _ in range(ROUNDS if atoms < 20_000 else 1):
        start = time.process_time()
        found = call()
        times.append(time.process_time() - start)
    return min(times), found


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


def ours(repeat, slab):
    """Screened conjugate gradients on our mesh, cold and from the charges of a step before."""
    before = megabytes("VmRSS")
    tensors = rock_salt(repeat, slab)
    atoms = tensors[0].atoms
    plan = plan_coulomb(tensors[0], ACCURACY, "pme", skin=0.2)
    with torch.no_grad():
        seconds, cold = fastest(lambda: equilibrate(plan, *tensors, LOOSE), atoms)
        used = megabytes("VmHWM") - before
        moved = rock_salt(repeat, slab, 0.01)
        warm = equilibrate(plan, *moved, LOOSE, cold.charges)
    steps = int(cold.iterations), int(warm.iterations)
    return Row(atoms, seconds, used, *steps, cold.charges.numpy())


def peer_pairs(system):
    """Return pairs within the cutoff of the peer and their distances."""
    place, cell = system.positions, system.cell[0]
    lists = pair_list(place.numpy(), cell.numpy(), np.ones(3, bool), PEER_CUTOFF)
    first, second, shift = (torch.as_tensor(some) for some in lists)
    vectors = place[second] - place[first] + shift.double() @ cell
    return torch.stack([first, second], 1), vectors.norm(dim=1)


def tuned(repeat):
    """Return the smearing and the mesh that torch-pme chooses for the same accuracy."""
    system, *_ = rock_salt(repeat)
    sign = torch.where(torch.arange(system.atoms) % 2 == 0, 1.0, -1.0).double()[:, None]
    place = sign, system.cell[0], system.positions
    wanted = {"accuracy": ACCURACY, "prefactor": COULOMB, "nodes_lo": 5}
    return tune_pme(*place, PEER_CUTOFF, *peer_pairs(system), **wanted)[:2]


class Peer:
    """A + J by torch-pme's mesh calculator, points made Gaussians over its pairs."""

    def __init__(self, system, smearing, options):
        self.place, self.cell = system.positions, system.cell[0]
        self.pairs, self.distances = peer_pairs(system)
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


def torch_pme(repeat, smearing, options):
    """The same equations, residual and accuracy on torch-pme, tuned before."""
    before = megabytes("VmRSS")
    system, chi, hardness, constraint = rock_salt(repeat)
    diagonal = hardness + COULOMB / (math.sqrt(math.pi) * WIDTH)
    matrix = Matrix(Peer(system, smearing, options), hardness, constraint, system.batch, 1)
    solver = ConjugateGradientSolver(matrix, jacobi(diagonal), diagonal, 1e-6, 500)
    call = lambda: solver.solve(-chi, constraint.charges)  # noqa: E731
    seconds, found = fastest(call, system.atoms)
    used = megabytes("VmHWM") - before
    return Row(system.atoms, seconds, used, int(found.iterations), 0, found.values.numpy())


def dense_lu(repeat):
    """LU of as many unknowns; the time to fill the matrix is not counted."""
    before = megabytes("VmRSS")
    count = 4 * 2 * math.prod(repeat)
    matrix = torch.rand(count, count, dtype=torch.float64)
    matrix.diagonal().add_(count)
    right = torch.ones(count).double()
    seconds, _ = fastest(lambda: torch.linalg.solve(matrix, right), 10 * count)
    return Row(count, seconds, megabytes("VmHWM") - before)


def exponent(rows, name):
    """Return the power of the number of atoms by which a figure grows."""
    atoms, values = [row.atoms for row in rows], [getattr(row, name) for row in rows]
    return float(np.polyfit(np.log(atoms), np.log(values), 1)[0])


@pytest.mark.parametrize(("name", "repeats"), [("rock salt", CRYSTALS), ("a slab", SLABS)])
def test_growth_and_iterations(record, curves, name, repeats):
    rows = []
    for repeat in repeats:
        rows.append(alone(ours, repeat, name == "a slab"))
        row = rows[-1]
        print(
            f"\n{name}, {row.atoms} atoms: {row.seconds:.2f} s, {row.megabytes:.0f} MB, "
            f"{row.iterations} iterations, {row.warm} warm",
            flush=True,
        )
    curves[f"screened, our mesh: {name}"] = rows
    steps = [row.iterations for row in rows]
    spread = 100.0 * (max(steps) - min(steps)) / min(steps)
    for figure, value, unit, target in (
        ("growth", exponent(rows, "seconds"), "exponent", 1.15),
        ("growth of memory", exponent(rows, "megabytes"), "exponent", 1.05),
        ("spread of iterations", spread, "%", 20.0),
        ("warm iterations to 1e-6 at most", float(max(row.warm for row in rows)), "", 10.0),
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


def test_beside_conjugate_gradients_on_torch_pme(record, curves):
    """The diagonal as preconditioner there; charges agree to the accuracy of the sums."""
    own = alone(ours, PEER[-1], False)
    rows = [alone(torch_pme, repeat, *alone(tuned, repeat)) for repeat in PEER]
    curves["diagonal, torch-pme's mesh: rock salt"] = rows
    difference = np.abs(own.charges - rows[-1].charges).max()
    assert difference < 1e-3
    print(
        f"\n{own.atoms} atoms: {own.seconds:.2f} s, {own.iterations} iterations; torch-pme "
        f"{rows[-1].seconds:.2f} s, {rows[-1].iterations}; charges differ by {difference:.1e} e"
    )
    record(
        "charge equilibration of 10,648 atoms, whole solve",
        rows[-1].seconds / own.seconds,
        unit="times as fast",
        target=5.0,
        better="higher",
        peer="conjugate gradients on torch-pme PMECalculator, diagonal preconditioner",
        threads=1,
    )


def test_beside_a_dense_matrix(record, curves):
    own = alone(ours, DENSE[1], False)
    rows = [alone(dense_lu, repeat) for repeat in DENSE]
    curves["dense LU"] = rows
    record(
        f"charge equilibration of {own.atoms:,} atoms, whole solve, beside dense LU",
        rows[1].seconds / own.seconds,
        unit="times as fast",
        target=1.0,
        better="higher",
        peer="torch.linalg.solve of a dense matrix",
        threads=1,
    )


def forces(repeat):
    """Charges, energy and forces, the plan among them."""
    before = megabytes("VmRSS")
    system, *rest = rock_salt(repeat)
    system.positions.requires_grad_()
    start = time.process_time()
    found = equilibrate(plan_coulomb(system, ACCURACY), system, *rest, LOOSE)
    (gradient,) = torch.autograd.grad(found.energies.sum(), system.positions)
    assert torch.isfinite(gradient).all()
    used = megabytes("VmHWM") - before
    return Row(system.atoms, time.process_time() - start, used, int(found.iterations))


def test_memory_of_a_hundred_thousand_atoms(record):
    row = alone(forces, (23, 23, 24))
    assert row.atoms > 100_000
    record(
        "memory of equilibrated charges and forces of 101,568 atoms",
        row.megabytes / 1024,
        unit="GB",
        target=8.0,
        better="lower",
        peer="none",
        threads=1,
    )


def test_figure(curves):
    """Time and memory against atoms; the slope of each line in the legend."""
    assert curves, "run the tests above too: the figure is of their data"
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    labels = {"seconds": "processor time of a cold solve (s)", "megabytes": "memory (MB)"}
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for curve, rows in curves.items():
            values = [getattr(row, name) for row in rows]
            text = f"{curve}, $N^{{{exponent(rows, name):.2f}}}$"
            axes.loglog([row.atoms for row in rows], values, "o-", markersize=4, label=text)
        axes.set(xlabel="atoms", ylabel=label)
        axes.grid(alpha=0.3, which="major")
        axes.legend(fontsize=7.5, frameon=False)
    figure.suptitle(
        "Charge equilibration: residual 1e-6, sums to 1e-3 eV/Å, one thread", fontsize=10
    )
    figure.savefig(paths.content("benchmarks") / "charge_equilibration.png", dpi=150)
    plt.close(figure)
