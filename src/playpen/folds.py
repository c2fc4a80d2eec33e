"""Folds by group: rows of one near-duplicate cluster are never on both sides."""

import numpy as np

from playpen.config import PlaypenError

LEVELS = 4
"""Parts of a target's order that every fold holds in about equal shares; of a 0/1 target, its two classes."""
INNER = 5
"""Inner folds, of which one at a time is held out to choose a penalty or a number of epochs."""


def grouped_folds(target: np.ndarray, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, int64 [n] in 0..folds-1, stratified by `target` and whole by `group`.

    Raises when there are fewer groups than folds, among all rows or at one level of the target.
    """
    if fewest_groups(target, group) < folds:
        raise PlaypenError(
            f"{folds} folds need at least {folds} groups of near-duplicates at each level of the label, found only "
            f"{fewest_groups(target, group)} (of {len(np.unique(group))} groups, {len(group)} rows); lower folds or add rows"
        )
    return _folds(target, group, folds, seed)


def inner_folds(target: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray:
    """Return up to `INNER` folds of training rows, as many as their groups allow; at least 2."""
    folds = min(INNER, fewest_groups(target, group))
    if folds < 2:
        raise PlaypenError("the training rows of one class lie in a single group of near-duplicates; add rows or lower folds")
    return _folds(target, group, folds, seed)


def fewest_groups(target: np.ndarray, group: np.ndarray) -> int:
    """Return the number of groups at that level of the target which has the fewest."""
    level = _level(target)
    return min(len(np.unique(group[level == part])) for part in np.unique(level))


def _level(target: np.ndarray) -> np.ndarray:
    """Return the class of each row where there are two, else which of `LEVELS` parts of about equal counts its target is in."""
    if len(np.unique(target)) <= 2:
        return (target == target.max()).astype(np.int64)
    return np.digitize(target, np.quantile(target, np.linspace(0, 1, LEVELS + 1)[1:-1]))


def _folds(target: np.ndarray, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal groups with like counts of each level to the folds in turn, so that every fold gets its share of each.

    Groups that hold the rarest level lie side by side in the order, so each fold gets one of them. scikit-learn's
    StratifiedGroupKFold weighs every fold for every group in Python: half a second for 1,200 groups, for each of 100 fits.
    """
    codes = np.unique(group, return_inverse=True)[1]
    levels = np.unique(_level(target), return_inverse=True)[1]
    counts = np.zeros((codes.max() + 1, levels.max() + 1), np.int64)
    np.add.at(counts, (codes, levels), 1)
    from_common_to_rare = np.argsort(-(counts > 0).sum(0), kind="stable")
    order = np.lexsort((np.random.default_rng(seed).random(len(counts)), *counts[:, from_common_to_rare].T))
    found = np.empty(len(counts), np.int64)
    found[order] = np.arange(len(counts)) % folds
    return found[codes]
