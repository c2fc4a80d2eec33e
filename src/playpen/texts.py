"""Control texts for a mixed corpus: each source is a config that yields documents when called."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator
from tyro.conf import Suppress

from playpen import sources
from playpen.config import File, HubData, Input, PlaypenError, config
from playpen.tables import iter_table

READ = 1 << 20


class Document(NamedTuple):
    """One text and where it comes from."""

    text: str
    source: str
    messages: list[dict[str, str]] | None = None
    """The turns of a chat, whose text the tokenizer's template makes; None for plain text."""
    category: str = ""
    group: str = ""
    """What it shares with others that a hold-out may not part from it, as a prompt's question; empty when it stands alone."""


@config
class World:
    """The raw texts of an embedded world; a source for each kind of text."""

    kind: Suppress[Literal["world"]] = "world"
    world: Input
    """The world, an artifact of make-world."""
    kinds: tuple[str, ...] = ()
    """Kinds of texts to take, as story and page; all when left out."""

    def __call__(self) -> Iterator[Document]:
        """Yield its documents."""
        known: set[str] = set()
        for part in iter_table(self.world, "corpus", 1000, ["text", "kind"]):
            for row in part.to_pylist():
                known.add(row["kind"])
                if not self.kinds or row["kind"] in self.kinds:
                    yield Document(row["text"], row["kind"])
        for kind in self.kinds:
            if kind not in known:
                raise PlaypenError(f"{self.world} has no texts of kind '{kind}'; it has {', '.join(sorted(known))}")


@config
class Files:
    """Texts in files of your own: .txt, .jsonl, either with .gz, or .parquet."""

    kind: Suppress[Literal["files"]] = "files"
    paths: tuple[File, ...]
    """The files."""
    name: str = "text"
    """What to call this source."""
    column: str = "text"
    """Field or column that holds the text, in .jsonl and .parquet files."""
    separator: Annotated[str, Field(min_length=1)] = "<|endoftext|>"
    """What stands between two documents in a .txt file; a blank line is written as \\n\\n."""

    @field_validator("paths")
    @classmethod
    def _some(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if not paths:
            raise ValueError("names no file")
        return paths

    def __call__(self) -> Iterator[Document]:
        """Yield the documents of all files."""
        for path in self.paths:
            for text in read_texts(Path(path).expanduser(), self.column, self.separator.replace("\\n", "\n")):
                yield Document(text, self.name)


@config
class Hub:
    """A text data set on the hub, streamed."""

    kind: Suppress[Literal["hub"]] = "hub"
    dataset: HubData = "roneneldan/TinyStories"
    """The data set, owner/name or owner/name@revision."""
    subset: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Split to stream."""
    column: str = "text"
    """Column that holds the text."""
    shuffle_buffer: NonNegativeInt = 10_000
    """Rows among which the stream is shuffled; 0 keeps the order."""
    shuffle_seed: int = 0
    """Seed of that shuffle."""

    def __call__(self) -> Iterator[Document]:
        """Yield the texts of the stream."""
        found = sources.open_hub(self.dataset, self.subset, self.split, streaming=True)
        if self.shuffle_buffer:
            found = found.shuffle(seed=self.shuffle_seed, buffer_size=self.shuffle_buffer)
        name = self.dataset.partition("@")[0]
        with sources.hub_errors(self.dataset):
            for record in found:
                if not isinstance(record.get(self.column), str):
                    raise PlaypenError(f"{name} has no texts in a column '{self.column}'; it has {', '.join(record)}")
                yield Document(record[self.column], name)


@config
class Chats:
    """Chats, as the model's template tells them; unusable ones are left out."""

    kind: Suppress[Literal["chats"]] = "chats"
    source: sources.Source
    """Where the chats are."""

    def __call__(self) -> Iterator[Document]:
        """Yield a document a chat."""
        for one in sources.single(self.source):
            for row in one():
                if not row.problem:
                    yield Document("", row.source, row.messages)


One = Annotated[World | Files | Hub | Chats, Field(discriminator="kind")]


@config
class Share:
    """One of several control texts."""

    texts: One
    """The texts."""
    weight: PositiveFloat = 1.0
    """Its share of the control, relative to the others'."""


@config
class Several:
    """Several control texts together, each with its share."""

    kind: Suppress[Literal["several"]] = "several"
    shares: Suppress[tuple[Share, ...]] = ()
    """The texts and their weights; to be written in a preset."""

    @field_validator("shares")
    @classmethod
    def _some(cls, shares: tuple[Share, ...]) -> tuple[Share, ...]:
        if not shares:
            raise ValueError("names no text; list them in a preset, as shares: [{texts: {kind: hub}, weight: 2}, ...]")
        return shares


Control = World | Files | Hub | Chats | Several


def weigh(control: Control) -> list[tuple[Any, float]]:
    """Return the texts that a control stands for, with their shares, which sum to 1."""
    shares = control.shares if isinstance(control, Several) else (Share(texts=control),)  # type: ignore[arg-type]
    total = sum(share.weight for share in shares)
    return [(share.texts, share.weight / total) for share in shares]


def read_texts(path: Path, column: str, separator: str) -> Iterator[str]:
    """Yield the documents of a file that are not blank; raise when it is missing, damaged, of an unknown kind or empty."""
    if not path.is_file():
        raise PlaypenError(f"there is no file at {path}")
    name, found = path.name.lower().removesuffix(".gz"), False
    readers = {".txt": _plain, ".jsonl": _json_lines, ".parquet": _parquet}
    reader = next((read for ending, read in readers.items() if name.endswith(ending)), None)
    if reader is None:
        raise PlaypenError(f"{path}: texts are read from {', '.join(readers)} files, by the end of their names")
    try:
        for text in reader(path, separator if reader is _plain else column):
            if text.strip():
                found = True
                yield text.strip()
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise PlaypenError(f"{path} is damaged or not in UTF-8 ({error})") from None
    if not found:
        raise PlaypenError(f"{path} holds no text")


def _open(path: Path) -> Any:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _plain(path: Path, separator: str) -> Iterator[str]:
    """Read piece by piece, so that a file of any size may be one."""
    with _open(path) as file:
        text = ""
        while piece := file.read(READ):
            *whole, text = (text + piece).split(separator)
            yield from whole
        yield text


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _text_of(path, number, line, column)


def _text_of(path: Path, number: int, line: str, column: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        raise PlaypenError(f"{path}, line {number}: not JSON, found {line[:60]!r}") from None
    if not isinstance(record, dict) or not isinstance(record.get(column), str):
        keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise PlaypenError(f"{path}, line {number}: expected a text in the field '{column}', found {keys}")
    return record[column]


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise PlaypenError(f"{path} has no column '{column}'; it has {', '.join(file.schema_arrow.names)}")
        kind = file.schema_arrow.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise PlaypenError(f"{path}: column '{column}' holds {kind}, expected text; name another column")
        for batch in file.iter_batches(batch_size=1000, columns=[column]):
            yield from (text or "" for text in batch[column].to_pylist())
    except pa.ArrowException as error:
        raise PlaypenError(f"{path} is not a readable Parquet file ({error})") from None
