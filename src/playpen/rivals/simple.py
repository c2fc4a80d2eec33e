"""Rivals that need no model and no query: chance, length, and a column of the data."""

from typing import Literal

import numpy as np
import pandas as pd
from tyro.conf import Suppress

from playpen.config import PlaypenError, config
from playpen.rivals.job import Job


@config
class Random:
    """A number drawn for each row: the baseline that few methods beat (Xia et al. 2024, arXiv 2410.09335)."""

    kind: Suppress[Literal["random"]] = "random"

    def __call__(self, job: Job) -> np.ndarray:
        """Return numbers uniform in [0, 1)."""
        return job.rng.random(len(job.rows()))


@config
class Length:
    """Tokens of the answer that carry loss; the longest is a strong rule (Zhao et al. 2024, arXiv 2402.04833)."""

    kind: Suppress[Literal["length"]] = "length"
    prefer: Literal["longest", "shortest"] = "longest"
    """Which answers come first."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the number of tokens, negative when the shortest come first."""
        tokens = job.rows("num_labels")["num_labels"].to_numpy(np.float64)
        return tokens if self.prefer == "longest" else -tokens


@config
class Column:
    """A column of the data, as a judge's mark; rows without a value come last, and ties are drawn."""

    kind: Suppress[Literal["column"]] = "column"
    column: str = "quality_score"
    """Column of numbers."""
    prefer: Literal["high", "low"] = "high"
    """Which values come first."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return each row's place in the order, from 1/n for the last row to 1 for the first.

        A place instead of the value: a judge gives few distinct marks, and in their own unit a drawn order of equal ones would
        be lost in float32.
        """
        value = job.rows(self.column)[self.column]
        if not pd.api.types.is_numeric_dtype(value):
            raise PlaypenError(f"score: column '{self.column}' of {job.data} holds {value.dtype}, expected numbers")
        job.facts["rows_without_value"] = int(value.isna().sum())
        if value.isna().all():
            raise PlaypenError(f"score: {job.data} has no values in column '{self.column}'; name another with column")
        goodness = value.astype(float) * (1 if self.prefer == "high" else -1)
        worst_first = np.lexsort((job.rng.random(len(value)), goodness.fillna(0), value.notna()))
        place = np.empty(len(value))
        place[worst_first] = np.arange(1, len(value) + 1) / len(value)
        return place
