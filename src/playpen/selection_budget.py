"""What selection rules share: a budget, in rows or in tokens, and the scores that they rank by."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import PositiveInt, model_validator

from playpen.config import PlaypenError, config

ENOUGH = 0.95
"""Share of a budget in tokens that a rule which passes rows over must be able to fill."""
ONE_OF = "give either k (rows), tokens or labels (answer tokens)"
LENGTH_BINS = 8
"""Equal-count bins of length, and of the answer's length, within which `matched_random` draws."""


Row = Mapping[str, Any]
"""One row by its columns, as `reason` gets it."""


@config
class Budget:
    """How much to keep: one of rows, tokens and answer tokens; none where a plan of `preregister` gives it."""

    k: PositiveInt | None = None
    """Rows to keep."""
    tokens: PositiveInt | None = None
    """Tokens to keep: rows are taken in order of rank while they fit."""
    labels: PositiveInt | None = None
    """Answer tokens, those that carry loss, to keep: rows are taken in order of rank while they fit."""

    @model_validator(mode="after")
    def _one_budget(self) -> "Budget":
        if sum(given is not None for given in (self.k, self.tokens, self.labels)) > 1:
            raise ValueError(ONE_OF)
        return self

    @property
    def limited(self) -> bool:
        """Whether a budget is given."""
        return (self.k, self.tokens, self.labels) != (None, None, None)

    @property
    def limit(self) -> int:
        """How many rows, tokens or answer tokens may be kept."""
        return next(given for given in (self.k, self.tokens, self.labels) if given is not None)

    @property
    def unit(self) -> str:
        """What the limit counts."""
        return "rows" if self.k is not None else "tokens" if self.tokens is not None else "answer tokens"

    def cost(self, rows: pd.DataFrame) -> np.ndarray:
        """Return what each row takes of the budget, int64."""
        column = {"rows": None, "tokens": "num_tokens", "answer tokens": "num_labels"}[self.unit]
        return np.ones(len(rows), np.int64) if column is None else rows[column].to_numpy(np.int64)

    def cut(self, rows: pd.DataFrame) -> np.ndarray:
        """Return which of the rows, ordered from the first choice to the last, are kept."""
        if self.k is not None and self.k > len(rows):
            raise PlaypenError(f"k is {self.k} but there are only {len(rows)} rows to choose from")
        return np.cumsum(self.cost(rows)) <= self.limit


@config
class Walk(Budget):
    """A rule that takes rows one by one and passes some over: those have a priority below 0, and are never kept."""

    def cut(self, rows: pd.DataFrame) -> np.ndarray:
        """Keep what was taken, while it fits; raise when so much was passed over that the budget is not filled.

        Rows must fill it whole, tokens to 95%: what several sources leave of their shares may be less than a row each.
        """
        fits, taken, costs = Budget.cut(self, rows), (rows["priority"] > 0).to_numpy(), self.cost(rows)
        least = self.limit if self.k is not None else ENOUGH * self.limit
        if costs[taken].sum() < least and self.limit <= costs.sum():
            raise PlaypenError(
                f"{getattr(self, 'kind', 'the rule')} takes only {costs[taken].sum()} of {self.limit} {self.unit} and passes the "
                "rest over; loosen it, or lower the budget"
            )
        return fits & taken

    def walk(self, rows: pd.DataFrame, order: np.ndarray, passes: Callable[[int], bool]) -> np.ndarray:
        """Return bool [rows]: which were taken, in `order`, until the budget is full; `passes(row)` says that one is left out.

        What comes after the budget is full was not passed over, and counts as taken.
        """
        taken, costs, spent = np.zeros(len(rows), bool), self.cost(rows), 0
        for row in order:
            if spent >= self.limit or not passes(int(row)):
                taken[row], spent = True, spent + costs[row]
        return taken


def priorities(order: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return float64 [rows]: above 0 for rows taken (bool [rows]), below 0 for the others, both falling along `order` [rows]."""
    place = np.empty(len(order))
    place[order] = np.arange(len(order), 0, -1)
    return np.where(taken, place, place - len(order) - 1)


def best_first(rows: pd.DataFrame, method: str) -> np.ndarray:
    """Return the rows' places from the best score to the worst, ties in the order of the rows."""
    return np.argsort(-scores_of(rows, method).to_numpy(), kind="stable")


def scores_of(rows: pd.DataFrame, method: str) -> pd.Series:
    """Return the column of scores, or say that the method needs one; scores that are not finite are refused."""
    if "score" not in rows:
        raise PlaypenError(f"{method} needs scores: name an artifact of attribute or predict")
    bad = rows.loc[~np.isfinite(rows["score"]), "row_id"]
    if len(bad):
        raise PlaypenError(f"{method}: the score of row_id {bad.iloc[0]} is not finite ({len(bad)} such rows)")
    return rows["score"].astype(float)


def length_bin(lengths: pd.Series, bins: int = LENGTH_BINS) -> pd.Series:
    """Return the bin of each length among `bins` of about equal counts, from 0."""
    edges = np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1])
    return pd.Series(np.digitize(lengths, edges), index=lengths.index)
