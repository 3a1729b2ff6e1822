"""Direct forces on every backbone: vectors that turn with the structure, never ``forces``."""

import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from omegaconf import OmegaConf

from mlip import MlipCalculator, config
from mlip.models.build import build, resolve
from mlip.models.checkpoint import load, read_header, save
from mlip.testing import contract

ELEMENTS = ["Li", "O"]
CASES = [
    pytest.param(backbone, marks=getattr(pytest.mark, backbone), id=backbone)
    for backbone in config.options("backbone")
]
SMALL = {"channels": 8, "radial_network": [16], "r_max": 4.0, "max_l": 1, "layers": 3}
WITHOUT_VECTORS = ("chgnet", "allegro")


def case(backbone, **changes):
    composed = config.compose(
        "train", ["stages=direct_forces", f"backbone@model.backbone={backbone}"]
    )
    model = OmegaConf.to_container(composed.model, resolve=True)
    small = SMALL | changes
    model["backbone"] |= {k: v for k, v in small.items() if k in model["backbone"]}
    resolved = resolve({**model, "precision": "float64"}, ELEMENTS, average_neighbors=12.0)
    torch.manual_seed(0)
    potential = build(resolved)
    potential.set_energy_references({"Li": -1.9, "O": -4.2})
    return potential, resolved


@pytest.mark.parametrize("backbone", CASES)
def test_direct_forces_turn_with_the_structure_or_are_refused(backbone):
    if backbone in WITHOUT_VECTORS:
        with pytest.raises(ValueError, match="read from vectors, but this backbone has none"):
            case(backbone)
        return
    contract.check_vectors(case(backbone)[0], contract.example(ELEMENTS), "direct_forces")


@pytest.mark.mace
def test_a_backbone_of_scalars_is_refused():
    with pytest.raises(ValueError, match=r"give model\.backbone\.max_l=1"):
        case("mace", max_l=0)


@pytest.mark.mace
def test_they_are_nobodys_forces(tmp_path):
    potential, resolved = case("mace")
    atoms = contract.example(ELEMENTS)
    trained = contract.predict(potential, atoms)  # not asked for: not computed
    assert "direct_forces" not in trained
    contract.check_forces(potential, atoms)
    path = save(tmp_path / "potential.safetensors", potential, resolved)
    again = load(path)
    assert list(again.heads) == ["energy"]
    assert list(read_header(path)["config"]["heads"]) == ["energy"]
    assert list(resolved["heads"]) == ["energy", "direct_forces"]  # the training goes on with it
    assert "direct_forces" in dict(potential.heads)
    np.testing.assert_allclose(contract.predict(again, atoms)["forces"], trained["forces"])
    atoms.calc = MlipCalculator(path, device="cpu")
    np.testing.assert_allclose(atoms.get_forces(), trained["forces"], atol=1e-12)
    assert "direct_forces" not in atoms.calc.results
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("direct_forces", atoms)


@pytest.mark.mace
def test_a_head_cannot_give_forces(monkeypatch):
    from mlip.models.heads.direct_forces import DirectForces

    monkeypatch.setattr(DirectForces, "gives", ("forces",))
    with pytest.raises(ValueError, match="the head direct_forces gives forces"):
        case("mace")


@pytest.mark.mace
def test_a_step_on_direct_forces_differentiates_once(monkeypatch):
    from mlip.graph import from_atoms

    potential, _ = case("mace")
    graph = from_atoms(contract.example(ELEMENTS), potential.r_max)

    def refuse(*args, **kwargs):
        raise AssertionError("differentiated by the positions")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    outputs = potential(graph, outputs=("energy", "direct_forces"), differentiable=True)
    assert set(outputs) == {"energy", "energies", "direct_forces"}
    outputs["direct_forces"].square().sum().backward()
    with pytest.raises(AssertionError, match="by the positions"):
        potential(graph, outputs=("forces",), differentiable=True)
