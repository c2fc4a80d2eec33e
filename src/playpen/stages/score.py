"""Score each example by a rival: chance, length, a judge, likelihood, words, embeddings or SAE features.

    playpen score --data runs/demo/data --split pool bm25 --aggregate max

Each method writes the same table as `attribute` and `predict`, so that it can be selected from, validated and compared like them.
A method is one config in `playpen.rivals`, with its paper; `playpen score METHOD --help` shows its fields. A higher score always
means more helpful, whatever the method calls good. What is compared with the target reads the `query` split, never `test`.

Writes `scores` (row_id, score) in the order of the split, `metrics.json`, for rds, hidden and minilm the table `vectors`
(row_id, vector) and, with `per_query`, `query_scores` (row_id, scores). A killed run goes on after the last whole shard of model passes.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from playpen.config import Input, PlaypenError, config
from playpen.query_scores import write_query_scores
from playpen.rivals.coverage import SaeCoverage
from playpen.rivals.job import Job
from playpen.rivals.lexical import Bm25
from playpen.rivals.likelihood import Ifd, Perplexity
from playpen.rivals.ngrams import Dsir
from playpen.rivals.representations import Hidden, Rds
from playpen.rivals.sae_similarity import SaeSimilarity
from playpen.rivals.sentences import Minilm
from playpen.rivals.simple import Column, Length, Random
from playpen.tables import check_row_ids, write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
RESUMABLE = True

Method = Random | Length | Column | Perplexity | Ifd | Bm25 | Dsir | Rds | Hidden | Minilm | SaeCoverage | SaeSimilarity


@config
class Config:
    """What to score, and by which rival."""

    data: Input
    """Data artifact with the rows to score and, in its `query` split, the targets."""
    split: Literal["pool", "large_pool", "train"] = "pool"
    """Rows to score."""
    method: Annotated[Method, Field(discriminator="kind")]
    """How to score."""
    per_query: bool = False
    """Write each row's score for each query too (`query_scores`), as round_robin needs: 4 bytes a row and query."""
    seed: int = 0
    """Seed of what is drawn: the scores of random, and the order of ties of column and sae_coverage."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.per_query and not hasattr(self.method, "aggregate"):
            raise ValueError(
                f"per_query: {self.method.kind} compares no row with a query; bm25, rds, hidden, minilm and sae_similarity do"
            )
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the table `scores` and the numbers."""
    job = Job(config.data, config.split, machine, config.seed, out, per_query=config.per_query)
    rows = job.rows("num_tokens", "num_labels")
    check_row_ids(rows, f"{config.data} {config.split}")
    raw = config.method(job)
    rows["score"] = complete(raw, config.method.kind)
    write_table(out / "scores.parquet", rows[["row_id", "score"]])
    if config.per_query:
        write_query_scores(rows["row_id"], complete_each(np.concatenate(job.each), ~np.isnan(raw)), out / "query_scores.parquet")
    write_json(out / "metrics.json", {**numbers(rows, int(np.isnan(raw).sum())), **_spent(job)})
    shutil.rmtree(job.work, ignore_errors=True)


def complete(raw: np.ndarray, kind: str) -> np.ndarray:
    """Return scores as float32 [rows], those that are NaN just below the lowest other.

    Raises when they rank nothing: when none is known, or several are and all are equal, and when one is infinite.
    """
    known = ~np.isnan(raw)
    if not known.any():
        raise PlaypenError(f"score: {kind} finds nothing to score in any of {len(raw)} rows; are their answers empty?")
    score = raw.astype(np.float32)
    if not np.isfinite(score[known]).all():
        raise PlaypenError(f"score: {kind} gives {int(np.isinf(score).sum())} of {len(raw)} rows an infinite score")
    if len(raw) > 1 and known.all() and (score == score[0]).all():
        raise PlaypenError(f"score: {kind} gives all {len(raw)} rows the score {score[0]:.6g}, so it ranks nothing")
    score[~known] = np.nextafter(score[known].min(), np.float32(-np.inf))
    return score


def complete_each(each: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return scores float32 [rows, queries], those of rows not `known` just below the lowest other of each query.

    A query that gives all known rows the same, having no word or no vector, gives it to the others too: it prefers none.
    """
    low, high = each[known].min(0), each[known].max(0)
    return np.where(known[:, None], each, np.where(low < high, np.nextafter(low, np.float32(-np.inf)), low))


def numbers(rows: pd.DataFrame, without: int) -> dict[str, Any]:
    """Return the spread of the scores and their rank correlations with length; None where that has no meaning."""
    score = rows["score"].astype(float)
    return {
        "rows": len(rows),
        "rows_without_score": without,
        "score": {"mean": score.mean(), "std": score.std(ddof=0), "min": score.min(), "max": score.max()},
        "spearman": {name: _spearman(score, rows[name]) for name in ("num_tokens", "num_labels")},
    }


def _spearman(score: pd.Series, length: pd.Series) -> float | None:
    some = score.nunique() > 1 and length.nunique() > 1
    return float(score.corr(length, method="spearman")) if some else None


def _spent(job: Job) -> dict[str, Any]:
    return {**job.facts, "tokens": job.tokens, "seconds": job.seconds}
