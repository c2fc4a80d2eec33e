"""Chats of a user's own files: JSON Lines, JSON and Parquet, row by row, whatever is wrong with some of them.

A row holds `messages` (role, content), `conversations` (ShareGPT form: from, value) or `prompt` and `completion`. A row
that cannot be used is still yielded, with the problem; a file without a single usable row is an error.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from playpen.chat import UnusableChat, check_messages, is_unicode
from playpen.config import PlaypenError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
FORMS = "'messages', 'conversations', or 'prompt' and 'completion'"
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
QUALITY_WORDS = {"very poor": 1.0, "poor": 2.0, "average": 3.0, "good": 4.0, "excellent": 5.0}
"""Magpie's words for quality, on its scale from 0 to 5."""
CHUNK = 1 << 22
SAMPLE = 200
"""Characters of a dropped row that are kept to show it."""


@dataclass(frozen=True)
class Row:
    """One row of a source: a checked chat, or the problem with it."""

    position: int
    """Where it stands in its source, from 1: the line of a JSON Lines file, else the row."""
    source: str
    messages: list[dict[str, str]]
    """Checked; empty when there is a problem."""
    problem: str = ""
    sample: str = ""
    """The start of an unusable row."""
    quality: float | None = None
    raw: str = ""
    """The user's row as JSON, to the byte where it was JSON."""
    family: str = ""
    """Rows of one family, as pieces of one conversation, are never parted into two splits."""


def make_row(position: int, source: str, messages: object, quality: object = None, raw: str = "", family: str = "") -> Row:
    """Check a chat of any source and return it as a row."""
    try:
        checked, number = check_messages(messages), read_quality(quality)
        if not is_unicode(raw + source + family):
            raise UnusableChat("text that is not valid Unicode")
    except UnusableChat as error:
        return broken_row(position, source, str(error), raw or messages)
    return Row(position, source, checked, quality=number, raw=raw, family=family)


def broken_row(position: int, source: str, problem: str, content: object) -> Row:
    """Return a row that cannot be used, with the start of what it holds."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return Row(position, _printable(source), [], problem=_printable(problem), sample=_printable(text[:SAMPLE]))


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def read_quality(value: object) -> float | None:
    """Return a quality as a number; Magpie's words count 1 to 5, nothing is None, anything else makes the row unusable."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = QUALITY_WORDS.get(value.strip().lower(), value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise UnusableChat("a quality that is neither a number nor one of Magpie's words")
    return float(value)


def find_messages(record: dict[str, Any]) -> object:
    """Return the turns of a record in any of the known forms, not yet checked."""
    if record.get("messages") is not None:
        return record["messages"]
    if record.get("conversations") is not None:
        return from_sharegpt(record["conversations"])
    if record.get("prompt") is not None and record.get("completion") is not None:
        return from_completion(record["prompt"], record["completion"])
    raise UnusableChat(f"neither {FORMS}")


def from_sharegpt(turns: object) -> object:
    """Turn `from` and `value` into role and content; what has another form is left for the check to refuse."""
    if not isinstance(turns, list):
        return turns
    return [
        {"role": SHAREGPT_ROLES.get(str(t["from"]), t["from"]), "content": t["value"]}
        if isinstance(t, dict) and "from" in t and "value" in t
        else t
        for t in turns
    ]


def from_completion(prompt: object, completion: object) -> object:
    """Return a chat of a prompt and its completion: two strings, or two lists of turns as TRL has them."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    if isinstance(prompt, list) and isinstance(completion, list):
        return prompt + completion
    raise UnusableChat("a prompt and a completion that are neither two texts nor two lists of turns")


def read_chats(path: Path, source_column: str | None = None, quality_column: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file; raise when it is missing, empty, of an unknown kind or without one usable row.

    `source` of a row is its `source_column`, or the file's name.
    """
    columns, problems, usable, seen = [c for c in (source_column, quality_column) if c], [], 0, set()
    for position, record, raw, problem in read_records(path, "chats", lambda names: _check_columns(path, names, columns)):
        row = _row(path, position, record, raw, problem, source_column, quality_column)
        usable += not row.problem
        if isinstance(record, dict):
            seen |= record.keys() & set(columns)
        if row.problem and len(problems) < 3:
            problems.append(f"row {position}: {row.problem}")
        yield row
    if not usable:
        raise PlaypenError(f"{path} holds no usable row ({'; '.join(problems)})" if problems else f"{path} is empty")
    for column in columns:
        if column not in seen:
            raise PlaypenError(f"{path}: no row has the column '{column}'")


