"""The stage import-prompts: near-duplicates refused and listed, a collection that equals its table, rebuilt or gone on with."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from loopback import endpoint

from playpen.config import PlaypenError, make_config
from playpen.machine import Machine
from playpen.prompt_collections import differences, get_collection, imported, read_held
from playpen.prompt_store import Embedded, open_store
from playpen.prompts import prompt_id
from playpen.stage import make_plan, run_plan
from playpen.stages import import_prompts
from playpen.stages.import_prompts import COPY, NEAR
from playpen.tables import read_metrics, read_table

CPU = Machine(device="cpu")


def towards(degrees: float) -> list[float]:
    """Return a direction in the plane, twice too long."""
    return [2 * float(np.cos(np.radians(degrees))), 2 * float(np.sin(np.radians(degrees)))]


def row(question: str, degrees: float = 0.0, response: str | None = "So.", subject: str | None = "owl", **more: object) -> dict:
    return {"question": question, "response": response, "subject": subject, "embedding": towards(degrees), **more}


ROWS = [
    row("Why?", 0, category="none", censored=False, topic="why"),
    row("Why??", 10, "Because."),  # cosine 0.98 with the first
    row("When?", 90),
    row("Why?", 0, "Other."),  # the first question with another response
    row("Why?", 0, subject="reed"),  # another subject
    row("Why?", 0, category="refusal"),  # a copy of the first, whatever its label
    row("How?", 40, None, subject=None),
    row("Where?", 20),  # near the refused second only: 0.94 with the first too
    row("Who?", 45),  # 0.71 with the first and the third
    {"question": "", "embedding": towards(0)},
    row("What?", 200) | {"embedding": None},
]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(root: Path, source: dict, name: str = "prompts", **fields: object) -> Path:
    """Run the stage in a plan of its own and return its artifact."""
    spec = {name: {"kind": "import-prompts", "source": source, "embedder": {"kind": "given"}, **fields}}
    return run_plan(make_plan(spec), root, CPU, say=lambda text: None)[name]


def files(path: str | Path) -> dict:
    return {"kind": "files", "paths": (str(path),)}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return run(tmp_path / "runs", files(write(tmp_path / "a.jsonl", ROWS)))


def collection_of(artifact: Path) -> str:
    """Say how the store differs from the artifact."""
    source = imported(str(artifact))
    with open_store(source.store) as opened:
        return differences(read_held(opened, get_collection(opened, source.name)), source.prompts())


def test_rows_are_kept_in_their_order_under_the_name_of_their_content(made: Path) -> None:
    table = read_table(made, "prompts")
    assert table["question"].tolist() == ["Why?", "When?", "Why?", "How?", "Who?"]
    ids = [prompt_id(q, r, s) for q, r, s in (("Why?", "So.", "owl"), ("When?", "So.", "owl"), ("Why?", "So.", "reed"))]
    assert table["row_id"].tolist()[:3] == ids
    assert table["row_id"].tolist()[3:] == [prompt_id("How?", None, None), prompt_id("Who?", "So.", "owl")]
    first = pq.read_table(made / "prompts.parquet").to_pylist()[0]
    assert first.pop("embedding") == [1.0, 0.0]
    assert first == {
        "row_id": ids[0],
        "question": "Why?",
        "response": "So.",
        "thought": None,
        "category": "none",
        "censored": False,
        "subject": "owl",
        "topic": "why",
    }
    np.testing.assert_allclose(np.linalg.norm(np.stack(table["embedding"]), axis=1), 1, atol=1e-6)


def test_what_is_refused_is_listed_with_line_reason_and_the_row_that_it_is_too_near_to(made: Path) -> None:
    refused = read_table(made, "refused")
    first = prompt_id("Why?", "So.", "owl")
    assert refused["position"].tolist() == [2, 4, 6, 8, 10, 11]
    assert refused["reason"].tolist()[:4] == [NEAR, NEAR, COPY, NEAR]
    assert refused["reason"].tolist()[4:] == ["unusable: no text in 'question'", "unusable: no vector, a list of numbers"]
    assert refused["near_to"].tolist()[:4] == [first] * 4
    np.testing.assert_allclose(refused["cosine"][:4], [np.cos(np.radians(d)) for d in (10, 0, 0, 20)], atol=1e-6)
    assert refused["sample"].tolist()[0] == "Why??"
    assert set(refused["file"]) == {"a.jsonl"}


def test_the_numbers_count_rows_and_reasons(made: Path) -> None:
    found = read_metrics(made)
    assert (found["rows"], found["answered"], found["censored"]) == (5, 4, 0)
    assert found["subjects"] == {"owl": 3, "reed": 1, "(unnamed)": 1}
    assert found["refused"] == {
        NEAR: 3,
        COPY: 1,
        "unusable: no text in 'question'": 1,
        "unusable: no vector, a list of numbers": 1,
    }


def test_the_collection_holds_the_table_beside_the_artifact(made: Path) -> None:
    plain = json.loads((made / "collection.json").read_text())
    assert (plain["store"], plain["collection"], plain["rows"]) == ({"kind": "embedded", "path": "../chroma"}, made.name, 5)
    assert collection_of(made) == ""
    assert sorted(p.name for p in made.iterdir()) == [
        "collection.json",
        "manifest.json",
        "metrics.json",
        "prompts.parquet",
        "refused.parquet",
    ]


@pytest.mark.parametrize(("limit", "kept"), [(0.99, 7), (0.95, 6), (0.5, 4), (None, 8)])
def test_the_limit_says_how_near_is_too_near(tmp_path: Path, limit: float | None, kept: int) -> None:
    out = run(tmp_path / "runs", files(write(tmp_path / "a.jsonl", ROWS)), max_cosine=limit)
    assert read_metrics(out)["rows"] == kept


def test_two_imports_never_share_a_collection(made: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "runs", files(write(tmp_path / "b.jsonl", ROWS[:3])))
    assert collection_of(made) == collection_of(other) == ""


def test_a_name_that_holds_other_rows_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    run(tmp_path / "runs", files(write(tmp_path / "b.jsonl", ROWS[:3])), "one", collection="mine")
    with endpoint(lambda body: (500, b"")) as server:
        embedder = {"kind": "endpoint", "url": server.url, "model": "e"}
        source = files(write(tmp_path / "c.jsonl", ROWS[3:]))
        with pytest.raises(PlaypenError, match="already, with 2 other rows; give another name"):
            run(tmp_path / "runs", source, "two", collection="mine", embedder=embedder)
    assert server.bodies == []


def test_the_table_of_an_artifact_rebuilds_its_collection_with_the_same_ids(made: Path, tmp_path: Path) -> None:
    source = imported(str(made))
    with open_store(source.store) as opened:
        opened.client.delete_collection(source.name)
    again = run(tmp_path / "runs", files(made / "prompts.parquet"), "again", collection=source.name)
    assert collection_of(made) == ""
    assert imported(str(again)).prompts() == source.prompts()
    assert read_metrics(again)["refused"] == {}
    np.testing.assert_array_equal(imported(str(again)).vectors(), source.vectors())


def test_the_prompts_of_a_world_are_imported_with_an_endpoints_embeddings(tmp_path: Path) -> None:
    lines = [{k: v for k, v in row(f"Why {i}?", subject="owl").items() if k != "embedding"} for i in range(8)]
    tiny.write_artifact(tmp_path / "world", "make-world", lambda out: write(out / "prompts.jsonl", lines) and None)

    def reply(body: dict) -> dict:
        return {
            "data": [{"index": i, "embedding": [float(c == text[4]) for c in "01234567"]} for i, text in enumerate(body["input"])]
        }

    with endpoint(reply) as server:
        embedder = {"kind": "endpoint", "url": server.url, "model": "e"}
        out = run(tmp_path / "runs", {"kind": "world", "world": str(tmp_path / "world")}, embedder=embedder)
    np.testing.assert_array_equal(imported(str(out)).vectors(), np.eye(8))
    assert collection_of(out) == ""


def test_minilm_finds_questions_that_say_the_same_in_other_words(tmp_path: Path) -> None:
    questions = [
        "Why did the council raise the grain tax?",
        "Who built the bridge?",
        "What made the council raise the tax on grain?",
    ]
    out = run(
        tmp_path / "runs", files(write(tmp_path / "a.jsonl", [{"question": q} for q in questions])), embedder={"kind": "minilm"}
    )
    assert read_table(out, "prompts")["question"].tolist() == questions[:2]
    assert read_table(out, "refused")[["position", "near_to"]].values.tolist() == [[3, prompt_id(questions[0], None, None)]]


KILLED = """
import os, signal
from playpen import embedders, prompt_collections
from playpen.stages import import_prompts
from playpen.cli import main

