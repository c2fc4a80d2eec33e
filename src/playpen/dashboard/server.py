"""Serve a dashboard on this machine, so that its page can show the features of a text: `playpen serve PATH`.

`GET /` and the data files are the page; `GET /api` says that a model is there; `POST /api/encode` with `{"text": ...}` runs
the base model up to the SAE's hook. Only this machine may ask: the server listens on 127.0.0.1, and refuses another Host (a
name that somebody points here), another Origin (a page from elsewhere), a body that is no JSON and one that is too large.
"""

import json
import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from playpen.config import PlaypenError
from playpen.machine import Machine

if TYPE_CHECKING:
    from playpen.dashboard.encode_text import TextEncoder

MAX_BYTES = 2**16
"""Bytes of the longest request that is read."""
FILES = re.compile(r"/(index\.html|data/[\w-]+\.js)")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
SAFE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "frame-ancestors 'none'"}


class Refused(Exception):
    """A request that is not answered: its status and the reason in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Parts:
    """What a dashboard was made of."""

    sae: Path
    model: Path


def read_parts(dashboard: Path) -> Parts:
    """Read the `serve.json` of a dashboard. Raises when it is none, or its SAE or model is gone."""
    file = dashboard / "serve.json"
    if not file.exists() or not (dashboard / "index.html").exists():
        raise PlaypenError(f"{dashboard} holds no dashboard: expected an artifact of features")
    found = {key: (dashboard / path).resolve() for key, path in json.loads(file.read_text()).items()}
    for key, path in found.items():
        if not path.exists():
            raise PlaypenError(
                f"{dashboard}: its {key} should lie in {path}, which is not there; was it moved or deleted? index.html opens without it"
            )
    return Parts(found["sae"], found["model"])


class DashboardServer(ThreadingHTTPServer):
    """Serves one dashboard on 127.0.0.1; the model looks at one text at a time."""

    daemon_threads = True

    def __init__(self, dashboard: Path, encoder: "TextEncoder", port: int = 0) -> None:
        self.dashboard, self.encoder, self.lock = dashboard, encoder, Lock()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def hosts(self) -> set[str]:
        """The names by which this machine calls the server."""
        return {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away while it is answered is no error, and any other is told to the page."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: DashboardServer
    timeout = 30
    """Seconds after which a client that says nothing is left."""

    def do_GET(self) -> None:
        """Answer with a file of the page, or with what the server can do."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer with the features of a text."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for errors."""

    def _answer(self, act: Any) -> None:
        try:
            self._check_sender()
            kind, content = act()
            self._send(200, kind, content)
        except Refused as error:
            self._send(error.status, "application/json", _to_json({"error": str(error)}))
        except PlaypenError as error:
            self._send(422, "application/json", _to_json({"error": str(error)}))
        except ConnectionError:
            raise
        except Exception as error:  # whatever broke, the page must hear of it
            self._send(
                500, "application/json", _to_json({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
            )

    def _check_sender(self) -> None:
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if host not in self.server.hosts:
            raise Refused(403, f"this server answers as {min(self.server.hosts)} only, was asked as {host}")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise Refused(403, f"a page from {origin} may not ask this server")

    def _get(self) -> tuple[str, bytes]:
        path = self.path.split("?")[0]
        if path == "/api":
            return "application/json", _to_json({**self.server.encoder.about(), "max_bytes": MAX_BYTES})
        found = FILES.fullmatch("/index.html" if path == "/" else path)
        file = self.server.dashboard / found[1] if found else None
        if file is None or not file.is_file():
            raise Refused(404, f"there is no {path} here")
        return TYPES[file.suffix], file.read_bytes()

    def _post(self) -> tuple[str, bytes]:
        if self.path != "/api/encode":
            raise Refused(404, f"there is no {self.path} here")
        text = read_text(self._body())
        with self.server.lock:
            return "application/json", _to_json(self.server.encoder(text))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise Refused(411, "the request does not say how long it is")
        # A form of another site's page can be sent here unasked, but not as JSON.
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise Refused(415, "the request must be of the type application/json")
        if int(length) > MAX_BYTES:
            self.rfile.read(min(int(length), 64 * MAX_BYTES))  # a client that still writes would not hear the answer
            raise Refused(413, f"the request has {length} bytes, at most {MAX_BYTES} are read; give a shorter text")
        return self.rfile.read(int(length))

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **SAFE}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def read_text(body: bytes) -> str:
    """Return the text of a request. Raises when it is not `{"text": "..."}`."""
    from playpen.chat import is_unicode

    try:
        found = json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the request is no JSON ({error})") from None
    if not isinstance(found, dict) or set(found) != {"text"} or not isinstance(found["text"], str):
        raise Refused(400, 'the request must be {"text": "..."}')
    if not is_unicode(found["text"]):
        raise Refused(400, "the text is not valid Unicode")
    return found["text"]


def _to_json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def make_server(dashboard: Path, port: int, machine: Machine) -> DashboardServer:
    """Open the SAE and the model of a dashboard and bind a port; 0 takes a free one."""
    from playpen.dashboard.encode_text import open_text_encoder

    parts = read_parts(dashboard)
    try:
        return DashboardServer(dashboard, open_text_encoder(parts.sae, parts.model, machine), port)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise PlaypenError(f"port {port} cannot be used ({why}); give another, or leave --port out to get a free one") from None


def serve(dashboard: Path, port: int, machine: Machine) -> None:
    """Serve a dashboard until Ctrl-C."""
    server = make_server(dashboard, port, machine)
    print(f"{dashboard} is at http://127.0.0.1:{server.server_port} (Ctrl-C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.server_close()