def _row(
    path: Path, position: int, record: object, raw: str, problem: str, source_column: str | None, quality_column: str | None
) -> Row:
    if problem or not isinstance(record, dict):
        return broken_row(position, path.name, problem or "a row that is not an object of named fields", raw)
    named = record.get(source_column) if source_column else None
    source = path.name if named is None else str(named)
    try:
        return make_row(position, source, find_messages(record), record.get(quality_column) if quality_column else None, raw)
    except UnusableChat as error:
        return broken_row(position, source, str(error), raw)


def read_records(
    path: Path, what: str, check_columns: Callable[[list[str]], None] = lambda names: None
) -> Iterator[tuple[int, Any, str, str]]:
    """Yield (position, record, its JSON, problem) of every row of a file of `what`.

    `check_columns` is given the columns of a Parquet file before its rows are read, and raises what is wrong with them.
    """
    if not path.is_file():
        raise PlaypenError(f"there is no file at {path}")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path, check_columns)
    if name.endswith(".json"):
        return _json(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_lines(path)
    raise PlaypenError(f"{path}: {what} are read from {', '.join(SUFFIXES)} files, by the end of their names")


def _open(path: Path) -> TextIO:
    """Open text; bytes that are no UTF-8 become lone surrogates, so that only their own rows are refused."""
    opened = gzip.open if path.suffix == ".gz" else open
    return opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape")  # type: ignore[return-value]


def _json_lines(path: Path) -> Iterator[tuple[int, Any, str, str]]:
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text:
                    yield number, *_parse(text)
    except (EOFError, gzip.BadGzipFile) as error:
        raise PlaypenError(f"{path} is not a whole gzip file ({error})") from None


def _parse(text: str) -> tuple[Any, str, str]:
    try:
        return json.loads(text), text, ""
    except ValueError as error:
        return None, text, f"not JSON: {error.args[0].split(': line')[0]}"
    except RecursionError:
        return None, text, "not JSON: nested too deeply"


def _json(path: Path) -> Iterator[tuple[int, Any, str, str]]:
    with _open(path) as file:
        for number, (record, text, whole) in enumerate(iter_array(file, str(path)), 1):
            yield number, record, text, "" if whole else "not JSON: the array is broken or cut off here"


def iter_array(file: TextIO, name: str) -> Iterator[tuple[Any, str, bool]]:
    """Yield (object, its text, True) of a JSON array, read in pieces; (None, rest, False) ends one that is broken or cut off."""
    decoder, text, at = json.JSONDecoder(), file.read(CHUNK).lstrip(), 1
    if text and not text.startswith("["):
        raise PlaypenError(f"{name}: a .json file must hold an array of rows, in [ ]; one row a line is a .jsonl file")
    while True:
        at = _skip(text, at)
        try:
            record, stop = decoder.raw_decode(text, at)
        except ValueError:
            record, stop = None, -1
        if 0 <= stop < len(text):
            yield record, text[at:stop], True
            at = stop
        elif more := file.read(CHUNK):
            text, at = text[at:] + more, 0
        else:
            if text[at:] and not text[at:].startswith("]"):
                yield record, text[at:], stop >= 0
            return


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _parquet(path: Path, check_columns: Callable[[list[str]], None]) -> Iterator[tuple[int, Any, str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    position = 0
    try:
        file = pq.ParquetFile(path)
        check_columns(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=1000):
            for record in batch.to_pylist():
                position += 1
                yield position, record, json.dumps(record, ensure_ascii=False, default=str), ""
    except pa.ArrowException as error:
        raise PlaypenError(f"{path} is not a readable Parquet file ({error})") from None


def _check_columns(path: Path, names: list[str], wanted: list[str]) -> None:
    if not ({"messages", "conversations"} & set(names) or {"prompt", "completion"} <= set(names)):
        raise PlaypenError(f"{path} has the columns {', '.join(names)}; chats stand in {FORMS}")
    for column in wanted:
        if column not in names:
            raise PlaypenError(f"{path} has no column '{column}'; it has {', '.join(names)}")
