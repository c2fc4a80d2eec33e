"""Choose the examples to train on, from their scores or by a rule that needs none.

    playpen select --data runs/demo/data --scores runs/demo/scores --root runs/mine top-k --k 300

Every row of the split is written, kept or not, with its rank and the reason. A method is one config below with
`__call__`, which gives each row a priority; its budget, in rows or in tokens, cuts the ranking.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt, model_validator
from tyro.conf import Suppress

from playpen.config import Input, PlaypenError, config
from playpen.tables import join, read_splits, read_table, write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
LENGTH_BINS = 8
"""Equal-count bins of length, and of the answer's length, within which `matched_random` draws."""


@config
class Budget:
    """How much to keep: exactly one of rows and tokens."""

    k: PositiveInt | None = None
    """Rows to keep."""
    tokens: PositiveInt | None = None
    """Tokens to keep: rows are taken in order of rank while they fit."""

    @model_validator(mode="after")
    def _one_budget(self) -> "Budget":
        if (self.k is None) == (self.tokens is None):
            raise ValueError("give either k (rows) or tokens")
        return self

    def cut(self, rows: pd.DataFrame) -> np.ndarray:
        """Return which of the rows, ordered from the first choice to the last, are kept."""
        if self.k is not None:
            if self.k > len(rows):
                raise PlaypenError(f"k is {self.k} but there are only {len(rows)} rows to choose from")
            return np.arange(len(rows)) < self.k
        assert self.tokens is not None
        return np.cumsum(rows["num_tokens"].to_numpy()) <= self.tokens


@config
class TopK(Budget):
    """Keep the best-scored rows."""

    kind: Suppress[Literal["top_k"]] = "top_k"

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the scores."""
        return scores_of(rows, "top_k")

    def reason(self, row: pd.Series, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"score {row['priority']:.4g} {'reaches' if row['kept'] else 'is below'} the last kept, {cut:.4g}"


@config
class Random(Budget):
    """Keep rows drawn at random."""

    kind: Suppress[Literal["random"]] = "random"

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return a random order."""
        return pd.Series(rng.random(len(rows)), index=rows.index)

    def reason(self, row: pd.Series, cut: float) -> str:
        """Say why a row is kept or not."""
        return "drawn at random" if row["kept"] else "not drawn"


@config
class MatchedRandom:
    """Keep random rows with the same counts of source, length and answer length as another selection: the control for all three."""

    kind: Suppress[Literal["matched_random"]] = "matched_random"
    like: Input
    """The selection to match, made from the same data."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return 1 plus a random number for the rows drawn, else a random number below 1."""
        model = read_table(self.like, "selection", ["row_id", "kept"])
        rows = join(rows, model.rename(columns={"kept": "matched"}), f"matched_random: rows and the selection {self.like}")
        bins = [length_bin(rows[column]).astype(str) for column in ("num_tokens", "num_labels")]
        stratum = rows["source"].astype(str) + "/" + bins[0] + "/" + bins[1]
        wanted = rows["matched"].groupby(stratum).transform("sum")
        order = pd.Series(rng.random(len(rows)))
        place = order.groupby(stratum).rank(method="first")
        return order + (place <= wanted)

    def cut(self, rows: pd.DataFrame) -> np.ndarray:
        """Keep what was drawn."""
        return (rows["priority"] >= 1).to_numpy()

    def reason(self, row: pd.Series, cut: float) -> str:
        """Say why a row is kept or not."""
        return (
            f"drawn to match {row['source']} rows of about {row['num_tokens']} tokens, {row['num_labels']} of the answer"
            if row["kept"]
            else "not drawn"
        )


