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
  g(z) (an empirical-Fisher influence function; TrackStar, Chang et al. 2024, arXiv 2410.17413, section 3). With
  `unit_normalize`, H^-1/2 goes on both sides before the lengths are taken.

A higher score means more helpful. Writes `scores` (row_id, score) in the order of the split, `row_diagnostics.jsonl`,
`summary.json` and `metrics.json`, where `settings` holds everything that Bergson was given.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from tqdm import tqdm

from playpen.config import Input, PlaypenError, config
from playpen.machine import Machine
from playpen.models import check_tokens, model_files
from playpen.tables import check_row_ids, read_metrics, read_table, table_files, write_json, write_table

if TYPE_CHECKING:
    from playpen.gradients import Comparing, Taking

VERSION = 1
RESUMABLE = True

SHARD = 1024
"""Rows scored between two saves; a killed run repeats at most these."""
TOP = (10, 30, 100, 300, 1000, 3000, 10000)
"""Sizes of the top whose composition by source is told."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@config
class Config:
    """What to score, against what, and how gradients are compared."""

    model: Input
    """Finetune artifact whose LoRA adapter's gradients are taken."""
    data: Input
    """Data artifact with the rows to score and, in its `query` split, the targets."""
    split: Literal["pool", "large_pool", "train"] = "pool"
    """Rows to score."""
    aggregation: Literal["mean", "nearest"] = "mean"
    """mean scores against the average query, nearest against the query that fits best (the maximum)."""
    unit_normalize: bool = False
    """Compare directions only (cosines). Turn on when long or hard rows, whose gradients are large, crowd the top."""
    preconditioner: Literal["none", "autocorrelation"] = "none"
    """autocorrelation discounts directions in which all gradients are large; needs projection_dim."""
    preconditioner_rows: Literal["query", "split"] = "query"
    """Rows whose gradients autocorrelation is measured on: the targets, or the scored rows (one more pass over them)."""
    damping: Annotated[float, Field(gt=0)] = 0.1
    """Added to the eigenvalues of the autocorrelation, in units of their mean; higher stays closer to no preconditioner."""
    projection_dim: Annotated[int, Field(ge=0)] = 32
    """Each LoRA matrix's gradient is projected to projection_dim x projection_dim numbers; 0 keeps it whole (exact, more memory)."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Loss of a row: mean over its answer tokens, or their sum, by which long answers weigh more."""
    seed: int = 0
    """Seed of the projection."""


@dataclass(frozen=True)
class _Job:
    """One run's rows and how their gradients are taken and compared."""

    config: Config
    rows: pd.DataFrame
    queries: pd.DataFrame
    taking: "Taking"
    comparing: "Comparing"
    work: Path
    """Folder of what an interrupted run has done; removed at the end."""
    seconds: dict[str, float]


def run(config: Config, out: Path, machine: Machine) -> None:
    """Score every row of the split and tell what the scores go with."""
    _check(config)
    rows, queries, seconds = _read(config, config.split), _read(config, "query"), {}
    with _timed("load", seconds):
        taking, comparing = _methods(config, out / "work", machine)
    _check_lengths(rows, taking.model)
    _check_lengths(queries, taking.model)
    job = _Job(config, rows, queries, taking, comparing, out / "work", seconds)
    score, loss = _score(job)
    _check_scores(score, rows, config)
    _write(job, rows.assign(score=score, loss=loss), out)
    shutil.rmtree(job.work)


def _check(config: Config) -> None:
    """Refuse what cannot work before anything heavy is imported."""
    if model_files(config.model).adapter is None:
        raise PlaypenError(
            f"attribute: {config.model} has no adapter; gradients are taken of a LoRA adapter, so give a finetune artifact"
        )
    if config.preconditioner == "autocorrelation" and config.projection_dim == 0:
        raise PlaypenError(
            "attribute: preconditioner autocorrelation with projection_dim 0 needs the square of each LoRA matrix's size in "
            "memory; set projection_dim, for instance to 16"
        )
    check_tokens(config.data, config.model)
    if read_metrics(config.data).get("rows", {}).get("query") == 0:
        raise PlaypenError(f"attribute: {config.data} has no query rows; build the data with target examples")
    for split in ("query", config.split):
        try:
            table_files(Path(config.data), split)
        except PlaypenError as error:
            raise PlaypenError(f"attribute needs '{split}' rows: {error}") from None


