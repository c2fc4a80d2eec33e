"""Held-out predictions: every row is predicted once, by a model that saw neither it nor a near-duplicate of it.

Folds are worked on side by side in threads; each operation uses one core, so that results do not depend on their number.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from playpen.threads import one_thread
from playpen.trials import Trial

MOST_THREADS = 8
"""Fits at a time, as far as there are cores; each holds a copy of its training rows."""
Fit = tuple[Trial, int | None]
"""What to predict with: a row of the report and, for a run on shuffled labels, the number of the shuffle."""


def predict_held_out(
    fits: Sequence[Fit], target: np.ndarray, group: np.ndarray, folds: np.ndarray, seed: int
) -> dict[Fit, np.ndarray]:
    """Return the predictions of each fit, float32 [n], each made without the row's fold.

    A shuffle gives the training rows each other's targets; the held-out rows keep their own.
    """
    from playpen.progress import tqdm

    predictions = {fit: np.empty(len(target), np.float32) for fit in fits}
    followers = {fit: [other for other in fits if other[0].after is fit[0]] for fit in fits}
    jobs = [(fit, int(fold)) for fold in np.unique(folds) for fit in fits if fit[0].after is None]  # slow and quick ones mixed

    def predict_fold(job: tuple[Fit, int]) -> list[np.ndarray]:
        return _predict_fold(job[0], followers[job[0]], folds == job[1], target, group, (seed, job[1]))

    workers = min(MOST_THREADS, os.cpu_count() or 1)
    with one_thread(), ThreadPoolExecutor(workers, initializer=_one_openmp_thread) as pool:
        try:
            made = pool.map(predict_fold, jobs)
            for (fit, fold), parts in tqdm(
                zip(jobs, made, strict=True), "classify", len(jobs), unit="fit", disable=None, mininterval=1
            ):
                for each, part in zip([fit, *followers[fit]], parts, strict=True):
                    predictions[each][folds == fold] = part
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, do not work on
    return predictions


def _one_openmp_thread() -> None:
    threadpool_limits(1, user_api="openmp")  # which counts for the thread that asks, and ends with it


def _predict_fold(
    fit: Fit, followers: list[Fit], held: np.ndarray, target: np.ndarray, group: np.ndarray, seeds: tuple[int, int]
) -> list[np.ndarray]:
    """Return the predictions of the rows that are held out, of a fit and of those that go on from it."""
    (trial, shuffle), learnt = fit, target[~held]
    if shuffle is not None:
        learnt = np.random.default_rng((*seeds, shuffle)).permutation(learnt)
    train, others = (trial.sees.rows(np.flatnonzero(rows)) for rows in (~held, held))
    arrays = trial.classifier.fit(train, learnt, group[~held], seeds[0])
    found = [trial.classifier.predict(arrays, others)]
    for follower, _ in followers:
        found.append(follower.classifier.predict(follower.classifier.take_off(arrays, train, learnt), others))
    return found
