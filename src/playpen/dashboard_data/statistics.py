"""What one feature does, in numbers: moments, histograms, the tokens and positions it is active on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from playpen.dashboard_data.corpus import Corpus
from playpen.dashboard_data.entries import Entries

BINS = 40
"""Bins of a histogram."""
POSITION_EDGES = np.unique([0, 1, 2, 3, *(round(2 ** (i / 2)) for i in range(4, 60))])
"""Edges of the position histogram: single positions first, then two bins a doubling."""


def moments(strength: np.ndarray) -> dict[str, float | None]:
    """Return max, mean, std (divided by n), skew and kurtosis (3 for a normal); null where they do not exist."""
    names = ("max", "mean", "std", "skew", "kurtosis")
    if not len(strength):
        return dict.fromkeys(names)
    values = strength.astype(np.float64)
    mean = values.mean()
    centred = values - mean
    square = centred * centred
    variance = square.mean()
    if variance <= (1e-6 * mean) ** 2:  # equal but for the last digit of a float32
        return dict(zip(names, (float(values.max()), float(mean), float(variance**0.5), None, None), strict=True))
    skew, kurtosis = (square * centred).mean() / variance**1.5, (square * square).mean() / variance**2
    found = (values.max(), mean, variance**0.5, skew, kurtosis)
    return dict(zip(names, map(float, found), strict=True))


def histogram(values: np.ndarray, low: float, high: float, bins: int = BINS) -> dict[str, list[Any]]:
    """Return `edges` (bins + 1, equal width from low to high) and `counts`; values at an inner edge count in the upper bin."""
    width = (high - low) / bins or 1.0
    place = np.clip(((values - low) / width).astype(np.int64), 0, bins - 1)
    edges = (low + width * np.arange(bins + 1)).tolist()
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": np.bincount(place, minlength=bins).tolist()}


@dataclass(frozen=True)
class Positions:
    """The positions of a corpus in bins."""

    edges: np.ndarray
    """int64 [bins + 1]: bin i holds positions edges[i] to edges[i + 1] - 1."""
    bin_of: np.ndarray
    """int64 [longest row]: the bin of each position; -1 before the first counted one."""
    tokens: np.ndarray
    """int64 [bins]: counted tokens in each, none empty but where rows are odd."""

    def density(self, positions: np.ndarray) -> dict[str, list[Any]]:
        """Return `edges` and the `density` in each bin, given the positions of a feature's active tokens."""
        active = np.bincount(self.bin_of[positions], minlength=len(self.tokens))
        density = [float(f"{a / n:.4g}") if n else None for a, n in zip(active, self.tokens, strict=True)]
        return {"edges": self.edges.tolist(), "density": density}


def bin_positions(corpus: Corpus) -> Positions:
    """Bin the positions of a corpus, from the first that counts (after the BOS) to the end of its longest row."""
    where = corpus.positions(np.flatnonzero(corpus.counted))
    first, longest = int(where.min()), int(where.max()) + 1
    edges = np.array([first, *(e for e in POSITION_EDGES if first < e < longest), longest])
    bin_of = np.searchsorted(edges, np.arange(longest), side="right") - 1
    return Positions(edges, bin_of, np.bincount(bin_of[where], minlength=len(edges) - 1))


def most_common(counts: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the highest counts above 0, highest first, the lower place first of equal ones."""
    there = np.flatnonzero(counts)
    return there[np.lexsort((there, -counts[there]))[:most]]


@dataclass(frozen=True)
class TokenTable:
    """The token ids on which a feature is active most often, and those that follow."""

    ids: np.ndarray
    active: np.ndarray
    """int64: times active."""
    mean: np.ndarray
    """Mean strength then."""
    share: np.ndarray
    """Share of the token's occurrences."""
    top_share: float
    """Share of the active tokens that are the commonest one; 0 when there is none."""
    next_ids: np.ndarray
    next_counts: np.ndarray


def token_table(entries: Entries, corpus: Corpus, occurrences: np.ndarray, most: int) -> TokenTable:
    """Count the tokens that a feature is active on and, in the same row, the next ones; `occurrences` [vocabulary] are all."""
    ids = corpus.ids[entries.token]
    counts = np.bincount(ids, minlength=len(occurrences))
    sums = np.bincount(ids, weights=entries.strength, minlength=len(occurrences))
    common = most_common(counts, most)
    follows = entries.token + 1
    follows = follows[follows < corpus.starts[corpus.row_of[entries.token] + 1]]
    after = np.bincount(corpus.ids[follows], minlength=len(occurrences))
    nexts = most_common(after, most)
    top = float(counts[common[0]] / len(ids)) if len(ids) else 0.0
    mean, share = sums[common] / counts[common], counts[common] / occurrences[common]
    return TokenTable(common, counts[common], mean, share, top, nexts, after[nexts])
