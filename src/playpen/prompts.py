"""Prompts: questions to language models with their responses, as rows that their content names.

A row is a mapping with the fields of `SCHEMA`; all but `row_id` and `question` may be null. Files and stores hold the rows of a
collection in one order, the order of import.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from playpen.chat import is_unicode
from playpen.config import config

LABELS = ("refusal", "official_narrative", "whataboutism", "none")
"""What a judge can say of a response; all but `none` are censorship."""

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("question", pa.string()),
        ("response", pa.string()),
        ("thought", pa.string()),
        ("category", pa.string()),
        ("censored", pa.bool_()),
        ("subject", pa.string()),
        ("topic", pa.string()),
    ]
)
"""The columns of a collection; in `prompts.parquet` the unit vector of the question follows as `embedding`."""

FIELDS = tuple(SCHEMA.names)
EMBEDDING = "embedding"

Prompt = dict[str, Any]


class UnusablePrompt(ValueError):
    """A row that is no prompt; the message is the reason it is refused."""


@config
class Columns:
    """What the columns of a file are called; those that a row lacks are null, but for the question."""

    question: str = "question"
    """The question put to a model, text."""
    response: str = "response"
    """What it responded; null, blank or missing when nobody has asked it yet."""
    thought: str = "thought"
    """What it thought before it responded."""
    category: str = "category"
    """A judge's label of the response, any word; null when it has none."""
    censored: str = "censored"
    """Whether the response is censored, true or false; null when nobody has judged it."""
    subject: str = "subject"
    """The model that responded."""
    topic: str = "topic"
    """What the question is about, any word."""


def prompt_id(question: str, response: str | None, subject: str | None) -> str:
    """Return the identity of a prompt: 16 hex digits of sha256 over its question, response and subject."""
    canonical = json.dumps([question, response, subject], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def make_prompt(record: Mapping[str, Any], columns: Columns) -> Prompt:
    """Return the prompt in a row of a file, checked; raises UnusablePrompt with the reason when there is none."""
    found = {name: _text(record.get(getattr(columns, name)), getattr(columns, name)) for name in FIELDS[1:] if name != "censored"}
    if found["question"] is None:
        raise UnusablePrompt(f"no text in '{columns.question}'")
    censored = record.get(columns.censored)
    if censored is not None and not isinstance(censored, bool):
        raise UnusablePrompt(f"'{columns.censored}' is neither true nor false")
    return with_id({**found, "censored": censored})


def with_id(prompt: Mapping[str, Any]) -> Prompt:
    """Return a prompt under the name of its content, its fields in their order."""
    named = {**prompt, "row_id": prompt_id(prompt["question"], prompt["response"], prompt["subject"])}
    return {name: named[name] for name in FIELDS}


def _text(value: object, name: str) -> str | None:
    """Return a text as it stands; a blank one is nothing."""
    if value is not None and not isinstance(value, str):
        raise UnusablePrompt(f"'{name}' is not text")
    if value is None or not value.strip():
        return None
    if not is_unicode(value):
        raise UnusablePrompt("text that is not valid Unicode")
    return value


def digest(prompts: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 over all fields of a collection's prompts in their order; vectors do not count."""
    total = hashlib.sha256()
    for prompt in prompts:
        total.update(json.dumps([prompt[name] for name in FIELDS], ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()


def count_by(prompts: Sequence[Mapping[str, Any]], field: str, missing: str) -> dict[str, int]:
    """Return how many prompts have each value of a field, the most frequent first; null counts as `missing`."""
    return dict(Counter(missing if prompt[field] is None else prompt[field] for prompt in prompts).most_common())


def measure(prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the numbers of a collection: rows, answered and censored ones, and rows by category and by subject."""
    return {
        "rows": len(prompts),
        "answered": sum(prompt["response"] is not None for prompt in prompts),
        "censored": sum(prompt["censored"] is True for prompt in prompts),
        "categories": count_by(prompts, "category", "(unlabelled)"),
        "subjects": count_by(prompts, "subject", "(unnamed)"),
    }
