"""OpenAI-compatible endpoints: requests as JSON, with retries, whose key comes from the environment and goes nowhere else.

A base address is what stands before `/chat/completions` and `/embeddings`, as `http://localhost:8000/v1`.
Source: the API reference of OpenAI, "Create chat completion" and "Create embeddings"; RFC 9110, section 10.2.3 (Retry-After).
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, PositiveInt

from playpen.config import PlaypenError, config

if TYPE_CHECKING:
    import httpx

TRIES = 6
FIRST_WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""
LONGEST_WAIT = 60.0
"""Most seconds between two tries, also where the endpoint asks for more."""
SECONDS = 600.0
"""Most seconds that an answer may take."""
AGAIN = (408, 409, 425, 429)
"""Statuses below 500 that pass."""
ONE_ONLY = (400, 403, 413, 422)
"""Statuses that may be about the one request: too long, or refused by a content filter."""

T = TypeVar("T")


class RefusedRequest(ValueError):
    """An endpoint would not take one request; the message is its reason."""


def _is_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_is_url)]


@config
class ChatEndpoint:
    """A chat model behind an OpenAI-compatible endpoint."""

    url: Url
    """Base address, as http://localhost:8000/v1; /chat/completions is added."""
    model: str
    """The endpoint's name of the model."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; no key is sent when left out."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """Temperature; null sends none, for models that take none."""
    max_new_tokens: PositiveInt = 1024
    """Most tokens of an answer, its thought included."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that limit."""

    def ask(self, connection: "Connection", messages: list[dict[str, str]], **more: Any) -> dict[str, Any]:
        """Return the first choice of a completion, with its `message`; raises RefusedRequest."""
        body = {"model": self.model, "messages": messages, self.length_field: self.max_new_tokens, **more}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        found = connection.post("/chat/completions", body)
        choices = found.get("choices")
        if not (
            isinstance(choices, list) and choices and isinstance(choices[0], dict) and isinstance(choices[0].get("message"), dict)
        ):
            raise RefusedRequest(f"an answer without choices: {_short(str(found))}")
        return choices[0]


class Connection:
    """An open connection to an endpoint; threads may share it."""

    def __init__(self, url: str, key_env: str | None) -> None:
        import httpx

        self.url, self._key = url, read_key(key_env, url)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(SECONDS, connect=20.0))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one request, an object.

        What passes (429, 5xx, a broken connection) is tried again after a growing wait. Raises RefusedRequest where the
        endpoint refuses this one request, PlaypenError where it would refuse all.
        """
        import httpx

        why = ""
        for attempt in range(TRIES):
            try:
                answer = self._client.post(self.url + path, json=body)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise PlaypenError(
                    f"{self.url} is out of reach ({self._clean(str(error))}); is the address right, and the endpoint up?"
                ) from None
            except httpx.HTTPError as error:
                why, wait = f"failed with {type(error).__name__}", None
            else:
                if answer.status_code == 200 and (found := _object(answer)) is not None:
                    return found
                why, wait = self._judge(answer), answer.headers.get("retry-after")
            if attempt + 1 < TRIES:
                time.sleep(_seconds(wait, attempt))
        raise PlaypenError(f"{self.url} {why}, {TRIES} times in a row; what is finished is kept: run again when it is well")

    def _judge(self, answer: "httpx.Response") -> str:
        """Return what is wrong with an answer that may be asked for again; raise for one that may not."""
        said = (
            f"answered {answer.status_code} ({self._clean(answer.text)})"
            if answer.status_code != 200
            else "answered with no JSON object"
        )
        if answer.status_code in ONE_ONLY:
            raise RefusedRequest(said)
        if answer.status_code == 200 or answer.status_code in AGAIN or answer.status_code >= 500:
            return said
        hint = "is the key right?" if answer.status_code == 401 else "are the address and the model's name right?"
        raise PlaypenError(f"{self.url} {said}; {hint}")

    def _clean(self, text: str) -> str:
        """Return the start of a text in one line, without the key."""
        return _short(text.replace(self._key, "***") if self._key else text)


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _object(answer: "httpx.Response") -> dict[str, Any] | None:
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _seconds(asked: str | None, attempt: int) -> float:
    """Return how long to wait before the next try: as asked for in seconds, else twice as long as the last time."""
    wait = float(asked) if asked and asked.strip().isdigit() else FIRST_WAIT * 2**attempt
    return min(wait, LONGEST_WAIT)


def read_key(key_env: str | None, what: str) -> str | None:
    """Return the key in an environment variable; one that is named but not set is an error."""
    if key_env is None:
        return None
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise PlaypenError(f"the environment variable {key_env}, which should hold the key of {what}, is not set")
    return key


def in_threads(work: Callable[[T], Any], items: list[T], threads: int) -> Iterator[Any]:
    """Yield `work(item)` of each item as it is ready, `threads` at a time, one where it is 0; the first error ends all."""
    if threads < 2:
        yield from map(work, items)
        return
    with ThreadPool(threads) as pool:
        yield from pool.imap_unordered(work, items)
