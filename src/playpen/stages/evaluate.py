"""Measure models: their loss on held-out target examples and their accuracy on multiple-choice tasks, item by item.

    playpen evaluate --models base runs/demo/base first runs/demo/first --data runs/demo/data --root runs/mine

Which arm is better, and by how much? All models answer the same items, so that two of them can be compared pair by pair.
The mean loss on held-out targets is the sharpest measure a small model gives; accuracy is what people quote. Tasks come
from the data artifact (`local_tasks`, no network) or from lm-eval (`tasks`, from the hub; `spec` is short for
arc_challenge, arc_easy, hellaswag, winogrande and mmlu). Prompts go through the model's chat template. Accuracies as in
lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness): `acc` counts the choice of the
greatest log-likelihood, `acc_norm` of the greatest per character.

Writes `losses.parquet` (model, row_id, task, loss, num_labels), `items.parquet` (model, task, subtask, item, correct,
correct_norm, margin, truncated) and `metrics.json`. A stopped run goes on after the last model that was finished.
"""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt

from playpen import processes
from playpen.config import Input, PlaypenError, config
from playpen.progress import tqdm
from playpen.tables import read_table, write_json, write_table

if TYPE_CHECKING:
    from playpen.benchmarks import Benchmarks
    from playpen.machine import Machine

VERSION = 2
RESUMABLE = True
DISTRIBUTED = True
SPEC_TASKS = ("arc_challenge", "arc_easy", "hellaswag", "winogrande", "mmlu")
"""The tasks that `spec` stands for."""


@config
class Config:
    """What to measure, of which models."""

    models: Annotated[dict[str, Input], Field(min_length=1)]
    """Models by the name that tables will call them: artifacts of pretrain, load-model or finetune."""
    data: Input
    """Data artifact with a `test` split and, for local tasks, items under `tasks/`."""
    losses: bool = True
    """Measure the loss on each row of the `test` split, in nats per supervised token; needs the models' own tokenizer."""
    local_tasks: tuple[str, ...] | None = None
    """Tasks of the data artifact to ask; all of them when left out, none when empty."""
    tasks: tuple[str, ...] = ()
    """Tasks or groups of lm-eval to ask as well, from the hub: multiple choice only; `spec` is short for the five named above."""
    limit: PositiveInt | None = None
    """First items of each task (of each member of a group); all when left out. Fewer is faster and less certain."""
    num_fewshot: NonNegativeInt = 0
    """Solved examples shown before each item, other items of the same task where it is local; more need a longer context."""
    apply_chat_template: bool = True
    """Put prompts as a user's turn in the chat template; off asks in plain text, as for models never trained on chats."""
    seed: int = 0
    """Seed of the choice of solved examples."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Measure one model after the other, then put their tables together."""
    benchmarks = _benchmarks(config)
    if not benchmarks and not config.losses:
        raise PlaypenError(f"nothing to measure: losses is off, tasks is empty and {config.data} holds no local task")
    test = _test_rows(config) if config.losses else None
    for name, model in tqdm(config.models.items(), desc="models", unit="model", disable=None):
        _measure(out / "parts" / quote(name, safe=""), name, model, test, benchmarks, config, machine)
    if not processes.is_first():
        return
    tables = {kind: _together(config, out, kind) for kind, there in (("losses", config.losses), ("items", benchmarks)) if there}
    for kind, table in tables.items():
        write_table(out / f"{kind}.parquet", table)
    sizes = {name: _sizes(out / "parts" / quote(name, safe=""), test) for name in config.models}
    spent = {what: {name: each[what] for name, each in sizes.items()} for what in ("tokens", "labels")}
    write_json(out / "metrics.json", {"models": {name: _metrics(name, tables) for name in config.models}, **spent})
    rmtree(out / "parts")


def _benchmarks(config: Config) -> "Benchmarks":
    """Return the tasks to ask, local ones first."""
    from playpen.benchmarks import local_tasks, named_tasks

    named = tuple(dict.fromkeys(task for name in config.tasks for task in (SPEC_TASKS if name == "spec" else (name,))))
    local = local_tasks(Path(config.data), config.local_tasks)
    if both := sorted(set(local) & set(named)):
        raise PlaypenError(f"task '{both[0]}' is named in local_tasks and in tasks; leave one of them out")
    return {**local, **named_tasks(named)}


