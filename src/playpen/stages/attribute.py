"""Score each training example by how much it lowers the loss on the target examples (gradients, with Bergson).

Question: which rows of the pool should the finetuned model have learned more from, to do better on the `query` split?

    playpen attribute --model runs/demo/first --data runs/demo/data --split pool

With g(z) the gradient of the loss of row z over the LoRA matrices of the finetuned model, a step of gradient descent on z
lowers the loss of a target q by g(q).g(z), to first order (TracIn, Pruthi et al. 2020, arXiv 2002.08484, section 3):

    mean:     score(z) = mean over q of g(q).g(z)          nearest:  score(z) = max over q of g(q).g(z)

- `unit_normalize` divides every g, all LoRA matrices together, by its length: the dot becomes a cosine, and the mean is the
  mean of the cosines (LESS, Xia et al. 2024, arXiv 2402.04333, section 4.1, with `nearest`).
- `projection_dim: p` replaces each matrix's gradient G by P G Q' with random signs over sqrt(p), p x p numbers, which keeps
  dots in expectation (TRAK, Park et al. 2023, arXiv 2303.14186, section 3.2).
- `preconditioner: autocorrelation` puts the inverse of H, the mean of g g' within each LoRA matrix, on the query: g(q) H^-1
  g(z) (an empirical-Fisher influence function; TrackStar, Chang et al. 2024, arXiv 2410.17413, section 3). `ekfac` takes for H
  the Fisher matrix in Kronecker factors with corrected eigenvalues (Grosse et al. 2023, arXiv 2308.03296, section 2.2). With
  `unit_normalize`, H^-1/2 goes on both sides before the lengths are taken.
- `moments: second` divides every g, entry by entry, by the root of Adam's v (TrackStar, section 3); `moments: adam` puts
  Adam's next step on z in the place of g(z), and leaves g(q) as it is (LESS, section 3.1).
- With `checkpoints`, g(q).g(z) is the mean over the models, by `weights`, before the mean or the maximum over q is taken
  (TracIn, section 3; LESS, section 3.1).

A higher score means more helpful. Writes `scores` (row_id, score) in the order of the split, with `per_query` also
`query_scores` (row_id, scores), `row_diagnostics.jsonl`, `summary.json` and `metrics.json`, where `settings` holds everything
that Bergson was given.
"""

import shutil
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from playpen import processes
from playpen.attributed_rows import below_the_lowest, check_queries, read_rows, with_labels, without_end_tokens
from playpen.attribution_passes import Job, score_all
from playpen.attribution_summary import summary, write_diagnostics
from playpen.config import Input, PlaypenError, config
from playpen.machine import Machine
from playpen.models import check_same_base, check_tokens, load_tokenizer, model_files
from playpen.moments import check_moments
from playpen.query_scores import write_query_scores
from playpen.tables import read_metrics, table_files, write_json, write_table

VERSION = 1
RESUMABLE = True
DISTRIBUTED = True


