"""Bootstrap intervals that resample groups, so that near-duplicates count as one observation.

A statistic is a function of weights: `[draws, rows]` float64 in, `[draws]` or `[draws, k]` out. Weight 2 means "this row twice", so one call
does many draws without a loop. Percentile intervals: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13.
"""

from collections.abc import Callable

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
CELLS = 131_072
"""Weights held at a time: 1 MB, what stays in a core's cache; memory does not grow with the number of draws."""


def estimate(rows: int, statistic: Statistic) -> np.ndarray:
    """Return the statistic of the rows as they are: scalar or `[k]`."""
    return statistic(np.ones((1, rows)))[0]


def resample(groups: np.ndarray, statistic: Statistic, draws: int, seed: int) -> np.ndarray:
    """Return the statistic of `draws` samples of whole groups, drawn with replacement: `[draws]` or `[draws, k]`.

    The same groups, draws and seed give the same samples, so that two statistics may be compared draw by draw.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    count, rng, done, step = int(codes.max()) + 1, np.random.default_rng(seed), [], max(1, CELLS // len(codes))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picks = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count)
        done.append(statistic(times[:, codes].astype(np.float64)))
    return np.concatenate(done)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds that hold the middle `level` of the draws (axis 0); draws without a value (NaN) are left out."""
    empty = np.isnan(values).all(axis=0)
    low, high = np.nanquantile(np.where(empty, 0.0, values), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
