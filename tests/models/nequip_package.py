"""Models trained and packaged by the commands of nequip itself, for the tests of its backbones."""

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.data.card import load_frames
from mlip.graph import from_atoms
from mlip.models.loading import load
from mlip.runtime import default_precision

ELEMENTS = ["Mg", "Al", "Sb"]
R_MAX = 4.0


def package(folder, model):
    """Train a model of the package for a step, and pack it; returns the ``.nequip.zip``."""
    images = []
    for frame in load_frames("mptrj", "full_fields")[::2]:
        atoms = frame.atoms.copy()
        labels = {name: frame.labels[name] for name in ("forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, energy=float(frame.labels["energy"]), **labels)
        images.append(atoms)
    ase.io.write(folder / "frames.extxyz", images)
    (folder / "train.yaml").write_text(yaml.safe_dump(_config(folder, model)))
    _run("nequip-train", "-cp", str(folder), "-cn", "train", f"++hydra.run.dir={folder / 'run'}")
    path = folder / "model.nequip.zip"
    _run("nequip-package", "build", str(folder / "run" / "last.ckpt"), str(path))
    return path


def check_equal(path, energy, derivative):
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) are those of the calculator of nequip."""
    from nequip.integrations.ase import NequIPCalculator

    ours = load(path)
    with default_precision(torch.float64):  # which nequip sets for the whole process
        theirs = NequIPCalculator._from_saved_model(
            str(path), device="cpu", chemical_species_to_atom_type_map=True
        )
        for frame in load_frames("mptrj", "full_fields")[:2]:
            atoms = frame.atoms.copy()
            found = ours(from_atoms(atoms, ours.r_max))
            atoms.calc = theirs
            total = pytest.approx(atoms.get_potential_energy(), abs=energy)
            assert abs(atoms.get_forces()).max() > 1e-4
            assert float(found["energy"]) == total
            np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=derivative)
            stress = full_3x3_to_voigt_6_stress(found["stress"][0].numpy())
            np.testing.assert_allclose(stress, atoms.get_stress(), atol=derivative)


def _run(name, *arguments):
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def _config(folder, model):
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 4}
    transforms = "nequip.data.transforms."
    coefficients = {"total_energy": 1.0, "forces": 1.0, "stress": 1.0}
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 1,
            "train_file_path": str(folder / "frames.extxyz"),
            "val_file_path": str(folder / "frames.extxyz"),
            "transforms": [
                {
                    "_target_": f"{transforms}ChemicalSpeciesToAtomTypeMapper",
                    "model_type_names": ELEMENTS,
                },
                {"_target_": f"{transforms}NeighborListTransform", "r_max": R_MAX},
            ],
            "train_dataloader": loader,
            "val_dataloader": loader,
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "dirpath": str(folder / "run"),
                    "save_last": True,
                }
            ],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "loss": {"_target_": "nequip.train.EnergyForceStressLoss", "coeffs": coefficients},
            "val_metrics": {"_target_": "nequip.train.EnergyForceStressMetrics"},
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "model": {
                "seed": 1,
                "type_names": ELEMENTS,
                "r_max": R_MAX,
                "avg_num_neighbors": 12.0,
                "per_type_energy_shifts": {"Mg": -1.0, "Al": -2.0, "Sb": -3.0},
                "per_type_energy_scales": 0.7,
                **model,
            },
        },
    }