@config
class Quality(Budget):
    """Keep the rows that a column of the data ranks highest, as Magpie's judge score."""

    kind: Suppress[Literal["quality"]] = "quality"
    column: str = "quality_score"
    """Column of the data; rows without a value come last."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the column, ties in random order."""
        if self.column not in rows or rows[self.column].isna().all():
            raise PlaypenError(f"quality: the data has no values in column '{self.column}'; name another with column")
        budget = self.k or 1
        if int(rows[self.column].notna().sum()) < budget:
            raise PlaypenError(
                f"quality: only {int(rows[self.column].notna().sum())} rows have a value in '{self.column}', {budget} are to be kept"
            )
        # A judge gives few distinct marks: without a drawn order, ties would all go to the lower row_id in every seed.
        return rows[self.column].astype(float).fillna(-np.inf) + 1e-9 * rng.random(len(rows))

    def reason(self, row: pd.Series, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"{self.column} {row['priority']:.3g} {'reaches' if row['kept'] else 'is below'} the last kept, {cut:.3g}"


@config
class Longest(Budget):
    """Keep the longest answers: a rule that is hard to beat, and a control for length."""

    kind: Suppress[Literal["longest"]] = "longest"

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the number of tokens with loss."""
        return rows["num_labels"].astype(float)

    def reason(self, row: pd.Series, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"{row['num_labels']} answer tokens, the last kept has {cut:.0f}"


@config
class Threshold:
    """Keep every row whose score reaches a value."""

    kind: Suppress[Literal["threshold"]] = "threshold"
    value: float
    """Least score to keep."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the scores."""
        return scores_of(rows, "threshold")

    def cut(self, rows: pd.DataFrame) -> np.ndarray:
        """Keep what reaches the value."""
        return (rows["priority"] >= self.value).to_numpy()

    def reason(self, row: pd.Series, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"score {row['priority']:.4g} {'reaches' if row['kept'] else 'is below'} {self.value:.4g}"


Method = TopK | Random | MatchedRandom | Quality | Longest | Threshold


@config
class Config:
    """Choose the examples to train on."""

    data: Input
    """Artifact of build-data to choose from."""
    splits: Annotated[tuple[Literal["train", "pool", "large_pool"], ...], Field(min_length=1)] = ("pool",)
    """Which of its rows; several splits are ranked as one."""
    scores: Input | None = None
    """Scores or predictions of these rows, for the methods that need them."""
    method: Annotated[Method, Field(discriminator="kind")]
    """How to choose."""
    against: tuple[Input, ...] = ()
    """Other selections from the same rows, to tell the overlap and the difference in budget."""
    seed: int = 0
    """Seed of what is drawn."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the `selection` table, best first, and its numbers."""
    chosen = choose(config)
    if not chosen["kept"].any():
        raise PlaypenError("the method keeps no row; lower the threshold or raise the budget")
    columns = ["row_id", "kept", "rank", "score", "reason"]
    write_table(out / "selection.parquet", chosen[columns])
    write_json(out / "metrics.json", summary(chosen) | {"against": [compare(chosen, other) for other in config.against]})


def choose(config: Config) -> pd.DataFrame:
    """Return the rows from the first choice to the last, with `kept`, `rank`, `score` and `reason`; ties go to the lower row_id."""
    extra = [config.method.column] if isinstance(config.method, Quality) and config.method.column != "quality_score" else []
    columns = ["row_id", "source", "num_tokens", "num_labels", "quality_score", *extra]
    rows = read_splits(config.data, config.splits, columns).sort_values("row_id", ignore_index=True)
    if config.scores is not None:
        scores = read_table(config.scores, "scores", ["row_id", "score"])
        rows = join(rows, scores, f"select: {' + '.join(config.splits)} of {config.data} and the scores {config.scores}")
    rows["priority"] = config.method(rows, np.random.default_rng(config.seed))
    rows = rows.sort_values(["priority", "row_id"], ascending=[False, True], ignore_index=True)
    rows["kept"], rows["rank"] = config.method.cut(rows), np.arange(1, len(rows) + 1, dtype=np.int32)
    if "score" not in rows:
        rows["score"] = np.float32("nan")
    last = float(rows.loc[rows["kept"], "priority"].min()) if rows["kept"].any() else float("nan")
    rows["reason"] = [config.method.reason(row, last) for _, row in rows.iterrows()]
    return rows


def length_bin(lengths: pd.Series) -> pd.Series:
    """Return the bin of each length among `LENGTH_BINS` of about equal counts, from 0."""
    edges = np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1])
    return pd.Series(np.digitize(lengths, edges), index=lengths.index)


def scores_of(rows: pd.DataFrame, method: str) -> pd.Series:
    """Return the column of scores, or say that the method needs one; scores that are not finite are refused."""
    if "score" not in rows:
        raise PlaypenError(f"{method} needs scores: name an artifact of attribute or predict")
    bad = rows.loc[~np.isfinite(rows["score"]), "row_id"]
    if len(bad):
        raise PlaypenError(f"{method}: the score of row_id {bad.iloc[0]} is not finite ({len(bad)} such rows)")
    return rows["score"].astype(float)


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
