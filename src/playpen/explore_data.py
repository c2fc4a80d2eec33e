"""What the page of explore shows: the rows, the features that moved them, the chats laid out, and selections compared in pairs."""

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen.tables import iter_table, join, read_table

ENTRIES = 1_000_000
"""Contributions read at a time."""
WIDEST = 12
"""Features named of each pair of selections."""


@dataclass(frozen=True)
class Pair:
    """Two selections of the same rows: who is in both, in one, in none."""

    first: str
    second: str
    codes: np.ndarray
    """int64 [n]: 0 in neither, 1 in the first alone, 2 in the second alone, 3 in both."""


def make_pairs(kept: dict[str, np.ndarray]) -> list[Pair]:
    """Return every pair of selections, each a name with a mask of the rows, in their order."""
    return [Pair(a, b, kept[a] + 2 * kept[b].astype(np.int64)) for a, b in combinations(kept, 2)]


def add_selections(rows: pd.DataFrame, selections: dict[str, str]) -> dict[str, np.ndarray]:
    """Return which of the rows each selection keeps; each must have been made from all of them."""
    found = {}
    for name, path in selections.items():
        theirs = read_table(path, "selection", ["row_id", "kept"])
        found[name] = join(rows[["row_id"]], theirs, f"explore: the explained rows and the selection {path}")["kept"].to_numpy(
            bool
        )
    return found


def choose_points(rows: pd.DataFrame, most: int, seed: int) -> np.ndarray:
    """Return the places of the rows to draw: those shown token by token first, then others drawn at random, `most` in all at the most."""
    shown, rest = np.flatnonzero(rows["shown"]), np.flatnonzero(~rows["shown"])
    room = max(0, min(most - len(shown), len(rest)))
    return np.concatenate([shown, np.sort(np.random.default_rng(seed).permutation(rest)[:room])])


@dataclass(frozen=True)
class Features:
    """The contributions of all rows, by feature."""

    ids: np.ndarray
    """int64 [f], ascending."""
    sums: list[np.ndarray]
    """For each pair, float64 [4, f]: summed contributions by code."""
    rows: list[list[int]]
    """For each feature, the points that it moved."""
    values: list[list[float]]
    """And by how much."""


def gather_features(artifact: str, row_ids: pd.Series, points: np.ndarray, pairs: list[Pair]) -> Features:
    """Read the contributions of an explanation once: sums over all rows, and the entries of the points."""
    index, number = pd.Index(row_ids), np.full(len(row_ids), -1)
    number[points] = np.arange(len(points))
    ids = np.unique(read_table(artifact, "selection_features", ["feature"])["feature"]).astype(np.int64)
    sums, parts = [np.zeros((4, len(ids))) for _ in pairs], []
    for table in iter_table(artifact, "contributions", ENTRIES, ["row_id", "feature", "contribution"]):
        row, value = index.get_indexer(table["row_id"].to_pandas()), table["contribution"].to_numpy()
        feature = np.searchsorted(ids, table["feature"].to_numpy())
        for pair, total in zip(pairs, sums, strict=True):
            total += np.bincount(pair.codes[row] * len(ids) + feature, value, minlength=total.size).reshape(total.shape)
        there = number[row] >= 0
        parts.append(pd.DataFrame({"feature": feature[there], "point": number[row[there]], "value": value[there]}))
    entries = pd.concat(parts).sort_values(["feature", "point"], kind="stable")
    ends = np.searchsorted(entries["feature"], np.arange(1, len(ids)))
    rows, values = (np.split(entries[name].to_numpy(), ends) for name in ("point", "value"))
    return Features(ids, sums, [part.tolist() for part in rows], [np.round(part, 5).tolist() for part in values])


def describe_pair(pair: Pair, total: np.ndarray, ids: np.ndarray, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what two selections pick: counts, means and sources by part, and the features that differ most between the two.

    A feature's difference is its mean contribution to a row that the first alone keeps, minus that to one of the second alone; of all
    features they sum to the difference of mean log-odds.
    """
    parts = {name: rows[pair.codes == code] for name, code in (("both", 3), ("first", 1), ("second", 2), ("neither", 0))}
    counts = np.bincount(pair.codes, minlength=4)
    mean = total[1:3] / np.maximum(counts[1:3], 1)[:, None]
    widest = np.argsort(-np.abs(mean[0] - mean[1]), kind="stable")[:WIDEST] if counts[1] and counts[2] else []
    return {
        "first": pair.first,
        "second": pair.second,
        "parts": {name: describe_part(part) for name, part in parts.items()},
        "features": [[int(ids[i]), float(mean[0, i]), float(mean[1, i])] for i in widest],
    }


def describe_part(part: pd.DataFrame) -> dict[str, Any]:
    """Return rows, tokens, mean log-odds, mean true score (null where there are none) and rows by source."""

    def mean(name: str) -> float | None:
        return float(part[name].mean()) if name in part and len(part) else None

    return {
        "rows": len(part),
        "tokens": int(part["num_tokens"].sum()),
        "log_odds": mean("log_odds"),
        "true": mean("true"),
        "sources": {str(name): int(n) for name, n in part["source"].value_counts().items()},
    }


def lay_out(artifact: str, row_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Return the chats shown, by row_id: `t` the tokens, `v` their values, `f` the features that moved it, the greatest first.

    A feature is [id, contribution, strength, [[token's place, value], ...]].
    """
    wanted = set(row_ids)
    tables = {name: read_table(artifact, name) for name in ("tokens", "contributions", "firings")}
    tokens, contributions, firings = (table[table["row_id"].isin(wanted)] for table in tables.values())
    fired = {key: part[["position", "value"]].to_numpy() for key, part in firings.groupby(["row_id", "feature"])}
    found: dict[str, dict[str, Any]] = {}
    for row, part in tokens.groupby("row_id"):
        found[str(row)] = {"t": part["token"].tolist(), "v": np.round(part["value"], 5).tolist(), "f": []}
    for row, feature, contribution, strength in contributions.itertuples(index=False):
        places = [[int(place), round(float(value), 5)] for place, value in fired.get((row, feature), ())]
        found[row]["f"].append([int(feature), round(float(contribution), 5), float(f"{strength:.4g}"), places])
    return found


def add_reasons(chats: dict[str, dict[str, Any]], selections: dict[str, str]) -> None:
    """Add to the chats, by row_id, `why`: what each selection says of them, by its name."""
    told = {
        name: read_table(path, "selection", ["row_id", "reason"]).set_index("row_id")["reason"]
        for name, path in selections.items()
    }
    for row, chat in chats.items():
        chat["why"] = {name: reasons[row] for name, reasons in told.items()}


def link_from(artifact: str, out: Path, link: str) -> str:
    """Return a link that is relative to an artifact as one that is relative to `out`."""
    page, _, mark = link.partition("#")
    return f"{os.path.relpath((Path(artifact) / page).resolve(), out.resolve())}#{mark}"
