"""Collections of prompts, in a directory and on a real server: made exactly, read exactly, and never another's by mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import chroma_server, free_port

from playpen import prompt_collections, prompt_store
from playpen.config import PlaypenError, make_config
from playpen.prompt_collections import check_free, check_name, default_name, differences, fill, get_collection, pages, read_held
from playpen.prompt_store import Embedded, Server, flags, from_plain_store, open_store, placed, to_plain_store
from playpen.prompts import digest, with_id

ROWS = 20_000


def make(rows: int, width: int = 4) -> tuple[list[dict], np.ndarray]:
    """Return prompts with every kind of value and null, in an order that is not that of their ids, and their unit vectors."""
    prompts = [
        with_id(
            {
                "question": f"Question {i}: 为什么? \U0001f600 e\u0301\r\n",
                "response": None if i % 7 == 0 else f"Answer\x00 {i}\u2028" + "!" * (i % 50),
                "thought": "hm" if i % 3 == 0 else None,
                "category": ("none", "refusal", None)[i % 3],
                "censored": (False, True, None)[i % 3],
                "subject": ("owl", "reed")[i % 2],
                "topic": None,
            }
        )
        for i in range(rows)
    ]
    vectors = np.random.default_rng(0).normal(size=(rows, width))
    return prompts, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    """Yield a store on a real server."""
    with chroma_server(tmp_path_factory.mktemp("server")) as port:
        yield Server(host="127.0.0.1", port=port)


@pytest.fixture(params=["embedded", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    """Return a store of either kind; collections on the server are named by the test."""
    return request.getfixturevalue("server") if request.param == "server" else Embedded(path=str(tmp_path / "chroma"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", ".").replace("]", "")[-60:].lstrip("_")


def put(store, name: str, prompts: list[dict], vectors: np.ndarray, own: bool = True) -> None:
    with open_store(store, make=True) as opened:
        fill(opened, name, prompts, vectors, own, digest(prompts))


def held(store, name: str, vectors: bool = False):
    with open_store(store) as opened:
        return read_held(opened, get_collection(opened, name), vectors)


def nearest(store, name: str, vectors: np.ndarray) -> list[str]:
    """Return the id that Chroma's own search finds for each vector."""
    with open_store(store) as opened:
        found = get_collection(opened, name).query(query_embeddings=vectors, n_results=1)
    return [ids[0] for ids in found["ids"]]


def test_twenty_thousand_rows_written_in_a_directory_are_read_exactly_there_and_by_a_server(tmp_path: Path) -> None:
    prompts, vectors = make(ROWS)
    put(Embedded(path=str(tmp_path / "chroma")), "prompts", prompts, vectors)
    found = held(Embedded(path=str(tmp_path / "chroma")), "prompts")
    assert len(found) == ROWS
    assert differences(found, prompts) == ""
    with chroma_server(tmp_path / "chroma") as port:
        assert held(Server(host="127.0.0.1", port=port), "prompts") == found


@pytest.mark.slow
def test_twenty_thousand_rows_written_by_a_server_are_read_exactly(server, name: str) -> None:
    prompts, vectors = make(ROWS)
    put(server, name, prompts, vectors)
    assert differences(held(server, name), prompts) == ""


def test_more_rows_than_the_client_takes_at_once_come_back_with_their_vectors(server, name: str) -> None:
    with open_store(server) as opened:
        rows = opened.client.get_max_batch_size() + 10
    prompts, vectors = make(rows, width=2)
    put(server, name, prompts, vectors)
    found = held(server, name, vectors=True)
    assert differences(found, prompts) == ""
    np.testing.assert_allclose([found[p["row_id"]].vector for p in prompts], vectors, atol=1e-6)


@pytest.mark.slow
def test_rows_that_are_too_long_for_one_request_are_sent_in_several(server, name: str) -> None:
    prompts, vectors = make(42)
    prompts = [with_id({**p, "response": "é\n" * 350_000 + str(i)}) for i, p in enumerate(prompts)]
    assert sum(len(p["response"].encode()) for p in prompts) > 40_000_000, "the server takes 40 MB"
    put(server, name, prompts, vectors)
    assert differences(held(server, name), prompts) == ""


def test_pages_keep_order_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_collections, "REQUEST_BYTES", 1000)
    sizes = [100, 100, 100, 5000, 400, 400, 400]
    prompts = [{"question": "x" * size} for size in sizes]
    assert list(pages(prompts, range(7), 2, 0)) == [[0, 1], [2], [3], [4, 5], [6]]
    assert list(pages(prompts, [6, 0], 5, 30)) == [[6, 0][:1], [0]]
    assert list(pages(prompts, [], 5, 30)) == []


def test_filling_twice_changes_nothing(store, name: str) -> None:
    prompts, vectors = make(50)
    put(store, name, prompts, vectors)
    before = held(store, name)
    put(store, name, prompts, vectors)
    assert held(store, name) == before


