"""A made-up explanation with its data, scores and selections: what the page of explore reads, with every number known.

A row is a chat of seven tokens. Feature 3 moves the rows of even number up, feature 4 those that three divides down, feature 5 all.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import tiny

from playpen.tables import write_json, write_table

ROWS, SHOWN, KEPT, BASELINE = 120, 60, 30, -1.0
FEATURES = (3, 4, 5)
NASTY = "</script><b>&"
"""The text of a token, which must stay text."""
WORDS = ["<bos>", "where", " is", " it", "?\n", " here", NASTY]
FAULTS = ("none", "truncated")


def values_of(i: int) -> dict[int, float]:
    """Return the contributions of row i."""
    found = {5: 0.2 + 0.01 * i}
    return found | ({3: 1.5} if i % 2 == 0 else {}) | ({4: -0.8} if i % 3 == 0 else {})


def make_rows() -> pd.DataFrame:
    """Return the rows as explain writes them, with what the data, the scores and the truth hold of them."""
    odds = np.array([BASELINE + sum(values_of(i).values()) for i in range(ROWS)])
    rank = np.argsort(np.argsort(-odds)) + 1
    rows = pd.DataFrame({"row_id": [f"{i:016x}" for i in range(ROWS)], "log_odds": odds, "rank": rank.astype(np.int32)})
    rows = rows.assign(kept=rank <= KEPT, prediction=1 / (1 + np.exp(-odds)), score=odds, baseline=BASELINE, in_sample=False)
    rows["shown"] = np.arange(ROWS) < SHOWN
    rows["source"] = np.where(np.arange(ROWS) % 4 == 0, "story", "exam")
    rows["fault"] = [FAULTS[int(i % 5 == 0)] for i in range(ROWS)]
    return rows.assign(num_tokens=len(WORDS), num_labels=2, true=odds + np.sin(np.arange(ROWS)))


def write_world(home: Path) -> Path:
    """Write the artifacts `explanation`, `data`, `scores`, `first` and `second` under `home`; `second` keeps the rows of feature 4."""
    rows = make_rows()
    tiny.write_artifact(home / "explanation", "explain", lambda out: write_explanation(out, rows))
    tiny.write_artifact(home / "data", "build-data", lambda out: write_data(out, rows))
    scores = rows[["row_id", "true"]].rename(columns={"true": "score"})
    tiny.write_artifact(home / "scores", "attribute", lambda out: write_table(out / "scores.parquet", scores))
    others = rows.assign(kept=np.arange(ROWS) % 3 == 0)
    for name, chosen in (("first", rows), ("second", others)):
        reason = [f"{name} says so of {row}" for row in chosen["row_id"]]
        columns = chosen[["row_id", "kept", "rank", "score"]].assign(reason=reason)
        tiny.write_artifact(home / name, "select", lambda out, table=columns: write_table(out / "selection.parquet", table))
    return home


def write_data(out: Path, rows: pd.DataFrame) -> None:
    write_table(out / "large_pool.parquet", rows[["row_id", "source", "num_tokens", "num_labels"]])
    write_table(out / "truth.parquet", rows[["row_id", "source", "fault"]].assign(skill="x"), truth=True)


def write_explanation(out: Path, rows: pd.DataFrame) -> None:
    names = ["row_id", "kept", "rank", "score", "shown", "in_sample", "prediction", "log_odds", "baseline"]
    write_table(out / "explained.parquet", rows[names])
    contributions, firings, tokens = [], [], []
    for i, row in enumerate(rows["row_id"]):
        moved = sorted(values_of(i).items(), key=lambda item: -abs(item[1]))
        contributions += [(row, feature, value, 2.0) for feature, value in moved]
        if i < SHOWN:
            fired = [(row, feature, place, 1.0, value / 2) for feature, value in moved for place in (5, 4 if feature == 4 else 6)]
            firings += fired
            total = [sum(entry[4] for entry in fired if entry[2] == place) for place in range(len(WORDS))]
            tokens += [(row, place, word, total[place]) for place, word in enumerate(WORDS)]
    frame = pd.DataFrame
    write_table(out / "contributions.parquet", frame(contributions, columns=["row_id", "feature", "contribution", "strength"]))
    write_table(out / "firings.parquet", frame(firings, columns=["row_id", "feature", "position", "strength", "value"]))
    write_table(out / "tokens.parquet", frame(tokens, columns=["row_id", "position", "token", "value"]))
    write_table(out / "selection_features.parquet", feature_table())
    told = {"model": "l1", "of": "features", "baseline": BASELINE, "kept": KEPT, "kept_auroc": 1.0}
    write_json(out / "metrics.json", {**told, "kept_log_odds": 1.2, "rejected_log_odds": -0.4})


def feature_table() -> pd.DataFrame:
    table = pd.DataFrame({"feature": FEATURES, "sae_feature": FEATURES, "part": "answer"})
    table["tokens"] = [[" here", NASTY], ["?\n"], []]
    odds = {"log_odds": [2.0, -0.5, None], "log_odds_low": [1.0, -1.5, None], "log_odds_high": [3.0, 0.5, None]}
    shares = {"kept_share": [0.9, 0.2, 1.0], "offered_share": [0.5, 0.33, 1.0], "gap": [0.7, 0.1, 0.05]}
    links = {
        "dashboard": ["../features-01234567/index.html#f=3", None, None],
        "neuronpedia": [None, "https://www.neuronpedia.org/m/1-x/4", None],
    }
    return table.assign(**odds, **shares, **links, log_odds_within=[1.9, -0.4, None])
