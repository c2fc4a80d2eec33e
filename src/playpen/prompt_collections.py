"""Collections of prompts in a store: made equal to given rows, read back whole, and compared with what an artifact says.

In Chroma a prompt's id is its row_id, its document the question, and its metadata `position` (in the order of import, from 0) and
those of the other fields that are not null. The collection's own metadata say whether it is whole and whose rows it holds.
"""

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playpen.artifact import read_manifest
from playpen.config import PlaypenError, did_you_mean
from playpen.progress import tqdm
from playpen.prompt_store import Missing, OpenStore, Store, chroma_errors, flags, from_plain_store, open_store, to_plain_store
from playpen.prompts import EMBEDDING, FIELDS, SCHEMA, Prompt, digest
from playpen.tables import read_table, write_json, write_table

FILE = "collection.json"
METADATA = tuple(name for name in FIELDS if name not in ("row_id", "question"))
REQUEST_BYTES = 12_000_000
"""Most bytes of rows in one request: Chroma's server refuses one of more than 40 MB, and JSON makes rows longer."""
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")


@dataclass(frozen=True)
class Held:
    """A row as a store holds it."""

    document: str | None
    metadata: Mapping[str, Any]
    vector: Any = None


def default_name(out: Path) -> str:
    """Return the collection's name of an artifact under way: its own, in the characters that Chroma allows."""
    return re.sub(r"[^a-zA-Z0-9._-]", "-", out.name.removesuffix(".part")).lstrip("._-")[-512:]


def check_name(name: str) -> None:
    """Raise for a name that Chroma would refuse."""
    if not NAME.fullmatch(name):
        raise PlaypenError(
            f"a collection may not be called '{name}'; expected 3 to 512 characters of a-z, A-Z, 0-9, '.', '_' and '-', "
            "the first and last a letter or digit"
        )


def to_metadata(prompt: Prompt, position: int) -> dict[str, Any]:
    """Return the metadata of a prompt: Chroma knows no null."""
    return {"position": position, **{name: prompt[name] for name in METADATA if prompt[name] is not None}}


def get_collection(store: OpenStore, name: str) -> Any:
    """Return a collection that must be there and whole."""
    with chroma_errors(store.where):
        names = [found.name for found in store.client.list_collections()]
        found = store.client.get_collection(name, embedding_function=None) if name in names else None
    if found is None:
        raise Missing(f"{store.where} has no collection '{name}'{did_you_mean(name, names)}")
    if (found.metadata or {}).get("state") == "unfinished":
        raise Missing(f"{store.where}: collection '{name}' is unfinished, its import was interrupted; run that again")
    return found


def read_held(store: OpenStore, collection: Any, vectors: bool = False) -> dict[str, Held]:
    """Return all rows of a collection by id, read in pages of the client's own size."""
    include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
    found: dict[str, Held] = {}
    with chroma_errors(f"{store.where}, collection '{collection.name}',"):
        size, total = store.client.get_max_batch_size(), collection.count()
    with tqdm(total=total, desc="read collection", unit="row", disable=None, mininterval=1) as progress:
        for offset in range(0, total, size):
            with chroma_errors(f"{store.where}, collection '{collection.name}',"):
                page = collection.get(limit=size, offset=offset, include=include)
            embeddings = page["embeddings"] if vectors else [None] * len(page["ids"])
            for key, document, metadata, vector in zip(
                page["ids"], page["documents"], page["metadatas"], embeddings, strict=True
            ):
                found[key] = Held(document, metadata or {}, vector)
            progress.update(len(page["ids"]))
    if len(found) != total:
        raise PlaypenError(
            f"{store.where}, collection '{collection.name}': {total} rows are counted but {len(found)} were read; it changed meanwhile, run again"
        )
    return found


