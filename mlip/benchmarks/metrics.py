"""Scores of one calculator on one set of cases; a failed case counts, it is never dropped."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from mlip.benchmarks.record import Record

RATIO_FLOOR = 0.05
"""In the unit of the task; references below it are within the noise of the DFT: no ratio."""
_MIN_FACETS = 3
_MIN_RESAMPLED = 2
_RESAMPLES = 2000


@dataclass(frozen=True)
class Scores:
    """Scores over the cases of one tier and mode; None where nothing can be said.

    Args:
        n: Cases that count, failed ones included.
        n_ok: Of these, computed.
        n_unscored: Further cases shown but not counted, for a doubtful reference.
        mae: Mean absolute error of the cases computed.
        material_mae: Mean over materials of each material's MAE.
        penalised_mae: MAE with a failed case counted as the prediction zero.
        bias: Mean signed error.
        median_ratio: Median of value/reference where the reference is above the noise.
        facet_order: Mean over materials of Spearman's rank correlation of the facets.
        wall_time: Of all cases, s.
        interval: 95 % interval of the penalised MAE, from resampling the cases.
        skill: 1 − penalised MAE / MAE of the prediction zero; 1 is perfect, 0 is worth nothing.
            The scale is that of the references, never of other calculators.
    """

    n: int
    n_ok: int
    n_unscored: int
    mae: float | None
    material_mae: float | None
    penalised_mae: float | None
    bias: float | None
    median_ratio: float | None
    facet_order: float | None
    wall_time: float
    interval: tuple[float, float] | None = None
    skill: float | None = None

    @property
    def coverage(self) -> float:
        """Return n_ok / n; 0 for no case."""
        return self.n_ok / self.n if self.n else 0.0


def score(records: Sequence[Record]) -> Scores:
    """Return the scores of records of one task, mode and calculator."""
    counted = [record for record in records if record.tags.get("scored", True)]
    done = [record for record in counted if record.value is not None]
    errors = [record.error for record in done if record.error is not None]
    penalties = [
        abs(record.reference) if record.error is None else abs(record.error) for record in counted
    ]
    by_material = [score_mae(group) for group in _by_material(done).values()]
    return Scores(
        n=len(counted),
        n_ok=len(done),
        n_unscored=len(records) - len(counted),
        mae=score_mae(done),
        material_mae=_mean([value for value in by_material if value is not None]),
        penalised_mae=_mean(penalties),
        bias=_mean(errors),
        median_ratio=median_ratio(done),
        facet_order=facet_order(done),
        wall_time=sum(record.wall_time or 0.0 for record in records),
        interval=bootstrap(penalties),
        skill=_skill(penalties, [abs(record.reference) for record in counted]),
    )


def bootstrap(errors: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of some errors by resampling; None below two.

    The random numbers are fixed, so that the same records give the same interval.
    """
    if len(errors) < _MIN_RESAMPLED:
        return None
    values = np.asarray(errors, dtype=float)
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _skill(penalties: Sequence[float], references: Sequence[float]) -> float | None:
    scale = sum(references)
    return 1 - sum(penalties) / scale if scale > 0 else None


def score_mae(records: Iterable[Record]) -> float | None:
    """Return the mean absolute error of the records that hold a value; None for none."""
    return _mean([abs(record.error) for record in records if record.error is not None])


def median_ratio(records: Iterable[Record]) -> float | None:
    """Return the median of value/reference over references above the noise; None for none."""
    ratios = [
        record.value / record.reference
        for record in records
        if record.value is not None and abs(record.reference) > RATIO_FLOOR
    ]
    return median(ratios) if ratios else None


def facet_order(records: Iterable[Record]) -> float | None:
    """Return the mean over materials of Spearman's ρ between the facets' lowest values.

    A facet is the hkl of the label, and its lowest value over its terminations is what a crystal
    would show. Materials with fewer than three facets have no order to speak of; a potential that
    gives all facets the same value has ρ = 0.
    """
    correlations = []
    for group in _by_material(records).values():
        model: dict[str, float] = defaultdict(lambda: math.inf)
        reference: dict[str, float] = defaultdict(lambda: math.inf)
        for record in group:
            facet = record.label.split("@")[0]
            if record.value is not None:
                model[facet] = min(model[facet], record.value)
                reference[facet] = min(reference[facet], record.reference)
        facets = sorted(model)
        if len(facets) >= _MIN_FACETS and np.ptp([reference[facet] for facet in facets]) > 0:
            pairs = [(model[facet], reference[facet]) for facet in facets]
            correlations.append(_spearman(*zip(*pairs, strict=True)))
    return _mean(correlations)


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    if np.ptp(first) == 0:
        return 0.0
    found: Any = spearmanr(first, second)
    return float(found.statistic)


def _by_material(records: Iterable[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.material].append(record)
    return groups


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