def _test_rows(config: Config) -> pd.DataFrame:
    """Read the held-out targets, when they are in the tokens of every model."""
    from playpen.models import check_tokens

    for model in config.models.values():
        check_tokens(config.data, model)
    try:
        return read_table(config.data, "test", ["row_id", "input_ids", "labels", "num_labels", "task"])
    except PlaypenError as error:
        raise PlaypenError(f"{error}; set losses to false to measure tasks alone") from None


def _measure(
    part: Path, name: str, model: str, test: pd.DataFrame | None, benchmarks: "Benchmarks", config: Config, machine: "Machine"
) -> None:
    """Write the parts of one model that are not there; the rows are dealt out to the processes, of which the first writes."""
    from playpen.benchmarks import Asking, ask
    from playpen.chat import without_end_of_turn
    from playpen.losses import losses_of_parts
    from playpen.models import load_merged, load_tokenizer

    def of_rows(mine: list[int], ids: list[Any], parts: list[list[Any]]) -> np.ndarray:
        kept = [[part[i] for i in mine] for part in parts]
        return losses_of_parts(opened, [ids[i] for i in mine], kept[-1], kept, machine)

    def losses() -> pd.DataFrame:
        assert test is not None
        ids, labels = test["input_ids"].tolist(), test["labels"].tolist()
        words = [without_end_of_turn(row, tokenizer) for row in labels]
        found, whole = processes.dealt(len(ids), lambda mine: of_rows(mine, ids, [words, labels]))
        return test[["row_id", "task", "num_labels"]].assign(loss=found, loss_with_end=whole)

    def items() -> pd.DataFrame:
        asking = Asking(config.limit, config.num_fewshot, config.apply_chat_template, config.seed)
        table, sizes = ask(opened, tokenizer, benchmarks, asking, machine)
        if processes.is_first():
            part.mkdir(parents=True, exist_ok=True)
            write_json(part / "asked.json", sizes)
        return table

    wanted: dict[str, Callable[[], pd.DataFrame]] = {} if test is None else {"losses": losses}
    wanted |= {"items": items} if benchmarks else {}
    missing = processes.from_first(lambda: [kind for kind in wanted if not (part / f"{kind}.parquet").exists()])
    opened = load_merged(model, machine) if missing else None
    tokenizer = load_tokenizer(model)
    for kind in missing:
        table = wanted[kind]()
        table.insert(0, "model", name)
        if processes.is_first():
            write_table(part / f"{kind}.parquet", table)


def _sizes(part: Path, test: pd.DataFrame | None) -> dict[str, int]:
    """Return the tokens that a model read and the labels that it foretold: of the held-out rows and of the items."""
    from playpen.chat import count_labels

    asked = part / "asked.json"
    found = json.loads(asked.read_text()) if asked.exists() else {"tokens": 0, "labels": 0}
    if test is not None:
        found["tokens"] += int(test["input_ids"].map(len).sum())
        found["labels"] += sum(count_labels(row) for row in test["labels"])
    return found


def _together(config: Config, out: Path, kind: str) -> pd.DataFrame:
    """Return the rows of all models, in the order of the config."""
    return pd.concat([read_table(out / "parts" / quote(name, safe=""), kind) for name in config.models], ignore_index=True)


def _metrics(model: str, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the means of one model, over rows and over items, with their standard errors."""
    mine = {kind: table[table["model"] == model] for kind, table in tables.items()}
    found: dict[str, Any] = {}
    if "losses" in mine:
        rows = mine["losses"]
        found |= {**_mean("loss", rows["loss"]), "rows": len(rows)}
        found |= {f"loss_{task}": _mean("loss", group)["loss"] for task, group in rows.groupby("task")["loss"]}
    if "items" in mine:
        found["tasks"] = {task: _accuracy(group) for task, group in mine["items"].groupby("task")}  # type: ignore[arg-type]
    return found


def _accuracy(items: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {**_mean("acc", items["correct"]), "n": len(items)}
    found["margin"] = _mean("margin", items["margin"])["margin"]
    if "correct_norm" in items.dropna(axis="columns"):
        found |= _mean("acc_norm", items["correct_norm"])
    if cut := int(np.count_nonzero(items["truncated"])):
        found["truncated"] = cut
    return found


def _mean(name: str, values: Any) -> dict[str, float | None]:
    """Return a mean and its standard error, null for a single value."""
    numbers = np.asarray(values, np.float64)
    error = numbers.std(ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else None
    return {name: float(numbers.mean()), f"{name}_stderr": None if error is None else float(error)}
