"""Predict a row's score for each query, so that queries can take turns at rows that no gradient was taken of.

One ridge regression of all queries' scores at once on what the saved classifier sees: its columns, each divided by its deviation.
"""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt

from playpen.config import config
from playpen.feature_matrix import Arrays, before_the_rise
from playpen.feature_table import Features
from playpen.folds import inner_folds
from playpen.l2_classifier import scaled

if TYPE_CHECKING:
    from playpen.trials import Trial


@config
class QueryRidge:
    """Ridge regression of the scores for all queries; one penalty serves them all."""

    signals: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    """Signal to noise that the penalty supposes, read as a prior: the variance that the columns explain over the rest; tried on an inner
    split from the lowest on, until the error rises. Lower is smoother."""
    min_rows: PositiveInt = 3
    """Training rows in which a feature must occur to be used."""

    def fit(self, features: Features, scores: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Learn `scores` [n, queries]; the penalty is chosen on a split by `group` (str [n]). The matrix is held dense, float64."""
        from sklearn.linear_model import Ridge

        arrays, matrix = scaled(features, self.min_rows)
        matrix = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
        held = inner_folds(scores.mean(1), group, seed) == 0

        def ridge(signal: float, rows: np.ndarray) -> Any:
            return Ridge(alpha=matrix.shape[1] / signal, solver="cholesky").fit(matrix[rows], scores[rows])

        def error(signal: float) -> float:
            return float(np.square(ridge(signal, ~held).predict(matrix[held]) - scores[held]).mean())

        signal = before_the_rise(self.signals, error)
        made, used = ridge(signal, np.ones(len(scores), bool)), len(arrays["vocabulary"])
        weight = made.coef_.T / np.concatenate([arrays["scale"], arrays["column_scale"]])[:, None]
        bias = made.intercept_ - arrays["column_mean"] @ weight[used:]
        kept = {name: arrays[name] for name in ("vocabulary", "unit")}
        return {**kept, "weight": weight[:used], "column_weight": weight[used:], "bias": bias, "signal": np.array([signal])}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return the expected score of each row for each query, float32 [n, queries]."""
        from playpen.feature_matrix import sparse

        found = features.stats @ arrays["column_weight"] + arrays["bias"]
        if len(arrays["vocabulary"]):
            found = found + sparse(features, arrays["vocabulary"], arrays["unit"]) @ arrays["weight"]
        return found.astype(np.float32)


def predict_held_out(settings: QueryRidge, trial: "Trial", scores: np.ndarray, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Return predictions float32 [n, queries], each made without the row's `fold`."""
    from playpen.progress import tqdm

    found = np.empty(scores.shape, np.float32)
    folds, group = rows["fold"].to_numpy(), rows["group"].to_numpy()
    for fold in tqdm(np.unique(folds), "classify each query", unit="fold", disable=None, mininterval=1):
        held = folds == fold
        arrays = settings.fit(trial.sees.rows(np.flatnonzero(~held)), scores[~held], group[~held], seed)
        found[held] = settings.predict(arrays, trial.sees.rows(np.flatnonzero(held)))
    return found


def report(scores: np.ndarray, each: np.ndarray, folds: np.ndarray) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Say how well predictions rank the rows for each query, beside their mean over queries in the place of all of them.

    Args:
        scores: the scores to predict, [n, queries].
        each: held-out predictions for each query, [n, queries].
        folds: the fold of each row, [n]; ranks are taken within it, for every fold is predicted by a model of its own.

    Returns:
        One row a query: `query` (its place), `spearman` and `spearman_of_mean`, the means over folds by rows; null where a query scores
        all rows alike. And numbers: the queries that do not; both means over them, and their difference with a 95 % interval, Student's t
        over queries as if each were by itself: it knows nothing of other rows. None where there is none.
    """
    from scipy.stats import ttest_1samp

    same = np.repeat(each.mean(1, keepdims=True), scores.shape[1], axis=1)
    own, mean = _spearman(scores, each, folds), _spearman(scores, same, folds)
    table = pd.DataFrame({"query": np.arange(scores.shape[1]), "spearman": own, "spearman_of_mean": mean})
    gaps = (own - mean)[np.isfinite(own - mean)]
    low, high = ttest_1samp(gaps, 0).confidence_interval() if len(gaps) > 1 else (np.nan, np.nan)
    found = {"spearman": table["spearman"].mean(), "spearman_of_mean": table["spearman_of_mean"].mean()}
    found |= {"gain": gaps.mean() if len(gaps) else np.nan, "gain_low": low, "gain_high": high}
    numbers = {name: float(value) if np.isfinite(value) else None for name, value in found.items()}
    return table, {"queries": int(np.isfinite(own).sum()), **numbers}


def _spearman(scores: np.ndarray, predicted: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each column [queries], the mean over folds by rows; NaN where a fold has none."""
    from scipy.stats import rankdata

    found = []
    for fold in np.unique(folds):
        left, right = (rankdata(part[folds == fold], axis=0) for part in (scores, predicted))
        left, right = left - left.mean(0), right - right.mean(0)
        lengths = np.sqrt((left**2).sum(0) * (right**2).sum(0))
        found.append(np.divide((left * right).sum(0), lengths, out=np.full(scores.shape[1], np.nan), where=lengths > 0))
    return np.average(found, axis=0, weights=np.unique(folds, return_counts=True)[1])
