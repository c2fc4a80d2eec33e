"""How good are predictions of attribution? Ranking, ranking among rows that are alike, accuracy and calibration, with intervals.

A measure is a function of weights (see `intervals`), made once for all models that are compared, so that one set of bootstrap
samples serves them all and differences are paired. On unit weights AUROC and Spearman are those of scikit-learn and scipy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from playpen.intervals import Statistic
from playpen.selection_budget import length_bin

BINS = 10
"""Equal-mass bins of the calibration error."""
LENGTHS = 5
"""Equal-count bins of each length in `_within_source_length`: fewer than matched_random's, for the folds cut each of them again."""
TINY = 1e-12
"""Below it a divisor is zero."""
RANKING = ("auroc", "spearman")
STRATA = ("", "_within_source", "_within_source_length")
NAMES = (*(name + where for where in STRATA for name in RANKING), "accuracy", "calibration_error", "brier")
"""The measures, in the order of the statistic `measures`."""


def measures(rows: pd.DataFrame, target: np.ndarray, predictions: Sequence[np.ndarray]) -> Statistic:
    """Return every measure of every model as one statistic: weights `[draws, n]` in, `[draws, models, len(NAMES)]` out.

    - `auroc`: of `label` (0 or 1) by the prediction; 0.5 is chance.
    - `spearman`: of the prediction with the raw attribution `score`.
    - `_within_source`: the same inside each `source` and `fold`, then the mean over them weighted by rows; what is left when
      knowing the source is worth nothing. Each fold has a model of its own, and rows that two models predicted cannot be ranked
      together: the model that saw fewer of a source's good rows puts that source lower, just where more of them are held out.
      `_within_source_length`: inside each source, fold, bin of `num_tokens` and bin of `num_labels`.
    - `accuracy`: at the base-rate threshold, which calls as many rows positive as there are. With a quarter positive,
      chance is 0.625 and always saying no is 0.75.
    - `calibration_error`: expected calibration error over ten bins of equal mass (Naeini et al., AAAI 2015).
    - `brier`: mean squared error of the prediction.

    `rows` has label, score, source, fold, num_tokens and num_labels; `target` (float [n] in [0, 1]) is what a prediction should equal
    on average. A measure that is not defined (no positive row, no stratum with two classes) is NaN.
    """
    label, score = rows["label"].to_numpy(), rows["score"].to_numpy()
    parts = [ranking(label, score, predictions, strata) for strata in strata_of(rows)]
    right = [accuracy(label, prediction) for prediction in predictions]
    errors = [(prediction.astype(float) - target) ** 2 for prediction in predictions]
    bins = [_gaps(target, prediction) for prediction in predictions]

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(1)
        means = [  # one product a model, for the last digits of a wider one depend on its width
            np.stack([weights @ right[m], np.abs(weights @ bins[m]).sum(1), weights @ errors[m]], 1) / total[:, None]
            for m in range(len(predictions))
        ]
        return np.concatenate([*(part(weights) for part in parts), np.stack(means, 1)], 2)

    return statistic


def strata_of(rows: pd.DataFrame) -> list[np.ndarray]:
    """Return the stratum of each row, int64 [n], for each of `STRATA`: all rows; source and fold; source, fold and both length bins."""
    own = np.unique(rows["source"].astype(str) + "/" + rows["fold"].astype(str), return_inverse=True)[1]
    tokens, labels = (length_bin(rows[name], LENGTHS).to_numpy() for name in ("num_tokens", "num_labels"))
    return [np.zeros(len(rows), np.int64), own, (own * LENGTHS + tokens) * LENGTHS + labels]


def ranking(label: np.ndarray, score: np.ndarray, predictions: Sequence[np.ndarray], strata: np.ndarray) -> Statistic:
    """Return AUROC and Spearman of each model as a statistic: weights `[draws, n]` in, `[draws, models, 2]` out.

    Each is taken inside every stratum, then averaged by the weight of the strata in which it is defined: AUROC where both classes
    have weight, Spearman where the score is not constant; NaN where no stratum is. Ties count half, so that a prediction which is
    constant in a stratum has 0.5 and 0 there.
    """
    by = np.argsort(strata, kind="stable")
    codes = np.unique(strata[by], return_inverse=True)[1]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    up, rank_score = label[by].astype(bool)[:, None], _ranker(score[by], codes)
    rankers = [_ranker(prediction[by], codes) for prediction in predictions]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts, axis=0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        columns = np.take(weights.T, by, axis=0)  # rows of draws, so that a gather copies whole runs of memory
        total, positive = summed(columns), summed(columns * up)
        middle = ((total + 1) / 2)[codes]
        ours = rank_score(columns) - middle
        weighted, spread = columns * ours, summed(columns * ours * ours)
        found = []
        for ranker in rankers:
            ranks = ranker(columns)
            centred = ranks - middle
            pairs = summed(columns * up * ranks) - positive * (positive + 1) / 2
            area = _divide(pairs, positive * (total - positive))
            theirs = summed(columns * centred * centred)
            rho = _divide(summed(weighted * centred), np.sqrt(spread * np.where(theirs > TINY, theirs, 1.0)))
            found.append(np.stack([_average(values, total) for values in (area, rho)], 1))
        return np.stack(found, 1)

    return statistic


def _ranker(values: np.ndarray, codes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of weights `[n, d]` that gives each row its average rank in its stratum `[n, d]`, counted from 1."""
    order = np.lexsort((values, codes))
    value, code = values[order], codes[order]
    fresh = np.r_[True, (value[1:] != value[:-1]) | (code[1:] != code[:-1])]
    run, starts = np.cumsum(fresh) - 1, np.flatnonzero(fresh)
    ends = np.append(starts[1:], len(order))
    back = np.argsort(order)
    base, first, after = (index[back] for index in (np.searchsorted(code, code), starts[run], ends[run]))

    def ranks(weights: np.ndarray) -> np.ndarray:
        total = np.zeros((len(weights) + 1, weights.shape[1]))
        np.cumsum(np.take(weights, order, axis=0), axis=0, out=total[1:])
        found = (np.take(total, first, axis=0) + np.take(total, after, axis=0) + 1) / 2
        return found - np.take(total, base, axis=0) if base.any() else found

    return ranks


def auroc(label: np.ndarray, prediction: np.ndarray) -> Statistic:
    """Return the area under the ROC curve as a statistic `[draws]`; NaN where a class has no weight."""
    both = ranking(label, label, [prediction], np.zeros(len(label), np.int64))
    return lambda weights: both(weights)[:, 0, 0]


def accuracy(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return which rows are put right when as many are called positive as are: float64 [n], 0 or 1."""
    called = np.zeros(len(label), bool)
    called[np.argsort(-prediction, kind="stable")[: int(label.sum())]] = True
    return (called == label.astype(bool)).astype(float)


def _gaps(target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return prediction minus target in the column of the row's bin, of bins of equal mass: float64 [n, BINS]."""
    place = np.argsort(np.argsort(prediction, kind="stable"), kind="stable")
    bins = np.eye(BINS)[np.minimum(place * BINS // len(prediction), BINS - 1)]
    return bins * (prediction.astype(float) - target)[:, None]


def number(value: Any) -> float | None:
    """Return a plain float, or None for NaN, which JSON cannot hold."""
    return None if np.isnan(value) else float(value)


def _average(values: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return the mean over strata `[s, d]`, weighted by their mass; strata without a value are left out."""
    mass = np.where(np.isnan(values), 0.0, mass)
    return _divide((mass * np.nan_to_num(values)).sum(0), mass.sum(0))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where the divisor is zero."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > TINY)
