"""Examples under way: checked rows set aside on disk, their tokens beside them, and the rows that fell out.

A row has a number from when it is added; once it has tokens it also has a place, counted in the order of encoding.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from playpen.chat import UnusableChat, encode
from playpen.chat_files import SAMPLE, Row
from playpen.models import load_tokenizer
from playpen.near_duplicates import signature
from playpen.spool import Spool
from playpen.tables import row_id, write_table

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("messages", MESSAGES),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("num_tokens", pa.int32()),
        ("num_labels", pa.int32()),
        ("source", pa.string()),
        ("group", pa.string()),
        ("quality_score", pa.float32()),
        ("task", pa.string()),
        ("raw", pa.string()),
    ]
)
"""The columns of every split of a data artifact."""

DROPPED_SCHEMA = pa.schema([("position", pa.int64()), ("source", pa.string()), ("reason", pa.string()), ("sample", pa.string())])
"""The columns of `dropped`."""

ROWS = pa.schema([SCHEMA.field(name) for name in ("row_id", "messages", "source", "quality_score", "task", "raw")])
TOKENS = pa.schema([SCHEMA.field(name) for name in ("input_ids", "labels", "num_tokens", "num_labels")])
BATCH = 128
SHARD_ROWS = 50_000
"""Rows of one file; a longer split is written in shards."""

Chat = list[dict[str, str]]


class Encoded(NamedTuple):
    """A chat as tokens, with its MinHash signature."""

    input_ids: np.ndarray
    labels: np.ndarray
    num_labels: int
    signature: np.ndarray
    truncated: bool


class Dropped:
    """The rows that fell out, with the reasons."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, str, str]] = []

    def add(self, position: int, source: str, reason: str, sample: str) -> None:
        """Note one row."""
        self.rows.append((position, source, reason, sample))

    def counts(self) -> dict[str, int]:
        """Return how many rows fell out for each reason, the commonest first."""
        return dict(Counter(reason for _, _, reason, _ in self.rows).most_common())

    def write(self, out: Path) -> None:
        """Write `dropped.parquet`."""
        columns = list(zip(*self.rows, strict=True)) or [[]] * 4
        arrays = [pa.array(column, field.type) for column, field in zip(columns, DROPPED_SCHEMA, strict=True)]
        write_table(out / "dropped.parquet", pa.table(arrays, schema=DROPPED_SCHEMA))


def sample_of(messages: Chat) -> str:
    """Return the start of a chat, to show it."""
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)[:SAMPLE]


def draw(seed: int, name: str) -> bytes:
    """Return the lot of a row: its rank among all others depends on the seed and its name alone."""
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()


