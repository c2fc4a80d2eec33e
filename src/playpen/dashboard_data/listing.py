"""The list of a dashboard and what stands around it: `meta.js`, `list.js`, `search.js` and `features.parquet`."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from playpen.dashboard_data.contrasts import FEW, FEW_ACTIVE, length_auroc
from playpen.dashboard_data.corpus import Corpus, Groups
from playpen.dashboard_data.describe import shorts
from playpen.dashboard_data.scripts import to_json, write_packed, write_plain
from playpen.tables import write_table

FORMAT = 1
INTEGERS = ("id", "category", "source", "flags")
TEXTS = ("tokens", "up")

SEEN = (
    ("density", "density", "percent", "share of tokens on which it is active"),
    ("documents", "documents", "percent", "share of documents with an active token"),
    ("max", "max", "number", "its highest strength"),
    ("mean", "mean", "number", "mean strength where it is active"),
    ("std", "std", "number", "standard deviation of its strength where it is active"),
    ("skew", "skew", "signed", "skewness of its strength where it is active; 0 is symmetric"),
    ("kurtosis", "kurtosis", "number", "kurtosis of its strength where it is active; 3 is normal"),
    ("token_share", "top token", "percent", "share of its active tokens that are its commonest token"),
    (
        "lift",
        "lift",
        "number",
        f"density on its best source over density on all; only where {FEW_ACTIVE} documents of it are active",
    ),
)
"""Columns that a person sees: key, label, format, help."""

SEEN_WITH_SIDES = (
    ("prompts", "prompts", "percent", "density on the prompts"),
    ("control", "control", "percent", "density on the control text"),
    ("log_odds", "log-odds", "signed", "log of the odds of being active on the prompts' tokens over those on the control's"),
    (
        "auroc",
        "AUROC",
        "number",
        "chance that a prompt has a higher maximum than a control document; a longer one has more chances",
    ),
)
SEEN_WITH_CATEGORIES = (
    (
        "category_auroc",
        "cat. AUROC",
        "number",
        f"AUROC of its best category of {FEW} documents or more against all other prompts",
    ),
)


def columns(corpus: Corpus) -> list[dict[str, str]]:
    """Return the columns that a person sees, as the meta file has them."""
    seen = [*SEEN, *(SEEN_WITH_SIDES if corpus.sides.names else ()), *(SEEN_WITH_CATEGORIES if corpus.categories.names else ())]
    return [{"key": key, "label": label, "help": text, "format": kind} for key, label, kind, text in seen]


def sources(corpus: Corpus) -> list[dict[str, Any]]:
    """Return the sources as the meta file has them; one whose documents are on both sides is on none."""
    found = _groups(corpus, corpus.sources, np.ones(len(corpus.documents), bool))
    for i, each in enumerate(found):
        sides = np.unique(corpus.sides.of_document[corpus.sources.of_document == i])
        each["side"] = corpus.sides.names[sides[0]] if len(sides) == 1 and sides[0] >= 0 else ""
    return found


def categories(corpus: Corpus) -> list[dict[str, Any]]:
    """Return the categories as the meta file has them."""
    return _groups(corpus, corpus.categories, corpus.prompts()[0])


def sides_length_auroc(corpus: Corpus) -> float | None:
    """Return the AUROC of the documents' length alone, prompts against control; None without sides."""
    return next(iter(shorts(length_auroc(corpus, corpus.sides, np.ones(len(corpus.documents), bool)))), None)


def _groups(corpus: Corpus, groups: Groups, population: np.ndarray) -> list[dict[str, Any]]:
    """Return groups with their sizes, and the AUROC of length alone against the rest of the population (mask [documents])."""
    lengths = shorts(length_auroc(corpus, groups, population))
    columns = (groups.names, groups.tokens.tolist(), groups.documents.tolist(), lengths)
    names = ("name", "tokens", "documents", "length_auroc")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def write_list(out: Path, meta: dict[str, Any], rows: list[dict[str, Any]], places: np.ndarray, search: dict[str, Any]) -> None:
    """Write the list, with the features' places on the map [f, 2] (NaN is none), its table, the search file and the meta file."""
    for row, (x, y) in zip(rows, np.round(places, 5).tolist(), strict=True):
        row |= {"x": None if x != x else x, "y": None if y != y else y}
    by_column = {name: [row[name] for row in rows] for name in rows[0]}
    write_packed(out / "data" / "list.js", "list", to_json(by_column))
    write_packed(out / "data" / "search.js", "search", to_json(search))
    write_plain(out / "data" / "meta.js", "meta", {"format": FORMAT, **meta})
    write_table(out / "features.parquet", pa.table({name: _column(name, values) for name, values in by_column.items()}))


def _column(name: str, values: list[Any]) -> pa.Array:
    kind = pa.int32() if name in INTEGERS else pa.list_(pa.string()) if name in TEXTS else pa.float64()
    return pa.array(values, kind)
