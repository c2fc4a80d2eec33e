"""Classifiers: from a fingerprint to a prediction of attribution in [0, 1], higher = more helpful.

A classifier is a frozen config with `fit`, which turns rows into a dictionary of arrays, and `predict`, which turns those arrays
and other rows into predictions: the probability of being in the top for a 0/1 target, the expected rank for a rank.
To add one, write such a config here, put it in `CLASSIFIERS`, and give it a field in `stages/classify.py`.

All of them minimise the cross-entropy with the target, whose minimum for a target in [0, 1] is its expectation (Gneiting
and Raftery 2007, section 3.1). Strengths enter as log(1 + strength / unit), `unit` being the median strength of the
training rows: strengths have heavy tails, so that raw ones let a few features drown the others, and SAEs differ in scale.
"""

from threading import Lock
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from playpen.config import PlaypenError, config
from playpen.feature_table import Features
from playpen.folds import inner_folds

Arrays = dict[str, np.ndarray]
LIBLINEAR = Lock()
"""Held during a fit: liblinear draws from one generator of the whole process, so that two fits at once would mix their draws."""


class Classifier(Protocol):
    """What the config of a classifier offers."""

    uses_k: ClassVar[bool]
    """Whether it sees the K strongest features, and so is tried with each K."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Learn `target` (float32 [n] in [0, 1]); what is chosen inside is chosen on a split by `group` (str [n])."""
        ...

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return predictions float32 [n] in [0, 1]."""
        ...


@config
class Statistics:
    """Logistic regression on the ten global statistics, standardised."""

    uses_k: ClassVar[bool] = False
    c: PositiveFloat = 1.0
    """Inverse strength of the L2 penalty; lower is smoother."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the weights of the standardised columns."""
        from sklearn.linear_model import LogisticRegression

        columns = features.stats.astype(np.float64)
        mean, scale = columns.mean(0), np.where(columns.std(0) > 0, columns.std(0), 1.0)
        made = LogisticRegression(C=self.c, max_iter=2000).fit(*_hard((columns - mean) / scale, target))
        return {"mean": mean, "scale": scale, "weight": made.coef_[0], "bias": made.intercept_}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks."""
        return _sigmoid((features.stats - arrays["mean"]) / arrays["scale"] @ arrays["weight"] + arrays["bias"])


@config
class L1Logistic:
    """L1 logistic regression on the sparse vector of all stored strengths, each feature divided by its deviation."""

    uses_k: ClassVar[bool] = False
    penalties: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (3.0, 6.0, 12.0, 25.0, 50.0)
    """Values of C tried on an inner split, in units of the smallest at which any feature enters; higher lets more in."""
    min_rows: PositiveInt = 3
    """Training rows in which a feature must occur to be used."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the weights of the features used; their deviation is in the weights already."""
        vocabulary, unit = learn_vocabulary(features, self.min_rows)
        matrix = _sparse(features, vocabulary, unit)
        mean, square = (np.asarray(m.mean(0)).ravel() for m in (matrix, matrix.multiply(matrix)))
        scale = 1 / np.sqrt(np.maximum(square - mean**2, 1e-8))
        matrix = matrix.multiply(scale).tocsr()
        weight, bias = _l1(matrix, target, self._choose(matrix, target, group, seed), seed)
        return {"vocabulary": vocabulary, "unit": unit, "weight": weight * scale, "bias": bias}

    def _choose(self, matrix: Any, target: np.ndarray, group: np.ndarray, seed: int) -> float:
        held = inner_folds(target, group, seed) == 0
        losses = []
        for penalty in self.penalties:
            weight, bias = _l1(matrix[~held], target[~held], penalty, seed)
            losses.append(_cross_entropy(matrix[held] @ weight + bias, target[held]))
        return self.penalties[int(np.argmin(losses))]

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks."""
        return _sigmoid(_sparse(features, arrays["vocabulary"], arrays["unit"]) @ arrays["weight"] + arrays["bias"])


@config
class _Pooling:
    """An example is its K strongest features, each with a learned embedding scaled by its strength."""

    uses_k: ClassVar[bool] = True
    attention: ClassVar[bool] = False
    dim: PositiveInt = 32
    """Width of the embeddings."""
    hidden: Annotated[int, Field(ge=0)] = 32
    """Width of the head's hidden layer; 0 makes the head linear."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the head's inputs left out in training; higher when labels are few."""
    feature_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of an example's features left out in training; higher when labels are few."""
    lr: PositiveFloat = 2e-3
    """Learning rate of AdamW, constant; lower it when training stops after one or two epochs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay of all parameters."""
    batch_rows: PositiveInt = 128
    """Most rows in a batch; smaller when rows are few, so that an epoch has ten steps."""
    epochs: PositiveInt = 40
    """Most passes over the training rows; the weights of the best epoch on the inner held-out fold are kept."""
    patience: PositiveInt = 5
    """Epochs without a better inner loss after which training stops."""
    members: Annotated[int, Field(ge=1, le=5)] = 2
    """Networks whose predictions are averaged, each stopped on another inner fold; more cost time and vary less."""
    min_rows: PositiveInt = 3
    """Training rows in which a feature must occur to be used."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the parameters of all members, stacked."""
        from playpen.pooled_classifier import fit_members

        vocabulary, unit = learn_vocabulary(features, self.min_rows)
        places, strengths = _places(features, vocabulary), _damp(features, unit)
        parameters = fit_members(self, places, strengths, len(vocabulary), target, inner_folds(target, group, seed), seed)
        return {"vocabulary": vocabulary, "unit": unit, **parameters}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks: the mean over members."""
        from playpen.pooled_classifier import predict_members

        return predict_members(self, _places(features, arrays["vocabulary"]), _damp(features, arrays["unit"]), arrays)


@config
class MeanPooling(_Pooling):
    """The mean of the scaled embeddings, and a small head."""


@config
class AttentionPooling(_Pooling):
    """The scaled embeddings weighed by their softmax product with a learned query, and a small head."""

    attention: ClassVar[bool] = True


CLASSIFIERS: dict[str, type[Any]] = {
    "statistics": Statistics,
    "l1": L1Logistic,
    "mean_pooling": MeanPooling,
    "attention_pooling": AttentionPooling,
}


def learn_vocabulary(features: Features, min_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that occur in `min_rows` rows or more (int64, ascending) and the median strength (float64 [1])."""
    there = features.ids < features.num_features
    vocabulary = np.flatnonzero(np.bincount(features.ids[there], minlength=features.num_features) >= min_rows)
    if not len(vocabulary):
        raise PlaypenError(
            f"no feature occurs in {min_rows} of {len(features)} training rows: do the fingerprints hold any feature?"
        )
    return vocabulary, np.array([np.median(features.strength[there])], np.float64)


