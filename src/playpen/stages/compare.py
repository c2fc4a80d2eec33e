"""Train the arms of a comparison that was planned before, and say how far each rival is from the subject.

    playpen compare --plan runs/world/plan --model runs/world/base --data runs/world/data --init runs/world/first

Question: does training on the subject's pick lower the held-out target loss against every rival, at the same number of tokens?

Everything that could shape the outcome stands in the plan (`preregister`): the rows of each arm, the seeds, the settings, the test.
Each arm is trained once a seed and budget from the same model, and the loss of every row of the `test` split is measured, in
nats a token of the answers' own. Arms are paired by seed and row. The effect is subject minus rival (below 0, the subject is better)
with its 95 % interval over seeds and rows; p is the largest of three: sign-flips over seeds and over rows, so that neither
a lucky training nor a few lucky rows make a claim, and Student's t with the error of both together; it is adjusted over the plan's family and all budgets (Holm 1979).
Each trained arm is also asked the multiple-choice items of the data, paired by seed and item: a secondary endpoint, on which no claim rests.

Writes `losses` (budget, arm, seed, row_id, loss), `effects`, `items` and `item_effects` (where the data have items), `arms` (what each trained on),
`metrics.json`, `index.html` and `report.md`. `--machine.workers 2` trains two arms at a time. A killed run goes on with the training that it was at.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import PositiveInt

from playpen.config import Input, PlaypenError, config
from playpen.tables import read_table, write_json, write_table

if TYPE_CHECKING:
    from playpen.choice_items import Choices
    from playpen.comparison import Training
    from playpen.machine import Machine
    from playpen.retraining import Task
    from playpen.stages import preregister

VERSION = 3
RESUMABLE = True


@config
class Config:
    """Train the arms of a planned comparison."""

    plan: Input
    """The plan, of preregister."""
    model: Input
    """The base model that the plan names."""
    data: Input
    """The data that the plan names."""
    init: Input | None = None
    """The adapter that the plan names, if it names one."""
    local_tasks: tuple[str, ...] | None = None
    """Tasks of the data whose items each trained arm is asked; all of them when left out, none when empty."""
    limit: PositiveInt | None = None
    """First items of each task; all when left out."""
    title: str = "Comparison"
    """Heading of the page."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Train what is not there yet, then write the tables and the page."""
    from playpen.comparison import effects, item_effects, numbers
    from playpen.comparison_page import write_page

    plan = read_plan(config)
    losses, items, took = train_arms(config, plan, out, machine)
    write_table(out / "losses.parquet", losses)
    found = effects(losses, plan)
    write_table(out / "effects.parquet", found)
    asked = item_effects(items, plan)
    if len(items):
        write_table(out / "items.parquet", items)
        write_table(out / "item_effects.parquet", asked)
    sizes = arm_sizes(config, plan)
    write_table(out / "arms.parquet", sizes.reset_index())
    write_json(out / "metrics.json", {**numbers(found, asked, losses, plan), **took})
    write_page(out, config, plan, found, asked, losses, sizes)
    shutil.rmtree(out / "work", ignore_errors=True)


def read_plan(config: Config) -> "preregister.Config":
    """Return the plan; raises when it is no plan, or of another model, data or adapter."""
    from playpen import artifact
    from playpen.config import make_config
    from playpen.stages import preregister

    manifest = artifact.read_manifest(config.plan)
    if manifest["kind"] != "preregister":
        raise PlaypenError(f"compare: {config.plan} is an artifact of {manifest['kind']}, expected one of preregister")
    if wrong := artifact.verify(Path(config.plan)):
        raise PlaypenError(
            f"compare: the plan {config.plan} is no longer what was planned ({wrong[0]}); make it again, under another seed"
        )
    for name in ("model", "data", "init"):
        planned, given = manifest["config"][name], getattr(config, name)
        found = None if given is None else artifact.read_manifest(given)["fingerprint"]
        if planned != found:
            raise PlaypenError(
                f"compare: the plan {config.plan} names {name} {planned}, but {given} is {found}; give the planned one"
            )
    return make_config(preregister.Config, manifest["config"], f"compare: {config.plan}")


