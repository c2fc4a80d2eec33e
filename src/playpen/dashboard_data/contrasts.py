"""What a feature tells apart: densities by source, category and side, with lift, log-odds and AUROC.

AUROC is the chance that a document of the group has a higher maximum than one outside it, ties counted half: the
Mann-Whitney statistic over both sizes (Hanley and McNeil 1982). A document on which the feature is off has the maximum 0.
Maxima count with 12 binary digits: rounding errors of a forward pass depend on the length of the row, and would else rank
documents that begin alike, and peak there, by their length.
"""

from dataclasses import dataclass

import numpy as np

from playpen.dashboard_data.corpus import Corpus, Groups
from playpen.dashboard_data.entries import Entries

FEW = 5
"""A category of fewer documents, or with fewer others, is never the one that a feature tells best."""


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
    total, sizes, rest = int(ranks.active.sum()), groups.documents, ranks.documents - groups.documents
    with np.errstate(divide="ignore", invalid="ignore"):
        density = active / groups.tokens
        lift = density / (np.float64(total) / ranks.tokens)
        log_odds = _log_odds(active, groups.tokens) - _log_odds(total - active, ranks.tokens - groups.tokens)
        auroc = (ranked - sizes * (sizes + 1) / 2) / (sizes * rest)
    silent = np.full(g, np.nan)
    return Contrast(active, density, lift, log_odds if total else silent, auroc if total else silent)


def _log_odds(active: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.where(tokens > 0, np.log((active + 0.5) / (tokens - active + 0.5)), np.nan)


def best_group(aurocs: np.ndarray, groups: Groups, documents: int) -> int | None:
    """Return the group with the highest AUROC among those that have `FEW` documents and others; None when there is none."""
    enough = (groups.documents >= FEW) & (documents - groups.documents >= FEW) & np.isfinite(aurocs)
    return int(np.where(enough, aurocs, -np.inf).argmax()) if enough.any() else None
