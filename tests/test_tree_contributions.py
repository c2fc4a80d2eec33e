"""Shapley values of trees equal their definition, taken over every order of the features."""

from itertools import permutations

import numpy as np
import pytest

from playpen.tree_contributions import Arrays, tree_shapley

COLUMNS = 4


def grown(trees: int, seed: int) -> Arrays:
    """Return full trees of depth 3 over 4 columns; a column may stand twice on a path, and zero lies on either side."""
    draw, shape = np.random.default_rng(seed), (trees, 15)
    node = np.broadcast_to(np.arange(15), shape)
    return {
        "split": draw.integers(COLUMNS, size=shape),
        "threshold": draw.normal(size=shape),
        "left": 2 * node + 1,
        "right": 2 * node + 2,
        "leaf": (node >= 7).astype(np.uint8),
        "value": draw.normal(size=shape),
        "bias": np.array([0.3]),
    }


def log_odds(arrays: Arrays, row: np.ndarray) -> float:
    total = float(arrays["bias"][0])
    for tree in range(len(arrays["leaf"])):
        node = 0
        while not arrays["leaf"][tree, node]:
            left = row[arrays["split"][tree, node]] <= arrays["threshold"][tree, node]
            node = arrays["left" if left else "right"][tree, node]
        total += arrays["value"][tree, node]
    return total


@pytest.mark.parametrize("seed", range(3))
def test_contributions_are_the_mean_effects_over_all_orders_and_sum_to_the_log_odds(seed: int) -> None:
    arrays, rows = grown(5, seed), np.random.default_rng(seed).normal(size=(6, COLUMNS))
    rows[0, 1] = 0
    expected = np.zeros(rows.shape)
    for order in permutations(range(COLUMNS)):
        for row, mean in zip(rows, expected, strict=True):
            seen = np.zeros(COLUMNS)
            for column in order:
                before = log_odds(arrays, seen)
                seen[column] = row[column]
                mean[column] += (log_odds(arrays, seen) - before) / 24
    baseline, found = tree_shapley(arrays, rows)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(baseline, log_odds(arrays, np.zeros(COLUMNS)))
    np.testing.assert_allclose(baseline + found.sum(1), [log_odds(arrays, row) for row in rows])
    assert found[0, 1] == 0


def test_a_tree_that_is_one_leaf_moves_the_baseline_alone() -> None:
    stump = {name: np.zeros((1, 1), np.int64) for name in ("split", "threshold", "left", "right")}
    arrays = {**stump, "leaf": np.ones((1, 1)), "value": np.array([[0.5]]), "bias": np.array([0.25])}
    baseline, found = tree_shapley(arrays, np.ones((2, COLUMNS)))
    assert baseline == 0.75
    assert not found.any()
