"""The linear datamodeling score: do summed scores of the rows trained on rank the trainings as their target losses do?

With S_1 ... S_M the subsets of a bank and L_m(z) the mean over seeds of the loss of target z after training on S_m,

    LDS(z) = Spearman over m of  sum over i in S_m of score(i, z)  and  -L_m(z)

(Park et al. 2023, arXiv 2303.14186, definition 2.2). `per_target` is the mean of LDS(z) over targets; `pooled` takes the
mean loss over targets first. For rows left out rather than kept the sums are those of the rows that stay, which rank alike.
A correlation with something constant counts as 0, the rule of the published evaluations. Retained LDS is the pooled LDS
over that of a reference, told only where the reference's is surely above 0; `behind` is how far it is below the reference's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from playpen.intervals import interval
from playpen.progress import tqdm

MEASURES = ("pooled", "per_target", "minus_length", "retained", "behind")
"""Of these the last two are beside a reference."""
COLUMNS = ["scores", *(name + end for name in MEASURES for end in ("", "_low", "_high")), "attainable"]


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples of subsets and of targets, with replacement, alike for all scorers; the first is the data as they are."""

    subsets: np.ndarray
    """Numbers of the subsets in each sample, int64 [1 + draws, M]."""
    weights: np.ndarray
    """Weight of each target, float64 [1 + draws, T]; each row sums to 1."""


@dataclass(frozen=True, eq=False)
class Lds:
    """The LDS of one scorer in every sample, float64 [1 + draws] each; the first is the estimate."""

    pooled: np.ndarray
    per_target: np.ndarray


def make_draws(subsets: int, targets: int, draws: int, seed: int) -> Draws:
    """Draw both at once: targets as well as subsets are a sample of those that could have been (Owen 2007, section 3)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(subsets, size=(draws, subsets))
    counts = rng.multinomial(targets, np.full(targets, 1 / targets), size=draws)
    first = np.full((1, targets), 1 / targets)
    return Draws(np.concatenate([np.arange(subsets)[None], picks]), np.concatenate([first, counts / targets]))


def unit_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, centred and of length 1, so that a dot of two is their Spearman; 0 where all are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=-1, keepdims=True))
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 1e-9)


def spearman(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation along the last axis, average ranks for ties."""
    return np.einsum("...m,...m->...", unit_ranks(left), unit_ranks(right))


def judge(predicted: Mapping[str, np.ndarray], losses: np.ndarray, draws: Draws) -> dict[str, Lds]:
    """Return the LDS of each scorer.

    `predicted` has summed scores, higher = more helpful: [M] for all targets alike or [M, T] for each its own. `losses` is
    [M, T], the means over seeds. Raises ValueError for fewer than three subsets, whose order says nothing.
    """
    if len(losses) < 3:
        raise ValueError(f"{len(losses)} subsets cannot be ranked; at least 3 are needed")
    gain = -losses
    pooled = {name: spearman(_means(values, draws), _means(gain, draws)) for name, values in predicted.items()}
    alike = {name: unit_ranks(values[draws.subsets]) for name, values in predicted.items() if values.ndim == 1}
    each = {name: np.empty(draws.weights.shape) for name in predicted}
    for target in tqdm(range(losses.shape[1]), "LDS", unit="target", disable=None, leave=False):
        found = unit_ranks(gain[draws.subsets, target])
        for name, values in predicted.items():
            ours = alike[name] if name in alike else unit_ranks(values[draws.subsets, target])
            each[name][:, target] = np.einsum("bm,bm->b", ours, found)
    return {name: Lds(pooled[name], (each[name] * draws.weights).sum(axis=1)) for name in predicted}


def _means(values: np.ndarray, draws: Draws) -> np.ndarray:
    """Return the mean over targets in each sample, for the subsets of that sample [1 + draws, M]."""
    means = np.tile(values, (len(draws.weights), 1)) if values.ndim == 1 else draws.weights @ values.T
    return np.take_along_axis(means, draws.subsets, axis=1)


def ceiling(losses: np.ndarray, draws: Draws) -> Lds | None:
    """Return the LDS that the losses of one half of the seeds have of the other half's; None with a single seed.

    `losses` is [M, seeds, T]. With an odd number of seeds the second half is the larger one.
    """
    half = losses.shape[1] // 2
    if half == 0:
        return None
    first, second = losses[:, :half].mean(axis=1), losses[:, half:].mean(axis=1)
    return judge({"ceiling": -first}, second, draws)["ceiling"]


def attainable(agreement: float) -> float:
    """Return the LDS that knowing the expected losses would have, 0 to 1, from the agreement of two halves of the seeds.

    The mean of both halves agrees with another such mean to 2 r / (1 + r) (Spearman 1910 and Brown 1910), and with what is
    expected of it to the root of that. An approximation, for it is exact of Pearson's correlation only.
    """
    return float(np.sqrt(2 * agreement / (1 + agreement))) if agreement > 0 else 0.0


def told(draws: np.ndarray) -> tuple[float, float, float]:
    """Return the estimate and its 95 % percentile interval, of samples whose first is the estimate."""
    low, high = interval(draws[1:])
    return float(draws[0]), float(low), float(high)


def lds_table(summed: Mapping[str, np.ndarray], losses: np.ndarray, reference: str | None, draws: int, seed: int) -> pd.DataFrame:
    """Return one row a scorer, and one for the ceiling where there are two seeds.

    `summed` as in `judge`, `length` among them; `losses` is [M, seeds, T]. Columns: scores; `pooled`, `per_target`,
    `minus_length` (pooled, less that of the length, or of its opposite where short answers help), `retained` and `behind` (pooled of
    the reference, less that of the scorer; of the length, or of its opposite), each with `_low` and `_high`; `attainable` of the ceiling;
    subsets, seeds, targets. Differences and ratios are of the same samples of subsets and targets. NaN where there is no such number.
    """
    samples = make_draws(len(losses), losses.shape[2], draws, seed)
    found = judge(summed, losses.mean(axis=1), samples)
    length = np.abs(found["length"].pooled)
    rows = []
    for name, lds in found.items():
        row = {"scores": name, **_columns("pooled", lds.pooled), **_columns("per_target", lds.per_target)}
        row |= _columns("minus_length", lds.pooled - length) if name != "length" else {}
        if reference is not None and name != reference and told(found[reference].pooled)[1] > 0:
            row |= _columns("retained", lds.pooled / found[reference].pooled)
        if reference is not None and name != reference:
            row |= _columns("behind", found[reference].pooled - (length if name == "length" else lds.pooled))
        rows.append(row)
    if (top := ceiling(losses, samples)) is not None:
        both = {**_columns("pooled", top.pooled), **_columns("per_target", top.per_target)}
        rows.append({"scores": "ceiling", **both, "attainable": attainable(float(top.pooled[0]))})
    sizes = dict(zip(("subsets", "seeds", "targets"), losses.shape, strict=True))
    return pd.DataFrame(rows).reindex(columns=COLUMNS).assign(**sizes)


def _columns(name: str, samples: np.ndarray) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), told(samples), strict=True))
