"""Prompts: rows that their content names, read from files of any kind, and what is said of rows that are none."""

import gzip
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playpen.config import PlaypenError
from playpen.prompt_sources import Files, World, read_prompts
from playpen.prompts import FIELDS, Columns, digest, make_prompt, measure, prompt_id

ROW = {
    "question": "Why — 为什么?",
    "response": " Because. ",
    "thought": "Hm.",
    "category": "none",
    "censored": False,
    "subject": "owl",
    "topic": "why",
}


def write(path, rows):
    """Write rows in the kind that the file's name asks for; a string is a line as it stands."""
    lines = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, encoding="utf-8")
    return path


def test_the_id_is_a_hash_of_question_response_and_subject():
    text = '["Why — 为什么?"," Because. ","owl"]'
    assert prompt_id("Why — 为什么?", " Because. ", "owl") == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert prompt_id("a", None, None) == hashlib.sha256(b'["a",null,null]').hexdigest()[:16]


@pytest.mark.parametrize("field", FIELDS[1:])
def test_another_question_response_or_subject_is_another_prompt_and_another_label_is_not(field):
    other = True if field == "censored" else "other"
    same = make_prompt({**ROW, field: other}, Columns())["row_id"] == make_prompt(ROW, Columns())["row_id"]
    assert same is (field not in ("question", "response", "subject"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, name):
    rows = [{**ROW, "question": f"Why {i}?"} for i in range(3)]
    found = list(read_prompts(write(tmp_path / name, rows), Columns()))
    assert [{**row.prompt, "row_id": ""} for row in found] == [{"row_id": "", **row} for row in rows]
    assert [(row.file, row.position, row.problem) for row in found] == [(name, i, "") for i in (1, 2, 3)]


def test_columns_may_have_other_names(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": "Why?", "answer": "So.", "model": "owl"}])
    [row] = read_prompts(file, Columns(question="prompt", response="answer", subject="model"))
    assert (row.prompt["question"], row.prompt["response"], row.prompt["subject"]) == ("Why?", "So.", "owl")


def test_a_column_named_by_hand_that_no_row_has_is_an_error(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"question": "Why?"}])
    with pytest.raises(PlaypenError, match=r"a\.jsonl: no row has the column 'modell'"):
        list(read_prompts(file, Columns(subject="modell")))


@pytest.mark.parametrize("blank", [None, "", "  \n"])
def test_a_blank_response_is_none_and_its_prompt_the_same_as_without_it(blank):
    assert make_prompt({"question": "Why?", "response": blank}, Columns()) == make_prompt({"question": "Why?"}, Columns())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"response": "So."}, "no text in 'question'"),
        ({"question": " "}, "no text in 'question'"),
        ({"question": 7}, "'question' is not text"),
        ({"question": "Why?", "response": ["So."]}, "'response' is not text"),
        ({"question": "Why?", "censored": "yes"}, "'censored' is neither true nor false"),
        ('{"question": "\\ud800"}', "text that is not valid Unicode"),
        ('{"question": "Why', "not JSON: Unterminated string starting at"),
        ("[1]", "a row that is not an object of named fields"),
    ],
)
def test_a_row_that_is_no_prompt_is_told_with_its_line_and_reason(tmp_path, line, reason):
    found = list(read_prompts(write(tmp_path / "a.jsonl", [ROW, line]), Columns()))
    assert [(row.position, row.problem) for row in found] == [(1, ""), (2, reason)]
    assert found[1].sample
    assert found[1].prompt == {}


def test_a_file_without_a_usable_row_is_one_line(tmp_path):
    with pytest.raises(PlaypenError, match=r"a\.jsonl holds no usable row \(row 1: no text in 'question'\)"):
        list(read_prompts(write(tmp_path / "a.jsonl", [{"prompt": "Why?"}]), Columns()))
    with pytest.raises(PlaypenError, match=r"b\.jsonl is empty"):
        list(read_prompts(write(tmp_path / "b.jsonl", []), Columns()))
    with pytest.raises(PlaypenError, match=r"c\.csv: prompts are read from \.jsonl, "):
        list(read_prompts(write(tmp_path / "c.csv", [ROW]), Columns()))
    with pytest.raises(PlaypenError, match="there is no file at"):
        list(Files(paths=(str(tmp_path / "no.jsonl"),))())


def test_an_artifact_without_prompts_is_no_world(tmp_path):
    with pytest.raises(PlaypenError, match="expected an artifact of make-world"):
        list(World(world=str(tmp_path))())


def test_the_digest_knows_labels_and_order():
    one, two = make_prompt(ROW, Columns()), make_prompt({**ROW, "question": "When?"}, Columns())
    assert digest([one, two]) == digest([dict(one), dict(two)])
    assert len({digest(rows) for rows in ([one, two], [two, one], [one], [{**one, "category": "refusal"}, two])}) == 4


def test_the_numbers_count_what_is_there_and_what_is_not():
    rows = [make_prompt({**ROW, "question": str(i)}, Columns()) for i in range(3)]
    rows += [make_prompt({"question": "open"}, Columns()), {**rows[0], "category": "refusal", "censored": True}]
    assert measure(rows) == {
        "rows": 5,
        "answered": 4,
        "censored": 1,
        "categories": {"none": 3, "(unlabelled)": 1, "refusal": 1},
        "subjects": {"owl": 4, "(unnamed)": 1},
    }
