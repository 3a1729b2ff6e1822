"""The ASE calculator: units, batches, elements, molecules, no change to the caller's atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms

from mlip.calculators.checkpoint import MlipCalculator
from mlip.errors import UnsupportedElementError
from mlip.models import checkpoint
from mlip.models.build import build, resolve
from mlip.testing.contract import example

CONFIG = {
    "precision": "float64",
    "backbone": {
        "_target_": "mlip.models.backbones.mace.Mace",
        "r_max": 4.0,
        "channels": 4,
        "max_l": 0,
        "max_ell": 2,
        "correlation": 2,
        "layers": 2,
        "average_neighbors": None,
        "radial_network": [8],
    },
    "heads": {"energy": {"_target_": "mlip.models.heads.energy.Energy"}},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    config = resolve(CONFIG, ["Li", "O"], 10.0)
    potential = build(config)
    potential.set_energy_references({"Li": -1.0, "O": -4.0})
    return checkpoint.save(tmp_path_factory.mktemp("c") / "p.safetensors", potential, config)


def test_stress_has_the_sign_of_ase(path):
    atoms = example(["Li", "O"])
    atoms.calc = MlipCalculator(path, device="cpu")
    numerical = atoms.calc.calculate_numerical_stress(atoms, d=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-7)


def test_many_structures_at_once(path):
    calculator = MlipCalculator(path, device="cpu", batch_atoms=40)
    structures = [example(["Li", "O"], seed) for seed in range(5)]
    before = [atoms.positions.copy() for atoms in structures]
    together = calculator.predict(structures)
    for atoms, result, positions in zip(structures, together, before, strict=True):
        alone = calculator.predict([atoms])[0]
        assert result["energy"] == pytest.approx(alone["energy"], abs=1e-10)
        np.testing.assert_allclose(result["forces"], alone["forces"], atol=1e-10)
        np.testing.assert_array_equal(atoms.positions, positions)
        assert atoms.calc is None


def test_a_molecule_has_no_stress(path):
    atoms = Atoms("LiO", positions=[[0, 0, 0], [0, 0, 1.6]])
    atoms.calc = MlipCalculator(path, device="cpu")
    assert np.isfinite(atoms.get_potential_energy())
    assert "stress" not in atoms.calc.results


def test_unknown_elements_are_named(path):
    atoms = example(["Li", "Cl"])
    atoms.calc = MlipCalculator(path, device="cpu")
    with pytest.raises(UnsupportedElementError, match="Cl"):
        atoms.get_potential_energy()


def test_dynamics_conserve_energy(path):
    from ase import units
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    atoms = example(["Li", "O"])
    atoms.calc = MlipCalculator(path, device="cpu")
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    start = atoms.get_total_energy()
    VelocityVerlet(atoms, 0.5 * units.fs).run(100)
    assert abs(atoms.get_total_energy() - start) / len(atoms) < 1e-4  # eV an atom over 50 fs
