"""Charge equilibration of rock salt and of a slab from 10³ to 10⁵ atoms: time and iterations."""

import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ase.build import bulk

from mlip import paths
from mlip.electrostatics.constraints import total_charge
from mlip.electrostatics.equilibrate import Settings, equilibrate
from mlip.electrostatics.plan import plan_coulomb
from mlip.electrostatics.system import system_of

pytestmark = pytest.mark.speed
SETTINGS = Settings("conjugate_gradient", 1e-6)
REPEATS = {
    "rock salt": [(n, n, n) for n in (5, 8, 11, 16, 23)],
    "slab": [(n, n, 3) for n in (7, 13, 20, 36, 64)],
}


def structure(name, repeat):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=0)
    if name == "slab":
        atoms.center(vacuum=10.0, axis=2)
        atoms.pbc = (True, True, False)
    return atoms


def measure(name, repeat):
    atoms = structure(name, repeat)
    random = np.random.default_rng(0)
    sodium = atoms.numbers == 11
    chi = torch.as_tensor(np.where(sodium, 2.843, 8.564) + 0.05 * random.normal(size=len(atoms)))
    hardness = torch.full_like(chi, 1.0)
    system = system_of([atoms], [np.full(len(atoms), 0.8)])
    plan = plan_coulomb(system, 1e-3, skin=0.5)
    neutral = total_charge(system, torch.zeros(1))
    with torch.no_grad():
        start = time.process_time()
        cold = equilibrate(plan, system, chi, hardness, neutral, SETTINGS)
        seconds = time.process_time() - start
        step = 0.01 * torch.as_tensor(random.normal(size=(len(atoms), 3)))
        moved = replace(system, positions=system.positions + step)
        warm = equilibrate(plan, moved, chi, hardness, neutral, SETTINGS, guess=cold.charges)
    return len(atoms), seconds, int(cold.iterations[0]), int(warm.iterations[0])


@pytest.mark.parametrize("name", REPEATS)
def test_growth(name, record):
    torch.set_num_threads(1)
    rows = []
    for repeat in REPEATS[name]:
        rows.append(measure(name, repeat))
        print(
            "\n{}: {} atoms, {:.2f} s, {} iterations, warm {}".format(name, *rows[-1]), flush=True
        )
    atoms, seconds, cold, warm = (np.array(column) for column in zip(*rows, strict=True))
    exponent = float(np.polyfit(np.log(atoms), np.log(seconds), 1)[0])
    common = {"peer": "none", "threads": 1, "better": "lower"}
    title = f"charge equilibration of {name}, 10³ to 10⁵ atoms"
    record(f"{title}: growth", exponent, unit="exponent", target=1.15, **common)
    spread = 100 * (cold.max() / cold.min() - 1)
    record(f"{title}: spread of iterations", spread, unit="%", target=20, **common)
    record(f"{title}: warm iterations", float(warm.max()), unit="steps", target=10, **common)
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.loglog(atoms, seconds, "o-", label=f"mesh, screened: N^{exponent:.2f}")
    axes.loglog(atoms, seconds[0] * atoms / atoms[0], "--", color="0.6", label="linear")
    axes.set(xlabel="atoms", ylabel="processor time of a cold solve, s", title=f"NaCl, {name}")
    axes.legend()
    file = f"charge_equilibration_{name.replace(' ', '_')}.png"
    figure.savefig(paths.content("benchmarks") / file, dpi=150)
    plt.close(figure)