def check_free(store: OpenStore, name: str, rows: str, own: bool) -> None:
    """Raise when a collection holds rows that an import may not replace; `rows` is the digest of what it offers.

    It may where the collection is its `own`, was left unfinished, is empty, or was made of the same rows.
    """
    with chroma_errors(store.where):
        if own or name not in [found.name for found in store.client.list_collections()]:
            return
        there = store.client.get_collection(name, embedding_function=None)
        mark, count = there.metadata or {}, there.count()
    if count and mark.get("state") != "unfinished" and rows not in (mark.get("digest"), mark.get("offered")):
        raise PlaypenError(
            f"{store.where} has a collection '{name}' already, with {count} other rows; give another name, leave the name out "
            "(each import then has its own), or delete that collection"
        )


def fill(store: OpenStore, name: str, prompts: Sequence[Prompt], vectors: np.ndarray, own: bool, offered: str) -> None:
    """Make a collection hold exactly these prompts, whatever a killed import left in it; the last step marks it whole.

    `own` says that the name is that of the artifact; `offered` is the digest of the rows from which these were accepted.
    """
    mark = {"made_by": "playpen", "digest": digest(prompts), "offered": offered}
    check_free(store, name, mark["digest"], own)
    collection, there = _open_for_writing(store, name, vectors.shape[1])
    with chroma_errors(store.where):
        collection.modify(metadata={**mark, "state": "unfinished"})
    wanted = {prompt["row_id"]: i for i, prompt in enumerate(prompts)}
    right = {key for key, held in there.items() if key in wanted and _is_right(held, prompts[wanted[key]], wanted[key], vectors)}
    _delete(store, collection, [key for key in there if key not in right])
    _add(store, collection, prompts, vectors, [i for key, i in wanted.items() if key not in right])
    wrong = differences(read_held(store, collection), prompts)
    if wrong:
        raise PlaypenError(f"{store.where}, collection '{name}': {wrong} after it was written; does another process write to it?")
    with chroma_errors(store.where):
        collection.modify(metadata={**mark, "state": "whole"})


def _open_for_writing(store: OpenStore, name: str, width: int) -> tuple[Any, dict[str, Held]]:
    """Return the collection and what it holds already; one that is empty or of another width is made anew."""
    with chroma_errors(store.where):
        if name in [found.name for found in store.client.list_collections()]:
            there = store.client.get_collection(name, embedding_function=None)
            first = there.get(limit=1, include=["embeddings"])["embeddings"]
            if len(first) and len(first[0]) == width:
                return there, read_held(store, there, vectors=True)
            store.client.delete_collection(name)
        cosine = {"hnsw": {"space": "cosine"}}
        return store.client.create_collection(name, embedding_function=None, configuration=cosine), {}


def _is_right(held: Held, prompt: Prompt, position: int, vectors: np.ndarray) -> bool:
    same = held.document == prompt["question"] and dict(held.metadata) == to_metadata(prompt, position)
    return same and bool(np.allclose(held.vector, vectors[position], rtol=0, atol=1e-4))


def _delete(store: OpenStore, collection: Any, ids: list[str]) -> None:
    with chroma_errors(f"{store.where}, collection '{collection.name}',"):
        size = store.client.get_max_batch_size()
        for start in range(0, len(ids), size):
            collection.delete(ids=ids[start : start + size])


def _add(store: OpenStore, collection: Any, prompts: Sequence[Prompt], vectors: np.ndarray, places: list[int]) -> None:
    with tqdm(total=len(places), desc="write collection", unit="row", disable=None, mininterval=1) as progress:
        with chroma_errors(store.where):
            size = store.client.get_max_batch_size()
        for page in pages(prompts, places, size, vectors.shape[1]):
            with chroma_errors(f"{store.where}, collection '{collection.name}',"):
                collection.upsert(
                    ids=[prompts[i]["row_id"] for i in page],
                    embeddings=vectors[page],
                    documents=[prompts[i]["question"] for i in page],
                    metadatas=[to_metadata(prompts[i], i) for i in page],
                )
            progress.update(len(page))


