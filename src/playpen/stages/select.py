"""Choose the examples to train on, from their scores or by a rule that needs none.

    playpen select --data runs/demo/data --scores runs/demo/scores --root runs/mine top-k --k 300

Every row of the split is written, kept or not, with its rank and the reason. A method is one config of `selection_rules` with
`__call__`, which gives each row a priority; its budget, in rows, tokens or answer tokens, cuts the ranking.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from playpen.config import Input, PlaypenError, config
from playpen.query_scores import query_names, read_query_scores
from playpen.selection_budget import ONE_OF, Budget, Row
from playpen.selection_rules import Method, Quality, RoundRobin
from playpen.tables import join, read_splits, read_table, write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
PIECE = 10_000
"""Rows whose reasons are made at once."""


@config
class Config:
    """Choose the examples to train on."""

    data: Input
    """Artifact of build-data to choose from."""
    splits: Annotated[tuple[Literal["train", "pool", "large_pool"], ...], Field(min_length=1)] = ("pool",)
    """Which of its rows; several splits are ranked as one."""
    scores: Input | None = None
    """Scores or predictions of these rows, for the methods that need them; round_robin needs those of attribute, score or predict made with per_query."""
    method: Annotated[Method, Field(discriminator="kind")]
    """How to choose."""
    against: tuple[Input, ...] = ()
    """Other selections from the same rows, to tell the overlap and the difference in budget."""
    seed: int = 0
    """Seed of what is drawn."""

    @model_validator(mode="after")
    def _budget(self) -> "Config":
        if isinstance(self.method, Budget) and not self.method.limited:
            raise ValueError(ONE_OF)
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the `selection` table, best first, and its numbers."""
    chosen = choose(config)
    if not chosen["kept"].any():
        raise PlaypenError("the method keeps no row; lower the threshold or raise the budget")
    columns = ["row_id", "kept", "rank", "score", "reason"]
    write_table(out / "selection.parquet", chosen[columns])
    numbers = summary(chosen) | turns(chosen) | {"against": [compare(chosen, other) for other in config.against]}
    write_json(out / "metrics.json", numbers)


def choose(config: Config) -> pd.DataFrame:
    """Return the rows from the first choice to the last, with `kept`, `rank`, `score` and `reason`; ties go to the lower row_id."""
    rows = read_rows(config)
    names = query_names(config.scores, config.data) if "query_scores" in rows and config.scores else []
    return ranked(rows, config.method, config.seed, names)


def ranked(rows: pd.DataFrame, method: Method, seed: int, queries: Sequence[str] = ()) -> pd.DataFrame:
    """Return what `choose` does of rows that stand by row_id, with the columns that the method reads; `queries` names each query."""
    rows = in_order(rows, method, seed)
    if queries:
        rows["query_name"] = [queries[query] if query >= 0 else "" for query in rows["query"]]
    if "score" not in rows:
        rows["score"] = np.float32("nan")
    last = float(rows.loc[rows["kept"], "priority"].min()) if rows["kept"].any() else float("nan")
    rows["reason"] = list(_reasons(rows, method, last))
    return rows


def _reasons(rows: pd.DataFrame, method: Method, last: float) -> Iterator[str]:
    """Yield why each row is kept or not. A piece at a time: as mappings, rows take many times their room."""
    for start in range(0, len(rows), PIECE):
        for row in rows.iloc[start : start + PIECE].to_dict("records"):
            yield method.reason(cast(Row, row), last)


def in_order(rows: pd.DataFrame, method: Method, seed: int) -> pd.DataFrame:
    """Return the rows from the first choice to the last, with `priority`, `kept` and `rank`."""
    found = method(rows, np.random.default_rng(seed))
    told = found.to_frame("priority") if isinstance(found, pd.Series) else found
    rows = rows.assign(**{str(name): column for name, column in told.items()})
    rows = rows.sort_values(["priority", "row_id"], ascending=[False, True], ignore_index=True)
    rows["kept"], rows["rank"] = method.cut(rows), np.arange(1, len(rows) + 1, dtype=np.int32)
    return rows


def read_rows(config: Config) -> pd.DataFrame:
    """Return the rows to choose from, by row_id, with the scores and the columns that the method reads."""
    extra = [config.method.column] if isinstance(config.method, Quality) and config.method.column != "quality_score" else []
    columns = ["row_id", "source", "num_tokens", "num_labels", "quality_score", *extra]
    rows = read_splits(config.data, config.splits, columns).sort_values("row_id", ignore_index=True)
    if config.scores is None:
        return rows
    where = f"select: {' + '.join(config.splits)} of {config.data} and the scores {config.scores}"
    rows = join(rows, read_table(config.scores, "scores", ["row_id", "score"]), where)
    if isinstance(config.method, RoundRobin):
        rows["query_scores"] = list(read_query_scores(config.scores, rows, "round_robin"))
    return rows


def turns(rows: pd.DataFrame) -> dict[str, object]:
    """Return of a selection by turns how many queries there are, and how many picked no row that is kept."""
    if "query" not in rows:
        return {}
    picked = rows.loc[rows["kept"], "query"].nunique()
    return {"queries": int(rows["queries"].iloc[0]), "queries_without_a_pick": int(rows["queries"].iloc[0]) - int(picked)}


def summary(rows: pd.DataFrame) -> dict[str, object]:
    """Return rows and tokens kept and offered, and rows kept by source."""
    kept = rows[rows["kept"]]
    return {
        "rows": len(kept),
        "tokens": int(kept["num_tokens"].sum()),
        "labels": int(kept["num_labels"].sum()),
        "rows_offered": len(rows),
        "tokens_offered": int(rows["num_tokens"].sum()),
        "sources": {str(name): int(n) for name, n in kept["source"].value_counts().sort_index().items()},
    }


def compare(rows: pd.DataFrame, other: str) -> dict[str, object]:
    """Return the overlap of the rows kept here with those of another selection, and how far the budgets differ."""
    theirs = read_table(other, "selection", ["row_id", "kept"]).rename(columns={"kept": "theirs"})
    both = join(rows, theirs, f"select: these rows and the selection {other}")
    shared, either = int((both["kept"] & both["theirs"]).sum()), int((both["kept"] | both["theirs"]).sum())
    tokens = both["num_tokens"]
    return {
        "selection": Path(other).name,
        "shared_rows": shared,
        "jaccard": shared / either,
        "rows_difference": int(both["kept"].sum() - both["theirs"].sum()),
        "tokens_difference": int(tokens[both["kept"]].sum() - tokens[both["theirs"]].sum()),
    }
