"""Stores of prompts: where a Chroma database is, and how it is opened. Its embedding functions and telemetry stay off.

An embedded store is a directory that one process at a time may work on, so it is held under a file lock; a server takes many.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, field_validator
from tyro.conf import Suppress

from playpen.config import PlaypenError, config
from playpen.endpoints import read_key

DATABASE = "chroma.sqlite3"
"""The file by which a directory is known as Chroma's."""


@config
class Embedded:
    """A Chroma database in a directory, opened by this process."""

    kind: Suppress[Literal["embedded"]] = "embedded"
    path: str | None = None
    """The directory; `chroma` beside the artifact when left out."""

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"the Chroma in {self.path}"


@config
class Server:
    """A Chroma server."""

    kind: Suppress[Literal["server"]] = "server"
    host: str = "localhost"
    """Its host, without http://."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Its port."""
    tls: bool = False
    """Speak https; needed wherever a token would otherwise cross a network in the clear."""
    token_env: str | None = None
    """Name of the environment variable that holds the token; no token is sent when left out."""
    token_header: Literal["Authorization", "X-Chroma-Token"] = "Authorization"
    """Header that carries it: `Authorization: Bearer TOKEN`, or `X-Chroma-Token: TOKEN`."""

    @field_validator("host")
    @classmethod
    def _is_host(cls, host: str) -> str:
        if not host or "/" in host:
            raise ValueError("give the host alone; `tls` says http or https")
        return host

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"the Chroma at {'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def headers(self) -> dict[str, str]:
        """Return the header with the token; one that is named but not set is an error."""
        token = read_key(self.token_env, self.where)
        return {self.token_header: f"Bearer {token}" if self.token_header == "Authorization" else token} if token else {}


Store = Embedded | Server


class Missing(PlaypenError):
    """A store or a collection that is not there, and may be made again."""


@dataclass(frozen=True)
class OpenStore:
    """A store while it is open."""

    client: Any
    """Chroma's own client."""
    where: str
    """What errors call the store."""


def placed(store: Store, root: Path) -> Store:
    """Return a store with the absolute path of its directory, which is `chroma` in `root` by default."""
    if isinstance(store, Server):
        return store
    return Embedded(path=str(Path(store.path).expanduser().resolve() if store.path else (root / "chroma").resolve()))


@contextmanager
def open_store(store: Store, make: bool = False) -> Iterator[OpenStore]:
    """Open a placed store; an embedded one that is not there is made only with `make`."""
    chroma, settings = import_chroma()
    if isinstance(store, Server):
        with chroma_errors(store.where):
            client = chroma.HttpClient(store.host, store.port, store.tls, store.headers(), settings)
        yield from _closing(client, store.where)
        return
    path = Path(str(store.path))
    if not make and not (path / DATABASE).is_file():
        raise Missing(f"there is no Chroma database in {path} (no {DATABASE})")
    if path.exists() and not path.is_dir():
        raise PlaypenError(f"{path} is a file; a store is a directory")
    path.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        with chroma_errors(store.where):
            client = chroma.PersistentClient(path, settings)
        yield from _closing(client, store.where)


def _closing(client: Any, where: str) -> Iterator[OpenStore]:
    try:
        yield OpenStore(client, where)
    finally:
        client.close()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path / "playpen.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"  waiting for {path}: another process works on it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def import_chroma() -> tuple[Any, Any]:
    """Return the package chromadb and settings without telemetry, or say what to install."""
    try:
        import chromadb
        from chromadb.config import Settings
    except ImportError as error:
        raise PlaypenError(
            f"the prompt collection needs the package chromadb, which is not installed ({error}): pip install 'playpen[prompts]'"
        ) from None
    return chromadb, Settings(anonymized_telemetry=False)


@contextmanager
def chroma_errors(where: str) -> Iterator[None]:
    """Turn what goes wrong in one call of Chroma's into one line; its client raises bare Exceptions too."""
    try:
        yield
    except PlaypenError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise PlaypenError(f"{where} failed: {why}") from None


def to_plain_store(store: Store, out: Path) -> dict[str, Any]:
    """Return a placed store as `collection.json` keeps it: a directory beside the artifact is relative to it."""
    if isinstance(store, Server):
        return {name: getattr(store, name) for name in ("kind", "host", "port", "tls", "token_env", "token_header")}
    path, home = Path(str(store.path)), out.resolve()
    return {"kind": "embedded", "path": os.path.relpath(path, home) if path.is_relative_to(home.parent) else str(path)}


def from_plain_store(plain: dict[str, Any], artifact: Path) -> Store:
    """Return the placed store that an artifact's `collection.json` names."""
    fields = {name: value for name, value in plain.items() if name != "kind"}
    return Server(**fields) if plain["kind"] == "server" else Embedded(path=str((artifact / fields["path"]).resolve()))


def flags(store: Store) -> list[str]:
    """Return the words by which the command line names a placed store."""
    if isinstance(store, Embedded):
        return ["embedded", "--path", str(store.path)]
    words = ["server", "--host", store.host, "--port", str(store.port), *(["--tls"] if store.tls else [])]
    return [*words, *(["--token-env", store.token_env, "--token-header", store.token_header] if store.token_env else [])]