def train_arms(
    config: Config, plan: "preregister.Config", out: Path, machine: "Machine"
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return the tables `losses` and `items`; and the `seconds` that this run trained, `tokens` and `labels` of all trainings."""
    from playpen.comparison import trainings
    from playpen.progress import tqdm
    from playpen.retraining import spent, train_all

    rows, targets = _rows(config, plan), read_table(config.data, "test", ["row_id", "input_ids", "labels"])
    choices = _choices(config)
    task = _task(config, plan, rows, targets, choices, machine)
    (out / "work").mkdir(exist_ok=True)
    todo = trainings(plan, read_table(config.plan, "choices"), rows["row_id"].to_numpy(str), out / "work")
    every = {each.job.file: each.job for each in todo}  # an arm that no budget changes stands in each
    jobs, started = [job for file, job in every.items() if not file.exists()], time.monotonic()
    with tqdm(total=len(every), initial=len(every) - len(jobs), desc="compare", unit="training", disable=None) as bar:
        for _ in train_all(task, jobs):
            bar.update()
    took = {"seconds": round(time.monotonic() - started, 2), **spent(task, list(every.values()))}
    losses, items = zip(*(_measured(each, targets["row_id"], choices) for each in todo), strict=True)
    return _stacked(losses), _stacked(items), took


def _choices(config: Config) -> "Choices":
    """Return the choices of the items that are to be asked; raises for one that the model cannot read whole."""
    from playpen.choice_items import encode_choices, task_files
    from playpen.models import load_tokenizer, read_context

    files = task_files(Path(config.data), config.local_tasks)
    return encode_choices(files, config.limit, load_tokenizer(config.model), read_context(config.model))


def _measured(training: "Training", row_ids: pd.Series, choices: "Choices") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what one training gave: its rows of `losses` and of `items`."""
    from playpen.choice_items import judge

    nats = np.load(training.job.file)
    parts = pd.DataFrame({"row_id": row_ids, "loss": nats[: len(row_ids)]}), judge(nats[len(row_ids) :], choices.table)
    for part in parts:
        for place, value in enumerate((training.budget, training.arm, training.job.seed)):
            part.insert(place, ("budget", "arm", "seed")[place], value)
    return parts


def _stacked(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True).astype({"budget": "int64", "seed": "int32"})


def _rows(config: Config, plan: "preregister.Config") -> pd.DataFrame:
    from playpen.tables import read_splits

    columns = ["row_id", "source", "input_ids", "labels", "num_tokens", "num_labels"]
    return read_splits(config.data, plan.splits, columns).sort_values("row_id", ignore_index=True)


def _task(
    config: Config,
    plan: "preregister.Config",
    rows: pd.DataFrame,
    targets: pd.DataFrame,
    choices: "Choices",
    machine: "Machine",
) -> "Task":
    """Return what all trainings share; the targets' labels are the answers' own tokens, as in `evaluate`."""
    from playpen.chat import without_end_of_turn
    from playpen.models import load_tokenizer
    from playpen.retraining import Rows, Task
    from playpen.stages import finetune, retrain

    tokenizer = load_tokenizer(config.model)
    words = [without_end_of_turn(labels, tokenizer) for labels in targets["labels"]]
    named = {"model": config.model, "data": config.data, "init": config.init}
    settings = finetune.Config(**{name: named.get(name, getattr(plan, name)) for name in retrain.TRAINING})
    trained, measured = Rows(rows["input_ids"].tolist(), rows["labels"].tolist()), Rows(targets["input_ids"].tolist(), words)
    return Task(settings, trained, measured, machine, Rows(choices.ids, choices.labels))


def arm_sizes(config: Config, plan: "preregister.Config") -> pd.DataFrame:
    """Return rows, tokens, labels and optimiser steps of each arm, the means over its seeds: indexed by (budget, arm)."""
    from playpen.stages import preregister

    return preregister.sizes(plan, read_table(config.plan, "choices"), _rows(config, plan)).set_index(["budget", "arm"])