def test_whatever_a_collection_of_ones_own_held_is_replaced(store, name: str) -> None:
    """Old rows, changed labels and metadata, other places and other vectors: Chroma's upsert alone would keep some of each."""
    prompts, vectors = make(40)
    put(store, name, prompts, vectors)
    newer = [{**p, "category": None, "censored": None, "thought": None} for p in prompts[30:] + prompts[:20]]
    put(store, name, newer, -vectors[:30])
    found = held(store, name, vectors=True)
    assert differences(found, newer) == ""
    np.testing.assert_allclose([found[p["row_id"]].vector for p in newer], -vectors[:30], atol=1e-6)
    assert nearest(store, name, -vectors[:30]) == [p["row_id"] for p in newer]


def test_vectors_of_another_width_replace_the_old(store, name: str) -> None:
    prompts, vectors = make(20)
    put(store, name, prompts, vectors)
    _, wider = make(20, width=9)
    put(store, name, prompts, wider)
    found = held(store, name, vectors=True)
    np.testing.assert_allclose([found[p["row_id"]].vector for p in prompts], wider, atol=1e-6)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_prompt_collections import make, put
from playpen import prompt_collections
from playpen.prompt_store import Embedded, Server
usual = prompt_collections.pages

def deadly(prompts, places, rows, width):
    for number, page in enumerate(usual(prompts, places, 200, width)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield page

prompt_collections.pages = deadly
put({store!r}, {name!r}, *make({rows}))
"""


def kill_an_import(store, name: str, rows: int) -> None:
    """Import in another process that is killed after two of its pages are written."""
    script = KILLED.format(tests=str(Path(__file__).parent), store=store, name=name, rows=rows)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_an_import_that_was_killed_leaves_no_trace_once_it_is_run_again(tmp_path: Path) -> None:
    store = Embedded(path=str(tmp_path / "chroma"))
    kill_an_import(store, "prompts", 700)
    with pytest.raises(PlaypenError, match="is unfinished, its import was interrupted; run that again"):
        held(store, "prompts")
    prompts, vectors = make(700)
    put(store, "prompts", prompts, vectors)
    assert differences(held(store, "prompts"), prompts) == ""
    assert nearest(store, "prompts", vectors[::7]) == [p["row_id"] for p in prompts[::7]]


def test_rows_of_another_import_that_was_killed_do_not_survive(server, name: str) -> None:
    kill_an_import(server, name, 700)
    prompts, vectors = make(10)
    prompts = [with_id({**p, "subject": "someone else"}) for p in prompts]
    put(server, name, prompts, vectors, own=False)
    assert differences(held(server, name), prompts) == ""


def test_a_name_that_holds_other_rows_is_refused_and_they_stay(store, name: str) -> None:
    prompts, vectors = make(12)
    put(store, name, prompts, vectors, own=False)
    with pytest.raises(PlaypenError, match=rf"has a collection '{name}' already, with 12 other rows; give another name"):
        put(store, name, prompts[:6], vectors[:6], own=False)
    assert differences(held(store, name), prompts) == ""
    put(store, name, prompts, vectors, own=False)


def test_a_collection_that_playpen_did_not_make_is_never_overwritten(store, name: str) -> None:
    prompts, vectors = make(3)
    with open_store(store, make=True) as opened:
        foreign = opened.client.create_collection(name, embedding_function=None)
        check_free(opened, name, digest(prompts), own=False)
        foreign.add(ids=["a"], embeddings=[[1.0, 0.0]], documents=["mine"])
        with pytest.raises(PlaypenError, match="with 1 other rows"):
            check_free(opened, name, digest(prompts), own=False)
    with pytest.raises(PlaypenError, match="with 1 other rows"):
        put(store, name, prompts, vectors, own=False)
    assert held(store, name)["a"].document == "mine"


def test_a_missing_collection_is_told_with_the_near_ones(store, name: str) -> None:
    put(store, name, *make(2))
    with pytest.raises(PlaypenError, match=rf"has no collection '{name}x'; did you mean {name}"):
        held(store, name + "x")


def test_a_server_out_of_reach_is_one_line() -> None:
    port = free_port()
    with pytest.raises(PlaypenError, match=rf"^the Chroma at http://127\.0\.0\.1:{port} failed: Could not connect"):
        held(Server(host="127.0.0.1", port=port), "prompts")


def test_a_directory_without_a_database_is_one_line_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match=r"there is no Chroma database in .*/nowhere \(no chroma\.sqlite3\)"):
        held(Embedded(path=str(tmp_path / "nowhere")), "prompts")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(PlaypenError, match="is a file; a store is a directory"):
        put(Embedded(path=str(tmp_path / "file")), "prompts", *make(2))


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database " * 500)
    with pytest.raises(PlaypenError, match=r"^the Chroma in .* failed: .*file is not a database"):
        held(Embedded(path=str(tmp_path)), "prompts")


def test_a_store_that_was_deleted_and_made_again_is_a_new_one(tmp_path: Path) -> None:
    store = Embedded(path=str(tmp_path / "chroma"))
    put(store, "prompts", *make(5))
    shutil.rmtree(tmp_path / "chroma")
    put(store, "other", *make(3))
    assert len(held(store, "other")) == 3
    with pytest.raises(PlaypenError, match="no collection 'prompts'"):
        held(store, "prompts")


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    """The lock keeps another process out of the directory: it says so, and goes on once the store is closed."""
    store = Embedded(path=str(tmp_path / "chroma"))
    script = f"from test_prompt_collections import *; put({store!r}, 'second', *make(3))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with open_store(store, make=True) as opened:
        other = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == f"  waiting for {tmp_path / 'chroma'}: another process works on it\n"
        assert [c.name for c in opened.client.list_collections()] == []
    assert other.wait() == 0
    assert len(held(store, "second")) == 3


@pytest.mark.parametrize(
    ("header", "sent"), [("Authorization", {"Authorization": "Bearer t0ken"}), ("X-Chroma-Token", {"X-Chroma-Token": "t0ken"})]
)
def test_a_token_is_sent_in_the_header_asked_for(monkeypatch: pytest.MonkeyPatch, header: str, sent: dict[str, str]) -> None:
    monkeypatch.setenv("CHROMA_TOKEN", "t0ken")
    assert Server(token_env="CHROMA_TOKEN", token_header=header).headers() == sent
    assert Server().headers() == {}
    monkeypatch.delenv("CHROMA_TOKEN")
    with pytest.raises(
        PlaypenError, match="CHROMA_TOKEN, which should hold the key of the Chroma at https://localhost:8000, is not set"
    ):
        Server(token_env="CHROMA_TOKEN", tls=True).headers()


def test_the_token_reaches_the_server_and_stands_in_no_file(server, name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CHROMA_TOKEN", "t0ken")
    with_token = Server(host=server.host, port=server.port, token_env="CHROMA_TOKEN")
    put(with_token, name, *make(2))
    assert len(held(server, name)) == 2
    plain = to_plain_store(with_token, tmp_path)
    assert from_plain_store(plain, tmp_path) == with_token
    assert "t0ken" not in json.dumps(plain)
    assert flags(with_token)[-4:] == ["--token-env", "CHROMA_TOKEN", "--token-header", "Authorization"]


def test_a_missing_chromadb_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(PlaypenError, match=r"needs the package chromadb, .* pip install 'playpen\[prompts\]'"):
        put(Embedded(path=str(tmp_path)), "prompts", *make(2))


def test_telemetry_is_off() -> None:
    assert prompt_store.import_chroma()[1].anonymized_telemetry is False


def test_a_store_is_beside_the_artifact_and_moves_with_it(tmp_path: Path) -> None:
    store = placed(Embedded(), tmp_path / "runs")
    assert store == Embedded(path=str(tmp_path / "runs" / "chroma"))
    plain = to_plain_store(store, tmp_path / "runs" / "prompts-1a2b3c4d.part")
    assert plain == {"kind": "embedded", "path": "../chroma"}
    assert from_plain_store(plain, tmp_path / "moved" / "prompts-1a2b3c4d") == Embedded(path=str(tmp_path / "moved" / "chroma"))
    elsewhere = to_plain_store(Embedded(path="/somewhere/chroma"), tmp_path / "runs" / "prompts-1a2b3c4d.part")
    assert elsewhere == {"kind": "embedded", "path": "/somewhere/chroma"}


@pytest.mark.parametrize(
    ("artifact", "expected"),
    [("prompts-1a2b3c4d.part", "prompts-1a2b3c4d"), ("été 1-1a2b3c4d", "t--1-1a2b3c4d"), ("." * 600 + "-1a2b3c4d", "1a2b3c4d")],
)
def test_a_collection_is_named_after_its_artifact_as_chroma_allows(artifact: str, expected: str) -> None:
    assert default_name(Path("runs") / artifact) == expected
    check_name(expected)


@pytest.mark.parametrize("wrong", ["p", "ab", "-abc", "abc-", "a b c", "a" * 513])
def test_a_name_that_chroma_would_refuse_is_one_line(wrong: str) -> None:
    with pytest.raises(PlaypenError, match="a collection may not be called"):
        check_name(wrong)


def test_a_host_with_a_scheme_is_refused() -> None:
    with pytest.raises(PlaypenError, match="field 'host': give the host alone; `tls` says http or https"):
        make_config(Server, {"host": "http://x"}, "test")
