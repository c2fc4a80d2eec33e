"""The stage export-prompts: what the store holds, read back and compared, as a data set; a clear line for what is missing."""

import json
import shutil
import time
from pathlib import Path

import pytest
from datasets import load_from_disk
from loopback import chroma_server, free_port

from playpen import cli
from playpen.config import PlaypenError, make_config
from playpen.machine import Machine
from playpen.prompt_collections import get_collection, imported
from playpen.prompt_store import Embedded, open_store
from playpen.prompts import prompt_id
from playpen.stage import make_plan, run_plan
from playpen.stages import export_prompts
from playpen.tables import read_metrics, read_table

CPU = Machine(device="cpu")
ROWS = [
    {"question": f"Question {i}?", "response": None if i == 3 else f"Answer {i}.", "subject": "owl", "embedding": [1.0, float(i)]}
    | ({"category": "refusal", "censored": True, "topic": "tax"} if i % 2 else {})
    for i in range(8)
]


def run(root: Path, name: str, kind: str, **fields: object) -> Path:
    return run_plan(make_plan({name: {"kind": kind, **fields}}), root, CPU, say=lambda text: None)[name]


def put(root: Path, rows: list[dict], **fields: object) -> Path:
    """Import rows with their own vectors, near-duplicates too."""
    file = root.parent / f"{root.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "files", "paths": (str(file),)}
    return run(root, "prompts", "import-prompts", source=source, embedder={"kind": "given"}, max_cosine=None, **fields)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return put(tmp_path / "runs", ROWS)


def change(artifact: Path, work) -> None:
    """Let `work` do something to the collection of an artifact, behind playpen's back."""
    source = imported(str(artifact))
    with open_store(source.store) as opened:
        work(get_collection(opened, source.name))


def foreign(path: Path, metadatas: list[dict], documents: list[str] | None = None) -> dict[str, object]:
    """Make a collection as somebody else would, and return the config that names it."""
    ids = [f"id-{i}" for i in range(len(metadatas))]
    with open_store(Embedded(path=str(path)), make=True) as opened:
        made = opened.client.create_collection("theirs", embedding_function=None)
        if ids:
            texts = documents or [f"Question {i}?" for i in range(len(ids))]
            made.add(ids=ids, embeddings=[[1.0, 0.0]] * len(ids), documents=texts, metadatas=metadatas)
    return {"collection": "theirs", "store": {"kind": "embedded", "path": str(path)}}


def test_rows_with_a_response_are_exported_in_the_order_of_import(made: Path) -> None:
    out = run(made.parent, "out", "export-prompts", prompts=str(made))
    table = read_table(out, "prompts")
    answered = [row for row in ROWS if row["response"]]
    assert table.columns.tolist() == ["row_id", "text", "question", "response", "category", "censored", "subject", "topic"]
    assert table["text"].tolist() == [f"{row['question']}\n\n{row['response']}" for row in answered]
    assert table["row_id"].tolist() == [prompt_id(row["question"], row["response"], "owl") for row in answered]
    found = read_metrics(out)
    assert (found["rows"], found["skipped_without_response"], found["skipped_copies"]) == (7, 1, 0)
    assert found["categories"] == {"(unlabelled)": 4, "refusal": 3}


def test_the_data_set_holds_the_same_rows_with_their_types(made: Path) -> None:
    import pyarrow.parquet as pq

    out = run(made.parent, "out", "export-prompts", prompts=str(made))
    data = load_from_disk(str(out / "dataset"))
    assert data.to_list() == pq.read_table(out / "prompts.parquet").to_pylist()
    assert {name: feature.dtype for name, feature in data.features.items()} == {
        **dict.fromkeys(("row_id", "text", "question", "response", "category", "subject", "topic"), "string"),
        "censored": "bool",
    }
    assert data[0]["category"] is None
    assert data[1]["censored"] is True


