"""Every model of configs/ on every backbone obeys the contract; nothing is listed by hand."""

import pytest
import torch
from omegaconf import OmegaConf

from mlip import config
from mlip.models.build import build, resolve
from mlip.testing import contract

ELEMENTS = ["Li", "O"]
CASES = [
    pytest.param((model, backbone), marks=getattr(pytest.mark, backbone), id=f"{model}-{backbone}")
    for model in config.options("model")
    for backbone in config.options("backbone")
]
SMALL = {"channels": 8, "radial_network": [16], "r_max": 4.0}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    model, backbone = request.param
    composed = config.compose("train", [f"model={model}", f"backbone@model.backbone={backbone}"])
    if "neutral" in composed.model:
        composed.model.neutral = True
    model_config = OmegaConf.to_container(composed.model, resolve=True)
    for head in model_config["heads"].values():
        head |= {"tolerance": 1e-10} if "tolerance" in head else {}
    backbone_config = model_config["backbone"]
    backbone_config |= {key: value for key, value in SMALL.items() if key in backbone_config}
    resolved = resolve({**model_config, "precision": "float64"}, ELEMENTS, average_neighbors=12.0)
    torch.manual_seed(0)
    potential = build(resolved)
    potential.set_energy_references({"Li": -1.9, "O": -4.2})
    return potential, resolved


@pytest.fixture
def atoms():
    return contract.example(ELEMENTS)


def test_the_potential_feels_its_neighbours(case, atoms):
    forces = contract.predict(case[0], atoms)["forces"]
    assert abs(forces).max() > 1e-3  # else every check below would pass on a dead model


@pytest.mark.parametrize(
    "check",
    [
        contract.check_forces,
        contract.check_stress,
        contract.check_training,
        contract.check_symmetries,
        contract.check_batching,
        contract.check_extensive,
    ],
)
def test_contract(case, atoms, check):
    check(case[0], atoms)


@pytest.mark.parametrize("check", [contract.check_isolated_atom, contract.check_cutoff])
def test_contract_of_single_atoms(case, check):
    check(case[0])


def test_checkpoint(case, atoms, tmp_path):
    contract.check_checkpoint(*case, atoms, tmp_path)


def test_the_suite_catches_wrong_forces(case, atoms):
    class Wrong(torch.nn.Module):
        r_max = case[0].r_max

        def forward(self, graph, **kwargs):
            outputs = case[0](graph, **kwargs)
            return {**outputs, "forces": 1.01 * outputs["forces"]}

    with pytest.raises(AssertionError, match="force"):
        contract.check_forces(Wrong(), atoms)
