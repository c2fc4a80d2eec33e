"""Cosines between rows and queries, dense or sparse, as one number a row."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils.extmath import row_norms

from playpen.config import PlaypenError
from playpen.rivals.job import Aggregate

CHUNK = 2048
"""Rows compared at a time."""


def cosines(rows: Any, queries: Any, aggregate: Aggregate, keep: Callable[[np.ndarray], None] = lambda found: None) -> np.ndarray:
    """Return float64 [n]: the mean or greatest cosine of each row with the queries; `keep` is given all of them, [some rows, q].

    `rows` [n, d] and `queries` [q, d] are both dense or both scipy's sparse rows. A row of zeros has no direction: its number is
    NaN, and such a query is left out, its cosines kept as 0. Raises when every query is one.
    """
    there = row_norms(queries) > 0
    if not there.any():
        raise PlaypenError(f"score: all {len(there)} queries have a vector of zeros, which no row is near to")
    queries, parts = queries[there].astype(np.float64), [np.empty(0)]
    for start in range(0, rows.shape[0], CHUNK):
        found = cosine_similarity(rows[start : start + CHUNK].astype(np.float64), queries, dense_output=True)
        found = np.asarray(found if isinstance(found, np.ndarray) else found.toarray())
        cells = np.zeros((len(found), len(there)), np.float32)
        cells[:, there] = found
        keep(cells)
        parts.append(found.mean(1) if aggregate == "mean" else found.max(1))
    return np.where(row_norms(rows) > 0, np.concatenate(parts), np.nan)
