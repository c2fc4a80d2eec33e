"""Train on many subsets of the rows, to know what leaving rows out really does to the target loss.

Question: which subsets of the rows give the lower loss on held-out targets, when one trains on them and looks?

    playpen retrain --model runs/demo/base --data runs/demo/data --init runs/demo/first --rows 500 keep-half --subsets 100

One bank serves every scorer that `validate` judges, for no score enters it. Forms:

- `keep-half`: random subsets of half of the rows, uniformly without replacement (LDS as in Park et al. 2023, arXiv
  2303.14186, section 2).
- `leave-out`: the rows in disjoint random chunks, each left out once, or independent draws of a share.
- `drop`: without the top 1 %, 5 % and 20 % of each of some scores, and without as many random rows (tail removal).

Each subset is trained once a seed, all from the same start, with `finetune`'s settings. Writes `subsets` (subset, row_id:
the rows trained on), `designs` (subset, kind, scores, share, rows), `losses` (subset, seed, row_id of the target row, loss:
mean nats a token of the answer, as `evaluate` measures it) and `metrics.json`. `--machine.workers 2` uses two cores.
"""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt, model_validator
from tyro.conf import Suppress

from playpen.banks import Design, top_rows, write_bank
from playpen.config import Input, PlaypenError, config
from playpen.lora_settings import SETTINGS, LoraSettings
from playpen.scored_rows import read_scores
from playpen.tables import check_row_ids, read_table, write_json

if TYPE_CHECKING:
    from playpen.machine import Machine
    from playpen.retraining import Job, Task

VERSION = 2
RESUMABLE = True
CONTROLS = ("random", "length")
"""Names that stand for the controls, which no scores may have."""
TRAINING = ("model", "data", "init", *SETTINGS)
"""Fields that are `finetune`'s."""

Share = Annotated[float, Field(gt=0, lt=1)]


@config
class KeepHalf:
    """Keep a random half (or another share) of the rows, many times."""

    kind: Suppress[Literal["keep_half"]] = "keep_half"
    subsets: Annotated[int, Field(ge=3)] = 100
    """How many subsets; the interval of an LDS shrinks with their root."""
    fraction: Share = 0.5
    """Share of the rows that each keeps."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> list[Design]:
        """Draw the subsets, each uniformly without replacement."""
        size = _some_of(len(rows), self.fraction, "fraction")
        return [
            Design("drawn", "", 1 - self.fraction, _mask(rng.permutation(len(rows))[:size], len(rows)))
            for _ in range(self.subsets)
        ]


@config
class LeaveOut:
    """Leave a few rows out, many times; the subset of all rows is there too."""

    kind: Suppress[Literal["leave_out"]] = "leave_out"
    subsets: Annotated[int, Field(ge=3)] = 100
    """How many subsets."""
    fraction: Share | None = None
    """Share of the rows that each leaves out, drawn anew each time; left out itself, every row is left out exactly once."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> list[Design]:
        """Draw what is left out: chunks of a random partition, or independent draws."""
        if self.fraction is not None:
            size = _some_of(len(rows), self.fraction, "fraction")
            left = [rng.permutation(len(rows))[:size] for _ in range(self.subsets)]
        elif self.subsets > len(rows):
            raise PlaypenError(f"leave_out: {len(rows)} rows cannot be parted into {self.subsets} chunks; lower subsets")
        else:
            left = np.array_split(rng.permutation(len(rows)), self.subsets)
        drawn = [Design("drawn", "", len(out) / len(rows), ~_mask(out, len(rows))) for out in left]
        return [_all(len(rows)), *drawn]


@config
class Drop:
    """Leave the top rows of some scores out, the longest answers, and as many random rows; the subset of all rows is there too."""

    kind: Suppress[Literal["drop"]] = "drop"
    scores: Annotated[dict[str, Input], Field(min_length=1)]
    """Scores by the name that tables will call them: artifacts of attribute, score or predict that cover the rows."""
    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.01, 0.05, 0.2)
    """Shares of the rows to leave out."""
    random: Annotated[int, Field(ge=3)] = 8
    """Random removals of each share: what a top removal is held against. More give a narrower interval."""

    @model_validator(mode="after")
    def _check(self) -> "Drop":
        if taken := sorted(set(CONTROLS) & set(self.scores)):
            raise ValueError(f"scores may not be called '{taken[0]}', which is a control that is always there")
        if len(set(self.shares)) < len(self.shares):
            raise ValueError("shares holds something twice")
        return self

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> list[Design]:
        """Return all rows, then for each share the top removals and the random ones."""
        known = {name: read_scores(path, rows, f"drop.scores.{name}") for name, path in self.scores.items()}
        known["length"] = rows["num_labels"].to_numpy(float)
        ids, found = rows["row_id"].to_numpy(str), [_all(len(rows))]
        for share in self.shares:
            size = _some_of(len(rows), share, "shares")
            found += [Design("top", name, share, ~top_rows(ids, values, size)) for name, values in known.items()]
            draws = (rng.permutation(len(rows))[:size] for _ in range(self.random))
            found += [Design("random", "", share, ~_mask(out, len(rows))) for out in draws]
        return found


def _mask(places: np.ndarray, rows: int) -> np.ndarray:
    found = np.zeros(rows, bool)
    found[places] = True
    return found


def _all(rows: int) -> Design:
    return Design("all", "", 0.0, np.ones(rows, bool))


def _some_of(rows: int, share: float, field: str) -> int:
    """Return a share of the rows in whole rows, when that is neither none nor all of them."""
    if not 0 < (size := round(share * rows)) < rows:
        raise PlaypenError(f"retrain: {field} {share:g} of {rows} rows is {size} rows; take more rows or another share")
    return size


