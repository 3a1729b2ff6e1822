"""Potentials of the third and fourth generation: derivatives, total charges, fields, electrodes."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from omegaconf import OmegaConf

from mlip import MlipCalculator, config
from mlip.graph import Surroundings, collate, from_atoms
from mlip.models.build import build, resolve
from mlip.models.checkpoint import save
from mlip.testing import contract
from mlip.training.start import extended

ELEMENTS = ["Li", "O"]
REFERENCES = {"Li": -1.9, "O": -4.2}
SMALL = {"channels": 8, "radial_network": [16], "r_max": 4.0, "max_l": 1, "layers": 2}
BACKBONES = [
    pytest.param(backbone, marks=getattr(pytest.mark, backbone), id=backbone)
    for backbone in config.options("backbone")
]
KO = ["model.heads.charge.mode=ko", "+head@model.heads.seen=charge_features"]
native = pytest.mark.native


def model_config(model, *overrides, backbone="native", neutral=True):
    composed = config.compose(
        "train",
        [f"model={model}", f"backbone@model.backbone={backbone}",
         *([] if model == "2g" else [f"model.neutral={str(neutral).lower()}"]), *overrides],
    )  # fmt: skip
    node = OmegaConf.to_container(composed.model, resolve=True)
    node["backbone"] |= {k: v for k, v in SMALL.items() if k in node["backbone"]}
    if "charge" in node["heads"]:
        node["heads"]["charge"]["tolerance"] = 1e-10
    if "seen" in node["heads"]:  # after the charges, before the energy
        heads = node["heads"]
        node["heads"] = {k: heads[k] for k in ("total_charge", "charge", "seen", "energy")}
    return resolve({**node, "precision": "float64"}, ELEMENTS, average_neighbors=12.0)


def potential_of(model, *overrides, disturb=0.1, **options):
    torch.manual_seed(0)
    potential = build(model_config(model, *overrides, **options))
    potential.set_energy_references(REFERENCES)
    with torch.no_grad():  # what is zero at first would hide what is wrong
        for parameter in potential.heads.parameters():
            if parameter.requires_grad:
                parameter += disturb * torch.randn_like(parameter)
    return potential


def molecule():
    return Atoms("Li2O", positions=[[0, 0, 0], [1.7, 0.1, 0], [0.8, 1.2, 0.3]])


def charged(atoms, charge, r_max=4.0):
    return from_atoms(atoms, r_max, {"total_charge": np.array(float(charge))})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_fourth_generation_on_every_backbone(backbone):
    potential, atoms = potential_of("4g", backbone=backbone), contract.example(ELEMENTS)
    contract.check_forces(potential, atoms)
    contract.check_stress(potential, atoms)
    contract.check_batching(potential, atoms)
    assert abs(contract.predict(potential, atoms)["charges"].sum()) < 1e-10


@native
@pytest.mark.parametrize(
    ("model", "overrides"),
    [("3g", []), ("4g", []), ("4g", KO), ("4g", [*KO, "model.heads.seen.potential=true"])],
    ids=["3g", "4g", "ko", "ee4g"],
)
def test_contract_of_charges(model, overrides):
    potential, atoms = potential_of(model, *overrides), contract.example(ELEMENTS)
    contract.check_forces(potential, atoms)
    contract.check_stress(potential, atoms)
    contract.check_training(potential, atoms)
    contract.check_symmetries(potential, atoms)
    contract.check_batching(potential, atoms)
    contract.check_extensive(potential, atoms)
    contract.check_isolated_atom(potential)


@native
@pytest.mark.parametrize("model", ["3g", "4g"])
def test_charges_sum_to_the_total_charge_in_mixed_batches(model):
    potential = potential_of(model)
    slab = contract.example(ELEMENTS)
    slab.cell[2] *= 4
    slab.pbc = (True, True, False)
    batch = collate(
        [charged(molecule(), 1), charged(contract.example(ELEMENTS), -0.5), charged(slab, 0)]
    )
    outputs = potential(batch)
    sums = torch.zeros(3, dtype=torch.float64).index_add(0, batch["batch"], outputs["charges"])
    torch.testing.assert_close(sums, torch.tensor([1, -0.5, 0], dtype=torch.float64))
    assert torch.isfinite(outputs["forces"]).all()


@native
@pytest.mark.parametrize(("model", "answers"), [("3g", False), ("4g", True)])
def test_only_equilibrated_charges_answer_to_what_is_far_away(model, answers):
    """Of the third generation, all that comes from afar is more or less of one fixed pattern."""
    potential, near = potential_of(model), molecule()
    alone = potential(charged(near, 0))["charges"]
    changes = []
    for far in (Atoms("O", positions=[[12.0, 0, 0]]), Atoms("O", positions=[[0, -12.0, 3.0]])):
        far += Atoms("Li", positions=far.positions + np.array([0, 0, 1.6]))
        changes.append((potential(charged(near + far, 0))["charges"][:3] - alone).numpy())
    first, second = changes
    turn = np.linalg.norm(np.cross(first, second)) / np.linalg.norm(first) ** 2
    assert np.linalg.norm(first) > 1e-3
    assert bool(turn > 1e-3) is answers


@native
def test_a_total_charge_is_never_guessed():
    potential = potential_of("4g", neutral=False)
    batch = collate([charged(molecule(), 0), from_atoms(molecule(), 4.0, {}, ("total_charge",))])
    with pytest.raises(ValueError, match=r"structure 1 .* states no total charge"):
        potential(batch)
    with pytest.raises(ValueError, match=r"model\.neutral=true"):
        potential(from_atoms(molecule(), 4.0))


@native
@pytest.mark.parametrize("model", ["3g", "4g"])
def test_the_first_energy_is_that_of_the_start_and_of_the_charges(model):
    torch.manual_seed(0)
    node = model_config("2g")
    start = build(node)
    start.set_energy_references(REFERENCES)
    grown, resolved = extended(start, node, model_config(model)["heads"])
    assert list(resolved["heads"]) == ["total_charge", "charge", "energy"]
    for total in (0.0, 1.0):
        graph = charged(molecule(), total)
        old, new = start(graph), grown(graph)
        energy = old["energy"] + new["charge_energies"].sum()
        torch.testing.assert_close(new["energy"], energy, atol=1e-10, rtol=0)
    again, unchanged = extended(grown, resolved, model_config(model)["heads"])
    assert again is grown
    assert unchanged == resolved


@native
def test_a_head_that_reads_charges_comes_after_them():
    node = model_config("4g", *KO)
    node["heads"] = {k: node["heads"][k] for k in ("total_charge", "seen", "charge", "energy")}
    with pytest.raises(ValueError, match="the head seen reads charges, which no head before it"):
        build(node)


@native
def test_dipole_and_its_derivatives():
    potential = potential_of("4g", "+head@model.heads.dipole=dipole")
    atoms, step = molecule(), 1e-4
    outputs = potential(charged(atoms, 0), ("forces", "born_effective_charges"))
    for atom, axis in ((0, 0), (2, 1)):
        found = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            found.append(potential(charged(moved, 0))["dipole"][0])
        slope = (found[0] - found[1]) / (2 * step)
        born = outputs["born_effective_charges"][atom, :, axis]
        torch.testing.assert_close(born, slope, atol=1e-6, rtol=0)


@native
@pytest.mark.parametrize("model", ["3g", "4g"])
def test_a_field_acts_through_the_dipole(model):
    potential = potential_of(model, "+head@model.heads.dipole=dipole")
    graph, step = charged(molecule(), 0), 1e-4

    def outputs(strength):
        around = Surroundings(
            total_charge=graph["total_charge"],
            field=torch.tensor([[0.0, strength, 0.0]], dtype=torch.float64),
        )
        return potential(graph, surroundings=around)

    slope = (outputs(step)["energy"] - outputs(-step)["energy"]) / (2 * step)
    torch.testing.assert_close(slope, -outputs(0.0)["dipole"][:, 1], atol=1e-6, rtol=0)


@native
def test_electrodes_take_up_charge_at_their_potential(tmp_path):
    node = model_config("4g")
    path = save(tmp_path / "potential.safetensors", potential_of("4g"), node)
    atoms = bulk("Li", cubic=True) * (2, 2, 1)
    atoms[3].symbol = "O"
    charges = []
    for level in (-0.5, 0.0, 0.5):
        atoms.arrays["electrode_potential"] = np.where(atoms.symbols == "Li", level, np.nan)
        atoms.calc = MlipCalculator(path, device="cpu")
        atoms.get_potential_energy()
        assert abs(atoms.calc.results["charges"][3]) < 1e-9  # what is no electrode stays neutral
        inner = atoms.calc.results
        chi, hardness = inner["electronegativities"], atoms.calc.potential.charge_head
        hardness = hardness.element_parameters.hardness(torch.tensor([0]))[0].item()
        held = inner["potentials"] + chi + hardness * inner["charges"]
        np.testing.assert_allclose(held[atoms.symbols == "Li"], level, atol=1e-8)
        charges.append(inner["charges"].sum())
    assert charges[0] < charges[1] < charges[2]
    third = save(tmp_path / "third.safetensors", potential_of("3g"), model_config("3g"))
    with pytest.raises(ValueError, match="third generation"):
        MlipCalculator(third, device="cpu").predict([atoms])


@native
def test_the_calculator_sees_another_total_charge_and_starts_from_the_last_charges(tmp_path):
    path = save(tmp_path / "p.safetensors", potential_of("4g"), model_config("4g"))
    atoms = molecule()
    atoms.calc = MlipCalculator(path, device="cpu")
    assert abs(atoms.get_charges().sum()) < 1e-10
    atoms.info["total_charge"] = 1
    assert atoms.get_charges().sum() == pytest.approx(1)
    cell = contract.example(ELEMENTS)
    cell.calc = atoms.calc
    first = cell.get_forces()
    assert atoms.calc.trajectory.guess() is not None
    plan = atoms.calc.trajectory._plan
    cell.rattle(0.01, seed=1)
    moved = cell.get_forces()
    assert atoms.calc.trajectory._plan is plan
    fresh = MlipCalculator(path, device="cpu").predict([cell])[0]["forces"]
    np.testing.assert_allclose(moved, fresh, atol=1e-8)
    assert not np.allclose(first, moved)
    with pytest.raises(ValueError, match="has no charges to act on"):
        MlipCalculator(
            save(tmp_path / "two.safetensors", potential_of("2g"), model_config("2g")),
            device="cpu",
            field=[0, 0, 0.1],
        )


@native
def test_unpaired_electrons_are_told_apart():
    potential = potential_of("4g", "model.heads.total_charge.spin=true")
    energies = []
    for spin in (None, 0.0, 2.0):
        labels = {"total_charge": np.array(0.0)}
        labels |= {} if spin is None else {"spin": np.array(spin)}
        energies.append(float(potential(from_atoms(molecule(), 4.0, labels))["energy"]))
    assert energies[0] == energies[1] != energies[2]
