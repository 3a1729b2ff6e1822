"""Weights that follow the epochs, stages that replace them: exact values, refusals."""

import math

import pytest
import torch

from mlip.training.loss import Loss, PropertyLoss, StratifiedHuber
from mlip.training.stages import Stage, Stages
from mlip.training.weights import WeightSchedule


def test_a_constant_weight_is_constant():
    assert {WeightSchedule(3.0).at(epoch) for epoch in (0, 0.5, 1000)} == {3.0}


def test_a_weight_changes_at_its_epoch():
    weight = WeightSchedule({10: 5.0, 0: 1.0})
    assert [weight.at(epoch) for epoch in (0, 9.999, 10, 11)] == [1.0, 1.0, 5.0, 5.0]


def test_a_ramp_is_a_straight_line_within_epochs_too():
    weight = WeightSchedule({0: 1.0, 2: 5.0, 4: 0.0}, linear=True)
    at = [weight.at(epoch) for epoch in (0, 0.25, 1, 2, 3, 4, 9)]
    assert at == [1.0, 1.5, 3.0, 5.0, 2.5, 0.0, 0.0]


@pytest.mark.parametrize("points", [{}, {1: 1.0}, {0: -1.0}, {0: math.nan}, {0: 1.0, 3: math.inf}])
def test_weights_without_meaning_are_refused(points):
    with pytest.raises(ValueError, match="the weight of a loss is"):
        WeightSchedule(points)


def loss(**weights):
    return Loss({name: PropertyLoss(weight) for name, weight in weights.items()})


def test_stages_replace_weights_and_others_stay():
    plain = loss(energy=1.0, forces={0: 10.0, 8: 20.0}, stress=0.0)
    assert plain.names == ("energy", "forces")
    staged = plain.in_stages(
        Stages.of({"late": Stage(0.5, {"stress": 3.0, "energy": 0.0}), "no": None}, 10)
    )
    assert staged.weights_at(0) == {"energy": 1.0, "forces": 10.0}
    assert staged.weights_at(4.99) == {"energy": 1.0, "forces": 10.0}
    assert staged.weights_at(5) == {"forces": 10.0, "stress": 3.0}
    assert staged.weights_at(9) == {"forces": 20.0, "stress": 3.0} == staged.final
    assert staged.names == ("energy", "forces", "stress")
    assert staged.without(["stress"]).weights_at(9) == {"forces": 20.0}


def test_starts_are_epochs_or_shares_and_in_order():
    stages = Stages.of({"b": Stage(7), "a": Stage(0.25), "first": Stage(0)}, 10)
    assert {name: stage.start for name, stage in stages.stages.items()} == {
        "first": 0, "a": 3, "b": 7,
    }  # fmt: skip
    assert [stages.name_at(epoch) for epoch in (0, 2.9, 3, 7, 99)] == [
        "first",
        "first",
        "a",
        "b",
        "b",
    ]
    assert [stages.is_last(epoch) for epoch in (6, 7)] == [False, True]
    assert Stages.of({"b": Stage(7)}, 10).name_at(3) is None


def test_stages_that_begin_together_are_refused():
    with pytest.raises(ValueError, match=r"stages\.b\.start and stages\.a\.start are both epoch 5"):
        Stages.of({"a": Stage(5), "b": Stage(0.5)}, 10)


def vectors(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(400, 3, generator=generator, dtype=torch.float64)


def test_the_stratified_loss_is_that_of_mace():
    """Its strata begin at 100, 200 and 300 eV/Å, with 1, 0.7, 0.4 and 0.1 times the delta."""
    pytest.importorskip("mace")
    from mlip.runtime import import_mace

    import_mace()
    from mace.modules.loss import conditional_huber_forces

    label = torch.cat([vectors(0, 150.0), torch.eye(3, dtype=torch.float64) * 100.0])
    prediction = label + torch.cat([vectors(1, 0.01), torch.ones(3, 3, dtype=torch.float64)])
    term = StratifiedHuber(1.0, {0: 0.01, 100: 0.007, 200: 0.004, 300: 0.001})
    found, count = term(prediction, label)
    expected = conditional_huber_forces(label, prediction, huber_delta=0.01)
    assert count == label.numel()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_stratified_loss_of_one_stratum_is_huber_and_masks_components():
    label, prediction = vectors(0, 1.0), vectors(1, 1.0).requires_grad_()
    label[::2, 1] = torch.nan  # a fixed coordinate
    stratified, count = StratifiedHuber(1.0, {0: 0.3, 1e6: 0.1})(prediction, label)
    plain, _ = PropertyLoss(1.0, "huber", delta=0.3)(prediction, label)
    torch.testing.assert_close(stratified, plain)
    assert count == label.numel() - 200
    stratified.backward()
    assert prediction.grad.isfinite().all()
    assert (prediction.grad[::2, 1] == 0).all()
