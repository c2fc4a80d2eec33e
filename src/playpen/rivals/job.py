"""What every rival is given: the rows, the queries, the machine, and a place for unfinished work.

A rival is a frozen config; called with a `Job` it returns one number a row, float64 [rows] in the order of the split, higher =
more helpful. NaN says that the row has nothing to be scored by: it comes last.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.tables import read_table, table_files, unfinished

Aggregate = Literal["mean", "max"]
"""How a row's similarities to the queries become one number."""

Part = Literal["chat", "prompt", "answer"]
"""Turns whose text counts: all of them, those before the answers, or the assistant's."""


@dataclass(frozen=True)
class Job:
    """One run of a rival, and what it notes down for `metrics.json`."""

    data: str
    split: str
    machine: Machine
    seed: int
    out: Path
    seconds: dict[str, float] = field(default_factory=lambda: {"open": 0.0, "pool": 0.0, "query": 0.0})
    tokens: dict[str, int] = field(default_factory=lambda: {"pool": 0, "query": 0})
    """Tokens that went through a model, without padding; `pool` stands for the split that is scored."""
    facts: dict[str, Any] = field(default_factory=lambda: {"queries": 0})
    per_query: bool = False
    """Whether what a rival finds between rows and queries is to be kept."""
    each: list[np.ndarray] = field(default_factory=list)
    """What was kept, float32 [some rows, queries], in the order of both splits."""

    @property
    def work(self) -> Path:
        """Folder of what an interrupted run has done; removed at the end."""
        return self.out / "work"

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator of the seed."""
        return np.random.default_rng(self.seed)

    def rows(self, *columns: str) -> pd.DataFrame:
        """Return row_id and some columns of the rows to score."""
        return self._read(self.split, columns)

    def queries(self, *columns: str) -> pd.DataFrame:
        """Return row_id and some columns of the targets: the `query` split, never `test`."""
        found = self._read("query", columns)
        self.facts["queries"] = len(found)
        return found

    def _read(self, split: str, columns: Sequence[str]) -> pd.DataFrame:
        try:
            table_files(Path(self.data), split)
        except PlaypenError as error:
            raise PlaypenError(f"score needs '{split}' rows: {error}") from None
        found = read_table(self.data, split, list(dict.fromkeys(["row_id", *columns])))
        if found.empty:
            raise PlaypenError(f"score: {self.data} has no {split} rows; build the data with some")
        return found

    def keep(self, found: np.ndarray) -> None:
        """Keep a rival's numbers [rows, queries] of the next rows, where they are asked for; a query without any has zeros."""
        if self.per_query:
            self.each.append(found.astype(np.float32))

    @contextmanager
    def timed(self, step: Literal["open", "pool", "query"]) -> Iterator[None]:
        """Add the seconds of a block to those of a step."""
        started = time.perf_counter()
        yield
        self.seconds[step] = round(self.seconds[step] + time.perf_counter() - started, 3)


def texts(rows: pd.DataFrame, part: Part) -> list[str]:
    """Return the contents of some turns of each chat in `messages`, a line break between them; roles and template are left out."""
    return ["\n".join(turn["content"] for turn in chat if _counts(turn["role"], part)) for chat in rows["messages"]]


def _counts(role: str, part: Part) -> bool:
    return part == "chat" or (role == "assistant") == (part == "answer")


def kept(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array in a file, or make it and write it whole or not at all."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = unfinished(file)
        with part.open("wb") as handle:
            np.save(handle, make())
        part.replace(file)
    return np.load(file)


def open_model(job: Job, model: str, splits: Sequence[str]) -> Any:
    """Open a model, with its adapter if it has one. Raises when the splits' tokens are not its own or do not fit its context."""
    from playpen.models import check_tokens, load_model

    check_tokens(job.data, model)
    opened = load_model(model, job.machine)
    context = getattr(opened.config.get_text_config(), "max_position_embeddings", None)
    for split in splits:
        rows = job._read(split, ["num_tokens"])
        longest = rows.iloc[int(rows["num_tokens"].to_numpy().argmax())]
        if context and longest["num_tokens"] > context:
            raise PlaypenError(
                f"score: row_id {longest['row_id']} of {split} has {longest['num_tokens']} tokens, but the context of {model} is "
                f"{context}; build the data with a smaller max_length"
            )
    return opened