def pages(prompts: Sequence[Prompt], places: Sequence[int], rows: int, width: int) -> Iterator[list[int]]:
    """Yield places in pages of at most so many rows and, unless one row alone is longer, REQUEST_BYTES."""
    page: list[int] = []
    weight = 0
    for place in places:
        size = 16 * width + sum(len(value.encode()) for value in prompts[place].values() if isinstance(value, str))
        if page and (len(page) == rows or weight + size > REQUEST_BYTES):
            yield page
            page, weight = [], 0
        page.append(place)
        weight += size
    if page:
        yield page


def differences(held: Mapping[str, Held], prompts: Sequence[Prompt]) -> str:
    """Say how a store's rows differ from an artifact's; empty when they are equal."""
    wanted = {prompt["row_id"]: (prompt["question"], to_metadata(prompt, i)) for i, prompt in enumerate(prompts)}
    missing, extra = [key for key in wanted if key not in held], [key for key in held if key not in wanted]
    changed = [
        key
        for key, (text, metadata) in wanted.items()
        if key in held and (held[key].document, dict(held[key].metadata)) != (text, metadata)
    ]
    parts = {"missing": missing, "too many": extra, "changed": changed}
    return ", ".join(f"{len(keys)} rows are {what} (the first: {keys[0]})" for what, keys in parts.items() if keys)


def write_collection(out: Path, store: Store, name: str, prompts: Sequence[Prompt], vectors: np.ndarray) -> None:
    """Write `prompts.parquet`, with the vectors, and `collection.json`, which says where the same rows are in a store."""
    table = pa.Table.from_pylist(list(prompts), schema=SCHEMA)
    flat = pa.array(vectors.reshape(-1), pa.float32())
    lists = pa.ListArray.from_arrays(pa.array(range(0, vectors.size + 1, vectors.shape[1]), pa.int32()), flat)
    write_table(out / "prompts.parquet", table.append_column(EMBEDDING, lists))
    plain = {"store": to_plain_store(store, out), "collection": name, "rows": len(prompts), "digest": digest(prompts)}
    write_json(out / FILE, plain)


@dataclass(frozen=True)
class Imported:
    """The collection of an artifact: its rows, which are the truth, and where its copy in a store is."""

    artifact: Path
    store: Store
    name: str

    def prompts(self) -> list[Prompt]:
        """Return the rows, in the order of import."""
        return pq.read_table(self.artifact / "prompts.parquet", columns=list(FIELDS)).to_pylist()

    def vectors(self) -> np.ndarray:
        """Return float32 [rows, width], the unit vectors of the questions."""
        return np.stack(read_table(self.artifact, "prompts", [EMBEDDING])[EMBEDDING].to_list())

    def read(self, prompts: Sequence[Prompt]) -> dict[str, Held]:
        """Return what the store holds; raise, and say how to rebuild it, unless it is what the artifact says."""
        try:
            with open_store(self.store) as store:
                held = read_held(store, get_collection(store, self.name))
        except Missing as error:
            raise PlaypenError(f"{error}; {self._remedy()}") from None
        wrong = differences(held, prompts)
        if wrong:
            raise PlaypenError(
                f"{self.store.where}, collection '{self.name}', is not as {self.artifact} left it: {wrong}; {self._remedy()}"
            )
        return held

    def _remedy(self) -> str:
        """Return the command that rebuilds the collection; its name is new each time, for what is there is not made again."""
        place = ["--name", time.strftime("rebuilt-%y%m%d%H%M%S"), "--root", str(self.artifact.parent)]
        source = ["files", "--paths", str(self.artifact / "prompts.parquet"), "given"]
        words = [*place, "--max-cosine", "None", "--collection", self.name, *source, *flags(self.store)]
        return f"to rebuild it: {shlex.join(['playpen', 'import-prompts', *words])}"


def imported(artifact: str) -> Imported:
    """Return the collection of an artifact of import-prompts or interrogate."""
    where = Path(artifact)
    if not (where / FILE).is_file():
        raise PlaypenError(
            f"{where} is an artifact of {read_manifest(where)['kind']}: expected one of import-prompts or interrogate, which hold a collection"
        )
    plain = json.loads((where / FILE).read_text())
    return Imported(where, from_plain_store(plain["store"], where), plain["collection"])
