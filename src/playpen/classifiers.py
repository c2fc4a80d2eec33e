"""Classifiers: from a fingerprint to a prediction of attribution in [0, 1], higher = more helpful.

A classifier is a frozen config with `fit`, which turns rows into a dictionary of arrays, and `predict`, which turns those arrays
and other rows into predictions: the probability of being in the top for a 0/1 target, else the expected rank or score.
To add one, write such a config, put it in `CLASSIFIERS`, and give it a field in `stages/classify.py`.

All of them minimise the cross-entropy with the target, whose minimum for a target in [0, 1] is its expectation (Gneiting
and Raftery 2007, section 3.1).
"""

from threading import Lock
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from playpen.config import config
from playpen.feature_matrix import (
    Arrays,
    before_the_rise,
    cross_entropy,
    damp,
    deviations,
    hard,
    learn_vocabulary,
    places,
    sigmoid,
    sparse,
    standardise,
)
from playpen.feature_table import Features
from playpen.folds import inner_folds
from playpen.l2_classifier import L2Logistic
from playpen.tree_classifier import Trees

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

        mean, scale = standardise(features.stats)
        made = LogisticRegression(C=self.c, max_iter=2000).fit(*hard((features.stats - mean) / scale, target))
        return {"mean": mean, "scale": scale, "weight": made.coef_[0], "bias": made.intercept_}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks."""
        return sigmoid((features.stats - arrays["mean"]) / arrays["scale"] @ arrays["weight"] + arrays["bias"])


@config
class L1Logistic:
    """L1 logistic regression on the sparse vector of all stored strengths, each feature divided by its deviation."""

    uses_k: ClassVar[bool] = False
    penalties: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (3.0, 6.0, 12.0, 25.0, 50.0)
    """Values of C tried on an inner split, from the lowest on until the loss rises; in units of the smallest at which any
    feature enters. Higher lets more in and takes longer."""
    min_rows: PositiveInt = 3
    """Training rows in which a feature must occur to be used."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the weights of the features used; their deviation is in the weights already."""
        vocabulary, unit = learn_vocabulary(features, self.min_rows)
        matrix = sparse(features, vocabulary, unit)
        scale = 1 / deviations(matrix)
        matrix = matrix.multiply(scale).tocsr()
        weight, bias = _l1(matrix, target, self._choose(matrix, target, group, seed), seed)
        return {"vocabulary": vocabulary, "unit": unit, "weight": weight * scale, "bias": bias}

    def _choose(self, matrix: Any, target: np.ndarray, group: np.ndarray, seed: int) -> float:
        held = inner_folds(target, group, seed) == 0

        def loss(penalty: float) -> float:
            weight, bias = _l1(matrix[~held], target[~held], penalty, seed)
            return cross_entropy(matrix[held] @ weight + bias, target[held])

        return before_the_rise(self.penalties, loss)

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks."""
        return sigmoid(sparse(features, arrays["vocabulary"], arrays["unit"]) @ arrays["weight"] + arrays["bias"])


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
    lr: PositiveFloat = 5e-3
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
        rows = places(features, vocabulary), damp(features, unit)
        parameters = fit_members(self, *rows, len(vocabulary), target, inner_folds(target, group, seed), seed)
        return {"vocabulary": vocabulary, "unit": unit, **parameters}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks: the mean over members."""
        from playpen.pooled_classifier import predict_members

        return predict_members(self, places(features, arrays["vocabulary"]), damp(features, arrays["unit"]), arrays)


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
    "l2": L2Logistic,
    "trees": Trees,
    "mean_pooling": MeanPooling,
    "attention_pooling": AttentionPooling,
}


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
        made.fit(*hard(matrix, target))
    return np.asarray(made.coef_)[0], np.asarray(made.intercept_)
