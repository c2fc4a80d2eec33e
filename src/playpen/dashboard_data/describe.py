"""One feature: everything that its page and its row of the list say, as arrays until the texts of the tokens are known."""

from dataclasses import dataclass
from math import isfinite
from random import Random
from typing import Any

import numpy as np

from playpen.dashboard_data.contrasts import Contrast, best_group, best_source, by_document, contrast, rank_within
from playpen.dashboard_data.corpus import Corpus
from playpen.dashboard_data.entries import Entries
from playpen.dashboard_data.examples import Amounts, Chosen, Group, Windows, choose, cut, to_examples
from playpen.dashboard_data.relations import Partners
from playpen.dashboard_data.statistics import Positions, TokenTable, histogram, moments, token_table

DEAD, DENSE, SINGLE_TOKEN = 1, 2, 4
"""Flags of a feature."""
DENSE_ABOVE, SINGLE_SHARE, SINGLE_FROM = 0.1, 0.9, 5
"""Density above which a feature is dense; share of the commonest token, and active tokens, from which it is of a single token."""
LISTED = 20
"""Tokens in a feature's table."""
PROMOTED = 10
"""Tokens at either end of the logit lens."""


@dataclass(frozen=True)
class Study:
    """What all features of a dashboard are described with."""

    corpus: Corpus
    features: np.ndarray
    """int64 [f]: ids of the features shown, ascending."""
    occurrences: np.ndarray
    """int64 [vocabulary]: counted tokens of each id."""
    positions: Positions
    near_value: np.ndarray
    """float32 [f, near]"""
    near_token: np.ndarray
    """int64 [f, near]: -1 where there is none."""
    neighbours: Partners
    correlated: Partners
    amounts: Amounts
    seed: int


@dataclass(frozen=True)
class Lens:
    """The logit lens of one feature."""

    up: np.ndarray
    """Token ids, highest first."""
    down: np.ndarray
    """Token ids, lowest first."""
    values: np.ndarray
    """float32 [vocabulary]"""


@dataclass(frozen=True)
class Described:
    """One feature, before its tokens are text."""

    numbers: dict[str, Any]
    """Its row of the list, but for map and texts."""
    parts: dict[str, Any]
    """What its shard holds that has no tokens."""
    chosen: Chosen
    near: int
    windows: Windows
    table: TokenTable
    lens: Lens | None

    def token_ids(self, corpus: Corpus) -> list[np.ndarray]:
        """Return all token ids that it shows."""
        shown = [corpus.ids[self.windows.token], self.table.ids, self.table.next_ids]
        return shown if self.lens is None else [*shown, self.lens.up, self.lens.down]


def describe(study: Study, place: int, entries: Entries, lens: Lens | None) -> Described:
    """Describe the feature at a place of the list."""
    corpus, ident = study.corpus, int(study.features[place])
    chosen = choose(entries, corpus, study.amounts, Random(f"{study.seed} {ident}"))
    near = study.near_token[place] >= 0
    picks = np.concatenate(_groups(chosen)).astype(np.int64)
    peak = np.concatenate([entries.token[picks], study.near_token[place][near]])
    value = np.concatenate([entries.strength[picks], study.near_value[place][near]])
    windows = cut(peak, value, entries, corpus, study.amounts.window, None if lens is None else lens.values)
    table = token_table(entries, corpus, study.occurrences, LISTED)
    numbers, parts = _numbers(study, ident, entries, table)
    parts |= {"neighbours": study.neighbours.pairs(place), "correlated": study.correlated.pairs(place)}
    return Described(numbers, parts, chosen, int(near.sum()), windows, table, lens)


def _groups(chosen: Chosen) -> list[np.ndarray]:
    """Return the places of all examples in the order of the windows, but near misses, which come last."""
    return [chosen.top, *(group.chosen for group in (*chosen.quantiles, *chosen.intervals)), chosen.random]