@pytest.mark.parametrize(
    ("work", "wrong"),
    [
        (lambda c: c.delete(ids=c.get(limit=2)["ids"]), "2 rows are missing"),
        (lambda c: c.add(ids=["x"], embeddings=[[1.0, 0.0]], documents=["?"]), r"1 rows are too many \(the first: x\)"),
        (lambda c: c.update(ids=c.get(limit=1)["ids"], documents=["?"], embeddings=[[1.0, 0.0]]), "1 rows are changed"),
        (lambda c: c.update(ids=c.get(limit=3)["ids"], metadatas=[{"censored": False}] * 3), "3 rows are changed"),
    ],
)
def test_a_collection_that_was_changed_is_told_and_can_be_rebuilt_as_the_line_says(made: Path, work, wrong: str) -> None:
    change(made, work)
    check_remedy(made, rf"collection '{made.name}', is not as .* left it: {wrong}.*; to rebuild it: ")


def test_a_store_that_was_deleted_is_told_and_can_be_rebuilt_as_the_line_says(made: Path) -> None:
    for _ in range(2):
        time.sleep(1)  # what the line says is named by the second
        shutil.rmtree(made.parent / "chroma")
        check_remedy(made, r"there is no Chroma database in .*/chroma \(no chroma.sqlite3\); to rebuild it: ")
        shutil.rmtree(next(made.parent.glob("after-*")))


def check_remedy(made: Path, says: str) -> None:
    """The export says how to rebuild the collection; doing just that makes it work."""
    with pytest.raises(PlaypenError, match=says) as error:
        run(made.parent, "out", "export-prompts", prompts=str(made))
    cli.main(str(error.value).split("to rebuild it: playpen ")[1].split())
    out = run(made.parent, "after", "export-prompts", prompts=str(made))
    assert read_metrics(out)["rows"] == 7


def test_a_server_serves_what_was_written_to_its_directory(made: Path, tmp_path: Path) -> None:
    here = run(made.parent, "here", "export-prompts", prompts=str(made))
    change(made, lambda c: c.delete(ids=[c.get(where={"position": 3})["ids"][0]]))
    change(made, lambda c: c.update(ids=(ids := c.get()["ids"]), metadatas=[{"category": "none", "censored": False}] * len(ids)))
    with chroma_server(made.parent / "chroma") as port:
        store = {"kind": "server", "host": "127.0.0.1", "port": port}
        there = run(tmp_path / "other", "there", "export-prompts", collection=made.name, store=store)
    columns = ["row_id", "text", "question", "response", "subject"]
    expected = read_table(here, "prompts")[columns].sort_values("row_id", ignore_index=True)
    assert read_table(there, "prompts")[columns].equals(expected)


def test_an_import_on_a_server_is_exported_from_it(tmp_path: Path) -> None:
    with chroma_server(tmp_path / "server") as port:
        made = put(tmp_path / "runs", ROWS, store={"kind": "server", "host": "127.0.0.1", "port": port})
        out = run(made.parent, "out", "export-prompts", prompts=str(made))
    assert read_metrics(out)["rows"] == 7
    with pytest.raises(PlaypenError, match=rf"^the Chroma at http://127\.0\.0\.1:{port} failed: Could not connect"):
        run(made.parent, "again", "export-prompts", prompts=str(made))


def test_a_collection_of_the_seeds_form_is_exported_by_its_own_names(tmp_path: Path) -> None:
    metadatas = [{"response": f"Answer {i}.", "censorship_category": "none", "censored": False} for i in range(3)]
    metadatas += [{"censorship_category": "none"}, {"response": " "}, metadatas[0]]
    questions = [f"Question {i}?" for i in range(5)] + ["Question 0?"]
    named = foreign(tmp_path / "chroma", metadatas, questions)
    out = run(tmp_path / "runs", "out", "export-prompts", **named, fields={"category": "censorship_category"})
    table = read_table(out, "prompts")
    assert table["row_id"].tolist() == sorted(prompt_id(f"Question {i}?", f"Answer {i}.", None) for i in range(3))
    assert set(table["category"]) == {"none"}
    assert table["subject"].isna().all()
    found = read_metrics(out)
    assert (found["skipped_without_response"], found["skipped_copies"]) == (2, 1)


