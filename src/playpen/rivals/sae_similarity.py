"""SAE similarity: a row is as good as its features are those of the queries, without any gradient."""

from typing import Any, Literal

import numpy as np
from tyro.conf import Suppress

from playpen.config import Input, PlaypenError, config
from playpen.rivals.job import Aggregate, Job
from playpen.rivals.sparse import read_info, read_sparse

SAME = ("sae", "model_id", "hook", "tokens", "num_features")
"""What two fingerprints must have in common to be compared."""


@config
class SaeSimilarity:
    """Cosine of the mean strengths of SAE features: what our fingerprint gives when nothing is learnt from gradients."""

    kind: Suppress[Literal["sae_similarity"]] = "sae_similarity"
    features: Input
    """Fingerprints of the rows, of fingerprint."""
    queries: Input
    """Fingerprints of the same data's query split, made in the same way."""
    idf: bool = False
    """Weigh each feature by ln((1 + rows) / (1 + rows that have it)), so that one that is always on counts nothing."""
    aggregate: Aggregate = "mean"
    """Mean over the queries, or the nearest."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the cosines, in [0, 1]; NaN for a row without a feature that counts."""
        check_same(self.features, self.queries)
        with job.timed("open"):
            from playpen.rivals.similarity import cosines
        with job.timed("pool"):
            rows = read_sparse(self.features, job.rows(), "mean", f"{job.split} of {job.data}")
        with job.timed("query"):
            queries = read_sparse(self.queries, job.queries(), "mean", f"query of {job.data}")
        weight = (idf(rows) if self.idf else np.ones(rows.shape[1]))[None]
        with job.timed("pool"):
            return cosines(rows.multiply(weight).tocsr(), queries.multiply(weight).tocsr(), self.aggregate, job.keep)


def check_same(features: str, queries: str) -> None:
    """Raise when two features artifacts were not made in the same way."""
    rows, targets = read_info(features), read_info(queries)
    for what in SAME:
        if rows[what] != targets[what]:
            raise PlaypenError(
                f"score: {features} has {what} {rows[what]}, but {queries} has {targets[what]}; fingerprint both in the same way"
            )


def idf(rows: Any) -> np.ndarray:
    """Return the weight of each feature of a sparse matrix [rows, features], at least 0."""
    return np.log((1 + rows.shape[0]) / (1 + (rows > 0).sum(0)))
