"""DSIR: importance weights of hashed n-grams, target against pool."""

from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt
from tyro.conf import Suppress

from playpen.config import config
from playpen.rivals.job import Job, Part, texts

WORD = r"(?u)\w+|[^\w\s]+"
"""Words, and runs of marks, as in the paper's tokeniser; case does not count."""


@config
class Dsir:
    """How much likelier the row's words and pairs of words are among the queries than in the pool.

    Xie et al. 2023, arXiv 2302.03169: with z the row's counts of hashed uni- and bigrams, p the queries' and q the
    pool's share of each bucket, the log weight is the sum of z (ln p - ln q). Their Gumbel noise is a rule of selection, not here.
    """

    kind: Suppress[Literal["dsir"]] = "dsir"
    text: Part = "chat"
    """Text of a row and of a query alike: the whole chat, the prompt or the answer."""
    buckets: PositiveInt = 10_000
    """Buckets of the hash."""
    per_ngram: bool = False
    """Divide by the row's n-grams. The paper's sum, of texts cut to one length, is not; among chats of any it goes with length."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the log weights in nats, of an n-gram or of the row; NaN for a row without a word.

        Both shares are smoothed by one count a bucket, since a few hundred queries leave most buckets empty.
        """
        with job.timed("open"):
            hashing = self._hashing()
        with job.timed("query"):
            target = _log_shares(hashing.transform(texts(job.queries("messages"), self.text)))
        with job.timed("pool"):
            counts = hashing.transform(texts(job.rows("messages"), self.text))
            weight, ngrams = counts @ (target - _log_shares(counts)), np.asarray(counts.sum(1)).ravel()
            some = np.where(ngrams > 0, ngrams, np.nan)
            return weight / some if self.per_ngram else np.where(ngrams > 0, weight, np.nan)

    def _hashing(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            token_pattern=WORD,
            ngram_range=(1, 2),
            n_features=self.buckets,
            alternate_sign=False,
            norm=None,  # type: ignore[arg-type]
        )


def _log_shares(counts: Any) -> np.ndarray:
    total = np.asarray(counts.sum(0)).ravel() + 1
    return np.log(total / total.sum())
