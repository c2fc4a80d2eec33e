"""Multiple-choice tasks by lm-eval, scored item by item.

Tasks, prompts and metrics are lm-eval's. Two things are ours, so that a benchmark sees a model as training did: under
a chat template an item's tokens are those of `chat.encode`, split exactly where the answer starts (lm-eval would count
the line break before it to the answer), and log-likelihoods come from `losses.row_losses`, which makes logits only
where an answer is. A correct choice has the greatest summed log-likelihood, `correct_norm` the greatest per character.
"""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from playpen import processes
from playpen.chat import IGNORE
from playpen.choice_items import read_items, task_files
from playpen.config import PlaypenError, did_you_mean
from playpen.losses import row_losses
from playpen.machine import Machine

logging.getLogger("lm_eval").setLevel(logging.ERROR)

Benchmarks = dict[str, list[Any]]
"""Tasks by the name they were asked for: a group, as mmlu, has several."""


@dataclass(frozen=True)
class Asking:
    """How the items are put to a model."""

    limit: int | None
    """First items of each task; None asks all."""
    num_fewshot: int
    """Solved examples before each item."""
    chat: bool
    """Whether prompts go through the tokenizer's chat template."""
    seed: int
    """Seed of the choice of solved examples."""


Hugging: Any = HFLM  # lm-eval's decorator hides the type


class ChoiceModel(Hugging):
    """A model as lm-eval asks it, in tokens that equal training's."""

    def __init__(self, model: Any, tokenizer: Any, chat: bool, machine: Machine) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer)
        self.chat, self.machine, self.terminal = chat, machine, sys.stderr
        self.sizes = {"tokens": 0, "labels": 0}
        """Tokens asked so far, and those of them whose likelihood was asked for."""
        self.truncated: set[tuple[str, str]] = set()
        """The (prompt, choice) pairs that lost their beginning because the model's context is shorter."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not self.chat:
            return super()._encode_pair(context, continuation)
        encoded = self.tokenizer(context + continuation, add_special_tokens=False, return_offsets_mapping=True)
        border = sum(start < len(context) for start, _ in encoded["offset_mapping"])
        return encoded["input_ids"][:border], encoded["input_ids"][border:]

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None) -> Any:
        """Return (log-likelihood, whether greedy) of each request; no multiple-choice accuracy asks for the second."""
        rows, labels = [], []
        for pair, context, answer in requests:
            if len(context) + len(answer) > self.max_length:
                self.truncated.add(pair)
            rows.append((context + answer)[-self.max_length :])
            labels.append(([IGNORE] * len(context) + answer)[-self.max_length :])
        with redirect_stderr(self.terminal):  # its progress is worth seeing, lm-eval's is not
            nats = processes.dealt(
                len(rows),
                lambda mine: row_losses(self.model, [rows[i] for i in mine], [labels[i] for i in mine], self.machine),
            )
        counts = [len(row) - 1 - row[1:].count(IGNORE) for row in labels]
        self.sizes["tokens"] += sum(map(len, rows))
        self.sizes["labels"] += sum(counts)
        return [(-float(mean) * count, False) for mean, count in zip(nats, counts, strict=True)]


def local_task(file: Path) -> Task:
    """Return the lm-eval task of a local file; the prompt is the user's turn, a choice the assistant's."""
    items = read_items(file)
    return ConfigurableTask(
        config={
            "task": file.stem,
            "custom_dataset": lambda **_: {"test": Dataset.from_list(items)},
            "test_split": "test",
            "fewshot_split": "test",  # lm-eval leaves the item that is asked out of its own examples
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
        }
    )


def local_tasks(data: Path, names: tuple[str, ...] | None) -> Benchmarks:
    """Return the tasks a data artifact holds under `tasks/`: those named, or all."""
    return {name: [local_task(file)] for name, file in task_files(data, names).items()}


def named_tasks(names: tuple[str, ...]) -> Benchmarks:
    """Return lm-eval's own tasks or groups of tasks; their data come from the hub."""
    if not names:
        return {}
    with quiet():
        manager = TaskManager()  # reads 15,000 files: about 5 s
    for name in names:
        if name not in manager.all_tasks:
            raise PlaypenError(f"lm-eval has no task '{name}'{_near(name, manager.all_tasks)}")
    return {name: _named_task(name, manager) for name in names}


