"""Examples of a feature: which tokens are shown, and the windows of text around them."""

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from playpen.dashboard_data.corpus import Corpus
from playpen.dashboard_data.entries import Entries

GROUPS = 10
"""Quantile groups and intervals of a feature."""


@dataclass(frozen=True)
class Amounts:
    """How many examples are shown of a feature, and how much of each."""

    top: int
    group: int
    """Of each quantile group and each interval."""
    random: int
    near: int
    window: int
    """Tokens to the left and to the right of the peak."""


@dataclass(frozen=True)
class Group:
    """Examples of one group of a feature's active tokens."""

    low: float
    high: float
    count: int
    """Active tokens in the group."""
    chosen: np.ndarray
    """Places of the examples among the entries, strongest first."""


@dataclass(frozen=True)
class Chosen:
    """The examples of a feature, as places among its entries, strongest first."""

    top: np.ndarray
    quantiles: list[Group]
    intervals: list[Group]
    random: np.ndarray


def rank(strength: np.ndarray) -> np.ndarray:
    """Return the places of positive strengths, float32 [n], strongest first, the earlier of equal ones first.

    The bits of positive floats order like the floats, so one sort of integers does it, several times faster than argsort.
    """
    last = np.uint64(0xFFFFFFFF)
    key = (strength.view(np.uint32).astype(np.uint64) << np.uint64(32)) | (last - np.arange(len(strength), dtype=np.uint64))
    key.sort()
    return (last - (key[::-1] & last)).astype(np.int64)


def choose(entries: Entries, corpus: Corpus, amounts: Amounts, rng: Random) -> Chosen:
    """Choose the examples of a feature: the strongest, at most one a document, and random ones of each group and of all."""
    order = rank(entries.strength)
    bounds = [i * len(order) // GROUPS for i in range(GROUPS + 1)]
    strength = entries.strength[order].astype(np.float64)
    peak = strength[0] if len(strength) else 0.0
    edges = [*(peak * (GROUPS - i) / GROUPS for i in range(GROUPS)), 0.0]
    above = len(strength) - np.searchsorted(strength[::-1], edges, side="right")

    def some(start: int, end: int) -> np.ndarray:
        return order[start + _draw(rng, end - start, amounts.group)]

    quantiles = [Group(float(strength[b - 1]), float(strength[a]), b - a, some(a, b)) for a, b in pairwise(bounds) if b > a]
    intervals = [
        Group(low, high, int(b - a), some(a, b))
        for low, high, a, b in zip(edges[1:], edges[:-1], above[:-1], above[1:], strict=True)
        if len(order)
    ]
    return Chosen(
        _one_a_document(order, entries, corpus, amounts.top),
        quantiles,
        intervals,
        order[_draw(rng, len(order), amounts.random)],
    )


def _draw(rng: Random, n: int, k: int) -> np.ndarray:
    """Return k different numbers below n, or all, in order."""
    return np.arange(n) if n <= k else np.array(sorted(rng.sample(range(n), k)), dtype=np.int64)


def _one_a_document(order: np.ndarray, entries: Entries, corpus: Corpus, most: int) -> np.ndarray:
    """Return the first places of an order that are of different documents."""
    size = 8 * most
    while True:
        few = order[:size]
        first = np.sort(np.unique(corpus.document_of_token(entries.token[few]), return_index=True)[1])
        if len(first) >= most or size >= len(order):
            return few[first[:most]]
        size *= 8


@dataclass(frozen=True)
class Windows:
    """e examples with the text around them; the flat arrays hold the windows one after the other."""

    peak: np.ndarray
    """int64 [e]: number of the peak's token."""
    value: np.ndarray
    """float32 [e]: strength at the peak, or pre-activation of a near miss."""
    start: np.ndarray
    """int64 [e]: number of the first token shown."""
    length: np.ndarray
    token: np.ndarray
    """int64 [t]: numbers of the tokens shown."""
    strength: np.ndarray
    """float32 [t]"""
    effect: np.ndarray | None
    """float32 [t]: strength times the lens' value of the next token, NaN on the last of a row; None without a lens."""


def cut(peak: np.ndarray, value: np.ndarray, entries: Entries, corpus: Corpus, window: int, lens: np.ndarray | None) -> Windows:
    """Cut windows around peaks, within their rows. `lens` [vocabulary] holds the feature's logits."""
    row = corpus.row_of[peak]
    start = np.maximum(corpus.starts[row], peak - window)
    length = np.minimum(corpus.starts[row + 1], peak + window + 1) - start
    token = np.repeat(start - np.cumsum(length) + length, length) + np.arange(int(length.sum()))
    strength = entries.at(token)
    if lens is None:
        return Windows(peak, value, start, length, token, strength, None)
    last = token + 1 == np.repeat(corpus.starts[row + 1], length)
    following = corpus.ids[np.where(last, token, token + 1)]
    known = ~last & (following < len(lens))
    effect = np.where(known, strength * lens[np.where(known, following, 0)], np.float32(np.nan))
    return Windows(peak, value, start, length, token, strength, effect)


def rounded(values: np.ndarray, figures: int = 4) -> np.ndarray:
    """Round to as many figures as the largest value has; what was above 0 stays so. NaN stays."""
    top = float(np.nanmax(np.abs(values), initial=0))
    if not top:
        return values.astype(np.float64)
    decimals = figures - 1 - int(np.floor(np.log10(top)))
    found = np.round(values.astype(np.float64), decimals) + 0.0
    return np.where((values > 0) & (found == 0), 10.0**-decimals, found)


def to_examples(windows: Windows, corpus: Corpus, place: np.ndarray) -> list[dict[str, Any]]:
    """Return the examples as docs/dashboard_format.md has them; `place` [vocabulary] is that of each token's text."""
    text, strength = place[corpus.ids[windows.token]].tolist(), rounded(windows.strength).tolist()
    effect = None if windows.effect is None else _with_nulls(rounded(windows.effect))
    document = corpus.document_of_token(windows.peak)
    row = corpus.row_of[windows.peak]
    columns = zip(
        document.tolist(),
        corpus.sources.of_document[document].tolist(),
        corpus.categories.of_document[document].tolist(),
        (windows.start - corpus.starts[row]).tolist(),
        (corpus.starts[row + 1] - corpus.starts[row]).tolist(),
        (windows.peak - windows.start).tolist(),
        windows.value.tolist(),
        windows.length.tolist(),
        strict=True,
    )
    found, at = [], 0
    for d, s, c, p, n, peak, value, length in columns:
        here = slice(at, at + length)
        v, e = strength[at + peak] or float(f"{value:.4g}"), None if effect is None else effect[here]
        example = {"d": corpus.documents[d], "s": s, "c": c, "p": p, "n": n, "at": peak, "v": v}
        found.append({**example, "t": text[here], "a": strength[here], "e": e})
        at += length
    return found


def _with_nulls(values: np.ndarray) -> list[float | None]:
    """Return a list in which null stands for NaN."""
    found = values.tolist()
    for i in np.flatnonzero(np.isnan(values)):
        found[i] = None
    return found
