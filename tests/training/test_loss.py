"""Losses and errors: exact values, masks, refusals."""

import numpy as np
import pytest
import torch
from ase import Atoms

from mlip.graph import collate, from_atoms
from mlip.training.loss import Loss, PropertyLoss
from mlip.training.metrics import RunningErrors
from mlip.units import GPA_PER_EV_A3


def batch(*labels):
    graphs = [
        from_atoms(
            Atoms(f"Li{n}", positions=np.arange(3 * n).reshape(n, 3), cell=[9, 9, 9], pbc=True),
            2.0,
            label,
            ("energy", "forces", "stress"),
        )
        for n, label in labels
    ]
    return collate(graphs)


def test_energy_is_compared_per_atom():
    data = batch((1, {"energy": 1.0}), (4, {"energy": 8.0}))
    loss = Loss({"energy": PropertyLoss(2.0)})
    total, parts = loss({"energy": torch.tensor([1.5, 8.0], dtype=torch.float64)}, data)
    assert parts["energy"] == pytest.approx(0.5**2 / 2)
    assert total == pytest.approx(0.25)
    total, _ = loss({"energy": torch.tensor([1.0, 10.0], dtype=torch.float64)}, data)
    assert total == pytest.approx(2 * 0.5**2 / 2)


@pytest.mark.parametrize(
    ("function", "expected"), [("mse", 4.0), ("mae", 2.0), ("huber", 0.5 * (2.0 - 0.25))]
)
def test_functions(function, expected):
    term = PropertyLoss(1.0, function, delta=0.5)
    value, count = term(torch.tensor([2.0, 9.0]), torch.tensor([0.0, torch.nan]))
    assert value == pytest.approx(expected)
    assert count == 1


def test_missing_labels_do_not_touch_the_gradient():
    prediction = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    value, count = PropertyLoss(1.0)(prediction, torch.tensor([[0.0, torch.nan, 0.0]]))
    value.backward()
    assert count == 2
    assert prediction.grad.tolist() == [[1.0, 0.0, 3.0]]


def test_no_label_at_all_gives_zero():
    value, count = PropertyLoss(1.0)(torch.ones(3, requires_grad=True), torch.full((3,), torch.nan))
    assert (float(value), count) == (0.0, 0)
    value.backward()


def test_a_property_of_zero_weight_is_not_computed():
    loss = Loss({"energy": PropertyLoss(1.0), "stress": PropertyLoss(0.0)})
    assert loss.names == ("energy",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PropertyLoss(-1.0), "negative"),
        (lambda: PropertyLoss(1.0, "hubber"), "did you mean 'huber'"),
        (lambda: PropertyLoss(1.0, "huber", delta=0.0), "must be positive"),
        (lambda: Loss({"energy": PropertyLoss(0.0)}), "every loss weight is 0"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_structure_without_a_volume_does_not_poison_its_batch():
    from ase.build import bulk

    from mlip.models.build import build

    potential = build(
        {
            "elements": ["Li"],
            "precision": "float64",
            "backbone": {"_target_": "mlip.models.backbones.mace.Mace", "r_max": 4.0,
                         "channels": 4, "max_l": 0, "max_ell": 1, "correlation": 1, "layers": 1,
                         "average_neighbors": 10.0, "radial_network": [8]},
            "heads": {"energy": {"_target_": "mlip.models.heads.energy.Energy"}},
        }
    )  # fmt: skip
    molecule = Atoms("Li2", positions=[[0, 0, 0], [0, 0, 2.5]])
    names = ("energy", "forces", "stress")
    crystal = from_atoms(
        bulk("Li", cubic=True), 4.0, {"energy": -3.8, "stress": np.zeros((3, 3))}, names
    )
    data = collate([crystal, from_atoms(molecule, 4.0, {"energy": -3.0}, names)])
    outputs = potential(data, outputs=names, differentiable=True)
    assert outputs["stress"][0].isfinite().all()
    assert outputs["stress"][1].isnan().all()
    total, _ = Loss({name: PropertyLoss(1.0) for name in names})(outputs, data)
    total.backward()
    gradients = [p.grad for p in potential.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_loss_without_labels_is_named():
    loss = Loss({"energy": PropertyLoss(1.0), "stress": PropertyLoss(1.0)})
    assert loss.without(["stress"]).names == ("energy",)
    with pytest.raises(ValueError, match="energy, stress"):
        loss.without(["energy", "stress"])


def test_running_errors_have_units_and_masks():
    forces = np.zeros((2, 3))
    forces[0, 0] = np.nan
    data = batch(
        (2, {"energy": 1.0, "forces": forces}), (1, {"energy": 0.0, "stress": np.zeros((3, 3))})
    )
    outputs = {
        "energy": torch.tensor([1.02, 0.01], dtype=torch.float64),
        "forces": torch.full((3, 3), 0.1, dtype=torch.float64),
        "stress": torch.full((2, 3, 3), 1 / GPA_PER_EV_A3, dtype=torch.float64),
    }
    errors = RunningErrors()
    errors.update(outputs, data)
    result = errors.compute()
    assert result["energy_per_atom_mae_meV"] == pytest.approx(10.0)
    assert result["forces_rmse_meV_per_A"] == pytest.approx(100.0)
    assert result["stress_mae_GPa"] == pytest.approx(1.0)
    errors.reset()
    assert errors.compute() == {}
