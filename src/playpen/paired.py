"""Paired statistics of two arms: the same items, judged by models trained with the same seeds.

Differences are a matrix `[seeds, items]`, subject minus other. Seeds and items are crossed, so both are resampled
(pigeonhole bootstrap: Owen 2007, "The pigeonhole bootstrap", section 3, https://arxiv.org/abs/0712.1111), with weights
rescaled so that the variance over few seeds is unbiased (Rao and Wu 1988, section 2.1). The interval is the effect plus and minus
that standard error times a t quantile, whose degrees of freedom (Satterthwaite 1946) fall to `seeds - 1` when seeds
differ more than items do: with three seeds a percentile interval would be too narrow.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

MAX_EXACT = 14
"""Up to so many units every assignment of signs is tried; beyond it they are drawn."""
CHUNK = 4_000_000
"""Weights drawn at a time, so that memory does not grow with the number of items."""


@dataclass(frozen=True)
class Effect:
    """How far a subject is from another arm; below 0 the subject's values are lower."""

    effect: float
    """Mean of subject minus other over seeds and items."""
    low: float
    """Lower end of the 95% interval over seeds and items; with one seed it knows of items only."""
    high: float
    """Upper end of the 95% interval."""
    p_items: float
    """Two-sided sign-flip p over items: could these very training runs differ so much by the choice of items alone?"""
    p_seeds: float
    """Exact two-sided sign-flip p over seeds: at least 2 / 2^seeds, so 3 seeds never give less than 0.25."""
    p_both: float
    """Two-sided p of Student's t with the interval's own error. Each sign flip holds the other factor as it is, so that where seeds and
    items vary alike the larger of the two still finds three times too many effects."""
    lower: int
    """In how many seeds the subject's mean is the lower one."""
    seeds: int
    """How many seeds were paired."""
    items: int
    """How many items were paired."""


def paired_effect(subject: ArrayLike, other: ArrayLike, seed: int = 0, resamples: int = 2000) -> Effect:
    """Compare two `[seeds, items]` matrices cell by cell; raises ValueError when their shapes differ or a cell is not finite."""
    left, right = np.atleast_2d(np.asarray(subject, float)), np.atleast_2d(np.asarray(other, float))
    if left.shape != right.shape or left.size == 0 or not np.isfinite(left - right).all():
        raise ValueError(f"two full matrices of one shape are needed, found {left.shape} and {right.shape}, or values not finite")
    gap = left - right
    error = standard_error(gap, seed, resamples)
    low, high = _about(gap, error)
    means = gap.mean(axis=1)
    return Effect(
        effect=float(gap.mean()),
        low=low,
        high=high,
        p_items=sign_flip_p(gap.mean(axis=0), seed),
        p_seeds=sign_flip_p(means, seed),
        p_both=_p(gap, error),
        lower=int((means < 0).sum()),
        seeds=gap.shape[0],
        items=gap.shape[1],
    )


def interval(values: Matrix, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of a `[seeds, items]` matrix; of a single cell it is the cell itself."""
    return _about(values, standard_error(values, seed, resamples), level)


def _about(values: Matrix, error: float, level: float = 0.95) -> tuple[float, float]:
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes seconds to import

    reach = 0.0 if error == 0 else float(stdtrit(_degrees(values), 0.5 + level / 2)) * error
    return float(values.mean() - reach), float(values.mean() + reach)


def _p(values: Matrix, error: float) -> float:
    from scipy.special import stdtr

    mean = abs(float(values.mean()))
    return float(2 * stdtr(_degrees(values), -mean / error)) if error else float(mean == 0)


def standard_error(values: Matrix, seed: int = 0, resamples: int = 2000) -> float:
    """Return the standard deviation of the mean of a `[seeds, items]` matrix over bootstrap draws of seeds and of items."""
    if np.ptp(values) == 0:
        return 0.0
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // sum(values.shape))
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    draws = [((_weights(rng, values.shape[0], n) @ values) * _weights(rng, values.shape[1], n)).sum(axis=1) for n in sizes]
    return float(np.concatenate(draws).std())


def _weights(rng: np.random.Generator, units: int, draws: int) -> Matrix:
    """Return `[draws, units]` bootstrap weights that sum to 1, spread so that the variance divides by units - 1."""
    if units == 1:
        return np.ones((draws, 1))
    counts = rng.multinomial(units, np.full(units, 1 / units), size=draws)
    return (1 + np.sqrt(units / (units - 1)) * (counts - 1)) / units


def _degrees(values: Matrix) -> float:
    """Return Satterthwaite's degrees of freedom of the mean: near seeds - 1 or items - 1, whichever varies more."""
    parts = [(means.var(ddof=1) / len(means), len(means) - 1) for means in (values.mean(1), values.mean(0)) if len(means) > 1]
    weight = sum(part**2 / degrees for part, degrees in parts)
    return float(sum(part for part, _ in parts) ** 2 / weight) if weight > 0 else float(max(values.shape) - 1 or 1)


def sign_flip_p(gaps: ArrayLike, seed: int = 0, draws: int = 9999) -> float:
    """Return the two-sided p of a mean of 0 under random signs.

    Exact up to 14 gaps, else drawn, with the +1 of Phipson and Smyth 2010 (https://arxiv.org/abs/1603.05766).
    """
    values = np.asarray(gaps, float)
    seen = abs(values.sum()) * (1 - 1e-12)
    if len(values) <= MAX_EXACT:
        return float(np.mean(abs(np.array(list(product((1.0, -1.0), repeat=len(values)))) @ values) >= seen))
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // len(values))
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    as_far = sum(int((abs(rng.choice((1.0, -1.0), size=(n, len(values))) @ values) >= seen).sum()) for n in sizes)
    return (as_far + 1) / (draws + 1)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Return p values adjusted for having looked at all of them (Holm 1979): largest allowed error over the family."""
    adjusted, worst = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}
