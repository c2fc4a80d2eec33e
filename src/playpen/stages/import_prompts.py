"""Import prompts into a Chroma collection: questions, responses and their labels, without near-duplicate questions.

    playpen import-prompts --name prompts --root runs/mine files --paths prompts.jsonl

Each row gets an identity from its content. Of questions to one subject whose embeddings have a cosine above `max_cosine`, the
first in the file stays; the others, exact copies and unusable rows are listed in `refused.parquet`, with the reason. The rows and
their vectors are kept in `prompts.parquet`, which stays the truth: the collection is a copy of it that can be rebuilt.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from playpen.chat_files import SAMPLE
from playpen.config import PlaypenError, config
from playpen.embedders import Embedder, Given, Minilm, embed_texts, given_vectors, vector_problem
from playpen.near_questions import near_duplicates
from playpen.progress import tqdm
from playpen.prompt_collections import check_free, check_name, default_name, fill, write_collection
from playpen.prompt_sources import Row, Source
from playpen.prompt_store import Embedded, Store, open_store, placed
from playpen.prompts import digest, measure
from playpen.tables import write_json, write_table

if TYPE_CHECKING:
    from playpen.machine import Machine

VERSION = 1
STAYS = True
RESUMABLE = True
COPY, NEAR = "exact copy of an earlier row", "question too near to an earlier one to the same subject"

REFUSED = pa.schema(
    [
        ("file", pa.string()),
        ("position", pa.int64()),
        ("reason", pa.string()),
        ("row_id", pa.string()),
        ("near_to", pa.string()),
        ("cosine", pa.float32()),
        ("subject", pa.string()),
        ("sample", pa.string()),
    ]
)


@config
class Config:
    """Which prompts to import, and where to."""

    source: Annotated[Source, Field(discriminator="kind")]
    """Where the prompts come from."""
    embedder: Annotated[Embedder, Field(discriminator="kind")] = Minilm()
    """What makes the vectors of the questions."""
    store: Annotated[Store, Field(discriminator="kind")] = Embedded()
    """Where the collection is kept."""
    max_cosine: Annotated[float, Field(gt=0, le=1)] | None = 0.85
    """A question that has a greater cosine with an earlier one to the same subject is refused; null refuses exact copies only."""
    collection: str | None = None
    """Name of the collection; that of the artifact, which no other import has, when left out."""


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `prompts.parquet`, `refused.parquet`, `collection.json` and `metrics.json`, and the collection into the store."""
    if not (out / "metrics.json").exists():
        make(config, out, machine)
    shutil.rmtree(out / "vectors", ignore_errors=True)


def make(config: Config, out: Path, machine: "Machine") -> None:
    """Read, embed, refuse, and write everything, `metrics.json` last."""
    name, store, own = config.collection or default_name(out), placed(config.store, out.parent), config.collection is None
    check_name(name)
    rows, refused = collect(config)
    offered = digest(row.prompt for row in rows)
    with open_store(store, make=True) as opened:
        check_free(opened, name, offered, own)
    vectors = vectors_of(config.embedder, rows, machine, out / "vectors")
    near = near_rows(rows, vectors, config.max_cosine)
    kept = [i for i in range(len(rows)) if i not in near]
    prompts, vectors = [rows[i].prompt for i in kept], vectors[kept]
    with open_store(store, make=True) as opened:
        fill(opened, name, prompts, vectors, own, offered)
    write_collection(out, store, name, prompts, vectors)
    refused = sorted([*refused, *near.values()], key=lambda row: (row["file"], row["position"]))
    write_table(out / "refused.parquet", pa.Table.from_pylist(refused, schema=REFUSED))
    tqdm.write(told(len(prompts), len(refused), out.name.removesuffix(".part")), sys.stderr)
    write_json(out / "metrics.json", {**measure(prompts), "refused": dict(Counter(row["reason"] for row in refused))})


def told(kept: int, refused: int, name: str) -> str:
    """Say in a line how many rows were kept, and where the others are listed."""
    where = f", {refused} refused: refused.parquet in {name} says why" if refused else ""
    return f"  {kept} of {kept + refused} prompts are kept{where}"


def collect(config: Config) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return the usable rows, each content once, and a line for each that is unusable or an exact copy."""
    column = config.embedder.column if isinstance(config.embedder, Given) else None
    rows: dict[str, Row] = {}
    refused: list[dict[str, Any]] = []
    for row in config.source(column):
        problem = row.problem or (vector_problem(row.vector) if column else "")
        if problem:
            refused.append(refusal(row, f"unusable: {problem}"))
        elif (key := row.prompt["row_id"]) in rows:
            refused.append(refusal(row, COPY, key, 1.0))
        else:
            rows[key] = row
    if not rows:
        raise PlaypenError(
            f"no row can be used; the first, {refused[0]['file']} row {refused[0]['position']}: {refused[0]['reason']}"
        )
    return list(rows.values()), refused


def vectors_of(embedder: Embedder, rows: list[Row], machine: "Machine", folder: Path) -> np.ndarray:
    """Return float32 [rows, width], of length 1: those given, or the embeddings of the questions, each made once."""
    if isinstance(embedder, Given):
        return given_vectors([row.vector for row in rows], [f"{row.file}, row {row.position}" for row in rows])
    texts = list(dict.fromkeys(row.prompt["question"] for row in rows))
    place = {text: i for i, text in enumerate(texts)}
    return embed_texts(embedder, texts, machine, folder)[[place[row.prompt["question"]] for row in rows]]


def near_rows(rows: list[Row], vectors: np.ndarray, max_cosine: float | None) -> dict[int, dict[str, Any]]:
    """Return, for each row whose question is too near to that of an earlier one, its line in the table of refused rows."""
    if max_cosine is None:
        return {}
    found = near_duplicates(vectors, [row.prompt["subject"] for row in rows], max_cosine)
    return {i: refusal(rows[i], NEAR, rows[other].prompt["row_id"], cosine) for i, (other, cosine) in found.items()}


def refusal(row: Row, reason: str, near_to: str | None = None, cosine: float | None = None) -> dict[str, Any]:
    """Return a line of the table of refused rows."""
    shown = {"row_id": row.prompt.get("row_id"), "subject": row.prompt.get("subject")}
    sample = row.prompt.get("question", row.sample)[:SAMPLE]
    place = {"file": row.file, "position": row.position, "reason": reason}
    return {**place, **shown, "near_to": near_to, "cosine": cosine, "sample": sample}