class Examples:
    """Rows of a source, in a scratch directory, without exact copies."""

    def __init__(self, folder: Path, dropped: Dropped) -> None:
        self.dropped = dropped
        self._rows, self._tokens = Spool(folder / "rows", ROWS), Spool(folder / "tokens", TOKENS)
        self._numbers: dict[str, int] = {}
        self._notes: list[tuple[int, str, str]] = []
        self.ids: list[str] = []
        """row_id by number."""
        self.encoded: list[int] = []
        """Number by place."""
        self.signatures: list[np.ndarray] = []
        self.lengths: list[tuple[int, int, bool]] = []
        """(tokens, tokens with loss, cut) by place."""
        self.groups: list[str] = []
        """Near-duplicate cluster by place, once the rows are grouped."""

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, row: Row, task: str = "") -> int | None:
        """Set a row aside and return its number; one with a problem, or an exact copy, is noted as dropped."""
        if row.problem:
            self.dropped.add(row.position, row.source, row.problem, row.sample)
            return None
        name = row_id(row.messages)
        if name in self._numbers:
            self.dropped.add(row.position, row.source, "exact copy of another row", sample_of(row.messages))
            return None
        self._numbers[name] = len(self.ids)
        self.ids.append(name)
        self._notes.append((row.position, row.source, row.family))
        values = {"row_id": name, "messages": row.messages, "source": row.source, "quality_score": row.quality}
        self._rows.append({**values, "task": task, "raw": row.raw})
        return len(self.ids) - 1

    def has(self, name: str) -> bool:
        """Whether a row of this row_id was added."""
        return name in self._numbers

    def chats(self, numbers: Sequence[int]) -> list[Chat]:
        """Return the messages of rows by number."""
        return self._rows.take(numbers)["messages"].to_pylist()

    def drop(self, numbers: Sequence[int], reason: str) -> None:
        """Note rows, by number, as dropped."""
        for number, messages in zip(numbers, self.chats(numbers), strict=True):
            position, source, _ = self._notes[number]
            self.dropped.add(position, source, reason, sample_of(messages))

    def keep(self, number: int, found: Encoded) -> None:
        """Set the tokens of a row aside; it gets the next place."""
        length = len(found.input_ids)
        self._tokens.append(
            {"input_ids": found.input_ids, "labels": found.labels, "num_tokens": length, "num_labels": found.num_labels}
        )
        self.encoded.append(number)
        self.signatures.append(found.signature)
        self.lengths.append((length, found.num_labels, found.truncated))

    def name(self, place: int) -> str:
        """Return the row_id at a place."""
        return self.ids[self.encoded[place]]

    def source(self, place: int) -> str:
        """Return the source of the row at a place."""
        return self._notes[self.encoded[place]][1]

    def family(self, place: int) -> str:
        """Return the family of the row at a place."""
        return self._notes[self.encoded[place]][2]

    def table(self, places: Sequence[int]) -> pa.Table:
        """Return the rows at these places, in this order, in the columns of a split."""
        rows, tokens = self._rows.take([self.encoded[place] for place in places]), self._tokens.take(places)
        columns = {name: (rows if name in ROWS.names else tokens)[name] for name in SCHEMA.names if name != "group"}
        columns["group"] = pa.chunked_array([[self.groups[place] for place in places]], pa.string())
        return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def write_split(out: Path, name: str, examples: Examples, places: Sequence[int]) -> None:
    """Write a split as one file, or in shards when it is long; no more than a shard is held at once."""
    for shard, start in enumerate(range(0, len(places), SHARD_ROWS)):
        part = places[start : start + SHARD_ROWS]
        table = pa.concat_tables([examples.table(part[i : i + 2000]) for i in range(0, len(part), 2000)])
        path = out / name / f"shard-{shard:05d}.parquet" if len(places) > SHARD_ROWS else out / f"{name}.parquet"
        write_table(path, table)


class Encoder:
    """Tokenises rows in batches, in this process or in workers of its own; the result is the same."""

    def __init__(self, model: str, max_length: int, truncate: bool, workers: int) -> None:
        self._encode = partial(encode_batch, model, max_length, truncate)
        self._workers = workers

    def __enter__(self) -> "Encoder":
        self._pool = ProcessPoolExecutor(self._workers, get_context("spawn")) if self._workers else None
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, examples: Examples, numbers: Iterator[int]) -> Iterator[tuple[int, Encoded | str]]:
        """Yield (number, tokens or the reason why there are none), reading only a little ahead."""
        wave = BATCH * max(1, 2 * self._workers)
        while ahead := list(islice(numbers, wave)):
            batches = [ahead[i : i + BATCH] for i in range(0, len(ahead), BATCH)]
            chats = [examples.chats(batch) for batch in batches]
            results = self._pool.map(self._encode, chats) if self._pool else map(self._encode, chats)
            for batch, found in zip(batches, results, strict=True):
                yield from zip(batch, found, strict=True)


@cache
def _tokenizer(model: str) -> Any:
    return load_tokenizer(model)


def encode_batch(model: str, max_length: int, truncate: bool, chats: list[Chat]) -> list[Encoded | str]:
    """Return the tokens of each chat, or the reason why it cannot be used."""
    return [_encode(_tokenizer(model), max_length, truncate, messages) for messages in chats]


def _encode(tokenizer: Any, max_length: int, truncate: bool, messages: Chat) -> Encoded | str:
    try:
        whole = encode(messages, tokenizer)
    except UnusableChat as error:
        return str(error)
    too_long = len(whole.input_ids) > max_length
    if too_long and not truncate:
        return f"longer than max_length ({max_length} tokens)"
    example = whole.cut(max_length)
    if example.num_labels == 0:
        return f"no answer within max_length ({max_length} tokens)"
    text = "\n".join(turn["content"] for turn in messages)
    ids, labels = np.array(example.input_ids, np.int32), np.array(example.labels, np.int32)
    return Encoded(ids, labels, example.num_labels, signature(text), too_long)
