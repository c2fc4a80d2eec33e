"""build-pool: the rows of build-data from any number of chats, shard by shard, with what is left out listed."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny

from playpen import examples
from playpen.config import PlaypenError, make_config
from playpen.machine import Machine
from playpen.pool_rows import set_aside
from playpen.sources import Files
from playpen.stage import run_stage
from playpen.stages.build_pool import Config
from playpen.tables import has_table, iter_table, read_metrics, read_table

ROWS, SHARD = 23, 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base, data with targets (and no other rows), and chats in a file."""
    path = tmp_path_factory.mktemp("pool")
    tiny.tiny_base(path / "base")
    targets = [tiny.make_chat(seed) for seed in (900, 901)]
    tiny.tiny_data(path / "data", path / "base", {"query": tiny.data_table(targets[:1]), "test": tiny.data_table(targets[1:])})
    write(path / "chats.jsonl", [{"messages": tiny.make_chat(seed), "origin": f"s{seed % 2}"} for seed in range(ROWS)])
    return path


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def config(home: Path, file: str = "", **values: Any) -> Config:
    source = {"kind": "files", "paths": (file or str(home / "chats.jsonl"),)}
    fields = {"model": str(home / "base"), "data": str(home / "data"), "source": source, "shard_rows": SHARD, **values}
    return make_config(Config, fields, "test")


def build(config: Config, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    run_stage("build-pool", config, out, Machine(device="cpu"))
    return out


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(config(home), tmp_path_factory.mktemp("made"))


def files(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_the_pool_is_what_build_data_would_make_of_the_same_chats(home: Path, made: Path) -> None:
    rows = [json.loads(line) for line in (home / "chats.jsonl").read_text().splitlines()]
    expected = tiny.data_table([row["messages"] for row in rows])
    found = pa.concat_tables(iter_table(made, "large_pool", SHARD))
    assert found.schema == examples.SCHEMA
    for name in ("row_id", "messages", "input_ids", "labels", "num_tokens", "num_labels"):
        assert found[name].to_pylist() == expected[name].to_pylist(), name
    assert found["group"].to_pylist() == found["row_id"].to_pylist()
    assert [json.loads(raw) for raw in found["raw"].to_pylist()] == rows
    assert sorted(files(made)) == [
        *(f"{t}/shard-0000{i}.parquet" for t in ("dropped", "large_pool") for i in range(5)),
        "metrics.json",
    ]


def test_what_cannot_be_used_or_resembles_a_target_is_listed_and_costs_nothing_else(home: Path, tmp_path: Path) -> None:
    query, test = (read_table(home / "data", split)["messages"][0].tolist() for split in ("query", "test"))
    near = [{**turn, "content": turn["content"].upper()} for turn in test]
    rows = [
        {"messages": tiny.make_chat(0)},
        "{half a row",
        {"messages": []},
        {"messages": tiny.make_chat(0)},
        {"messages": query},
    ]
    rows += [
        {"messages": near},
        {"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so " * 400}]},
    ]
    rows += [{"messages": tiny.make_chat(1)}]
    out = build(config(home, write(tmp_path / "some.jsonl", rows), max_length=256), tmp_path / "out")
    dropped = read_table(out, "dropped")
    assert dict(zip(dropped["position"], dropped["reason"], strict=True)) == {
        2: "not JSON: Expecting property name enclosed in double quotes",
        3: "no messages",
        4: "exact copy of another row",
        5: "exact copy of a target",
        6: "near-duplicate of a target",
        7: "longer than max_length (256 tokens)",
    }
    assert dropped["sample"][0] == "{half a row"
    assert read_metrics(out)["dropped"] == dropped["reason"].value_counts().to_dict()
    assert (read_metrics(out)["read"], read_metrics(out)["rows"]) == (8, {"large_pool": 2})


def test_a_pool_of_unusable_rows_is_one_line_with_the_reasons(home: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "long.jsonl", [{"messages": tiny.make_chat(3)}])
    with pytest.raises(
        PlaypenError, match=r"no row of the source can be used; dropped: longer than max_length \(4 tokens\) \(1\)"
    ):
        build(config(home, file, max_length=4), tmp_path / "out")


def test_the_most_rows_to_read_are_kept_to(home: Path, tmp_path: Path) -> None:
    assert read_metrics(build(config(home, rows=7), tmp_path / "out"))["read"] == 7


def test_a_run_that_is_stopped_ends_like_one_that_is_not(
    home: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = examples.encode_batch, []

    def stopping(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(examples, "encode_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        build(config(home), tmp_path)
    kept = files(tmp_path / "large_pool")
    assert len(kept) == 2
    build(config(home, file="/gone/since.jsonl"), tmp_path)  # what was read to its end is not read again
    assert len(calls) == 3 + 3
    assert files(tmp_path) == files(made)


def test_a_run_that_is_stopped_while_it_reads_goes_on_after_the_last_whole_shard(home: Path, tmp_path: Path) -> None:
    chats = [{"messages": tiny.make_chat(seed)} for seed in (0, 1, 2, 0, 3, 1, 4)]
    source = Files(paths=(write(tmp_path / "chats.jsonl", chats),))
    set_aside(source, None, 2, tmp_path / "whole")
    set_aside(source, 4, 2, tmp_path / "stopped")
    (tmp_path / "stopped" / "read.json").unlink()
    set_aside(source, None, 2, tmp_path / "stopped")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    rows = read_table(tmp_path / "stopped", "rows")
    assert rows.loc[rows["problem"] != "", "position"].tolist() == [4, 6]


def peak(rows: int, folder: Path) -> int:
    """Return the most bytes that Python holds while rows are read and set aside."""
    text = "The lamp is under the bridge. " * 40
    chats = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": text}]} for i in range(rows)]
    file = write(folder / f"{rows}.jsonl", chats)
    tracemalloc.start()
    try:
        set_aside(Files(paths=(file,)), None, 50, folder / str(rows))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows_but_for_their_names(tmp_path: Path) -> None:
    peak(50, tmp_path)  # what is imported and cached once
    few, many = peak(200, tmp_path), peak(1600, tmp_path)
    assert many - few < 1400 * 200 < 1400 * 1200  # a row's text alone has 1,200 bytes
    assert has_table(tmp_path / "1600", "rows")
