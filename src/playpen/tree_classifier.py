"""Gradient-boosted trees on the features that matter most, or on dense columns; saved as plain arrays."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from playpen.config import config
from playpen.feature_matrix import Arrays, deviations, learn_vocabulary, sigmoid, sparse
from playpen.feature_table import Features
from playpen.folds import inner_folds


@config
class Trees:
    """Gradient-boosted trees (scikit-learn's, which bin the values) on the damped strengths of chosen features and on dense columns."""

    uses_k: ClassVar[bool] = False
    features: PositiveInt = 128
    """Features seen: those whose strength correlates most with the target in the training rows; more take longer."""
    min_rows: PositiveInt = 3
    """Training rows in which a feature must occur to be used."""
    lr: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of each tree's fit that is kept."""
    leaves: Annotated[int, Field(ge=2)] = 8
    """Most leaves of a tree; more let more features interact."""
    leaf_rows: PositiveInt = 20
    """Fewest rows of a leaf; higher when labels are few."""
    l2: PositiveFloat = 1.0
    """Penalty on the values of leaves."""
    trees: PositiveInt = 200
    """Most trees; those up to the lowest loss on the inner held-out fold are kept."""
    patience: PositiveInt = 10
    """Trees without a better inner loss after which growing stops."""

    def fit(self, features: Features, target: np.ndarray, group: np.ndarray, seed: int) -> Arrays:
        """Return the features chosen and the trees, one row of nodes each."""
        held = inner_folds(target, group, seed) == 0
        arrays = _choose(features, target, ~held, self)
        matrix, binary = _matrix(arrays, features), bool(np.isin(target, (0, 1)).all())
        made = _boosting(self, binary, seed)
        made.fit(matrix[~held], target[~held], X_val=matrix[held], y_val=target[held])
        return {**arrays, **flatten(made), "binary": np.array([binary])}

    def predict(self, arrays: Arrays, features: Features) -> np.ndarray:
        """Return probabilities, or expected ranks."""
        found = grow(arrays, _matrix(arrays, features))
        return sigmoid(found) if arrays["binary"][0] else np.clip(found, 0, 1).astype(np.float32)


def _boosting(config: Trees, binary: bool, seed: int) -> Any:
    """Return scikit-learn's model: for a 0/1 target its classifier, for a rank squared error, whose minimum is the expectation too."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind: Any = HistGradientBoostingClassifier if binary else HistGradientBoostingRegressor
    return kind(
        learning_rate=config.lr,
        max_iter=config.trees,
        max_leaf_nodes=config.leaves,
        min_samples_leaf=config.leaf_rows,
        l2_regularization=config.l2,
        early_stopping=True,
        n_iter_no_change=config.patience,
        random_state=seed,
    )


def _choose(features: Features, target: np.ndarray, rows: np.ndarray, config: Trees) -> Arrays:
    """Return the vocabulary cut to the features that correlate most with the target in `rows`, and the unit of strength."""
    if not features.num_features:
        return {"vocabulary": np.zeros(0, np.int64), "unit": np.ones(1)}
    vocabulary, unit = learn_vocabulary(features, config.min_rows)
    matrix = sparse(features, vocabulary, unit)[rows]
    pull = np.abs(matrix.T @ (target[rows] - target[rows].mean())) / deviations(matrix)
    return {"vocabulary": vocabulary[np.sort(np.argsort(-pull, kind="stable")[: config.features])], "unit": unit}


def _matrix(arrays: Arrays, features: Features) -> np.ndarray:
    """Return the dense rows [n, chosen features + columns]."""
    columns = features.stats.astype(np.float64)
    if not len(arrays["vocabulary"]):
        return columns
    return np.concatenate([sparse(features, arrays["vocabulary"], arrays["unit"]).toarray(), columns], axis=1)


def flatten(made: Any) -> Arrays:
    """Return a fitted boosting's trees up to its lowest loss on held-out rows, as arrays [trees, nodes], and its bias [1]."""
    best = max(1, int(np.argmax(made.validation_score_)))
    nodes = [predictors[0].nodes for predictors in made._predictors[:best]]
    shape, found = (len(nodes), max(len(tree) for tree in nodes)), {}
    for name, field, kind in (
        ("split", "feature_idx", np.int64),
        ("threshold", "num_threshold", np.float64),
        ("left", "left", np.int64),
        ("right", "right", np.int64),
        ("leaf", "is_leaf", np.uint8),
        ("value", "value", np.float64),
    ):
        found[name] = np.zeros(shape, kind)
        for row, tree in zip(found[name], nodes, strict=True):
            row[: len(tree)] = tree[field]
    return {**found, "bias": made._baseline_prediction.ravel().astype(np.float64)}


def grow(arrays: Arrays, matrix: np.ndarray) -> np.ndarray:
    """Return the sums of leaves and bias [n] of rows [n, columns]: every row goes down every tree, left where its value is at most the threshold."""
    tree, row = np.arange(len(arrays["leaf"])), np.arange(len(matrix))[:, None]
    node = np.zeros((len(matrix), len(tree)), np.int64)
    while True:
        leaf = arrays["leaf"][tree, node].astype(bool)
        if leaf.all():
            return arrays["value"][tree, node].sum(1) + arrays["bias"]
        below = matrix[row, arrays["split"][tree, node]] <= arrays["threshold"][tree, node]
        onward = np.where(below, arrays["left"][tree, node], arrays["right"][tree, node])
        node = np.where(leaf, node, onward)
