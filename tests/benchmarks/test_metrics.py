"""Scores against values worked out by hand."""

import pytest

from mlip.benchmarks.metrics import bootstrap, facet_order, score
from mlip.benchmarks.record import Record


def record(case, value, reference, scored=True):
    return Record(
        task="t",
        case=case,
        mode="static",
        calculator="x",
        status="error" if value is None else "ok",
        input_hash=case,
        reference=reference,
        uncertainty=0.05,
        unit="J/m²",
        value=value,
        wall_time=2.0,
        tags={"scored": scored},
    )


def test_scores_by_hand():
    found = score(
        [
            record("A/100", 0.4, 0.5),
            record("A/110", 0.3, 0.6),
            record("A/111", 0.9, 0.8),
            record("B/100", None, 0.7),
            record("B/110", -0.03, 0.01),
            record("C/100", 9.0, 1.0, scored=False),
        ]
    )
    assert (found.n, found.n_ok, found.n_unscored) == (5, 4, 1)
    assert found.coverage == pytest.approx(0.8)
    assert found.mae == pytest.approx((0.1 + 0.3 + 0.1 + 0.04) / 4)
    assert found.material_mae == pytest.approx((0.5 / 3 + 0.04) / 2)
    assert found.penalised_mae == pytest.approx((0.1 + 0.3 + 0.1 + 0.04 + 0.7) / 5)
    assert found.bias == pytest.approx((-0.1 - 0.3 + 0.1 - 0.04) / 4)
    assert found.median_ratio == pytest.approx(0.8)  # of 0.8, 0.5, 1.125; B/110 is noise
    assert found.facet_order == pytest.approx(0.5)  # order 2 1 3 against 1 2 3
    assert found.wall_time == pytest.approx(12.0)


def test_nothing_computed_is_not_a_good_score():
    found = score([record("A/100", None, 0.5), record("A/110", None, -0.1)])
    assert found.mae is None
    assert found.coverage == 0.0
    assert found.penalised_mae == pytest.approx(0.3)
    assert score([]).penalised_mae is None


def test_failing_on_the_hard_cases_does_not_pay():
    honest = score([record("A/1", 0.5, 0.5), record("A/2", 0.5, 1.0)])
    evasive = score([record("A/1", 0.5, 0.5), record("A/2", None, 1.0)])
    assert evasive.mae < honest.mae
    assert evasive.penalised_mae > honest.penalised_mae


def test_ratio_keeps_its_sign():
    assert score([record("A/1", -0.2, 0.4)]).median_ratio == pytest.approx(-0.5)


def test_facets_take_their_lowest_termination():
    records = [
        record("A/100@0.1", 0.9, 0.9),
        record("A/100@0.2", 0.1, 0.1),
        record("A/110@0.1", 0.5, 0.5),
        record("A/111@0.1", 0.7, 0.7),
    ]
    assert facet_order(records) == pytest.approx(1.0)
    assert facet_order(records[:3]) is None  # two facets have no order to speak of


def test_a_constant_has_no_order():
    records = [record(f"A/{i}", 0.0, 0.1 * i) for i in range(1, 5)]
    assert facet_order(records) == 0.0


def test_interval_holds_the_mean_shrinks_with_cases_and_is_always_the_same():
    errors = [0.1, 0.2, 0.3, 0.4]
    low, high = bootstrap(errors)
    assert 0.1 < low < 0.25 < high < 0.4
    assert bootstrap(errors) == (low, high)
    many = bootstrap(errors * 25)
    assert many[1] - many[0] == pytest.approx((high - low) / 5, rel=0.15)
    assert bootstrap([0.2, 0.2]) == (0.2, 0.2)
    assert bootstrap([0.2]) is None


def test_skill_is_one_for_perfect_and_zero_for_the_prediction_zero():
    assert score([record("A/1", 0.5, 0.5), record("A/2", -0.1, -0.1)]).skill == pytest.approx(1.0)
    assert score([record("A/1", 0.0, 0.5), record("A/2", 0.0, -0.1)]).skill == pytest.approx(0.0)
    assert score([record("A/1", None, 0.5), record("A/2", None, 1.0)]).skill == pytest.approx(0.0)
    assert score([record("A/1", 0.25, 0.5)]).skill == pytest.approx(0.5)
    assert score([]).skill is None


def test_references_without_an_order_do_not_count():
    records = [record(f"A/{i}", 0.1 * i, 1.0) for i in range(1, 5)]
    assert facet_order(records) is None
