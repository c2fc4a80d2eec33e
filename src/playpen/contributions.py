"""Contributions: by how much each feature of an example moves the log-odds of a classifier's prediction.

The baseline plus all contributions of an example is the log-odds of its prediction. For a linear classifier a contribution is weight
times value, exactly; for a pooled one it is the integrated gradient from the empty example (see `integrated_gradients`), for trees the
Shapley value against it (see `tree_contributions`). A classifier that is to be explained stands in `EXPLAINED`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from playpen.config import PlaypenError
from playpen.feature_matrix import Arrays, damp, places
from playpen.feature_table import Features, from_table
from playpen.saved_classifier import SavedClassifier


@dataclass(frozen=True)
class Contributions:
    """What moved the predictions of n rows."""

    baseline: float
    """Log-odds of the prediction for an example without features; for the statistics, of one with the training rows' means."""
    ids: np.ndarray
    """int64 [n, m]: features, or places in `fingerprints.STATISTICS`."""
    strength: np.ndarray
    """float32 [n, m]: what the classifier saw of each, before damping; 0 where padded."""
    value: np.ndarray
    """float64 [n, m]: contributions in log-odds, positive towards helpful; 0 for what the classifier does not use."""

    @property
    def log_odds(self) -> np.ndarray:
        """The log-odds of the predictions, float64 [n]."""
        return self.baseline + self.value.sum(1)


def check_explained(classifier: SavedClassifier, where: str) -> None:
    """Raise when the predictions of a classifier have no contributions."""
    if classifier.hidden:
        raise PlaypenError(f"{where} sees hidden states, which nothing names; explain a classifier of features")
    if classifier.info["model"] not in EXPLAINED:
        raise PlaypenError(
            f"{where} is a classifier of kind '{classifier.info['model']}', whose predictions have no contributions that sum to them; "
            f"save one of {', '.join(EXPLAINED)}: playpen classify --models ..."
        )
    if not classifier.arrays.get("weight", np.ones(1)).any():
        raise PlaypenError(f"{where} gives no feature any weight, so all its predictions are equal; there is nothing to explain")


def explain(classifier: SavedClassifier, features_table: pa.Table) -> Contributions:
    """Return the contributions to the predictions that the classifier makes of a features table, in its rows' order."""
    made = classifier.info["fingerprint"]
    features = from_table(features_table, made["num_features"], classifier.info["k"] or made["k"])
    return EXPLAINED[classifier.info["model"]](classifier.arrays, features)


def statistics(arrays: Arrays, features: Features) -> Contributions:
    """Explain a linear classifier of standardised columns: weight times distance from the training rows' mean."""
    value = (features.stats - arrays["mean"]) / arrays["scale"] * arrays["weight"]
    ids = np.broadcast_to(np.arange(value.shape[1]), value.shape)
    return Contributions(float(arrays["bias"][0]), ids, features.stats, value)


def linear(arrays: Arrays, features: Features) -> Contributions:
    """Explain a linear classifier of damped strengths: weight times damped strength."""
    weight = np.zeros(features.num_features + 1)
    weight[arrays["vocabulary"]] = arrays["weight"]
    value = damp(features, arrays["unit"]) * weight[features.ids]
    return Contributions(float(arrays["bias"][0]), features.ids, features.strength, value)


def pooled(arrays: Arrays, features: Features) -> Contributions:
    """Explain a pooled classifier by integrated gradients."""
    from playpen.integrated_gradients import integrate

    where = places(features, arrays["vocabulary"])
    baseline, value = integrate(
        arrays, where, np.where(where < len(arrays["vocabulary"]), damp(features, arrays["unit"]).astype(np.float64), 0.0)
    )
    return Contributions(baseline, features.ids, features.strength, value)


def trees(arrays: Arrays, features: Features) -> Contributions:
    """Explain boosted trees of damped strengths by Shapley values against the empty example."""
    from playpen.tree_contributions import tree_shapley

    where = places(features, arrays["vocabulary"])
    rows, there = np.arange(len(features))[:, None], where < len(arrays["vocabulary"])
    matrix = np.zeros((len(features), len(arrays["vocabulary"]) + 1))
    matrix[rows, where] = np.where(there, damp(features, arrays["unit"]), 0)
    baseline, value = tree_shapley(arrays, matrix)
    return Contributions(baseline, features.ids, features.strength, value[rows, where])


EXPLAINED: dict[str, Callable[[Arrays, Features], Contributions]] = {
    "statistics": statistics,
    "l1": linear,
    "l2": linear,
    "trees": trees,
    "mean_pooling": pooled,
    "attention_pooling": pooled,
}
"""How the predictions of each kind of classifier are taken apart."""
