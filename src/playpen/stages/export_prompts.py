"""Export a collection of prompts from a Chroma store as a Hugging Face data set and a Parquet file.

    playpen export-prompts --prompts runs/mine/prompts --root runs/mine

What the store holds is read back, in pages, and compared with the artifact that put it there. A collection that playpen did not
make is named instead:

    playpen export-prompts --collection prompts --fields.category censorship_category --root runs/mine embedded --path chroma

Prompts without a response are skipped and counted. A store or a collection that is missing, empty or unlike its artifact is an
error; nothing is made up.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from pydantic import Field, model_validator

from playpen.config import Input, PlaypenError, config
from playpen.prompt_collections import Held, get_collection, imported, read_held
from playpen.prompt_store import Embedded, Store, open_store, placed
from playpen.prompts import FIELDS, Prompt, measure, with_id
from playpen.tables import write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
STAYS = True

EXPORTED = pa.schema(
    [
        ("row_id", pa.string()),
        ("text", pa.string()),
        ("question", pa.string()),
        ("response", pa.string()),
        ("category", pa.string()),
        ("censored", pa.bool_()),
        ("subject", pa.string()),
        ("topic", pa.string()),
    ]
)


@config
class Fields:
    """What a collection's metadata are called; its documents are the questions."""

    response: str = "response"
    """The response, text; a row without it is skipped."""
    category: str = "category"
    """The label, text; each row with a response must have it."""
    censored: str = "censored"
    """Whether the response is censored, true or false; each row with a response must have it."""
    subject: str = "subject"
    """The model that responded; null where a row lacks it."""
    topic: str = "topic"
    """What the question is about; null where a row lacks it."""


@config
class Config:
    """Which collection to export."""

    prompts: Input | None = None
    """An artifact of import-prompts or interrogate; it says where its collection is."""
    collection: str | None = None
    """Name of a collection instead, that playpen need not have made, in `store`."""
    store: Annotated[Store, Field(discriminator="kind")] = Embedded()
    """Where the named collection is."""
    fields: Fields = Fields()
    """What the named collection's metadata are called."""
    snapshot: str = ""
    """Any word; a named collection may change, so change this to export it again."""

    @model_validator(mode="after")
    def _one_collection(self) -> "Config":
        if (self.prompts is None) == (self.collection is None):
            raise ValueError("names no collection, or two: give either `prompts`, an artifact, or `collection` and its store")
        named = {"store": Embedded(), "fields": Fields(), "snapshot": ""}
        extra = [name for name, default in named.items() if getattr(self, name) != default]
        if self.prompts is not None and extra:
            raise ValueError(f"gives {' and '.join(extra)} beside `prompts`, which says all that itself")
        if self.collection is not None and self.store == Embedded():
            raise ValueError("names a collection but no store; give the path of an embedded one, or a server")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the data set `dataset`, the same rows as `prompts.parquet`, and `metrics.json`."""
    from datasets import Dataset, disable_progress_bars
    from datasets.features import Features

    prompts = read_artifact(config.prompts) if config.prompts is not None else read_named(config, out.parent)
    answered = [prompt for prompt in prompts if prompt["response"] is not None]
    if not answered:
        raise PlaypenError(f"none of {len(prompts)} prompts has a response, so there is nothing to export; interrogate gets them")
    rows = list({prompt["row_id"]: exported(prompt) for prompt in answered}.values())
    write_table(out / "prompts.parquet", pa.Table.from_pylist(rows, schema=EXPORTED))
    disable_progress_bars()
    Dataset.from_list(rows, features=Features.from_arrow_schema(EXPORTED)).save_to_disk(out / "dataset")
    counts = {"skipped_without_response": len(prompts) - len(answered), "skipped_copies": len(answered) - len(rows)}
    write_json(out / "metrics.json", {**measure(rows), **counts})


def exported(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as it is exported: `text` is its question, a blank line and its response."""
    whole = {**prompt, "text": f"{prompt['question']}\n\n{prompt['response']}"}
    return {name: whole[name] for name in EXPORTED.names}


def read_artifact(artifact: str) -> list[Prompt]:
    """Return what the store holds of an artifact's collection, in the order of import; raise unless it is all of it and no more."""
    source = imported(artifact)
    rows = sorted(source.read(source.prompts()).items(), key=lambda item: item[1].metadata["position"])
    empty = dict.fromkeys(FIELDS)
    return [{**empty, **held.metadata, "row_id": key, "question": held.document} for key, held in rows]


def read_named(config: Config, root: Path) -> list[Prompt]:
    """Return the prompts of a collection that anybody made, in the order of their row_ids."""
    store, name = placed(config.store, root), str(config.collection)
    with open_store(store) as opened:
        rows = read_held(opened, get_collection(opened, name))
    where = f"{store.where}, collection '{name}'"
    if not rows:
        raise PlaypenError(f"{where}, is empty")
    keys = sorted({key for held in rows.values() for key in held.metadata})
    for field in ("response", "subject", "topic"):
        key = getattr(config.fields, field)
        if key not in keys and (field == "response" or key != field):
            raise PlaypenError(f"{where}: no row has '{key}' in its metadata; there is {', '.join(keys) or 'nothing'}")
    found = [from_named(held, config.fields, f"{where}, id '{key}'") for key, held in rows.items()]
    return sorted(found, key=lambda prompt: prompt["row_id"])


def from_named(held: Held, fields: Fields, where: str) -> Prompt:
    """Return a row of anybody's collection as a prompt; one with a response must have a label, and say whether it is censored."""
    needed = {"category": str, "censored": bool} if _text(held, fields.response) else {}
    for field, kind in needed.items():
        value = held.metadata.get(key := getattr(fields, field))
        if not isinstance(value, kind):
            what = f"hold {value!r} as '{key}', expected {kind.__name__}" if key in held.metadata else f"lack '{key}'"
            there = ", ".join(sorted(held.metadata)) or "nothing"
            raise PlaypenError(f"{where}: its metadata {what}; there is {there} (--fields.{field} says what it is called)")
    if not held.document:
        raise PlaypenError(f"{where}: it has no document, which should be the question")
    values = {field: _text(held, getattr(fields, field)) for field in ("response", "category", "subject", "topic")}
    return with_id({**values, "thought": None, "question": held.document, "censored": held.metadata.get(fields.censored)})


def _text(held: Held, key: str) -> str | None:
    """Return a text among a row's metadata; blank is nothing."""
    value = held.metadata.get(key)
    return value if isinstance(value, str) and value.strip() else None