@config
class Config:
    """What to score, against what, and how gradients are compared."""

    model: Input
    """Finetune artifact whose LoRA adapter's gradients are taken."""
    data: Input
    """Data artifact with the rows to score and, in its `query` split, the targets."""
    split: Literal["pool", "large_pool", "train"] = "pool"
    """Rows to score."""
    checkpoints: tuple[Input, ...] = ()
    """More adapters on the same base, as from other moments of one training; a row's score is the mean over all models."""
    weights: tuple[PositiveFloat, ...] = ()
    """Weight of `model` and of each checkpoint in that mean, as their learning rates; equal when left out."""
    aggregation: Literal["mean", "nearest"] = "mean"
    """mean scores against the average query, nearest against the query that fits best (the maximum)."""
    per_query: bool = False
    """Write each row's score for each query too (`query_scores`), as round_robin needs: 4 bytes a row and query."""
    end_tokens: bool = True
    """Count the tokens that end a turn in the losses; off, only the words of the answers ask and are asked for."""
    min_labels: NonNegativeInt = 1
    """Rows with fewer labels get no gradient, and all the same score, just below the lowest; raise it when one-word answers win."""
    unit_normalize: bool = False
    """Compare directions only (cosines). Turn on when long or hard rows, whose gradients are large, crowd the top."""
    preconditioner: Literal["none", "autocorrelation", "ekfac"] = "none"
    """autocorrelation discounts directions in which all gradients are large, and needs projection_dim; ekfac those in which
    the model's loss is curved, and needs projection_dim 0."""
    preconditioner_rows: Literal["query", "split"] = "query"
    """Rows on which the preconditioner is measured: the targets, or the scored rows (one more pass over them, three for ekfac)."""
    damping: Annotated[float, Field(gt=0)] = 0.1
    """Added to the eigenvalues of the preconditioner, in units of their mean; higher stays closer to no preconditioner."""
    moments: Literal["none", "second", "adam"] = "none"
    """Adam's memory at the end of the model's training, kept by finetune's keep_moments: second scales all gradients by it,
    adam turns the rows' gradients into Adam's steps."""
    projection_dim: Annotated[int, Field(ge=0)] = 32
    """Each LoRA matrix's gradient is projected to projection_dim x projection_dim numbers; 0 keeps it whole (exact, more memory)."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Loss of a row: mean over its answer tokens, or their sum, by which long answers weigh more."""
    seed: int = 0
    """Seed of the projection, and of the labels that ekfac draws."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.weights and len(self.weights) != 1 + len(self.checkpoints):
            raise ValueError(
                f"weights has {len(self.weights)} numbers for {1 + len(self.checkpoints)} models (model, then the checkpoints)"
            )
        if self.preconditioner == "ekfac" and self.projection_dim:
            raise ValueError("preconditioner ekfac works on whole gradients; set projection_dim to 0")
        if self.preconditioner == "ekfac" and self.moments != "none":
            raise ValueError("preconditioner ekfac is of the plain gradients; set moments to none, or use autocorrelation")
        if self.preconditioner != "none" and self.moments == "adam":
            raise ValueError("moments adam changes the rows' side alone; set preconditioner to none, or moments to second")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """The model and the checkpoints."""
        return (self.model, *self.checkpoints)


def run(config: Config, out: Path, machine: Machine) -> None:
    """Score every row of the split and tell what the scores go with."""
    _check(config)
    rows, queries = read_rows(config.data, config.split), read_rows(config.data, "query")
    if not config.end_tokens:
        tokenizer = load_tokenizer(config.model)
        rows, queries = without_end_tokens(rows, tokenizer), without_end_tokens(queries, tokenizer)
        check_queries(queries)
    enough = with_labels(rows, config.min_labels)
    job = Job(config, machine, rows[enough], queries, {}, {})
    found, loss = score_all(job, out / "work")
    if not processes.is_first():
        return
    score = below_the_lowest(_reduce(found, config.aggregation), enough)
    losses = np.full(len(rows), np.nan, np.float32)
    losses[enough] = loss
    _write(job, rows.assign(score=score, loss=losses), out)
    if config.per_query:
        write_query_scores(rows["row_id"], below_the_lowest(found, enough), out / "query_scores.parquet")
    shutil.rmtree(out / "work")


def _reduce(scores: np.ndarray, aggregation: str) -> np.ndarray:
    """Return float32 [rows]: the mean or the maximum over the queries' columns, of which there may be one."""
    return scores.max(1) if aggregation == "nearest" else scores.mean(1, dtype=np.float64).astype(np.float32)


def _check(config: Config) -> None:
    """Refuse what cannot work before anything heavy is imported."""
    for model in config.models:
        if model_files(model).adapter is None:
            raise PlaypenError(
                f"attribute: {model} has no adapter; gradients are taken of a LoRA adapter, so give a finetune artifact"
            )
        check_same_base(config.model, model)
        check_tokens(config.data, model)
    if config.preconditioner == "autocorrelation" and config.projection_dim == 0:
        raise PlaypenError(
            "attribute: preconditioner autocorrelation with projection_dim 0 needs the square of each LoRA matrix's size in "
            "memory; set projection_dim, for instance to 16"
        )
    if config.moments != "none":
        for model in config.models:
            check_moments(model)
    if read_metrics(config.data).get("rows", {}).get("query") == 0:
        raise PlaypenError(f"attribute: {config.data} has no query rows; build the data with target examples")
    for split in ("query", config.split):
        try:
            table_files(Path(config.data), split)
        except PlaypenError as error:
            raise PlaypenError(f"attribute needs '{split}' rows: {error}") from None


def _write(job: Job, rows: pd.DataFrame, out: Path) -> None:
    """Write the scores, the diagnostics, the summary and the metrics."""
    write_table(out / "scores.parquet", rows[["row_id", "score"]].astype({"score": "float32"}))
    write_diagnostics(rows, out / "row_diagnostics.jsonl")
    found = summary(rows)
    write_json(out / "summary.json", found)
    tokens = {job.config.split: int(rows["num_tokens"].sum()), "query": int(job.queries["num_tokens"].sum())}
    labels = {job.config.split: int(job.rows["num_labels"].sum()), "query": int(job.queries["num_labels"].sum())}
    numbers = {
        "rows": len(rows),
        "unscored": len(rows) - len(job.rows),
        "queries": len(job.queries),
        "tokens": tokens,
        "labels": labels,
    }
    told = {key: found[key] for key in ("score", "spearman", "coverage")}
    write_json(out / "metrics.json", {**numbers, "seconds": job.seconds, **told, "settings": job.settings})
