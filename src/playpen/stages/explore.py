"""Look at a selection: a page with every row, its chat as a heat map of what moved it, and selections side by side.

    playpen explore --explanation runs/mine/explain --data runs/demo/data --splits large_pool --scores runs/demo/dear_scores \\
        --selections sae runs/demo/pick_sae gradients runs/demo/pick_attribution

Predicted against true score, coloured by source; filters by source, fault, score, feature and selection; what two selections
both pick, and where they differ. The page is a file: it opens from disk, and asks no network.
"""

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    import pandas as pd

    from playpen.machine import Machine

VERSION = 1
FORMAT = 1
SHARD_ROWS = 40
"""Chats in one data file of the page."""


@config
class Config:
    """What was picked, why, and what would another selection have picked?"""

    explanation: Input
    """The explanation of a selection, of explain."""
    data: Input
    """The data that was selected from, of build-data."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("large_pool",)
    """The splits that were explained."""
    scores: Input | None = None
    """What the prediction should have been, of attribute: the true score of every row. Left out, lengths stand in its place."""
    selections: Annotated[dict[str, Input], Field(min_length=1)] = field(default_factory=dict)
    """Selections of these rows by name, to compare in pairs; the one that was explained, too."""
    points: PositiveInt = 6000
    """Most rows drawn: those shown token by token, and others at random. Counts and means are of all rows."""
    title: str = "Selection"
    """Title of the page."""
    seed: NonNegativeInt = 0
    """Seed of the rows drawn."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `index.html`, `data/` and `metrics.json`."""
    from playpen import explore_data as data
    from playpen.dashboard_data.scripts import to_json, write_packed, write_plain
    from playpen.explore_page.page import write_page
    from playpen.tables import write_json

    rows = read_rows(config)
    kept = data.add_selections(rows, config.selections)
    points, pairs = data.choose_points(rows, config.points, config.seed), data.make_pairs(kept)
    features = data.gather_features(config.explanation, rows["row_id"], points, pairs)
    described = [data.describe_pair(pair, sums, features.ids, rows) for pair, sums in zip(pairs, features.sums, strict=True)]
    drawn = rows.iloc[points]
    chosen = {name: mask[points].astype(int).tolist() for name, mask in kept.items()}
    write_packed(out / "data" / "list.js", "list", to_json({**columns(drawn), "kept": chosen}))
    write_packed(out / "data" / "features.js", "features", to_json(feature_columns(config, out, features)))
    shards = write_shards(config, out, drawn.loc[drawn["shown"], "row_id"].tolist())
    write_plain(out / "data" / "meta.js", "meta", make_meta(config, rows, drawn, described, shards))
    write_page(out, config.title)
    write_json(
        out / "metrics.json", {"rows": len(rows), "points": len(points), "shown": int(drawn["shown"].sum()), "pairs": described}
    )


def read_rows(config: Config) -> "pd.DataFrame":
    """Return the explained rows with source and length, the true score where it is given and the fault where it is planted."""
    import numpy as np

    from playpen.tables import join, read_splits, read_table, read_truth

    offered = read_splits(config.data, config.splits, ["row_id", "source", "num_tokens", "num_labels"])
    where = f"{' + '.join(config.splits)} of {config.data}"
    rows = join(
        read_table(config.explanation, "explained"), offered, f"explore: the explanation {config.explanation} and {where}"
    )
    if config.scores is not None:
        scores = read_table(config.scores, "scores", ["row_id", "score"]).rename(columns={"score": "true"})
        rows = join(rows, scores, f"explore: the explanation {config.explanation} and the scores {config.scores}")
        if not np.isfinite(rows["true"]).all():
            raise PlaypenError(f"{config.scores} holds scores that are not finite; give scores of attribute")
    truth = read_truth(config.data)
    return rows if truth is None else join(rows, truth[["row_id", "fault"]], f"explore: the rows and the truth of {config.data}")


def columns(drawn: "pd.DataFrame") -> dict[str, list[Any]]:
    """Return the rows as the page reads them, a list a column."""
    found = {name: drawn[name].tolist() for name in ("row_id", "rank", "num_tokens", "num_labels")}
    found["source"] = drawn["source"].astype(str).tolist()
    found["predicted"] = drawn["log_odds"].round(5).tolist()
    found["score"] = [None if score != score else score for score in drawn["score"].tolist()]
    found["shown"] = drawn["shown"].astype(int).tolist()
    found["in_sample"] = drawn["in_sample"].astype(int).tolist()
    for name in ("true", "fault"):
        if name in drawn:
            found[name] = drawn[name].tolist()
    return found


def feature_columns(config: Config, out: Path, features: Any) -> dict[str, Any]:
    """Return the features as the page reads them: names, links, the comparison of explain, and the points that they moved."""
    from playpen.explore_data import link_from
    from playpen.tables import read_table

    table = read_table(config.explanation, "selection_features").set_index("feature")
    order = {int(feature): place for place, feature in enumerate(features.ids)}
    places = [order[int(feature)] for feature in table.index]
    numbers = ("kept_share", "offered_share", "log_odds", "log_odds_low", "log_odds_high", "log_odds_within", "gap")
    found: dict[str, Any] = {"id": [int(i) for i in table.index], "tokens": [list(tokens) for tokens in table["tokens"]]}
    found |= {name: [None if value != value else round(value, 5) for value in table[name]] for name in numbers}
    found |= {"part": table["part"].tolist(), "sae": [int(i) for i in table["sae_feature"]]}
    found["dashboard"] = [
        link_from(config.explanation, out, link) if isinstance(link, str) else None for link in table["dashboard"]
    ]
    found["neuronpedia"] = [link if isinstance(link, str) else None for link in table["neuronpedia"]]
    return {**found, "rows": [features.rows[i] for i in places], "values": [features.values[i] for i in places]}


def write_shards(config: Config, out: Path, shown: list[str]) -> int:
    """Write the chats shown, in the order of the points, and return how many files that took."""
    from playpen.dashboard_data.scripts import to_json, write_packed
    from playpen.explore_data import add_reasons, lay_out

    chats, starts = lay_out(config.explanation, shown), range(0, len(shown), SHARD_ROWS)
    add_reasons(chats, config.selections)
    for number, start in enumerate(starts):
        part = [chats[row] for row in shown[start : start + SHARD_ROWS]]
        write_packed(out / "data" / f"shard-{number:05d}.js", "shard", to_json(part), number)
    return len(starts)


def make_meta(
    config: Config, rows: "pd.DataFrame", drawn: "pd.DataFrame", pairs: list[dict[str, Any]], shards: int
) -> dict[str, Any]:
    """Return what the page says of the whole."""
    from playpen import artifact
    from playpen.tables import read_metrics

    told = read_metrics(config.explanation)
    names = {name: artifact.read_manifest(path)["name"] for name, path in config.selections.items()}
    return {
        "format": FORMAT,
        "title": config.title,
        "rows": len(rows),
        "points": len(drawn),
        "shown": int(drawn["shown"].sum()),
        "shard_rows": SHARD_ROWS,
        "shards": shards,
        "sources": [[str(name), int(n)] for name, n in rows["source"].value_counts().items()],
        "faults": [[str(name), int(n)] for name, n in rows["fault"].value_counts().items()] if "fault" in rows else None,
        "true": None if config.scores is None else artifact.read_manifest(config.scores)["name"],
        "selections": names,
        "explained": {
            key: told[key] for key in ("model", "of", "baseline", "kept", "kept_auroc", "kept_log_odds", "rejected_log_odds")
        },
        "pairs": pairs,
    }
