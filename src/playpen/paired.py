"""Paired statistics of two arms: the same items, judged by models trained with the same seeds.

Differences are a matrix `[seeds, items]`, subject minus other. Seeds and items are crossed, and both are a sample of those that
could have been, so the error of the mean is that of two random factors (`standard_error`). The interval is the effect plus and minus
that error times a t quantile, whose degrees of freedom (Satterthwaite 1946) fall to `seeds - 1` when seeds differ more than items
do: with three seeds a normal interval would be too narrow.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]

MAX_EXACT = 14
"""Up to so many units every assignment of signs is tried; beyond it they are drawn."""
CHUNK = 4_000_000
"""Signs drawn at a time, so that memory does not grow with the number of items."""


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


def paired_effect(subject: ArrayLike, other: ArrayLike, seed: int = 0) -> Effect:
    """Compare two `[seeds, items]` matrices cell by cell; raises ValueError when their shapes differ or a cell is not finite.

    `seed` draws the sign flips where there are too many to try them all.
    """
    left, right = np.atleast_2d(np.asarray(subject, float)), np.atleast_2d(np.asarray(other, float))
    if left.shape != right.shape or left.size == 0 or not np.isfinite(left - right).all():
        raise ValueError(f"two full matrices of one shape are needed, found {left.shape} and {right.shape}, or values not finite")
    gap = left - right
    error = standard_error(gap)
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


def interval(values: Matrix, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean of a `[seeds, items]` matrix; of a single cell it is the cell itself."""
    return _about(values, standard_error(values), level)


def _about(values: Matrix, error: float, level: float = 0.95) -> tuple[float, float]:
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes seconds to import

    reach = 0.0 if error == 0 else float(stdtrit(_degrees(values), 0.5 + level / 2)) * error
    return float(values.mean() - reach), float(values.mean() + reach)


def _p(values: Matrix, error: float) -> float:
    from scipy.special import stdtr

    mean = abs(float(values.mean()))
    return float(2 * stdtr(_degrees(values), -mean / error)) if error else float(mean == 0)


def standard_error(values: Matrix) -> float:
    """Return the standard error of the mean of a `[seeds, items]` matrix as a draw of n seeds and m items.

        se^2 = s^2(seed means) / n  +  s^2(item means) / m  +  sum r^2 / (n m (n - 1) (m - 1))

    with s^2 the sample variance and r what both means leave of a cell; a factor with one level has no part in it. This is what a
    bootstrap of seeds and items at once (Owen 2007, "The pigeonhole bootstrap", section 3, https://arxiv.org/abs/0712.1111) gives
    with ever more draws, its weights rescaled so that variances divide by n - 1 and m - 1 (Rao and Wu 1988, section 2.1). Both s^2
    hold the variance of single cells as well, so that it counts three times. Subtracting the third part instead of adding it would be
    unbiased; the larger form is chosen, for the unbiased one may be 0 or less, and a claim should err on the side of no effect.
    """
    if np.ptp(values) == 0:
        return 0.0
    factors = [values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)]
    parts = [float(means.var(ddof=1)) / means.size for means in factors if means.size > 1]
    if len(parts) == 2:
        rest = values - factors[0] - factors[1] + values.mean()
        parts.append(float((rest**2).sum()) / (values.size * (values.shape[0] - 1) * (values.shape[1] - 1)))
    return float(np.sqrt(sum(parts)))


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
