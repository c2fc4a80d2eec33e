"""A server on this machine that answers W&B's client as far as a run's history needs it, so that the real client runs without a network."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

NAME = "1a2b3c4d"
"""What the server calls the run that a client resumes."""
STAMPS = dict.fromkeys(("createdAt", "heartbeatAt"), "2026-01-01T00:00:00Z")


class Server(ThreadingHTTPServer):
    """One run, which can be read, resumed and written to."""

    run: dict[str, Any] | None = None
    """What a query for the run gets; None: there is no such run."""
    rows: tuple[dict[str, Any], ...] = ()
    """The history that is there."""
    sent: tuple[dict[str, Any], ...] = ()
    """The history that a client has sent."""

    def answer(self, name: str, query: str) -> Any:
        """Return the data of a GraphQL query."""
        if name in ("RunResumeStatus", "UpsertBucket"):
            return {"model": {**PROJECT, "bucket": self._bucket()}, "upsertBucket": {"inserted": False, "bucket": self._bucket()}}
        if name == "CreateRunFiles":
            return {"createRunFiles": {"runID": NAME, "uploadHeaders": [], "files": []}}
        if "viewer" in query:
            return {"viewer": {"id": "me", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if "parquetHistory" in query:
            return {"project": {"run": {"parquetHistory": {"liveData": list(self.rows[:1]), "parquetUrls": []}}}}
        if "HistoryPage" in query:
            return {"project": {"run": {"history": [json.dumps(row) for row in self.rows]}}}
        return {"project": {"run": self.run}}

    def _bucket(self) -> dict[str, Any]:
        tail = json.dumps([json.dumps({**row, "_runtime": 1}) for row in self.rows[-1:]])
        counts = {"logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(self.rows)}
        texts = {
            "config": "{}",
            "summaryMetrics": "{}",
            "wandbConfig": json.dumps({"t": 1}),
            "eventsTail": "[]",
            "historyTail": tail,
        }
        names = {"id": "b", "projectId": "p", "name": NAME, "displayName": "sae", "description": "", "sweepName": None}
        return {**names, **counts, **texts, "tags": [], "project": PROJECT}

    def receive(self, body: dict[str, Any]) -> None:
        """Take what a client sends of a run."""
        lines = body.get("files", {}).get("wandb-history.jsonl", {}).get("content", ())
        self.sent += tuple(json.loads(line) for line in lines)


PROJECT = {"id": "m", "name": "playpen", "internalId": "1", "entity": {"id": "e", "name": "me"}}


class Handler(BaseHTTPRequestHandler):
    """Speaks GraphQL, and W&B's stream of files."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found: Any = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            found = {"data": self.server.answer(asked.get("operationName") or "", asked["query"])}
        elif self.path.endswith("/file_stream"):
            self.server.receive(json.loads(body))
        self._reply(found)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply({})

    def _reply(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def wandb_server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Server]:
    """Point W&B's client at a server of its own; its files lie in `folder`."""
    made = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{made.server_address[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(folder))
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


def run_record(state: str, label: str, config: dict[str, Any], last_step: int) -> dict[str, Any]:
    """Return a run as the server describes it."""
    nothing = dict.fromkeys(("sweepName", "group", "jobType", "commit", "description", "notes"))
    told = json.dumps({name: {"value": value} for name, value in {**config, "_wandb": {}}.items()})
    known = {"id": "r", "name": "c", "displayName": label, "state": state, "config": told, "projectId": "1", "tags": []}
    known |= {"summaryMetrics": "{}", "systemMetrics": "{}", "historyLineCount": 1, "readOnly": False}
    return {
        **nothing,
        **STAMPS,
        **known,
        "user": {"name": "me", "username": "me"},
        "historyKeys": {"lastStep": last_step, "keys": {}},
    }
