"""One run of attribute: every row scored under each of its models, shard by shard, by one process or several.

Of several processes the first measures what is measured once (preconditioner, queries), and each makes its share of the shards.
Whole steps and shards of an interrupted run are taken over.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from playpen import processes
from playpen.attributed_rows import check_lengths
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.moments import read_moments
from playpen.progress import tqdm

if TYPE_CHECKING:
    from playpen.gradients import Comparing, Taking
    from playpen.stages.attribute import Config

SHARD = 1024
"""Rows scored between two saves; a killed run repeats at most these in each process."""


@dataclass(frozen=True)
class Job:
    """The rows of one run, and what is told of it."""

    config: "Config"
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

    @property
    def queries(self) -> Path:
        """The file of the queries' gradients."""
        return self.work / "queries.safetensors"


def score_all(job: Job, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 scores [rows, queries or 1], the mean over the models, and the loss [rows] under the first of them."""
    weights = np.array(job.config.weights or [1.0] * len(job.config.models))
    total, loss = np.zeros(0), np.zeros(0, np.float32)
    for i, (model, weight) in enumerate(zip(job.config.models, weights / weights.sum(), strict=True)):
        found = _score(job, model, work / str(i))
        if not processes.is_first():
            continue  # the first alone puts the shards together
        _check_scores(found[:, :-1], job, model)
        part = weight * found[:, :-1].astype(np.float64)
        total = total + part if i else part
        loss = found[:, -1] if i == 0 else loss
        gc.collect()  # Bergson's hooks and the model hold each other
    return np.asarray(total, np.float32), loss


def _score(job: Job, model: str, work: Path) -> np.ndarray:
    """Return float32 [rows, queries or 1, and the loss]; whole steps and shards of an earlier run are taken over.

    Of several processes the first takes what is taken once, and each makes its share of the shards; the first returns them all.
    """
    from safetensors.torch import load_file

    from playpen.gradients import Scoring, settings

    work.mkdir(parents=True, exist_ok=True)
    with _timed("load", job.seconds):
        todo = _Pass(*_methods(job, model, work), work)
    check_lengths(job.rows, todo.taking.model)
    check_lengths(job.queries, todo.taking.model)
    with _timed("preconditioner", job.seconds):
        processes.first_before_others(lambda: _fit(job, todo))
    with _timed("queries", job.seconds):
        processes.first_before_others(lambda: _write_query_gradients(job, todo))
        scoring = Scoring(todo.taking, todo.comparing, load_file(todo.queries))
    files = {start: work / f"shard-{start:08d}.npy" for start in range(0, len(job.rows), SHARD)}
    with _timed("rows", job.seconds), _bar(job, model) as bar:
        for start in list(files)[processes.rank() :: processes.count()]:
            _shard(scoring, job.rows[start : start + SHARD], files[start], bar)
        processes.wait_for_all()
    job.settings.update(settings(todo.taking, todo.comparing))
    return np.concatenate([np.load(file) for file in files.values()]) if processes.is_first() else np.zeros(0)


def _methods(job: Job, model: str, work: Path) -> "tuple[Taking, Comparing]":
    from playpen.gradients import Comparing, Taking, open_adapter

    c = job.config
    moments = None if c.moments == "none" else read_moments(model)
    opened = open_adapter(model, job.machine)
    taking = Taking(opened, job.machine, c.loss_reduction == "mean", c.projection_dim, c.seed, moments, c.moments == "adam")
    folder = None if c.preconditioner == "none" else work / "preconditioner"
    # The nearest query of several models is that of their mean, so it is known at the end only.
    apart = c.per_query or (c.aggregation == "nearest" and len(c.models) > 1)
    return taking, Comparing(c.unit_normalize, "none" if apart else c.aggregation, folder, c.damping)


def _fit(job: Job, todo: _Pass) -> None:
    """Fit the preconditioner, if one is asked for and none is there."""
    from playpen.gradients import FIT

    folder = todo.comparing.preconditioner
    if folder is not None and not folder.exists():
        rows = job.queries if job.config.preconditioner_rows == "query" else job.rows
        FIT[job.config.preconditioner](todo.taking, rows, todo.work / "fitting")
        (todo.work / "fitting").rename(folder)


def _write_query_gradients(job: Job, todo: _Pass) -> None:
    """Write the queries' gradients, unless they are there from an earlier run."""
    from safetensors.torch import save_file

    from playpen.gradients import query_gradients

    if not todo.queries.exists():
        part = todo.queries.with_suffix(".part")
        save_file(query_gradients(todo.taking, todo.comparing, job.queries), part)
        part.rename(todo.queries)


def _shard(scoring: Any, rows: pd.DataFrame, file: Path, bar: tqdm) -> None:
    """Write float32 [rows, queries or 1, and the loss] of some rows, unless they are there from an earlier run."""
    if not file.exists():
        part = file.with_suffix(".part")
        with part.open("wb") as handle:
            np.save(handle, np.column_stack(scoring(rows, bar)))
        part.rename(file)
    else:
        bar.update(int(rows["num_tokens"].sum()))


def _bar(job: Job, model: str) -> tqdm:
    total, models = int(job.rows["num_tokens"].sum()) // processes.count(), job.config.models
    which = f" {models.index(model) + 1}/{len(models)}" if len(models) > 1 else ""
    return tqdm(total=total, desc=f"scoring {job.config.split}{which}", unit="token", disable=None, mininterval=1)


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = round(seconds.get(step, 0.0) + time.perf_counter() - started, 3)


def _check_scores(score: np.ndarray, job: Job, model: str) -> None:
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
