"""From fingerprints to what classifiers compute with: vocabularies, damped strengths, sparse matrices, labels with weights.

Strengths enter as log(1 + strength / unit), `unit` being the median strength of the training rows: strengths have heavy tails,
so that raw ones let a few features drown the others, and SAEs differ in scale.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from playpen.config import PlaypenError
from playpen.feature_table import Features

Arrays = dict[str, np.ndarray]
"""What a classifier has learnt."""


def learn_vocabulary(features: Features, min_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that occur in `min_rows` rows or more (int64, ascending) and the median strength (float64 [1])."""
    there = features.ids < features.num_features
    vocabulary = np.flatnonzero(np.bincount(features.ids[there], minlength=features.num_features) >= min_rows)
    if not len(vocabulary):
        raise PlaypenError(
            f"no feature occurs in {min_rows} of {len(features)} training rows: do the fingerprints hold any feature?"
        )
    return vocabulary, np.array([np.median(features.strength[there])], np.float64)


def damp(features: Features, unit: np.ndarray) -> np.ndarray:
    """Return log(1 + strength / unit), float32 [n, K]."""
    return np.log1p(features.strength / unit).astype(np.float32)


def places(features: Features, vocabulary: np.ndarray) -> np.ndarray:
    """Return the position of each feature in the vocabulary, int64 [n, K]; `len(vocabulary)` for one outside it."""
    lookup = np.full(features.num_features + 1, len(vocabulary))
    lookup[vocabulary] = np.arange(len(vocabulary))
    return lookup[features.ids]


def sparse(features: Features, vocabulary: np.ndarray, unit: np.ndarray) -> Any:
    """Return the damped strengths as a CSR matrix [n, len(vocabulary)]."""
    from scipy.sparse import csr_matrix

    where = places(features, vocabulary)
    there = where < len(vocabulary)
    values, starts = damp(features, unit)[there].astype(np.float64), np.append(0, np.cumsum(there.sum(1)))
    made = csr_matrix((values, where[there], starts), shape=(len(features), len(vocabulary)))
    made.sort_indices()
    return made


def deviations(matrix: Any) -> np.ndarray:
    """Return the standard deviation of each column of a sparse matrix, float64 [v], at least 1e-4."""
    mean, square = (np.asarray(m.mean(0)).ravel() for m in (matrix, matrix.multiply(matrix)))
    return np.sqrt(np.maximum(square - mean**2, 1e-8))


def standardise(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each dense column, float64 [s] both; 1 where it is constant."""
    columns = columns.astype(np.float64)
    return columns.mean(0), np.where(columns.std(0) > 1e-12, columns.std(0), 1.0)


def hard(matrix: Any, target: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return rows, 0/1 labels and weights with the same cross-entropy as `target`: a rank r counts r times as 1, 1 - r times as 0."""
    from scipy.sparse import issparse, vstack

    if np.isin(target, (0, 1)).all():
        return matrix, target.astype(np.int64), np.ones(len(target))
    twice = vstack([matrix, matrix], "csr") if issparse(matrix) else np.concatenate([matrix, matrix])
    return twice, np.repeat([1, 0], len(target)), np.concatenate([target, 1 - target]).astype(np.float64)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Return probabilities, float32."""
    return (1 / (1 + np.exp(-np.clip(logit, -60, 60)))).astype(np.float32)


def cross_entropy(logit: np.ndarray, target: np.ndarray) -> float:
    """Return the mean cross-entropy in nats."""
    return float(np.mean(np.logaddexp(0, logit) - target * logit))


def before_the_rise(settings: Sequence[float], loss: Callable[[float], float]) -> float:
    """Return the setting before the first whose loss is higher; they are tried in ascending order.

    The loss falls while a weaker penalty fits more signal and rises once it fits noise, where fits are the slowest.
    """
    best, lowest = min(settings), float("inf")
    for setting in sorted(settings):
        found = loss(setting)
        if found > lowest:
            break
        best, lowest = setting, found
    return best