def _near(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return hint if len(hint) < 200 else "; `lm-eval ls tasks` lists them"


def _named_task(name: str, manager: TaskManager) -> list[Any]:
    try:
        with quiet():
            found: list[Any] = list(manager.load([name])["tasks"].values())
    except Exception as error:  # the hub, the disk, a missing package: lm-eval passes on whatever its data loader meets
        why = str(error).strip().split("\n")[0][:160]
        raise PlaypenError(f"task '{name}' could not be loaded ({type(error).__name__}: {why})") from error
    for task in found:
        if task.get_config("output_type") != "multiple_choice" or "acc" not in task.aggregation():
            raise PlaypenError(
                f"task '{task.task_name}' is not multiple choice with one right answer (it is {task.get_config('output_type')}, "
                f"measured by {', '.join(task.aggregation())}); evaluate compares models item by item, right or wrong"
            )
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's progress bars off the terminal."""
    with redirect_stderr(io.StringIO()):
        yield


def ask(
    model: Any, tokenizer: Any, benchmarks: Benchmarks, asking: Asking, machine: Machine
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Ask a model every item; return one row each, the same rows in the same order for every model, and the tokens and labels asked.

    Columns: `task`, as it was asked for; `subtask`, lm-eval's name; `item`, counted within the task; `correct`; `correct_norm`, null
    where lm-eval does not measure it; `margin`, log-likelihood of the right choice minus that of the best wrong one, in nats;
    `truncated`, whether the model's context was too short for a choice.
    """
    if asking.chat and not tokenizer.chat_template:
        raise PlaypenError("the tokenizer has no chat template; set apply_chat_template to false, or load the model with one")
    tasks = {task.task_name: task for group in benchmarks.values() for task in group}
    for task in tasks.values():
        if task.get_config("num_fewshot") != 0:  # as lm-eval does: a task that says 0 brings its own examples or bears none
            task.set_config("num_fewshot", asking.num_fewshot)
        task.set_fewshot_seed(asking.seed)
    asked = ChoiceModel(model, tokenizer, asking.chat, machine)
    with quiet():
        results: Any = evaluate(
            lm=asked,
            task_dict={"tasks": tasks},
            limit=asking.limit,
            bootstrap_iters=0,
            apply_chat_template=asking.chat,
            fewshot_as_multiturn=asking.chat,
        )
    samples = results["samples"]
    tables = [_table(name, group, samples, asked.truncated) for name, group in benchmarks.items()]
    return pd.concat(tables, ignore_index=True), asked.sizes


def _table(name: str, group: list[Any], samples: dict[str, list[Any]], truncated: set[tuple[str, str]]) -> pd.DataFrame:
    rows = [
        {
            "task": name,
            "subtask": task.task_name,
            "correct": bool(sample["acc"]),
            "correct_norm": bool(sample["acc_norm"]) if "acc_norm" in sample else None,
            "margin": _margin(task, sample),
            "truncated": any(tuple(pair) in truncated for pair in sample["arguments"]),
        }
        for task in group
        for sample in sorted(samples[task.task_name], key=lambda sample: sample["doc_id"])
    ]
    table = pd.DataFrame(rows).astype({"correct_norm": "boolean", "margin": np.float32})
    table.insert(2, "item", np.arange(len(table), dtype=np.int32))
    return table


def _margin(task: Any, sample: dict[str, Any]) -> float:
    """Return by how many nats the right choice, or the best of several right ones, leads the best wrong one."""
    choices = task.doc_to_choice(sample["doc"])
    right = task.doc_to_text(sample["doc"]) if task.multiple_input else task.doc_to_target(sample["doc"])
    rights = [choices.index(r) if isinstance(r, str) else r for r in (right if isinstance(right, list) else [right])]
    nats = np.array([pair[0] for pair in sample["filtered_resps"]][: len(choices)])
    return float(nats[rights].max() - np.delete(nats, rights).max())
