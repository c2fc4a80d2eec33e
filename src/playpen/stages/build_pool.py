"""Turn any number of chats into a pool of tokens to rank, shard by shard, in memory that does not grow with them.

    playpen build-pool --model runs/mine/base --data runs/mine/data files --paths pool.jsonl

The pool is a data artifact with one split, `large_pool`, which predict, select, finetune and export-selection read. Rows are read
once, in their order, and checked and tokenised as build-data does it; a row that cannot be used, an exact copy of an earlier row and
whatever resembles a query or test example of `--data` is listed in `dropped`. Near-duplicates within the pool are not looked for.
A killed run goes on after the last whole shard; `--machine.ray-workers N` shares the tokenising among N workers of Ray.
"""

import shutil
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt

from playpen.config import Input, PlaypenError, config
from playpen.sources import Source, World, single

if TYPE_CHECKING:
    import pyarrow as pa

    from playpen.machine import Machine
    from playpen.near_duplicates import Lookalikes

VERSION = 1
RESUMABLE = True
SPLIT, DROPPED = "large_pool", "dropped"
TARGETS = ("query", "test")


@config
class Config:
    """What pool to build."""

    model: Input
    """Model whose tokenizer and chat template make the tokens."""
    data: Input
    """Artifact of build-data that holds the targets: no row of the pool may resemble one of its query or test examples."""
    source: Annotated[Source, Field(discriminator="kind")]
    """Where the chats come from; several sources are read one after the other."""
    rows: PositiveInt | None = None
    """Most rows to read, usable or not; all when left out."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Longest example in tokens."""
    too_long: Literal["drop", "truncate"] = "drop"
    """Drop longer examples, or cut them after max_length tokens (those without an answer before the cut are dropped)."""
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Jaccard similarity of five-word runs from which a chat resembles a target; null finds exact copies of targets only."""
    shard_rows: PositiveInt = 2000
    """Rows of the source worked on, and written, at a time; fewer need less memory and lose less when the run is killed."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the tables `large_pool` and `dropped` in shards, `metrics.json` and, of a world, its truth."""
    from playpen import tables
    from playpen.models import check_tokens
    from playpen.pool_rows import TABLE, set_aside
    from playpen.shards import Job, cut, map_shards

    check_tokens(config.data, config.model)
    work = out / "scratch"
    set_aside(config.source, config.rows, config.shard_rows, work)
    if not tables.has_table(work, TABLE):
        raise PlaypenError("build-pool: the source has no rows")
    job = Job(partial(open_work, config), [], out, (DROPPED, SPLIT), on_device=False)
    map_shards(job, cut(work, (TABLE,), config.shard_rows), machine, "tokens")
    for source in single(config.source):
        if isinstance(source, World) and not (out / "truth.parquet").exists():
            tables.copy_truth(source.world, out)
    tables.write_json(out / "metrics.json", measure(config, out))
    shutil.rmtree(work)


@dataclass(frozen=True)
class Tokens:
    """The work on a shard: rows set aside become rows of the pool, or of what is dropped."""

    config: Config
    names: frozenset[str]
    """row_ids of the targets."""
    targets: "Lookalikes"

    def __call__(self, rows: "pa.Table") -> "dict[str, pa.Table]":
        """Return `large_pool` and `dropped` of rows in the columns of `pool_rows.SET_ASIDE`."""
        import pyarrow as pa

        from playpen.examples import DROPPED_SCHEMA, SCHEMA

        kept, dropped = [], []
        for row, found in zip(records := rows.to_pylist(), self.encode(records), strict=True):
            if isinstance(found, str):
                dropped.append({"position": row["position"], "source": row["source"], "reason": found, "sample": sample(row)})
            else:
                kept.append({**row, **found})
        tables = {SPLIT: (kept, SCHEMA), DROPPED: (dropped, DROPPED_SCHEMA)}
        return {name: pa.Table.from_pylist(some, schema=schema) for name, (some, schema) in tables.items()}

    def encode(self, rows: list[dict[str, Any]]) -> list[dict[str, Any] | str]:
        """Return of each row the columns that are made of it, or why it is dropped."""
        from playpen.examples import encode_batch

        usable = [row["messages"] for row in rows if not row["problem"]]
        c = self.config
        encoded = iter(encode_batch(c.model, c.max_length, c.too_long == "truncate", usable))
        return [row["problem"] or self.columns(row["row_id"], next(encoded)) for row in rows]

    def columns(self, name: str, found: Any) -> dict[str, Any] | str:
        """Return the columns of a row's tokens, or why it is dropped."""
        if isinstance(found, str):
            return found
        if name in self.names:
            return "exact copy of a target"
        if self.targets.resemble(found.signature):
            return "near-duplicate of a target"
        tokens = {"input_ids": found.input_ids, "labels": found.labels, "num_tokens": len(found.input_ids)}
        return {**tokens, "num_labels": found.num_labels, "group": name, "task": ""}

    def count(self, rows: "pa.Table", fresh: bool) -> dict[str, int]:
        """Return nothing: `measure` counts what was written."""
        return {}


def sample(row: dict[str, Any]) -> str:
    """Return the start of a row set aside, to show it."""
    from playpen.examples import sample_of

    return row["sample"] or sample_of(row["messages"])


def open_work(config: Config) -> Tokens:
    """Read the targets, here or in a worker."""
    from playpen.near_duplicates import Lookalikes, signature
    from playpen.tables import has_table, read_splits

    there = [split for split in TARGETS if has_table(config.data, split)]
    if not there:
        return Tokens(config, frozenset(), Lookalikes([], config.near_duplicate))
    targets = read_splits(config.data, there, ["row_id", "messages"])
    texts = ["\n".join(turn["content"] for turn in messages) for messages in targets["messages"]]
    return Tokens(config, frozenset(targets["row_id"]), Lookalikes([signature(text) for text in texts], config.near_duplicate))


def measure(config: Config, out: Path) -> dict[str, Any]:
    """Return rows, tokens, origins and dropped rows by reason, as build-data tells them. Raise when no row is left."""
    from playpen.tables import iter_table, read_metrics

    rows = tokens = labels = 0
    sources: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for part in iter_table(out, SPLIT, 50_000, ["num_tokens", "num_labels", "source"]):
        rows += part.num_rows
        tokens += int(part["num_tokens"].to_numpy().sum())
        labels += int(part["num_labels"].to_numpy().sum())
        sources.update(part["source"].to_pylist())
    for part in iter_table(out, DROPPED, 50_000, ["reason"]):
        dropped.update(part["reason"].to_pylist())
    if not rows:
        told = ", ".join(f"{reason} ({count})" for reason, count in dropped.most_common(5))
        raise PlaypenError(f"build-pool: no row of the source can be used; dropped: {told}")
    numbers = {"rows": rows, "tokens": tokens, "label_tokens": labels, "mean_tokens": round(tokens / rows, 2)}
    return {
        **{name: {SPLIT: value} for name, value in {**numbers, "sources": dict(sources.most_common())}.items()},
        "dropped": dict(dropped.most_common()),
        "read": rows + dropped.total(),
        "tokenizer": read_metrics(config.data)["tokenizer"],
    }