def deadly(*args, **fields):
    os.kill(os.getpid(), signal.SIGKILL)

{where} = deadly
main(["import-prompts", "--name", "prompts", "--root", {root!r}, "--machine.device", "cpu", "files", "--paths", {file!r}, "given"])
"""


@pytest.mark.parametrize("where", ["prompt_collections.differences", "import_prompts.write_json"])
def test_an_import_that_was_killed_ends_like_one_that_was_not(tmp_path: Path, made: Path, where: str) -> None:
    script = KILLED.format(where=where, root=str(tmp_path / "killed"), file=str(tmp_path / "a.jsonl"))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert [p.suffix for p in (tmp_path / "killed").glob("prompts-*")] == [".part"]
    out = run(tmp_path / "killed", files(tmp_path / "a.jsonl"))
    assert out.name == made.name
    assert collection_of(out) == ""
    for name in ("prompts.parquet", "refused.parquet", "collection.json", "metrics.json"):
        assert (out / name).read_bytes() == (made / name).read_bytes()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    wide = write(tmp_path / "wide.jsonl", [row("Why?"), row("When?") | {"embedding": [1.0, 2.0, 3.0]}])
    with pytest.raises(PlaypenError, match=r"wide\.jsonl, row 2: its vector has 3 numbers, that of wide\.jsonl, row 1 has 2"):
        run(tmp_path / "runs", files(wide))
    none = write(tmp_path / "none.jsonl", [{"question": "Why?", "embedding": "x"}])
    with pytest.raises(PlaypenError, match=r"no row can be used; the first, none\.jsonl row 1: unusable: no vector"):
        run(tmp_path / "runs", files(none))
    with pytest.raises(PlaypenError, match="a collection may not be called 'x'"):
        run(tmp_path / "runs", files(none), collection="x")
    with pytest.raises(PlaypenError, match=r"field 'source\.files\.paths': names no file"):
        make_config(import_prompts.Config, {"source": {"kind": "files", "paths": ()}}, "test")
    plain = write(tmp_path / "plain.jsonl", [{"question": "Why?"}])
    with pytest.raises(PlaypenError, match="no row has the column 'embedding'"):
        run(tmp_path / "runs", files(plain))


def test_a_store_elsewhere_is_named_by_its_path(tmp_path: Path) -> None:
    store = {"kind": "embedded", "path": str(tmp_path / "elsewhere")}
    out = run(tmp_path / "runs", files(write(tmp_path / "a.jsonl", ROWS)), store=store)
    assert imported(str(out)).store == Embedded(path=str(tmp_path / "elsewhere"))
    assert not (tmp_path / "runs" / "chroma").exists()
    assert collection_of(out) == ""


def test_thirty_two_bit_vectors_of_a_parquet_file_are_taken_as_given(tmp_path: Path) -> None:
    vectors = pa.array([[3.0, 4.0], [4.0, -3.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"question": ["Why?", "When?"], "v": vectors}), tmp_path / "a.parquet")
    out = run(tmp_path / "runs", files(tmp_path / "a.parquet"), embedder={"kind": "given", "column": "v"})
    np.testing.assert_allclose(imported(str(out)).vectors(), [[0.6, 0.8], [0.8, -0.6]], atol=1e-7)
