"""BM25: a row is as good as it answers to the words of the queries."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from tyro.conf import Suppress

from playpen.config import PlaypenError, config
from playpen.progress import tqdm
from playpen.rivals.job import Aggregate, Job, Part, texts

WORD = r"(?u)\w+"
"""A word is a run of letters, digits and underscores; case does not count."""


@config
class Bm25:
    """Okapi BM25 of each row to the queries, in Lucene's form (Robertson and Zaragoza 2009; Kamphuis et al. 2020).

    Sum over the words w of a query, repeated ones again: ln(1 + (N - n(w) + 1/2) / (n(w) + 1/2)) f / (f + k1 (1 - b + b L / mean
    L)), with f the times that w stands in the row, L the row's words, n(w) the rows with w, among N. The rows are the split's.
    """

    kind: Suppress[Literal["bm25"]] = "bm25"
    aggregate: Aggregate = "mean"
    """Mean over the queries, or the query that fits best."""
    text: Part = "chat"
    """Text of a row and of a query alike: the whole chat, the prompt or the answer."""
    k1: Annotated[float, Field(ge=0)] = 1.5
    """How much more a word counts that stands there again; 0 asks only whether it is there."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    """How far a row's length is discounted."""
    stopwords: Literal["english", "none"] = "english"
    """Words that are left out: the short list of English ones, or none."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the scores, at least 0; 0 where no word is shared."""
        with job.timed("open"):
            import bm25s
        with job.timed("pool"):
            rows = self._words(texts(job.rows("messages"), self.text))
            if not any(rows):
                raise PlaypenError(f"score: no row of {job.split} has a word in its {self.text}, so BM25 has nothing to compare")
            index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
            index.index(rows, show_progress=False)
        with job.timed("query"):
            queries = self._words(texts(job.queries("messages"), self.text))
            return self._scores(job, index, queries, len(rows))

    def _words(self, several: list[str]) -> list[list[str]]:
        import bm25s

        stop = "english" if self.stopwords == "english" else []
        split = bm25s.tokenize(several, token_pattern=WORD, stopwords=stop, return_ids=False, show_progress=False)
        return [list(words) for words in split]  # type: ignore[union-attr]

    def _scores(self, job: Job, index: Any, queries: list[list[str]], rows: int) -> np.ndarray:
        found, each = np.zeros(rows), np.zeros((rows, len(queries) if job.per_query else 0), np.float32)
        for i, words in enumerate(tqdm(queries, desc="BM25", unit="query", disable=None, mininterval=1)):
            one = index.get_scores(words) if words else np.zeros(rows)
            found = found + one / len(queries) if self.aggregate == "mean" else np.maximum(found, one)
            if job.per_query:
                each[:, i] = one
        job.keep(each)
        return found
