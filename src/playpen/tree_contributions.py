"""Contributions of features to the log-odds of boosted trees: Shapley values against the empty example.

A feature's contribution is its mean effect over all orders in which the features of a row could be put in place of zeros (baseline
Shapley: Sundararajan and Najmi 2020, arXiv 1908.08474, section 3); they sum to the row's log-odds minus those of the empty example.
With one baseline a leaf needs no enumeration: with A the features on its path that only the row meets, and B those that only the
baseline meets, each of A gets value * (|A| - 1)! |B|! / (|A| + |B|)!, each of B minus value * |A|! (|B| - 1)! / (|A| + |B|)!, and
nobody anything where one is met by neither (Lundberg et al. 2020, Nature Machine Intelligence 2, interventional form).
"""

from collections.abc import Iterator
from math import factorial

import numpy as np

Arrays = dict[str, np.ndarray]
Path = dict[int, tuple[float, float]]
"""The values that lead to a leaf: by column, above the first number and up to the second."""


def tree_shapley(arrays: Arrays, matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log-odds of a row of zeros, and the contribution of each column to those of each row: float64 [n, columns].

    `arrays` holds the trees, one a row of nodes: `split` (column), `threshold` (at most that goes left), `left`, `right`, `leaf`, `value`,
    and `bias` [1]; `matrix` is [n, columns].
    """
    baseline, found = float(arrays["bias"][0]), np.zeros(matrix.shape)
    for tree in range(len(arrays["leaf"])):
        nodes = {name: arrays[name][tree] for name in ("split", "threshold", "left", "right", "leaf", "value")}
        for value, path in leaves(nodes):
            columns, low, high = list(path), *np.array(list(path.values())).reshape(-1, 2).T
            mine, empty = (matrix[:, columns] > low) & (matrix[:, columns] <= high), (low < 0) & (high >= 0)
            baseline += value * empty.all()
            found[:, columns] += value * shares(mine & ~empty, ~mine & empty) * (mine | empty).all(1, keepdims=True)
    return baseline, found


def leaves(nodes: Arrays, node: int = 0, path: Path | None = None) -> Iterator[tuple[float, Path]]:
    """Yield each leaf of a tree as its value and the path to it."""
    path = path or {}
    if nodes["leaf"][node]:
        yield float(nodes["value"][node]), path
        return
    column, threshold = int(nodes["split"][node]), float(nodes["threshold"][node])
    low, high = path.get(column, (-np.inf, np.inf))
    yield from leaves(nodes, int(nodes["left"][node]), {**path, column: (low, min(high, threshold))})
    yield from leaves(nodes, int(nodes["right"][node]), {**path, column: (max(low, threshold), high)})


def shares(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return what each column gets of a leaf of value 1 that `gained` columns lead to and `lost` ones lead away from: [n, columns]."""
    a, b = gained.sum(1), lost.sum(1)
    most = gained.shape[1] + 1
    weight = np.zeros((most, most))
    for i in range(1, most):
        for j in range(most - i):
            weight[i, j] = factorial(i - 1) * factorial(j) / factorial(i + j)
    return gained * weight[a, b][:, None] - lost * weight[b, a][:, None]