def _read(config: Config, split: str) -> pd.DataFrame:
    columns = ["row_id", "input_ids", "labels", "num_tokens", "num_labels", "source", "quality_score"]
    rows = read_table(config.data, split, columns)
    if rows.empty:
        raise PlaypenError(f"attribute: {config.data} has no {split} rows; build the data with some")
    check_row_ids(rows, f"{config.data} {split}")
    if (rows["num_labels"] < 1).any():
        wrong = rows.loc[rows["num_labels"] < 1, "row_id"].iloc[0]
        raise PlaypenError(f"attribute: row_id {wrong} of {split} has no token with a label, so it has no gradient; leave it out")
    return rows


def _methods(config: Config, work: Path, machine: Machine) -> "tuple[Taking, Comparing]":
    from playpen.gradients import Comparing, Taking, open_adapter

    model = open_adapter(config.model, machine)
    taking = Taking(model, machine, config.loss_reduction == "mean", config.projection_dim, config.seed)
    folder = work / "preconditioner" if config.preconditioner == "autocorrelation" else None
    return taking, Comparing(config.unit_normalize, config.aggregation, folder, config.damping)


def _check_lengths(rows: pd.DataFrame, model: Any) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = rows.iloc[int(rows["num_tokens"].to_numpy().argmax())]
    if context and longest["num_tokens"] > context:
        raise PlaypenError(
            f"attribute: row_id {longest['row_id']} has {longest['num_tokens']} tokens, but the model's context is {context}; "
            "build the data with a smaller max_length"
        )


def _score(job: _Job) -> tuple[np.ndarray, np.ndarray]:
    """Return score and loss of each row; whole steps and shards of an earlier run are taken over."""
    from playpen.gradients import Scoring

    job.work.mkdir(exist_ok=True)
    with _timed("preconditioner", job.seconds):
        _fit(job)
    with _timed("queries", job.seconds):
        scoring = Scoring(job.taking, job.comparing, _query_gradients(job))
    with _timed("rows", job.seconds), _bar(job) as bar:
        starts = range(0, len(job.rows), SHARD)
        shards = [_shard(scoring, job.rows[i : i + SHARD], job.work / f"shard-{i:08d}.npy", bar) for i in starts]
    both = np.concatenate(shards)
    return both[:, 0], both[:, 1]


def _fit(job: _Job) -> None:
    """Fit the preconditioner, if one is asked for and none is there."""
    from playpen.gradients import fit_preconditioner

    folder = job.comparing.preconditioner
    if folder is not None and not folder.exists():
        rows = job.queries if job.config.preconditioner_rows == "query" else job.rows
        fit_preconditioner(job.taking, rows, job.work / "fitting")
        (job.work / "fitting").rename(folder)


def _query_gradients(job: _Job) -> dict[str, Any]:
    """Return the queries' gradients, from an earlier run when they are there."""
    from safetensors.torch import load_file, save_file

    from playpen.gradients import query_gradients

    file, part = job.work / "queries.safetensors", job.work / "queries.part"
    if not file.exists():
        save_file(query_gradients(job.taking, job.comparing, job.queries), part)
        part.rename(file)
    return load_file(file)


def _shard(scoring: Any, rows: pd.DataFrame, file: Path, bar: tqdm) -> np.ndarray:
    """Return float32 [rows, 2], score and loss of some rows, from an earlier run when they are there."""
    if not file.exists():
        part = file.with_suffix(".part")
        with part.open("wb") as handle:
            np.save(handle, np.stack(scoring(rows, bar), axis=1))
        part.rename(file)
    else:
        bar.update(int(rows["num_tokens"].sum()))
    return np.load(file)


