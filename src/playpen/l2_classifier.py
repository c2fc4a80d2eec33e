"""L2 logistic regression on sparse features, on dense columns (hidden states, lengths, scores) or on both side by side."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from playpen.config import config
from playpen.feature_matrix import (
    Arrays,
    before_the_rise,
    cross_entropy,
    deviations,
    hard,
    learn_vocabulary,
    sigmoid,
    sparse,
    standardise,
)
from playpen.feature_table import Features
from playpen.folds import inner_folds


@config
class L2Logistic:
    """L2 logistic regression on all stored strengths and dense columns, each divided by its deviation."""

    uses_k: ClassVar[bool] = False
    variances: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    """Variances that the penalty, read as a prior, gives the logit; tried on an inner split from the lowest on, until the loss
    rises. Lower is smoother."""
    min_rows: PositiveInt = 3
    """Training rows in which a feature must occur to be used."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the weights of features and columns; where there are both, each may move the logit as far as the other."""
        arrays, matrix = scaled(features, self.min_rows)
        held = inner_folds(target, group, seed) == 0
        fit = _fitter(len(arrays["column_scale"]) + len(arrays["scale"]))

        def loss(variance: float) -> float:
            weight, bias = fit(matrix[~held], target[~held], variance)
            return cross_entropy(matrix[held] @ weight + bias, target[held])

        weight, bias = fit(matrix, target, before_the_rise(self.variances, loss))
        used = len(arrays["vocabulary"])
        weight = weight / np.concatenate([arrays["scale"], arrays["column_scale"]])
        shift = arrays["column_mean"] @ weight[used:]
        return {**arrays, "weight": weight[:used], "column_weight": weight[used:], "bias": bias - shift}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks."""
        return sigmoid(_feature_part(arrays, features) + features.stats @ arrays["column_weight"] + arrays["bias"])


@config
class BeyondColumns(L2Logistic):
    """What the features say that the dense columns do not: the columns are regressed out of the features' part of the logit.

    A logistic regression on features and columns gives each feature its effect at equal columns. The features' part of the
    logit still varies with the columns, so its least-squares fit by them on the training rows is taken off, there and on held-out
    rows with the same coefficients. For least squares without a penalty this is what Frisch and Waugh (1933) and Lovell (1963)
    show: the same as to regress the columns out of every feature, and to learn from what is left.
    """

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the weights of the features, and of the columns that are taken off."""
        return self.take_off(L2Logistic.fit(self, features, target, group, seed), features, target)

    def take_off(self, arrays: Arrays, features: Features, target: np.ndarray) -> Arrays:
        """Return what `fit` does, from what `L2Logistic` has learnt of the same rows."""
        centred = (features.stats - arrays["column_mean"]) / arrays["column_scale"]
        part = _feature_part(arrays, features)
        taken = np.linalg.lstsq(centred, part - part.mean(), rcond=None)[0] / arrays["column_scale"]
        base = float(np.log(target.mean() / (1 - target.mean())))
        return {**arrays, "column_weight": -taken, "bias": np.array([base - part.mean() + arrays["column_mean"] @ taken])}


def scaled(features: Features, min_rows: int) -> tuple[Arrays, Any]:
    """Return what turns rows into columns of like size, and the rows so: dense where there are columns alone, else sparse."""
    from scipy.sparse import csr_matrix, hstack

    mean, scale = standardise(features.stats)
    columns = (features.stats - mean) / scale
    if not features.num_features:
        none = {"vocabulary": np.zeros(0, np.int64), "unit": np.ones(1), "scale": np.zeros(0)}
        return {**none, "column_mean": mean, "column_scale": scale}, columns
    vocabulary, unit = learn_vocabulary(features, min_rows)
    matrix = sparse(features, vocabulary, unit)
    spread = deviations(matrix)
    balance = np.sqrt(max(1.0, len(vocabulary) / max(1, len(scale))))
    arrays = {"vocabulary": vocabulary, "unit": unit, "scale": spread, "column_mean": mean, "column_scale": scale / balance}
    return arrays, hstack([matrix.multiply(1 / spread), csr_matrix(columns * balance)], "csr")


def _fitter(width: int) -> Callable[[Any, np.ndarray, float], tuple[np.ndarray, np.ndarray]]:
    """Return the function of rows, target and variance that gives the weights [width] and bias [1]; a fit starts from the last one's."""
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(max_iter=1000, warm_start=True)

    def fit(matrix: Any, target: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
        made.set_params(C=variance / width).fit(*hard(matrix, target))
        return np.array(made.coef_[0]), np.array(made.intercept_)

    return fit


def _feature_part(arrays: Arrays, features: Features) -> np.ndarray:
    if not len(arrays["vocabulary"]):
        return np.zeros(len(features))
    return sparse(features, arrays["vocabulary"], arrays["unit"]) @ arrays["weight"]
