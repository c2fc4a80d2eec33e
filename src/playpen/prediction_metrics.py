"""How good are predictions of attribution? Ranking, ranking within a source, accuracy and calibration, with intervals.

Each measure is made once from labels, scores and predictions and is then a function of weights (see `intervals`), so
that the bootstrap costs a few matrix operations. On unit weights AUROC and Spearman are those of scikit-learn and scipy.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from playpen.intervals import Statistic, estimate, interval, resample

BINS = 10
"""Equal-mass bins of the calibration error."""

NAMES = ("auroc", "accuracy", "spearman", "spearman_within_source", "auroc_within_source", "calibration_error", "brier")
"""The measures, in the order of the report."""


def evaluate_predictions(
    label: np.ndarray,
    score: np.ndarray,
    prediction: np.ndarray,
    group: np.ndarray,
    source: np.ndarray,
    seed: int,
    draws: int = 1000,
    target: np.ndarray | None = None,
) -> dict[str, float | None]:
    """Return each measure and its 95 % interval as `name`, `name_low`, `name_high`; all arguments have one value a row.

    - `auroc`: of `label` (0 or 1) by `prediction`; 0.5 is chance.
    - `accuracy`: at the base-rate threshold, which calls as many rows positive as there are. With a quarter positive,
      chance is 0.625 and always saying no is 0.75.
    - `spearman`: of `prediction` with the raw attribution `score`.
    - `spearman_within_source`, `auroc_within_source`: the same inside each `source`, then the mean over sources
      weighted by rows; what is left when knowing the source is worth nothing.
    - `calibration_error`: expected calibration error over ten bins of equal mass (Naeini et al., AAAI 2015).
    - `brier`: mean squared error of the prediction.

    `target` is what the prediction should equal on average; the label when left out. `group` holds the near-duplicate
    clusters that the bootstrap resamples. A measure that is not defined (no positive row, one source of one class) is None.
    """
    target = label if target is None else target
    measures = [
        auroc(label, prediction),
        accuracy(label, prediction),
        spearman(score, prediction),
        within(source, lambda rows: spearman(score[rows], prediction[rows])),
        within(source, lambda rows: auroc(label[rows], prediction[rows])),
        calibration_error(target, prediction),
        brier(target, prediction),
    ]
    both = stack(measures)
    low, high = interval(resample(group, both, draws, seed))
    found: dict[str, float | None] = {}
    for name, *values in zip(NAMES, estimate(len(label), both), low, high, strict=True):
        found.update({name + end: number(v) for end, v in zip(("", "_low", "_high"), values, strict=True)})
    return found


def auroc_differences(
    label: np.ndarray, predictions: list[np.ndarray], group: np.ndarray, seed: int, draws: int = 1000
) -> list[list[tuple[float | None, float | None, float | None]]]:
    """Return AUROC of prediction i minus that of j, with its 95 % interval, at [i][j]; all pairs share the bootstrap samples."""
    both = stack([auroc(label, prediction) for prediction in predictions])
    point, values = estimate(len(label), both), resample(group, both, draws, seed)

    def pair(i: int, j: int) -> tuple[float | None, float | None, float | None]:
        low, high = interval(values[:, i] - values[:, j])
        return number(point[i] - point[j]), number(low), number(high)

    return [[pair(i, j) for j in range(len(predictions))] for i in range(len(predictions))]


def number(value: Any) -> float | None:
    """Return a plain float, or None for NaN, which JSON cannot hold."""
    return None if np.isnan(value) else float(value)


def stack(measures: list[Statistic]) -> Statistic:
    """Return one statistic of the given ones side by side."""
    return lambda weights: np.stack([measure(weights) for measure in measures], axis=-1)


def auroc(label: np.ndarray, prediction: np.ndarray) -> Statistic:
    """Return the area under the ROC curve as a statistic; ties count half. NaN where a class has no weight."""
    ranks, positive = _ranker(prediction), label.astype(bool)

    def statistic(weights: np.ndarray) -> np.ndarray:
        up, total = weights[:, positive].sum(1), weights.sum(1)
        down = total - up
        summed = (ranks(weights)[:, positive] * weights[:, positive]).sum(1)
        return _divide(summed - up * (up + 1) / 2, up * down)

    return statistic


def spearman(left: np.ndarray, right: np.ndarray) -> Statistic:
    """Return Spearman's rank correlation as a statistic; NaN where either side is constant."""
    ranks = _ranker(left), _ranker(right)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(1, keepdims=True)
        centred = [rank(weights) - (total + 1) / 2 for rank in ranks]
        cross, *squares = ((weights * a * b).sum(1) for a, b in (centred, centred[:1] * 2, centred[1:] * 2))
        return _divide(cross, np.sqrt(squares[0] * squares[1]))

    return statistic


def _ranker(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of weights `[d, n]` that gives each row its average rank `[d, n]`, counted from 1."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    last = np.searchsorted(ordered, ordered, side="right") - 1
    first = np.searchsorted(ordered, ordered, side="left")
    back = np.argsort(order)

    def ranks(weights: np.ndarray) -> np.ndarray:
        total = np.cumsum(weights[:, order], axis=1)
        below = np.where(first > 0, total[:, first - 1], 0.0)
        return ((below + total[:, last] + 1) / 2)[:, back]

    return ranks


def accuracy(label: np.ndarray, prediction: np.ndarray) -> Statistic:
    """Return the share of rows put right when as many are called positive as are."""
    called = np.zeros(len(label), bool)
    called[np.argsort(-prediction, kind="stable")[: int(label.sum())]] = True
    return _mean((called == label.astype(bool)).astype(float))


def brier(target: np.ndarray, prediction: np.ndarray) -> Statistic:
    """Return the mean squared error of predictions in [0, 1]."""
    return _mean((prediction.astype(float) - target) ** 2)


def calibration_error(target: np.ndarray, prediction: np.ndarray) -> Statistic:
    """Return the mean over bins of equal mass of |mean prediction - mean target|, weighted by rows."""
    place = np.argsort(np.argsort(prediction, kind="stable"), kind="stable")
    bins = np.eye(BINS)[np.minimum(place * BINS // len(prediction), BINS - 1)]
    gaps = bins * (prediction.astype(float) - target)[:, None]
    return lambda weights: np.abs(weights @ gaps).sum(1) / weights.sum(1)


def within(strata: np.ndarray, make: Callable[[np.ndarray], Statistic]) -> Statistic:
    """Return the mean, weighted by rows, of a statistic inside each stratum; strata where it is NaN are left out."""
    parts = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    made = [(rows, make(rows)) for rows in parts if len(rows) > 1]

    def statistic(weights: np.ndarray) -> np.ndarray:
        values = np.stack([part(weights[:, rows]) for rows, part in made] or [np.full(len(weights), np.nan)])
        mass = np.stack([weights[:, rows].sum(1) for rows, _ in made] or [np.zeros(len(weights))])
        mass = np.where(np.isnan(values), 0.0, mass)
        return _divide((mass * np.nan_to_num(values)).sum(0), mass.sum(0))

    return statistic


def _mean(values: np.ndarray) -> Statistic:
    return lambda weights: weights @ values / weights.sum(1)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where the divisor is zero."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 1e-12)
