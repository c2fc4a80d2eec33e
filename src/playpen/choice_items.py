"""Multiple-choice items of a data artifact: read, put into tokens, and judged by the likelihoods of their choices.

Tokens and judgement are those of `benchmarks`, which asks through lm-eval: under a chat template, the same items of the same model
have the same answers there. What is here needs no lm-eval, so that hundreds of short trainings can each be asked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from playpen.chat import count_labels, encode, without_end_of_turn
from playpen.config import PlaypenError, did_you_mean
from playpen.progress import tqdm

KEY = ["task", "item"]
"""What names an item; items are counted within a task, from 0."""


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of items as rows of tokens, those of an item one after the other."""

    ids: list[list[int]]
    labels: list[list[int]]
    """Unshifted, -100 where no token of the choice is: the prompt, and what ends the turn."""
    table: pd.DataFrame
    """A row a choice: `task`, `item`, `right` (whether it is the right one), `tokens` and `characters` of the choice."""


def task_files(data: Path, names: Sequence[str] | None) -> dict[str, Path]:
    """Return the files of the tasks that a data artifact holds under `tasks/`, by name: those named, or all."""
    files = {file.stem: file for file in sorted((data / "tasks").glob("*.jsonl"))}
    for name in names or ():
        if name not in files:
            raise PlaypenError(f"{data} has no task '{name}'{did_you_mean(name, list(files)) if files else '; it has none'}")
    return files if names is None else {name: files[name] for name in names}


def read_items(file: Path) -> list[dict[str, Any]]:
    """Read a local task, JSON lines of {"prompt", "choices", "answer"}; a bad line is named."""
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines() would cut within a text at U+2028
    items = [_item(f"{file}, line {number}", line) for number, line in enumerate(lines, 1) if line or len(lines) > 1]
    if not items:
        raise PlaypenError(f"{file} holds no items")
    return items


def _item(where: str, line: str) -> dict[str, Any]:
    """Return the item of a line, its choices without spaces around them."""
    try:
        found = json.loads(line)
        item = {"prompt": found["prompt"], "choices": [c.strip() for c in found["choices"]], "answer": found["answer"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PlaypenError(f'{where}: expected {{"prompt", "choices", "answer"}}, found {line[:80]!r}') from None
    choices, answer = item["choices"], item["answer"]
    fits = isinstance(found["choices"], list) and len(set(choices)) == len(choices) > 1 and all(choices)
    placed = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices)
    if not (isinstance(item["prompt"], str) and fits and placed):
        raise PlaypenError(
            f"{where}: it takes a prompt, two or more choices with text, all different, and the place of the right one, from 0"
        )
    return item


def encode_choices(files: dict[str, Path], limit: int | None, tokenizer: Any, longest: int | None) -> Choices:
    """Return the choices of the first `limit` items of each task (None: of all), the prompt as the user's turn, a choice as the assistant's.

    Raises PlaypenError, naming the line, for an item with a choice that makes more than `longest` tokens (None: any number).
    """
    ids, labels, rows = [], [], []
    asked = [(task, n, item) for task, file in files.items() for n, item in enumerate(read_items(file)[:limit])]
    for task, number, item in tqdm(asked, desc="items", unit="item", disable=None):
        for place, choice in enumerate(item["choices"]):
            chat = [{"role": "user", "content": item["prompt"]}, {"role": "assistant", "content": choice}]
            example = encode(chat, tokenizer)
            if longest and len(example.input_ids) > longest:
                raise PlaypenError(
                    f"{files[task]}, line {number + 1}: a choice makes {len(example.input_ids)} tokens, the model reads {longest}; "
                    "name the other tasks in local_tasks, or ask only the lines before by limit"
                )
            ids.append(example.input_ids)
            labels.append(without_end_of_turn(example.labels, tokenizer))
            sizes = {"tokens": count_labels(labels[-1]), "characters": len(choice)}
            rows.append({"task": task, "item": number, "right": place == item["answer"], **sizes})
    return Choices(ids, labels, pd.DataFrame(rows, columns=[*KEY, "right", "tokens", "characters"]))


def judge(nats: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """Return how each item was answered: task, item, correct, correct_norm, margin; in the order of `table`, that of `Choices`.

    `nats`, [choices], are mean nats a token of each choice. Correct is an item whose right choice has the greatest summed
    log-likelihood, by `correct_norm` the greatest per character, of equal ones the first. `margin`, in nats, is by how much the sum of
    the right choice leads that of the best wrong one.
    """
    if table.empty:
        return pd.DataFrame(columns=[*KEY, "correct", "correct_norm", "margin"])
    summed = -np.asarray(nats, np.float64) * table["tokens"].to_numpy()
    found = table.assign(summed=summed, norm=summed / table["characters"].to_numpy())
    groups = found.groupby(KEY, sort=False)
    best = {"correct": groups["summed"].idxmax(), "correct_norm": groups["norm"].idxmax()}
    right = found[found["right"]].set_index(KEY)["summed"]
    wrong = found[~found["right"]].groupby(KEY, sort=False)["summed"].max()
    judged = pd.DataFrame({name: found.loc[place, "right"].to_numpy() for name, place in best.items()}, index=right.index)
    return judged.assign(margin=(right - wrong).astype(np.float32)).reset_index()
