"""The sevennet backbone: equal to the package with its published weights, and trainable."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from omegaconf import OmegaConf

from mlip.calculators.build import build_calculator
from mlip.calculators.checkpoint import MlipCalculator
from mlip.config import compose
from mlip.data.card import load_frames
from mlip.data.write_extxyz import to_extxyz
from mlip.graph import from_atoms
from mlip.models.backbones.sevennet import Sevennet
from mlip.models.checkpoint import fingerprint
from mlip.models.loading import load, load_with_config
from mlip.models.sevennet_foundation import MODELS, load_sevennet

pytestmark = pytest.mark.sevennet
ROOT = Path(__file__).parents[2]
SINGLE = 2e-6
"""eV/atom; float32 energies of two orders of summation."""
EDGE = 3e-6
"""eV/atom, eV/Å, eV/Å³; float64 sums, but the package rounds its edge vectors to float32."""


@pytest.fixture(scope="module")
def structures():
    frames = [*load_frames("mptrj", "test")[:3], *load_frames("mlearn_li", "test")[:1]]
    return [frame.atoms for frame in frames]


def theirs(name):
    from sevenn.calculator import SevenNetCalculator

    with pytest.warns(UserWarning, match="accelerator"):
        return SevenNetCalculator(name.replace("sevennet_", "7net-"), device="cpu")


def doubled(module, data):
    """The package makes float32 graphs and one-hot vectors whatever its model is."""
    for key, value in list(data.items()):
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            data[key] = value.double()
    return data


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_are_those_of_the_package_in_double_precision(name, structures):
    calculator, ours = theirs(name), load(name).to_precision(torch.float64)
    model = calculator.model.double()
    model.register_forward_pre_hook(lambda module, args: (doubled(module, args[0]),))
    model.onehot_idx_to_onehot.register_forward_hook(lambda module, _, data: doubled(module, data))
    for atoms in structures[:2]:
        copy = atoms.copy()
        found = ours(from_atoms(copy, ours.r_max))
        stress = full_3x3_to_voigt_6_stress(found["stress"][0].numpy())
        copy.calc = calculator
        energy = pytest.approx(copy.get_potential_energy(), abs=EDGE * len(copy))
        assert float(found["energy"]) == energy
        np.testing.assert_allclose(found["forces"], copy.get_forces(), atol=EDGE)
        np.testing.assert_allclose(stress, copy.get_stress(), atol=EDGE)


@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_calculator_of_the_package(name, structures):
    calculator, ours = theirs(name), MlipCalculator(name, device="cpu")
    for atoms in structures:
        expected, found = atoms.copy(), atoms.copy()
        expected.calc, found.calc = calculator, ours
        energy = pytest.approx(expected.get_potential_energy(), abs=SINGLE * len(atoms))
        assert found.get_potential_energy() == energy
        np.testing.assert_allclose(found.get_forces(), expected.get_forces(), atol=1e-5)
        np.testing.assert_allclose(found.get_stress(), expected.get_stress(), atol=1e-6)


def test_its_card_is_that_of_the_model():
    calculator = compose("benchmark", ["calculator=sevennet_0"]).calculator
    built = build_calculator(OmegaConf.to_container(calculator.build, resolve=True))
    assert built.supported_elements == set(calculator.card.elements)
    file = files(calculator.card.weights.package).joinpath(calculator.card.weights.file)
    assert built.checkpoint_hash == fingerprint(Path(str(file)))


def test_a_published_model_keeps_its_isolated_atoms_in_its_references():
    potential, config = load_with_config("sevennet_0")
    assert len(config["elements"]) == 89
    energy = potential(from_atoms(Atoms("Li", positions=[[0.0, 0.0, 0.0]]), 5.0))["energy"]
    place = potential.elements.index("Li")
    assert float(energy) == pytest.approx(float(potential.energy_references[place]), abs=SINGLE)


def test_the_published_features_do_not_know_their_mirror_image(structures):
    """Its features have no parity: a property of the published architecture, on record here."""
    ours = load("sevennet_0").to_precision(torch.float64)
    generator = np.random.default_rng(0)
    chiral = Atoms("LiOFPSCl", positions=2.0 * generator.normal(size=(6, 3)))
    mirrored = chiral.copy()
    mirrored.positions *= -1
    energies = [float(ours(from_atoms(atoms, 5.0))["energy"]) for atoms in (chiral, mirrored)]
    assert 1e-4 < abs(energies[1] - energies[0]) < 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [8]}, "give 2 numbers"),
        ({"self_connection": "none"}, "choose nequip or linear"),
        ({"average_neighbors": None}, "average_neighbors is not set"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sevennet(["Li"], **{"average_neighbors": 9.0, **options})


def test_files_of_another_kind_are_refused_unread(tmp_path):
    torch.save({"model": 1}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no checkpoint of sevenn"):
        load_sevennet(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="another format"):
        load_sevennet(tmp_path / "text.pth")


def train(*overrides):
    return subprocess.run(
        [sys.executable, "train.py", "trainer=cpu", "threads=1", *overrides],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "frames.extxyz"
    path.write_text("".join(map(to_extxyz, load_frames("mptrj", "full_fields")[::4])))
    held_out = [f"data.source.val={path}", f"data.source.test={path}", "data.batch_size=2"]
    return [f"data.path={path}", "data.units=ase", "data=extxyz", *held_out]


SCRATCH = ["backbone@model.backbone=sevennet", "model.backbone.channels=8"]
TUNING = ["start=sevennet_0", "optimizer.lr=1e-6", "ema_decay=0"]


@pytest.mark.parametrize("how", [SCRATCH, TUNING], ids=["scratch", "published"])
def test_training(how, inputs, tmp_path):
    result = train(*inputs, *how, "trainer.max_epochs=3", f"output={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    first, last = (dict(zip(names, row.split(","), strict=True)) for row in (rows[1], rows[-1]))
    assert float(last["train/loss"]) < float(first["train/loss"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["errors"]["test"]
    load(tmp_path / "run" / "best.safetensors")
