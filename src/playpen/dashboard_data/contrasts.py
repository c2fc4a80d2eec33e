"""What a feature tells apart: densities by source, category and side, with lift, log-odds and AUROC.

AUROC is the chance that a document of the group has a higher maximum than one outside it, ties counted half: the
Mann-Whitney statistic over both sizes (Hanley and McNeil 1982). A document on which the feature is off has the maximum 0.
Maxima count with 12 binary digits: rounding errors of a forward pass depend on the length of the row, and would else rank
documents that begin alike, and peak there, by their length.

A maximum grows with the number of tokens that it is taken over, so a feature that fires at random has a high AUROC where the
group's documents are longer. `length_auroc` is what the length alone reaches on the same documents: the figure to beat.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from playpen.dashboard_data.corpus import Corpus, Groups
from playpen.dashboard_data.entries import Entries

FEW = 20
"""A category of fewer documents, or with fewer others, is never the one that a feature tells best: the best of many small ones
is high by chance."""
FEW_ACTIVE = 10
"""A source in which a feature is active in fewer documents is never the one that it is at home in: else one token does it."""


@dataclass(frozen=True)
class Activity:
    """A feature's activity, a document at a time; only those in which it is active."""

    document: np.ndarray
    """int64 [m], ascending."""
    peak: np.ndarray
    """float32 [m]: its maximum in each."""
    active: np.ndarray
    """int64 [m]: its active tokens in each."""


def by_document(entries: Entries, corpus: Corpus) -> Activity:
    """Gather the entries of a feature by document."""
    row = corpus.row_of[entries.token]
    start = np.flatnonzero(np.diff(row, prepend=-1))
    document = corpus.document_of[row[start]]
    peaks = np.maximum.reduceat(entries.strength, start) if len(start) else entries.strength
    counts = np.diff(np.append(start, len(row)))
    unique, place = np.unique(document, return_inverse=True)
    peak, active = np.zeros(len(unique), np.float32), np.zeros(len(unique), np.int64)
    np.maximum.at(peak, place, peaks)
    np.add.at(active, place, counts)
    return Activity(unique.astype(np.int64), peak, active)


@dataclass(frozen=True)
class Ranks:
    """A feature's activity within a population of documents, ranked by the maximum."""

    document: np.ndarray
    """int64 [m]: the documents in which it is active."""
    active: np.ndarray
    """int64 [m]: its active tokens in each."""
    rank: np.ndarray
    """float64 [m]: rank of each maximum in the population, from 1, equal ones sharing their mean rank."""
    off: float
    """Rank that the documents share in which it is off."""
    documents: int
    """Size of the population."""
    tokens: int
    """Counted tokens of the population."""


def coarse(strength: np.ndarray) -> np.ndarray:
    """Round positive strengths, float32, to 12 binary digits."""
    return ((strength.view(np.uint32) + np.uint32(0x800)) & np.uint32(0xFFFFF000)).view(np.float32)


def rank_within(activity: Activity, population: np.ndarray, tokens: int) -> Ranks:
    """Rank a feature's activity within a population (mask [documents]) that has `tokens` counted tokens."""
    inside = population[activity.document]
    document, peak, active = activity.document[inside], activity.peak[inside], activity.active[inside]
    size = int(np.count_nonzero(population))
    off = size - len(peak)
    _, place, ties = np.unique(coarse(peak), return_inverse=True, return_counts=True)
    rank = off + np.cumsum(ties) - (ties - 1) / 2
    return Ranks(document, active, rank[place], (off + 1) / 2, size, tokens)


@dataclass(frozen=True)
class Contrast:
    """A feature in g groups; NaN where a figure does not exist, as all but densities where it is silent in the population."""

    active: np.ndarray
    """int64 [g]: active tokens."""
    documents: np.ndarray
    """int64 [g]: documents in which it is active."""
    density: np.ndarray
    lift: np.ndarray
    """Density over that of the whole population."""
    log_odds: np.ndarray
    """Log of the odds of being active in the group over those in the rest of the population, 0.5 added to each count."""
    auroc: np.ndarray
    """Of the document's maximum, the group against the rest of the population."""


def contrast(ranks: Ranks, groups: Groups) -> Contrast:
    """Compare groups, which lie within the population, with the rest of it."""
    member = groups.of_document[ranks.document]
    there, g = member >= 0, len(groups.names)
    active = np.bincount(member[there], weights=ranks.active[there], minlength=g).astype(np.int64)
    on = np.bincount(member[there], minlength=g)
    ranked = np.bincount(member[there], weights=ranks.rank[there], minlength=g) + (groups.documents - on) * ranks.off
    total = int(ranks.active.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        density = active / groups.tokens
        lift = density / (np.float64(total) / ranks.tokens)
        log_odds = _log_odds(active, groups.tokens) - _log_odds(total - active, ranks.tokens - groups.tokens)
    silent, auroc = np.full(g, np.nan), _auroc(ranked, groups.documents, ranks.documents)
    return Contrast(active, on, density, lift, log_odds if total else silent, auroc if total else silent)


def length_auroc(corpus: Corpus, groups: Groups, population: np.ndarray) -> np.ndarray:
    """Return the AUROC of a document's counted tokens, each group against the rest of a population (mask [documents]).

    Shape [g]; the groups lie within the population.
    """
    rank = np.zeros(len(corpus.documents))
    rank[population] = rankdata(corpus.tokens_of[population])
    there = groups.of_document >= 0
    ranked = np.bincount(groups.of_document[there], weights=rank[there], minlength=len(groups.names))
    return _auroc(ranked, groups.documents, int(np.count_nonzero(population)))


def _auroc(ranked: np.ndarray, sizes: np.ndarray, documents: int) -> np.ndarray:
    """Return the AUROC of groups by their sums of ranks from 1 and their sizes; NaN where a group or its rest is empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (ranked - sizes * (sizes + 1) / 2) / (sizes * (documents - sizes))


def _log_odds(active: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.where(tokens > 0, np.log((active + 0.5) / (tokens - active + 0.5)), np.nan)


def best_group(aurocs: np.ndarray, groups: Groups, documents: int) -> int | None:
    """Return the group with the highest AUROC among those that have `FEW` documents and others; None when there is none."""
    enough = (groups.documents >= FEW) & (documents - groups.documents >= FEW) & np.isfinite(aurocs)
    return int(np.where(enough, aurocs, -np.inf).argmax()) if enough.any() else None


def best_source(found: Contrast) -> int | None:
    """Return the source with the highest density among those with `FEW_ACTIVE` active documents; None when there is none."""
    enough = found.documents >= FEW_ACTIVE
    return int(np.where(enough, found.density, -np.inf).argmax()) if enough.any() else None