@config
class Config(LoraSettings):
    """Train on many subsets of the rows, all from the same start."""

    model: Input
    """Base model: an artifact of load-model or pretrain."""
    data: Input
    """Artifact of build-data, made with this model's tokenizer."""
    init: Input | None = None
    """An adapter on the same base that every training starts from; a new one when left out."""
    split: Literal["pool", "train", "large_pool"] = "pool"
    """Rows that subsets are drawn from."""
    rows: PositiveInt | None = None
    """So many of them, drawn at random; all when left out. The time grows with it, and so does what there is to tell apart."""
    targets: Literal["test", "query"] = "test"
    """Rows whose loss is measured: held-out targets, or the very ones that attribution aims at."""
    target_rows: PositiveInt | None = None
    """So many of them, drawn at random; all when left out."""
    form: Annotated[KeepHalf | LeaveOut | Drop, Field(discriminator="kind")] = KeepHalf()
    """Which subsets."""
    seeds: PositiveInt = 2
    """Trainings of each subset, whose losses are averaged; two are the fewest that tell the noise of training."""
    seed: int = 0
    """Seed of what is drawn; trainings are seeded by it and the numbers after it."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the tables of the bank and its numbers; every finished training is kept under `work/` until all are."""
    from playpen.models import check_tokens
    from playpen.progress import tqdm
    from playpen.retraining import spent, train_all

    check_tokens(config.data, config.model)
    rows = read_rows(config, config.split, config.rows, 0)
    targets = read_rows(config, config.targets, config.target_rows, 1)
    designs = config.form(rows, np.random.default_rng([config.seed, 2]))
    seeds = [config.seed + number for number in range(config.seeds)]
    (out / "work").mkdir(exist_ok=True)
    jobs = make_jobs(out / "work", designs, seeds)
    task = make_task(config, rows, targets, machine)
    todo, started = [job for job in jobs if not job.file.exists()], time.monotonic()
    with tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="retrain", unit="training", disable=None) as bar:
        for _ in train_all(task, todo):
            bar.update()
    seconds = time.monotonic() - started
    losses = np.stack([np.load(job.file) for job in jobs]).astype(float).reshape(len(designs), len(seeds), -1)
    write_bank(out, rows["row_id"].to_numpy(str), designs, seeds, targets["row_id"].to_numpy(str), losses)
    made = {"trainings_made": len(todo), "seconds": round(seconds, 2), **spent(task, jobs)}
    write_json(out / "metrics.json", {**numbers(config, rows, designs, losses), **made})
    shutil.rmtree(out / "work")


def read_rows(config: Config, split: str, wanted: int | None, stream: int) -> pd.DataFrame:
    """Return rows of a split by ascending row_id: all, or `wanted` of them drawn at random."""
    where = f"{split} of {config.data}"
    rows = read_table(config.data, split, ["row_id", "input_ids", "labels", "num_tokens", "num_labels"])
    check_row_ids(rows, where)
    if wanted is not None and wanted > len(rows):
        raise PlaypenError(f"retrain: {where} has {len(rows)} rows, {wanted} are wanted; lower {('rows', 'target_rows')[stream]}")
    if rows.empty or (rows["num_labels"] < 1).any():
        what = f"has no rows to {('train on', 'measure')[stream]}" if rows.empty else "has a row without a label; leave it out"
        raise PlaypenError(f"retrain: {where} {what}")
    rows = rows.sort_values("row_id", ignore_index=True)
    if wanted is None:
        return rows
    chosen = np.random.default_rng([config.seed, stream]).permutation(len(rows))[:wanted]
    return rows.iloc[np.sort(chosen)].reset_index(drop=True)


def make_jobs(work: Path, designs: list[Design], seeds: list[int]) -> "list[Job]":
    """Return one training a subset and seed."""
    from playpen.retraining import Job

    kept = [np.flatnonzero(design.kept) for design in designs]
    return [Job(work / f"{i:05d}-{seed}.npy", rows, seed) for i, rows in enumerate(kept) for seed in seeds]


def make_task(config: Config, rows: pd.DataFrame, targets: pd.DataFrame, machine: "Machine") -> "Task":
    """Return what the trainings share; the targets' labels are the answers' own tokens, as in `evaluate`."""
    from playpen.chat import without_end_of_turn
    from playpen.models import load_tokenizer
    from playpen.retraining import Rows, Task
    from playpen.stages import finetune

    tokenizer = load_tokenizer(config.model)
    words = [without_end_of_turn(labels, tokenizer) for labels in targets["labels"]]
    settings = finetune.Config(**{name: getattr(config, name) for name in TRAINING})
    trained, measured = Rows(rows["input_ids"].tolist(), rows["labels"].tolist()), Rows(targets["input_ids"].tolist(), words)
    return Task(settings, trained, measured, machine)


def numbers(config: Config, rows: pd.DataFrame, designs: list[Design], losses: np.ndarray) -> dict[str, object]:
    """Return sizes, and how far subsets and seeds move the mean target loss, in nats a label (`losses` is [subsets, seeds, targets])."""
    kept = np.stack([design.kept for design in designs])
    mean = losses.mean(axis=2)
    within = float(np.sqrt(mean.var(axis=1, ddof=1).mean())) if mean.shape[1] > 1 else None
    sizes = {"rows": len(rows), "subsets": len(designs), "seeds": losses.shape[1], "targets": losses.shape[2]}
    seen = {
        "rows_a_training": float(kept.sum(1).mean()),
        "tokens_a_training": float((kept @ rows["num_tokens"].to_numpy()).mean()),
    }
    loss = {"mean": float(mean.mean()), "sd_subsets": float(mean.mean(axis=1).std(ddof=1)), "sd_seeds": within}
    return {"form": config.form.kind, **sizes, **seen, "trainings": len(designs) * losses.shape[1], "loss": loss}