def _bar(job: _Job) -> tqdm:
    total = int(job.rows["num_tokens"].sum())
    return tqdm(total=total, desc=f"scoring {job.config.split}", unit="token", disable=None, mininterval=1)


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - started, 3)


def _check_scores(score: np.ndarray, rows: pd.DataFrame, config: Config) -> None:
    if not np.isfinite(score).all():
        wrong = rows["row_id"][~np.isfinite(score)]
        raise PlaypenError(
            f"attribute: {len(wrong)} of {len(rows)} scores are not finite, the first is row_id {wrong.iloc[0]}; "
            "did the fine-tuning diverge? If not, run with machine.dtype float32"
        )
    if not score.any():
        raise PlaypenError(
            f"attribute: all {len(rows)} scores are 0, so every gradient of {config.model}'s adapter against the queries is 0; "
            "are A and B of the adapter both zero? Finetune for at least one step with a learning rate above 0"
        )


def _write(job: _Job, rows: pd.DataFrame, out: Path) -> None:
    """Write the scores, the diagnostics, the summary and the metrics."""
    from playpen.gradients import settings

    write_table(out / "scores.parquet", rows[["row_id", "score"]].astype({"score": "float32"}))
    _write_diagnostics(rows, out / "row_diagnostics.jsonl")
    found = summary(rows)
    write_json(out / "summary.json", found)
    tokens = {job.config.split: int(rows["num_tokens"].sum()), "query": int(job.queries["num_tokens"].sum())}
    numbers = {"rows": len(rows), "queries": len(job.queries), "tokens": tokens, "seconds": job.seconds}
    told = {key: found[key] for key in ("score", "spearman", "coverage")}
    write_json(out / "metrics.json", {**numbers, **told, "settings": settings(job.taking, job.comparing)})


def _write_diagnostics(rows: pd.DataFrame, file: Path) -> None:
    with file.open("w", encoding="utf-8") as handle:
        for row in rows.itertuples():
            values = {"row_id": row.row_id, "score": float(row.score), "length": int(row.num_tokens)}  # type: ignore[arg-type]
            values |= {"num_labels": int(row.num_labels), "loss": float(row.loss), "source": row.source}  # type: ignore[arg-type]
            handle.write(json.dumps(values, ensure_ascii=False) + "\n")


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Return coverage, the spread of the scores, their rank correlations and who is in the top k.

    `rows` has score, loss, num_tokens, num_labels, quality_score and source. A correlation is None where it has no meaning.
    """
    score = rows["score"].astype("float64")
    spread = {"mean": score.mean(), "std": score.std(ddof=0), "share_above_0": (score > 0).mean()}
    quantiles = {str(q): float(score.quantile(q)) for q in QUANTILES}
    others = {"length": "num_tokens", "num_labels": "num_labels", "loss": "loss", "quality_score": "quality_score"}
    tops = [k for k in TOP if k < len(rows)]
    ranked = rows.sort_values("score", ascending=False, kind="stable")
    return {
        "coverage": float(np.isfinite(score).mean()),
        "score": {**{name: float(value) for name, value in spread.items()}, "quantiles": quantiles},
        "spearman": {name: _spearman(score, rows[column].astype("float64")) for name, column in others.items()},
        "top": {str(k): _composition(ranked.head(k)) for k in tops},
        "all": _composition(rows),
    }


def _spearman(score: pd.Series, other: pd.Series) -> float | None:
    """Return the rank correlation over the rows where `other` is known."""
    known = other.notna()
    if score[known].nunique() < 2 or other[known].nunique() < 2:
        return None
    return float(np.corrcoef(score[known].rank(), other[known].rank())[0, 1])


def _composition(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the share of each source and the mean length of some rows."""
    shares = {str(name): float(share) for name, share in rows["source"].value_counts(normalize=True).sort_index().items()}
    return {"sources": shares, "mean_length": float(rows["num_tokens"].mean())}
