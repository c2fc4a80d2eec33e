"""Real servers on loopback for tests: Chroma's own, and an OpenAI-compatible endpoint of ours."""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Reply = Callable[[dict[str, Any]], "dict[str, Any] | tuple[int, Any]"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def chroma_server(path: Path) -> Iterator[int]:
    """Run `chroma run` on a directory and yield its port once it answers."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("chroma")),
        "run",
        "--path",
        str(path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/v2/heartbeat", process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            assert process.poll() is None, "chroma run ended by itself"
            time.sleep(0.05)
    raise AssertionError("chroma run did not come up")


class Endpoint:
    """An OpenAI-compatible endpoint; `reply(body)` returns the JSON of an answer, or (status, JSON or bytes)."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with endpoint.lock:
                    endpoint.bodies.append({"path": self.path, **body})
                    endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                    answer = endpoint.reply(body)
                status, said = answer if isinstance(answer, tuple) else (200, answer)
                sent = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler


@contextmanager
def endpoint(reply: Reply) -> Iterator[Endpoint]:
    """Serve an endpoint while the block runs."""
    made = Endpoint(reply)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def chat(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """Return a chat completion that says `text`."""
    return {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}]}


def asked(body: dict[str, Any]) -> str:
    """Return the last thing that a chat request says."""
    return body["messages"][-1]["content"]
