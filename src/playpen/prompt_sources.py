"""Sources of prompts for `import-prompts`: each is a config that yields rows when called, the unusable ones too."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator
from tyro.conf import Suppress

from playpen.chat_files import SAMPLE, read_records
from playpen.config import File, Input, PlaypenError, config
from playpen.prompts import FIELDS, Columns, Prompt, UnusablePrompt, make_prompt


@dataclass(frozen=True)
class Row:
    """One row of a file: a prompt, or the problem with it."""

    file: str
    """Name of the file."""
    position: int
    """Where it stands there, from 1: the line of a JSON Lines file, else the row."""
    prompt: Prompt
    """Checked; empty when there is a problem."""
    problem: str = ""
    sample: str = ""
    """The start of an unusable row."""
    vector: Any = None
    """What stands in the column of given vectors, unchecked."""


@config
class Files:
    """Prompts in files of your own: .jsonl, .jsonl.gz, .json or .parquet."""

    kind: Suppress[Literal["files"]] = "files"
    paths: tuple[File, ...]
    """The files, one prompt a row; `prompts.parquet` of an artifact is such a file."""
    columns: Columns = Columns()
    """What their columns are called."""

    @field_validator("paths")
    @classmethod
    def _some(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if not paths:
            raise ValueError("names no file")
        return paths

    def __call__(self, vectors: str | None = None) -> Iterator[Row]:
        """Yield the rows of all files; `vectors` names the column of given vectors."""
        for path in self.paths:
            yield from read_prompts(Path(path).expanduser(), self.columns, vectors)


@config
class World:
    """The prompts of an embedded world."""

    kind: Suppress[Literal["world"]] = "world"
    world: Input
    """The world, an artifact of make-world."""

    def __call__(self, vectors: str | None = None) -> Iterator[Row]:
        """Yield its prompts."""
        file = Path(self.world) / "prompts.jsonl"
        if not file.is_file():
            raise PlaypenError(f"{self.world} holds no prompts.jsonl: expected an artifact of make-world")
        yield from read_prompts(file, Columns(), vectors)


Source = Files | World


def read_prompts(path: Path, columns: Columns, vectors: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file; raise when it is missing, empty, of an unknown kind or without one usable row.

    A column that was given a name of its own, `vectors` among them, must stand in some row.
    """
    named = {name for field in FIELDS[1:] if (name := getattr(columns, field)) != field} | ({vectors} if vectors else set())
    problems, usable, seen = [], 0, set()
    for position, record, raw, problem in read_records(path, "prompts"):
        row = _row(path.name, position, record, raw, problem, columns, vectors)
        usable += not row.problem
        seen |= record.keys() & named if isinstance(record, dict) else set()
        if row.problem and len(problems) < 3:
            problems.append(f"row {position}: {row.problem}")
        yield row
    if not usable:
        raise PlaypenError(f"{path} holds no usable row ({'; '.join(problems)})" if problems else f"{path} is empty")
    for name in sorted(named - seen):
        raise PlaypenError(f"{path}: no row has the column '{name}'")


def _row(file: str, position: int, record: object, raw: str, problem: str, columns: Columns, vectors: str | None) -> Row:
    try:
        if problem or not isinstance(record, dict):
            raise UnusablePrompt(problem or "a row that is not an object of named fields")
        vector = record.get(vectors) if vectors else None
        return Row(file, position, make_prompt(record, columns), vector=vector)
    except UnusablePrompt as error:
        text = raw or json.dumps(record, ensure_ascii=False, default=str)
        return Row(file, position, {}, problem=str(error), sample=text[:SAMPLE].encode("utf-8", "replace").decode())
