"""Selection rules: each a frozen config whose call gives every row a priority; its budget cuts the ranking.

A rule returns a Series of priorities or, when its reasons need more, a DataFrame with `priority` and the columns that
`reason` reads. Those that look at several rows at once are in `selection_diversity`; all are named in the union at the end.
"""

from collections import Counter
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat
from tyro.conf import Suppress

from playpen.config import Input, PlaypenError, config
from playpen.selection_budget import ENOUGH, Budget, Row, Walk, best_first, length_bin, priorities, scores_of
from playpen.selection_diversity import Deduplicated, FacilityLocation, RoundRobin
from playpen.tables import join, read_table


@config
class TopK(Budget):
    """Keep the best-scored rows."""

    kind: Suppress[Literal["top_k"]] = "top_k"

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the scores."""
        return scores_of(rows, "top_k")

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"score {row['priority']:.4g} {'reaches' if row['kept'] else 'is below'} the last kept, {cut:.4g}"


@config
class Random(Budget):
    """Keep rows drawn at random."""

    kind: Suppress[Literal["random"]] = "random"

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return a random order."""
        return pd.Series(rng.random(len(rows)), index=rows.index)

    def reason(self, row: Row, cut: float) -> str:
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
        return draw_alike(rows, rows["matched"], rng)

    def cut(self, rows: pd.DataFrame) -> np.ndarray:
        """Keep what was drawn."""
        return (rows["priority"] >= 1).to_numpy()

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        return (
            f"drawn to match {row['source']} rows of about {row['num_tokens']} tokens, {row['num_labels']} of the answer"
            if row["kept"]
            else "not drawn"
        )


def draw_alike(rows: pd.DataFrame, kept: pd.Series, rng: np.random.Generator) -> pd.Series:
    """Draw as many rows of each source, length bin and bin of answer length as `kept` (bool) has: 1 plus a random number for them, else below 1."""
    bins = [length_bin(rows[column]).astype(str) for column in ("num_tokens", "num_labels")]
    stratum = rows["source"].astype(str) + "/" + bins[0] + "/" + bins[1]
    wanted = kept.groupby(stratum).transform("sum")
    order = pd.Series(rng.random(len(rows)), index=rows.index)
    return order + (order.groupby(stratum).rank(method="first") <= wanted)


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
        costs, marked = self.cost(rows), rows[self.column].notna().to_numpy()
        if costs[marked].sum() < (1 if self.k is not None else ENOUGH) * self.limit and self.limit <= costs.sum():
            raise PlaypenError(
                f"quality: only {costs[marked].sum()} {self.unit} have a value in '{self.column}', {self.limit} are to be kept"
            )
        # A judge gives few distinct marks: without a drawn order, ties would all go to the lower row_id in every seed.
        return rows[self.column].astype(float).fillna(-np.inf) + 1e-9 * rng.random(len(rows))

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"{self.column} {row['priority']:.3g} {'reaches' if row['kept'] else 'is below'} the last kept, {cut:.3g}"


@config
class Longest(Budget):
    """Keep the longest answers: a rule that is hard to beat, and a control for length."""

    kind: Suppress[Literal["longest"]] = "longest"

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the number of tokens with loss."""
        return rows["num_labels"].astype(float)

    def reason(self, row: Row, cut: float) -> str:
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

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        return f"score {row['priority']:.4g} {'reaches' if row['kept'] else 'is below'} {self.value:.4g}"


@config
class Gumbel(Budget):
    """Draw rows, the better-scored the likelier: top-k of scores softened by noise, which keeps what plain top-k never sees.

    The priority is z(score) / temperature plus standard Gumbel noise, z being the score in standard deviations from the mean.
    So k rows are drawn one after another, each with a chance proportional to exp(z / temperature) (Kool et al. 2019, arXiv
    1903.06059, section 2.2; with 0.5 as DATE-LM, Jiao et al. 2025, and MATES, Yu et al. 2024, arXiv 2406.06046).
    """

    kind: Suppress[Literal["gumbel"]] = "gumbel"
    temperature: PositiveFloat = 0.5
    """Near 0 it is top-k, large it is random."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """Return the softened scores, and the noise in them."""
        scores = scores_of(rows, self.kind)
        spread = scores.std(ddof=0)
        noise = rng.gumbel(size=len(rows))
        return pd.DataFrame({"priority": (scores - scores.mean()) / (spread or 1.0) / self.temperature + noise, "noise": noise})

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        sides = f"{'reaches' if row['kept'] else 'is below'} the last kept, {cut:.3g}"
        return f"score {row['score']:.4g}, softened to {row['priority']:.3g} by a draw of {row['noise']:+.3g}, {sides}"


@config
class FilterBottom(Walk):
    """Drop the worst-scored share, then draw from the rest at random: uses what a score is surest of, what does not help."""

    kind: Suppress[Literal["filter_bottom"]] = "filter_bottom"
    drop: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the rows offered that is dropped, rounded down to whole rows."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return a random order of what stays, and below 0 what is dropped, the better first."""
        order = best_first(rows, self.kind)
        stays = np.ones(len(rows), bool)
        stays[order[len(rows) - int(self.drop * len(rows)) :]] = False
        drawn = rng.permutation(len(rows))
        walked = np.concatenate([drawn[stays[drawn]], order[~stays[order]]])
        return pd.Series(priorities(walked, stays), index=rows.index)

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        if row["priority"] < 0:
            return f"score {row['score']:.4g} is among the worst {self.drop:.0%}"
        return f"not among the worst {self.drop:.0%}, " + ("and drawn at random" if row["kept"] else "but not drawn")


@config
class SourceCap(Walk):
    """Keep the best-scored rows, but at most a share of the budget from one source."""

    kind: Suppress[Literal["source_cap"]] = "source_cap"
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Most of the budget (its rows, tokens or answer tokens) that one source may take."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.Series:
        """Return the order of the scores, and below 0 what a full source passes over."""
        source, costs, used = rows["source"].to_numpy(), self.cost(rows), Counter()
        most = self.share * self.limit + 1e-9  # 0.29 * 100 is 28.999999999999996

        def passes(row: int) -> bool:
            if used[source[row]] + costs[row] > most:
                return True
            used[source[row]] += costs[row]
            return False

        order = best_first(rows, self.kind)
        return pd.Series(priorities(order, self.walk(rows, order, passes)), index=rows.index)

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        if row["priority"] < 0:
            return f"{row['source']} has no room for it in its {self.share:.0%} of {self.limit} {self.unit}, taken by better rows"
        return f"score {row['score']:.4g}, " + (f"and {row['source']} had room" if row["kept"] else "but the budget is full")


Method = (
    TopK
    | Random
    | MatchedRandom
    | Quality
    | Longest
    | Threshold
    | Gumbel
    | FilterBottom
    | SourceCap
    | RoundRobin
    | FacilityLocation
    | Deduplicated
)
"""Every selection rule."""
