"""SAE coverage: pick, again and again, the row that switches on most features that no pick had yet."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from tyro.conf import Suppress

from playpen.config import Input, config
from playpen.progress import tqdm
from playpen.rivals.job import Job
from playpen.rivals.sparse import read_sparse

GONE = np.int32(-(2**30))
"""Gain of a row that has been picked: stays below 0 whatever is taken off."""


@config
class SaeCoverage:
    """SAE-GreedSelect: diversity alone, with neither target nor model to train.

    Yang et al. 2025, arXiv 2502.14050: of the rows left, the one with most active features that are not covered
    yet; when none brings a new one, nothing counts as covered any more. The number of active features grows with length.
    """

    kind: Suppress[Literal["sae_coverage"]] = "sae_coverage"
    features: Input
    """Fingerprints of the rows, of fingerprint; only the features that it kept (its k strongest) can be seen here."""
    threshold: Annotated[float, Field(ge=0)] = 0.0
    """A feature is active in a row when its greatest strength there is above this, in the SAE's own unit; the paper's 10 is of its SAE."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return minus the rank of the pick, from -1; ties are drawn."""
        with job.timed("open"):
            rows = job.rows()
            strength = read_sparse(self.features, rows, "max", f"{job.split} of {job.data}")
        with job.timed("pool"):
            order = job.rng.permutation(len(rows))
            picks = order[greedy((strength > self.threshold)[order])]
        score = np.empty(len(rows))
        score[picks] = -np.arange(1.0, len(rows) + 1)
        return score


def greedy(active: Any) -> np.ndarray:
    """Return all rows of a sparse bool matrix [rows, features] in the order of the picks; ties go to the earlier row.

    Each row's gain is kept up to date through the list of rows of each newly covered feature: a round, from one reset to the
    next, touches every active entry at most once.
    """
    active.eliminate_zeros()
    rows_of, size = active.tocsc(), np.diff(active.indptr).astype(np.int32)
    gain, covered = size.copy(), np.zeros(active.shape[1], bool)
    left, picks = np.ones(len(size), bool), np.empty(len(size), np.int64)
    for place in tqdm(range(len(size)), desc="picks", unit="row", disable=None, mininterval=1):
        best = int(gain.argmax())
        if gain[best] <= 0:
            covered[:] = False
            gain = np.where(left, size, GONE)
            best = int(gain.argmax())
        picks[place], left[best], gain[best] = best, False, GONE
        mine = active.indices[active.indptr[best] : active.indptr[best + 1]]
        for feature in mine[~covered[mine]]:
            gain[rows_of.indices[rows_of.indptr[feature] : rows_of.indptr[feature + 1]]] -= 1
        covered[mine] = True
    return picks
