"""The chgnet backbone: equal to the package with its published weights, and trainable."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from mlip.calculators.checkpoint import MlipCalculator
from mlip.data.card import load_frames
from mlip.data.write_extxyz import to_extxyz
from mlip.graph import collate, from_atoms
from mlip.models.backbones.chgnet import Chgnet, _Bonds
from mlip.models.checkpoint import save
from mlip.models.chgnet_foundation import MODELS
from mlip.models.loading import load, load_with_config

pytestmark = pytest.mark.chgnet
ROOT = Path(__file__).parents[2]
SINGLE = 5e-6
"""eV/atom; float32 energies of two orders of summation."""
DOUBLE = 1e-10
"""eV/Å, eV/Å³, μB; the same sums in float64."""


@pytest.fixture(scope="module")
def structures():
    frames = [*load_frames("mptrj", "test")[:5], *load_frames("mlearn_li", "test")[:1]]
    return [frame.atoms for frame in frames]


@pytest.fixture
def double(monkeypatch):
    """The package in float64, which it does not offer by itself."""
    from chgnet.graph import converter, crystalgraph
    from chgnet.model import model

    for module in (converter, crystalgraph, model):
        monkeypatch.setattr(module, "TORCH_DTYPE", torch.float64)
    return model.CHGNet


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_are_those_of_the_package_in_double_precision(name, structures, double):
    from pymatgen.io.ase import AseAtomsAdaptor

    version = name.removeprefix("chgnet_").replace("_", ".")
    theirs = double.load(model_name=version, use_device="cpu", verbose=False).double()
    theirs.composition_model = None  # its float32 sum of constants
    ours = load(name).to_precision(torch.float64)
    for atoms in structures:
        expected = theirs.predict_structure(AseAtomsAdaptor.get_structure(atoms))
        found = ours(from_atoms(atoms, ours.r_max))
        np.testing.assert_allclose(found["forces"], expected["f"], atol=DOUBLE)
        np.testing.assert_allclose(found["stress"][0] * 160.21766208, expected["s"], atol=DOUBLE)
        np.testing.assert_allclose(found["magmoms"], expected["m"], atol=DOUBLE)


@pytest.mark.parametrize("name", MODELS)
def test_energies_and_moments_are_those_of_the_calculator(name, structures):
    from mlip.calculators.chgnet import chgnet

    theirs, ours = chgnet(name.removeprefix("chgnet_").replace("_", ".")), load(name)
    outputs = ours(collate([from_atoms(atoms, ours.r_max) for atoms in structures]))
    moments = outputs["magmoms"].split([len(atoms) for atoms in structures])
    for atoms, energy, found in zip(structures, outputs["energy"], moments, strict=True):
        copy = atoms.copy()
        copy.calc = theirs
        assert float(energy) == pytest.approx(copy.get_potential_energy(), abs=SINGLE * len(atoms))
        np.testing.assert_allclose(found, theirs.results["magmoms"], atol=1e-5)


def test_the_angles_are_those_of_the_package(structures):
    from chgnet.graph import CrystalGraphConverter
    from pymatgen.io.ase import AseAtomsAdaptor

    converter = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3)
    backbone = Chgnet(["Li"])
    for atoms in structures:
        theirs = converter(AseAtomsAdaptor.get_structure(atoms)).bond_graph
        graph = from_atoms(atoms, backbone.r_max)
        i, j = graph.edge_index
        vectors = graph.positions[j] - graph.positions[i] + graph.edge_shift @ graph.cell[0]

        class Geometry:
            edge_index, edge_pair, atoms = graph.edge_index, graph.edge_pair, len(graph.positions)
            edge_lengths = torch.linalg.vector_norm(vectors, dim=1)

        ours = _Bonds(Geometry, backbone.r_bond).graph
        middles = torch.bincount(theirs[:, 0], minlength=len(atoms))
        assert torch.equal(torch.bincount(ours[:, 0], minlength=len(atoms)), middles)


def test_a_published_model_keeps_its_isolated_atoms_in_its_references():
    potential, config = load_with_config("chgnet_0_3_0")
    assert len(config["elements"]) == 89
    assert set(config["heads"]) == {"magmoms", "energy"}
    atom = Atoms("Li", positions=[[0.0, 0.0, 0.0]])
    energy = potential(from_atoms(atom, potential.r_max))["energy"]
    place = potential.elements.index("Li")
    assert float(energy) == pytest.approx(float(potential.energy_references[place]), abs=SINGLE)


def test_a_checkpoint_of_a_published_model_needs_the_package_only_for_its_code(
    tmp_path, structures
):
    potential, config = load_with_config("chgnet_0_3_0")
    path = save(tmp_path / "model.safetensors", potential, config)
    calculator = MlipCalculator(path, device="cpu")
    assert "magmoms" in calculator.implemented_properties
    atoms = structures[0].copy()
    atoms.calc = calculator
    expected = potential(from_atoms(atoms, potential.r_max))
    np.testing.assert_array_equal(atoms.get_forces(), expected["forces"])
    np.testing.assert_array_equal(atoms.get_magnetic_moments(), expected["magmoms"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_bond": 7.0}, "r_bond is 7.0 Å: give at most r_max, 6.0 Å"),
        ({"elements": ["Li", "Lr"]}, "knows the elements H to Pu, not Lr"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Chgnet(**{"elements": ["Li"], **options})


def train(*overrides):
    return subprocess.run(
        [sys.executable, "train.py", "trainer=cpu", "threads=1", *overrides],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def magnetic(tmp_path_factory):
    """Eight frames of a relaxation in MPtrj; as often there, only some have moments."""
    frames = load_frames("mptrj", "full_fields")
    assert 0 < sum("magmoms" in frame.labels for frame in frames) < len(frames)
    path = tmp_path_factory.mktemp("magnetic") / "frames.extxyz"
    path.write_text("".join(map(to_extxyz, frames)))
    return path


def test_fine_tuning_a_published_model_on_moments(magnetic, tmp_path):
    files = [f"data.path={magnetic}", "data.units=ase", "data=extxyz", "data.batch_size=2"]
    files += [f"data.source.val={magnetic}", f"data.source.test={magnetic}"]
    tuning = ["start=chgnet_0_3_0", "loss=huber_magmoms", "optimizer.lr=1e-4", "ema_decay=0"]
    result = train(*files, *tuning, "trainer.max_epochs=3", f"output={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    first, last = (dict(zip(names, row.split(","), strict=True)) for row in (rows[1], rows[-1]))
    assert float(last["train/loss"]) < float(first["train/loss"])
    errors = json.loads((tmp_path / "run" / "summary.json").read_text())["errors"]["test"]
    assert errors["magmoms_rmse_muB"] < 0.5
    assert (tmp_path / "run" / "test" / "parity_magmoms.png").is_file()


def test_moments_without_their_head_are_refused(magnetic, tmp_path):
    files = [f"data.path={magnetic}", "data.units=ase", "data=extxyz"]
    files += [f"data.source.val={magnetic}", "data.source.test_fraction=0"]
    result = train(*files, "loss=huber_magmoms", f"output={tmp_path / 'run'}")
    assert result.returncode == 2
    assert "add its head, +head@model.heads.magmoms=magmoms" in result.stderr