def _damp(features: Features, unit: np.ndarray) -> np.ndarray:
    return np.log1p(features.strength / unit).astype(np.float32)


def _places(features: Features, vocabulary: np.ndarray) -> np.ndarray:
    """Return the position of each feature in the vocabulary, int64 [n, K]; `len(vocabulary)` for one outside it."""
    lookup = np.full(features.num_features + 1, len(vocabulary))
    lookup[vocabulary] = np.arange(len(vocabulary))
    return lookup[features.ids]


def _sparse(features: Features, vocabulary: np.ndarray, unit: np.ndarray) -> Any:
    """Return the strengths as a CSR matrix [n, len(vocabulary)]."""
    from scipy.sparse import csr_matrix

    places = _places(features, vocabulary)
    there = places < len(vocabulary)
    values = _damp(features, unit)[there].astype(np.float64)
    return csr_matrix((values, (np.nonzero(there)[0], places[there])), shape=(len(features), len(vocabulary)))


def _hard(matrix: Any, target: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return rows, 0/1 labels and weights with the same cross-entropy as `target`: a rank r counts r times as 1, 1 - r times as 0."""
    from scipy.sparse import issparse, vstack

    if np.isin(target, (0, 1)).all():
        return matrix, target.astype(np.int64), np.ones(len(target))
    twice = vstack([matrix, matrix], "csr") if issparse(matrix) else np.concatenate([matrix, matrix])
    return twice, np.repeat([1, 0], len(target)), np.concatenate([target, 1 - target]).astype(np.float64)


def _l1(matrix: Any, target: np.ndarray, penalty: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights [v] and bias [1] of an L1 logistic regression."""
    from sklearn.linear_model import LogisticRegression

    pull = np.abs(
        matrix.T @ (target - target.mean())
    ).max()  # the largest slope of the loss at zero weights; C must exceed 1 / pull
    made = LogisticRegression(
        l1_ratio=1, C=penalty / max(pull, 1e-12), solver="liblinear", intercept_scaling=10, max_iter=200, random_state=seed
    )
    with LIBLINEAR:
        made.fit(*_hard(matrix, target))
    return np.asarray(made.coef_)[0], np.asarray(made.intercept_)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-np.clip(logit, -60, 60)))).astype(np.float32)


def _cross_entropy(logit: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logit) - target * logit))
