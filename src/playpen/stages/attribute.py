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

import gc
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from playpen.attributed_rows import below_the_lowest, check_lengths, check_queries, read_rows, with_labels, without_end_tokens
from playpen.attribution_summary import summary, write_diagnostics, write_query_scores
from playpen.config import Input, PlaypenError, config
from playpen.machine import Machine
from playpen.models import check_same_base, check_tokens, load_tokenizer, model_files
from playpen.moments import check_moments, read_moments
from playpen.progress import tqdm
from playpen.tables import read_metrics, table_files, write_json, write_table

if TYPE_CHECKING:
    from playpen.gradients import Comparing, Taking

VERSION = 1
RESUMABLE = True

SHARD = 1024
"""Rows scored between two saves; a killed run repeats at most these."""


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


@dataclass(frozen=True)
class _Job:
    """The rows of one run, and what is told of it."""

    config: Config
    machine: Machine
    rows: pd.DataFrame
    """The rows that have enough labels."""
    queries: pd.DataFrame
    seconds: dict[str, float]
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Pass:
    """One model's part of a job, and the folder of what an interrupted run has done of it."""

    taking: "Taking"
    comparing: "Comparing"
    work: Path


def run(config: Config, out: Path, machine: Machine) -> None:
    """Score every row of the split and tell what the scores go with."""
    _check(config)
    rows, queries = read_rows(config.data, config.split), read_rows(config.data, "query")
    if not config.end_tokens:
        tokenizer = load_tokenizer(config.model)
        rows, queries = without_end_tokens(rows, tokenizer), without_end_tokens(queries, tokenizer)
        check_queries(queries)
    enough = with_labels(rows, config.min_labels)
    job = _Job(config, machine, rows[enough], queries, {}, {})
    found, loss = _score_all(job, out / "work")
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


def _score_all(job: _Job, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 scores [rows, queries or 1], the mean over the models, and the loss [rows] under the first of them."""
    weights = np.array(job.config.weights or [1.0] * len(job.config.models))
    total, loss = 0.0, np.zeros(0, np.float32)
    for i, (model, weight) in enumerate(zip(job.config.models, weights / weights.sum(), strict=True)):
        found = _score(job, model, work / str(i))
        _check_scores(found[:, :-1], job, model)
        total = total + weight * found[:, :-1].astype(np.float64)
        loss = found[:, -1] if i == 0 else loss
        gc.collect()  # Bergson's hooks and the model hold each other
    return np.asarray(total, np.float32), loss


def _score(job: _Job, model: str, work: Path) -> np.ndarray:
    """Return float32 [rows, queries or 1, and the loss]; whole steps and shards of an earlier run are taken over."""
    from playpen.gradients import Scoring, settings

    work.mkdir(parents=True, exist_ok=True)
    with _timed("load", job.seconds):
        todo = _Pass(*_methods(job, model, work), work)
    check_lengths(job.rows, todo.taking.model)
    check_lengths(job.queries, todo.taking.model)
    with _timed("preconditioner", job.seconds):
        _fit(job, todo)
    with _timed("queries", job.seconds):
        scoring = Scoring(todo.taking, todo.comparing, _query_gradients(job, todo))
    with _timed("rows", job.seconds), _bar(job, model) as bar:
        starts = range(0, len(job.rows), SHARD)
        shards = [_shard(scoring, job.rows[i : i + SHARD], work / f"shard-{i:08d}.npy", bar) for i in starts]
    job.settings.update(settings(todo.taking, todo.comparing))
    return np.concatenate(shards)


def _methods(job: _Job, model: str, work: Path) -> "tuple[Taking, Comparing]":
    from playpen.gradients import Comparing, Taking, open_adapter

    c = job.config
    moments = None if c.moments == "none" else read_moments(model)
    opened = open_adapter(model, job.machine)
    taking = Taking(opened, job.machine, c.loss_reduction == "mean", c.projection_dim, c.seed, moments, c.moments == "adam")
    folder = None if c.preconditioner == "none" else work / "preconditioner"
    # The nearest query of several models is that of their mean, so it is known at the end only.
    apart = c.per_query or (c.aggregation == "nearest" and len(c.models) > 1)
    return taking, Comparing(c.unit_normalize, "none" if apart else c.aggregation, folder, c.damping)


def _fit(job: _Job, todo: _Pass) -> None:
    """Fit the preconditioner, if one is asked for and none is there."""
    from playpen.gradients import FIT

    folder = todo.comparing.preconditioner
    if folder is not None and not folder.exists():
        rows = job.queries if job.config.preconditioner_rows == "query" else job.rows
        FIT[job.config.preconditioner](todo.taking, rows, todo.work / "fitting")
        (todo.work / "fitting").rename(folder)


def _query_gradients(job: _Job, todo: _Pass) -> dict[str, Any]:
    """Return the queries' gradients, from an earlier run when they are there."""
    from safetensors.torch import load_file, save_file

    from playpen.gradients import query_gradients

    file, part = todo.work / "queries.safetensors", todo.work / "queries.part"
    if not file.exists():
        save_file(query_gradients(todo.taking, todo.comparing, job.queries), part)
        part.rename(file)
    return load_file(file)


def _shard(scoring: Any, rows: pd.DataFrame, file: Path, bar: tqdm) -> np.ndarray:
    """Return float32 [rows, queries or 1, and the loss] of some rows, from an earlier run when they are there."""
    if not file.exists():
        part = file.with_suffix(".part")
        with part.open("wb") as handle:
            np.save(handle, np.column_stack(scoring(rows, bar)))
        part.rename(file)
    else:
        bar.update(int(rows["num_tokens"].sum()))
    return np.load(file)


def _bar(job: _Job, model: str) -> tqdm:
    total, models = int(job.rows["num_tokens"].sum()), job.config.models
    which = f" {models.index(model) + 1}/{len(models)}" if len(models) > 1 else ""
    return tqdm(total=total, desc=f"scoring {job.config.split}{which}", unit="token", disable=None, mininterval=1)


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = round(seconds.get(step, 0.0) + time.perf_counter() - started, 3)


def _check_scores(score: np.ndarray, job: _Job, model: str) -> None:
    wrong = job.rows["row_id"].iloc[np.flatnonzero(~np.isfinite(score).all(axis=1))]
    if len(wrong):
        raise PlaypenError(
            f"attribute: {len(wrong)} of {len(score)} scores are not finite, the first is row_id {wrong.iloc[0]}; "
            "did the fine-tuning diverge? If not, run with machine.dtype float32"
        )
    if not score.any():
        raise PlaypenError(
            f"attribute: all {len(score)} scores are 0, so every gradient of {model}'s adapter against the queries is 0; "
            "are A and B of the adapter both zero? Finetune for at least one step with a learning rate above 0"
        )


def _write(job: _Job, rows: pd.DataFrame, out: Path) -> None:
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
