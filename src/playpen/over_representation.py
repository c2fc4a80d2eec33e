"""Over-representation: which features are commoner among the kept rows of a selection than among the rejected ones.

Long rows have more features, and sources have their own, so every comparison is made twice: over all rows, and within source and
length (Mantel and Haenszel 1959), which says what is left when neither can be the reason.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from playpen.tables import iter_table

Z = 1.959963984540054
"""Half the width of a 95 % interval in standard errors."""
ENTRIES = 1_000_000
"""Contributions read at a time."""


@dataclass(frozen=True)
class Tally:
    """How many rows have each feature, and what it did to their predictions; axis 0 of `kept` and `rejected` is the stratum."""

    features: np.ndarray
    """int64 [f], ascending: the features that moved any prediction."""
    kept: np.ndarray
    """int64 [strata, f]: kept rows with the feature."""
    rejected: np.ndarray
    kept_rows: np.ndarray
    """int64 [strata]: kept rows, with it or not."""
    rejected_rows: np.ndarray
    kept_sum: np.ndarray
    """float64 [f]: summed contributions of the kept rows, in log-odds."""
    rejected_sum: np.ndarray


def tally(artifact: Path, rows: pd.DataFrame) -> Tally:
    """Count the table `contributions` of an artifact by the `kept` (bool) and the `stratum` (string) of its rows."""
    index, kept = pd.Index(rows["row_id"]), rows["kept"].to_numpy(bool)
    stratum, names = pd.factorize(rows["stratum"], sort=True)
    found = [np.unique(part["feature"]) for part in iter_table(artifact, "contributions", ENTRIES, ["feature"])]
    features = np.unique(np.concatenate(found)).astype(np.int64)
    shape = (2, len(names), len(features))
    counts, sums = np.zeros(shape, np.int64), np.zeros((2, len(features)))
    for part in iter_table(artifact, "contributions", ENTRIES, ["row_id", "feature", "contribution"]):
        row, feature = index.get_indexer(part["row_id"].to_pandas()), np.searchsorted(features, part["feature"])
        place = (kept[row] * len(names) + stratum[row]) * len(features) + feature
        counts += np.bincount(place, minlength=counts.size).reshape(shape)
        side = kept[row] * len(features) + feature
        sums += np.bincount(side, part["contribution"].to_numpy(), minlength=sums.size).reshape(sums.shape)
    kept_rows, rejected_rows = (np.bincount(stratum[side], minlength=len(names)) for side in (kept, ~kept))
    return Tally(features, counts[1], counts[0], kept_rows, rejected_rows, sums[1], sums[0])


def compare_features(found: Tally) -> pd.DataFrame:
    """Return one row a feature, the one that parts kept from rejected the most first.

    `kept_share`, `offered_share`: share of the kept rows, and of all rows, that have it. `log_odds`: of having it, kept against
    rejected, smoothed; `log_odds_within`: the same within strata; both with a 95 % interval `_low`, `_high`, and missing where all rows
    have it or none. `q`: false discovery rate of `log_odds` over all features. `kept_mean`, `rejected_mean`: mean contribution to the
    log-odds of a kept and of a rejected row (0 where it is absent). `gap`: their difference; over all features, gaps sum to the
    difference of the mean predictions.
    """
    kept, rejected = found.kept_rows.sum(), found.rejected_rows.sum()
    have = found.kept.sum(0) + found.rejected.sum(0)
    table = pd.DataFrame(
        {
            "feature": found.features.astype(np.int32),
            "kept_share": found.kept.sum(0) / kept,
            "offered_share": have / (kept + rejected),
            **_bounds("log_odds", *log_odds_ratio(found)),
            **_bounds("log_odds_within", *log_odds_within(found)),
            "kept_mean": found.kept_sum / kept,
            "rejected_mean": found.rejected_sum / rejected,
        }
    )
    table["gap"] = table["kept_mean"] - table["rejected_mean"]
    table["q"] = false_discovery_rate(*log_odds_ratio(found))
    return table.sort_values("gap", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def _bounds(name: str, value: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value, f"{name}_low": value - Z * error, f"{name}_high": value + Z * error}


def log_odds_ratio(found: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Return the log of the odds ratio of having each feature, with 0.5 added to each of the four counts, and its standard error.

    Haldane's correction and Woolf's error: Agresti, *Categorical Data Analysis* (2nd edition, 2002), section 3.1.1.
    """
    a, b = found.kept.sum(0), found.rejected.sum(0)
    c, d = found.kept_rows.sum() - a, found.rejected_rows.sum() - b
    told = (a + b > 0) & (c + d > 0)
    a, b, c, d = (np.where(told, count + 0.5, np.nan) for count in (a, b, c, d))
    return np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def log_odds_within(found: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Return the log of the odds ratio common to all strata, and its standard error; NaN where the strata cannot tell.

    Mantel and Haenszel (1959); the error is that of Robins, Breslow and Greenland (Biometrics 42, 1986), right for few large strata and
    for many small ones.
    """
    a, b = found.kept, found.rejected
    c, d = found.kept_rows[:, None] - a, found.rejected_rows[:, None] - b
    n = np.maximum(a + b + c + d, 1)
    up, down, agree, differ = a * d / n, b * c / n, (a + d) / n, (b + c) / n
    r, s = (np.where(total > 0, total, np.nan) for total in (up.sum(0), down.sum(0)))
    cross = (agree * down + differ * up).sum(0)
    variance = (agree * up).sum(0) / (2 * r**2) + cross / (2 * r * s) + (differ * down).sum(0) / (2 * s**2)
    return np.log(r / s), np.sqrt(variance)


def false_discovery_rate(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the rate at which a feature called different would be so by chance: Wald's test, Benjamini and Hochberg (1995); NaN stays."""
    from scipy.stats import false_discovery_control, norm

    told = np.isfinite(value)
    q = np.full(len(value), np.nan)
    q[told] = false_discovery_control(2 * norm.sf(np.abs(value[told] / error[told]))) if told.any() else []
    return q