def _numbers(study: Study, ident: int, entries: Entries, table: TokenTable) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a feature's row of the list and the figures of its shard."""
    corpus, n = study.corpus, study.corpus.num_tokens
    activity, everything = by_document(entries, corpus), np.ones(len(corpus.documents), bool)
    all_ranks, prompt_ranks = rank_within(activity, everything, n), rank_within(activity, *corpus.prompts())
    sides, sources = (contrast(all_ranks, groups) for groups in (corpus.sides, corpus.sources))
    categories = contrast(prompt_ranks, corpus.categories)
    category = best_group(categories.auroc, corpus.categories, prompt_ranks.documents) if len(entries) else None
    source, spread, two = best_source(sources), moments(entries.strength), bool(corpus.sides.names)
    numbers = {
        "id": ident,
        "density": len(entries) / n,
        "documents": len(activity.document) / len(corpus.documents),
        **spread,
        "token_share": table.top_share if len(entries) else None,
        "prompts": sides.density[0] if two else None,
        "control": sides.density[1] if two else None,
        "log_odds": sides.log_odds[0] if two else None,
        "auroc": sides.auroc[0] if two else None,
        "category": category,
        "category_auroc": None if category is None else categories.auroc[category],
        "source": source,
        "lift": None if source is None else sources.lift[source],
        "flags": _flags(len(entries), n, table.top_share),
    }
    parts = {
        "histogram": histogram(entries.strength, 0.0, spread["max"] or 0.0),
        "positions": study.positions.density(corpus.positions(entries.token)),
        "sources": _rows(sources),
        "categories": _rows(categories),
    }
    return {name: short(value, 6) for name, value in numbers.items()}, parts


def _flags(active: int, tokens: int, share: float) -> int:
    dead, dense = active == 0, active / tokens > DENSE_ABOVE
    single = active >= SINGLE_FROM and share >= SINGLE_SHARE
    return DEAD * dead + DENSE * dense + SINGLE_TOKEN * single


def _rows(found: Contrast) -> list[list[Any]]:
    """Return `[active tokens, density, lift, log_odds, auroc]` of each group."""
    columns = (found.density, found.lift, found.log_odds, found.auroc)
    return [list(row) for row in zip(found.active.tolist(), *map(shorts, columns), strict=True)]


def short(value: Any, figures: int = 4) -> Any:
    """Return a number with that many figures; null for what is not finite. Whole numbers and null stay."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{figures}g}") if isfinite(value) else None


def shorts(values: np.ndarray) -> list[float | None]:
    """Return numbers with four figures each; null for what is not finite."""
    return [float(f"{value:.4g}") if isfinite(value) else None for value in values.tolist()]


def to_record(described: Described, corpus: Corpus, place: np.ndarray) -> dict[str, Any]:
    """Return a feature as a shard holds it; `place` [vocabulary] is that of each token's text in `strings`."""
    examples = iter(to_examples(described.windows, corpus, place))

    def take(n: int) -> list[dict[str, Any]]:
        return [next(examples) for _ in range(n)]

    def groups(found: list[Group]) -> list[dict[str, Any]]:
        return [{"low": short(g.low), "high": short(g.high), "count": g.count, "examples": take(len(g.chosen))} for g in found]

    chosen, table = described.chosen, described.table
    listed = zip(place[table.ids].tolist(), table.active.tolist(), shorts(table.mean), shorts(table.share), strict=True)
    return {
        "id": described.numbers["id"],
        "top": take(len(chosen.top)),
        "quantiles": groups(chosen.quantiles),
        "intervals": groups(chosen.intervals),
        "random": take(len(chosen.random)),
        "near": take(described.near),
        **described.parts,
        "logits": None if described.lens is None else _logits(described.lens, place),
        "tokens": [list(row) for row in listed],
        "next": [list(pair) for pair in zip(place[table.next_ids].tolist(), table.next_counts.tolist(), strict=True)],
    }


def _logits(lens: Lens, place: np.ndarray) -> dict[str, Any]:
    def pairs(ids: np.ndarray) -> list[list[Any]]:
        return [list(pair) for pair in zip(place[ids].tolist(), shorts(lens.values[ids]), strict=True)]

    low, high = float(lens.values.min()), float(lens.values.max())
    return {"up": pairs(lens.up), "down": pairs(lens.down), "histogram": histogram(lens.values, low, high)}