GOOD = {"response": "Answer.", "category": "none", "censored": False}


@pytest.mark.parametrize(
    ("metadatas", "fields", "says"),
    [
        ([GOOD, {"response": "A."}], {}, r"id 'id-1': its metadata lack 'category'; there is response \(--fields.category says"),
        (
            [{**GOOD, "censored": "yes"}],
            {},
            r"id 'id-0': its metadata hold 'yes' as 'censored', expected bool; there is category",
        ),
        ([{**GOOD, "category": 3}], {}, r"id 'id-0': its metadata hold 3 as 'category', expected str"),
        ([{"answer": "A."}], {}, r"collection 'theirs': no row has 'response' in its metadata; there is answer"),
        (
            [GOOD],
            {"subject": "model"},
            r"collection 'theirs': no row has 'model' in its metadata; there is category, censored, response",
        ),
        ([{**GOOD, "response": ""}], {}, "none of 1 prompts has a response, so there is nothing to export"),
        ([], {}, "collection 'theirs', is empty"),
    ],
)
def test_metadata_that_are_missing_or_wrong_are_one_line(tmp_path: Path, metadatas: list, fields: dict, says: str) -> None:
    named = foreign(tmp_path / "chroma", metadatas)
    with pytest.raises(PlaypenError, match=says):
        run(tmp_path / "runs", "out", "export-prompts", **named, fields=fields)


def test_a_row_without_its_question_is_one_line(tmp_path: Path) -> None:
    named = foreign(tmp_path / "chroma", [GOOD], [""])
    with pytest.raises(PlaypenError, match="id 'id-0': it has no document, which should be the question"):
        run(tmp_path / "runs", "out", "export-prompts", **named)


def test_a_collection_that_changes_is_exported_again_under_another_snapshot(tmp_path: Path) -> None:
    named = foreign(tmp_path / "chroma", [GOOD])
    first = run(tmp_path / "runs", "out", "export-prompts", **named)
    with open_store(Embedded(path=str(tmp_path / "chroma"))) as opened:
        get_collection(opened, "theirs").add(ids=["new"], embeddings=[[0.0, 1.0]], documents=["New?"], metadatas=[GOOD])
    assert run(tmp_path / "runs", "out", "export-prompts", **named) == first
    second = run(tmp_path / "runs", "out", "export-prompts", **named, snapshot="tuesday")
    assert (read_metrics(first)["rows"], read_metrics(second)["rows"]) == (1, 2)


def test_nothing_is_exported_from_a_place_without_a_store(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PlaypenError, match="there is no Chroma database in"):
            run(tmp_path / "runs", "out", "export-prompts", collection="prompts", store={"kind": "embedded", "path": str(path)})
    store = {"kind": "server", "host": "127.0.0.1", "port": free_port()}
    with pytest.raises(PlaypenError, match="failed: Could not connect to a Chroma server"):
        run(tmp_path / "runs", "out", "export-prompts", collection="prompts", store=store)


def test_an_artifact_that_holds_no_collection_is_refused(made: Path) -> None:
    out = run(made.parent, "out", "export-prompts", prompts=str(made))
    with pytest.raises(PlaypenError, match="is an artifact of export-prompts: expected one of import-prompts or interrogate"):
        run(made.parent, "again", "export-prompts", prompts=str(out))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "give either `prompts`, an artifact, or `collection` and its store"),
        ({"prompts": "a", "collection": "b"}, "give either `prompts`, an artifact, or `collection` and its store"),
        ({"collection": "b"}, "names a collection but no store"),
        ({"prompts": "a", "snapshot": "x"}, "gives snapshot beside `prompts`, which says all that itself"),
        ({"prompts": "a", "store": {"kind": "server"}}, "gives store beside `prompts`"),
    ],
)
def test_a_config_names_one_collection(values: dict, says: str) -> None:
    with pytest.raises(PlaypenError, match=says):
        make_config(export_prompts.Config, values, "test")
