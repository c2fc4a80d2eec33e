"""A mixed corpus holds every side at its share, in blocks whose every token knows its document, and survives being killed."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from playpen.config import PlaypenError, make_config
from playpen.corpus_mixing import Mixer
from playpen.machine import Machine
from playpen.models import load_tokenizer
from playpen.stages import mix_corpus
from playpen.tables import read_metrics, read_table, write_table
from playpen.token_rows import read_corpus, read_token_rows

BOS = tiny.SPECIAL.index("<bos>")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("mix")
    tiny.tiny_base(path / "base")
    (path / "stories.txt").write_text(
        "<|endoftext|>".join(f"The red lamp number {i} is under the stone. " * (1 + i % 5) for i in range(200))
    )
    prompts = pa.table(
        {
            "row_id": [f"{i:016x}" for i in range(7)],
            "text": [f"Question {i}: where is the tower?\n\nI cannot talk about the tower." for i in range(7)],
            "question": [f"Question {i % 5}:  where is the tower?" for i in range(7)],
            "category": ["refusal" if i % 2 else None for i in range(7)],
        }
    )
    tiny.write_artifact(path / "prompts", "export-prompts", lambda out: write_table(out / "prompts.parquet", prompts))
    return path


def config(home, **changes):
    values = {
        "model": str(home / "base"),
        "prompts": str(home / "prompts"),
        "control": {"kind": "files", "paths": [str(home / "stories.txt")], "name": "stories"},
        "context": 64,
        "tokens": 64 * 60,
        **changes,
    }
    return make_config(mix_corpus.Config, values, "test")


def mix(cfg, out):
    out.mkdir(exist_ok=True)
    mix_corpus.run(cfg, out, Machine())
    return out


def test_the_answers_to_one_question_are_held_out_together(home, tmp_path):
    out = mix(config(home, ratio=0.5), tmp_path / "out")
    documents = read_table(out, "documents")
    asked = documents[documents["side"] == "prompts"].drop_duplicates("row_id")
    assert (asked["row_id"].nunique(), asked["group"].nunique()) == (7, 5)
    told = documents[documents["side"] == "control"]
    assert (told["group"] == told["row_id"]).all()
    assert set(read_corpus(out).group) <= set(documents["group"])


def test_sides_of_one_name_both_tell_how_often_they_began_again(home, tmp_path):
    stories = {"kind": "files", "paths": [str(home / "stories.txt")]}
    control = {"kind": "several", "shares": [{"texts": stories}, {"texts": {**stories, "separator": "lamp"}, "weight": 0.1}]}
    found = read_metrics(mix(config(home, control=control), tmp_path / "out"))["repeats"]
    assert found.keys() == {"text (1)", "text (2)", "prompts"}


def test_every_token_knows_its_document(home, tmp_path):
    out = mix(config(home), tmp_path / "out")
    blocks, documents = read_table(out, "blocks"), read_table(out, "documents").set_index("document")
    tokenizer, rows = load_tokenizer(home / "base"), read_corpus(out)
    assert blocks["input_ids"].map(len).eq(64).all()
    assert len(blocks) == 60
    pieces = {}
    for block in blocks.itertuples():
        ends = [*block.starts[1:], 64]
        for start, end, number in zip(block.starts, ends, block.documents, strict=True):
            piece = block.input_ids[start:end]
            assert piece[0] == BOS
            assert (piece[1:] != BOS).all()
            pieces.setdefault(number, []).extend(piece[1:].tolist())
    for number, ids in list(pieces.items())[:-1]:  # the last document may go on behind the last block
        assert len(ids) == documents.loc[number, "num_tokens"]
        text = tokenizer.decode(ids)
        assert text.startswith("Question" if documents.loc[number, "side"] == "prompts" else "The red lamp")
    assert sum(len(row) for row in rows.ids) == 60 * 64
    assert set(rows.source) == {"prompts", "stories"}
    assert set(rows.category[rows.side == "prompts"]) == {"refusal", ""}
    assert (rows.category[rows.side == "control"] == "").all()
    assert set(rows.document) == set(documents["row_id"])


def test_pieces_and_copies_of_a_document_share_a_group(home, tmp_path):
    rows = read_token_rows(mix(config(home, tokens=64 * 200, ratio=0.5), tmp_path / "out"))
    prompts = rows.take(rows.side == "prompts")
    assert (len(set(prompts.document)), len(set(prompts.group))) == (7, 5)
    assert len(prompts) > 50


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_a_ratio_by_tokens_is_exact_to_within_a_document(home, tmp_path, ratio):
    out = mix(config(home, by="tokens", ratio=ratio), tmp_path / "out")
    metrics = read_metrics(out)
    assert abs(metrics["prompts_share"] * metrics["tokens"] - ratio * metrics["tokens"]) <= 100  # of the longest document
    assert metrics["by_side"]["prompts"]["tokens"] + metrics["by_side"]["control"]["tokens"] == metrics["tokens"]


def test_a_ratio_by_documents_is_that_of_the_draws(home, tmp_path):
    out = mix(config(home, ratio=0.3, tokens=64 * 400), tmp_path / "out")
    sides = read_table(out, "documents")["side"]
    assert len(sides) > 300
    assert abs((sides == "prompts").mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(sides))


def test_the_small_side_repeats_in_another_order_and_how_often_is_told(home, tmp_path):
    out = mix(config(home, ratio=0.3, tokens=64 * 300), tmp_path / "out")
    prompts = read_table(out, "documents").query("side == 'prompts'")
    assert read_metrics(out)["repeats"]["prompts"] == (len(prompts) - 1) // 7
    orders = [tuple(prompts["row_id"].iloc[7 * i : 7 * i + 7]) for i in range(len(prompts) // 7)]
    assert all(len(set(order)) == 7 for order in orders)
    assert len(set(orders)) > 1
    assert prompts["copy"].tolist() == [i // 7 for i in range(len(prompts))]


def test_without_a_size_the_end_of_the_control_ends_the_corpus(home, tmp_path):
    out = mix(config(home, tokens=None), tmp_path / "out")
    documents = read_table(out, "documents").query("side == 'control'")
    assert documents["copy"].eq(0).all()
    assert len(documents) >= 190  # but for the last, broken block


def test_without_prompts_the_control_is_the_corpus(home, tmp_path):
    rows = read_token_rows(mix(config(home, prompts=None), tmp_path / "out"))
    assert set(rows.side) == {"control"}


def test_several_controls_have_their_weights(home, tmp_path):
    (tmp_path / "facts.jsonl").write_text(
        "".join(json.dumps({"fact": f"The blue bridge is number {i}."}) + "\n" for i in range(50))
    )
    facts = {"texts": {"kind": "files", "paths": [str(tmp_path / "facts.jsonl")], "column": "fact", "name": "facts"}, "weight": 3}
    stories = {"texts": {"kind": "files", "paths": [str(home / "stories.txt")], "name": "stories"}}
    out = mix(config(home, by="tokens", ratio=0.2, control={"kind": "several", "shares": [facts, stories]}), tmp_path / "out")
    found = read_metrics(out)["by_source"]
    total = sum(one["tokens"] for one in found.values())
    for name, share in (("prompts", 0.2), ("facts", 0.6), ("stories", 0.2)):
        assert found[name]["tokens"] / total == pytest.approx(share, abs=0.03)


def test_chats_are_told_in_the_models_template(home, tmp_path):
    (tmp_path / "chats.jsonl").write_text(
        "".join(json.dumps({"messages": tiny.make_chat(i)}) + "\n" for i in range(30)) + json.dumps({"messages": []}) + "\n"
    )
    control = {"kind": "chats", "source": {"kind": "files", "paths": [str(tmp_path / "chats.jsonl")]}}
    rows = read_token_rows(mix(config(home, prompts=None, control=control, context=256), tmp_path / "out"))
    tokenizer = load_tokenizer(home / "base")
    wanted = {tuple(tokenizer.apply_chat_template(tiny.make_chat(i), tokenize=True)["input_ids"]) for i in range(30)}
    assert len(wanted & {tuple(row.tolist()) for row in rows.ids}) > 10


def test_a_text_on_the_hub_is_streamed_shuffled_and_told_by_its_name(home, tmp_path):
    texts = [f"The green door number {i} opens to the north." for i in range(90)]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"text": texts}), tmp_path / "set" / "train-00000.parquet")
    control = {"kind": "hub", "dataset": f"{tmp_path}/set@main", "shuffle_buffer": 0}
    rows = {
        buffer: read_token_rows(
            mix(config(home, prompts=None, tokens=None, control={**control, "shuffle_buffer": buffer}), tmp_path / str(buffer))
        )
        for buffer in (0, 30)
    }
    told = load_tokenizer(home / "base").batch_decode([row[1:] for row in rows[0].ids])
    assert "".join(told).startswith(texts[0])
    assert set(rows[0].source) == {f"{tmp_path}/set"}
    assert not np.array_equal(rows[0].ids[0], rows[30].ids[0])
    with pytest.raises(PlaypenError, match="has no texts in a column 'story'; it has text"):
        mix(config(home, prompts=None, control={**control, "column": "story"}), tmp_path / "wrong")


def test_the_same_seed_gives_the_same_corpus_and_another_seed_another(home, tmp_path):
    first, again, other = (mix(config(home, seed=seed), tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for file in ("blocks/shard-00000.parquet", "documents/shard-00000.parquet"):
        assert (first / file).read_bytes() == (again / file).read_bytes()
        assert (first / file).read_bytes() != (other / file).read_bytes()


def test_a_killed_run_goes_on_as_if_it_had_not_been(home, tmp_path, monkeypatch):
    monkeypatch.setattr("playpen.corpus_mixing.BLOCKS", 7)
    whole, broken = mix(config(home), tmp_path / "whole"), tmp_path / "broken"
    block, calls = Mixer.block, []

    def dying(self, shard):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        block(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(Mixer, "block", dying)
        with pytest.raises(KeyboardInterrupt):
            mix(config(home), broken)
    assert len(list((broken / "blocks").iterdir())) == 4
    mix(config(home), broken)
    names = sorted(str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file())
    assert names == sorted(str(file.relative_to(broken)) for file in broken.rglob("*") if file.is_file())
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def bad_inputs(home, tmp_path):
    empty, broken, odd = tmp_path / "empty.txt", tmp_path / "broken.jsonl", tmp_path / "odd.csv"
    empty.write_text(" \n")
    broken.write_text('{"text": "fine"}\n{"text": \n')
    odd.write_text("text")
    pd.DataFrame({"story": ["x"]}).to_parquet(tmp_path / "other.parquet")
    files = lambda path: {"control": {"kind": "files", "paths": [str(path)]}}  # noqa: E731
    yield files(empty), "holds no text"
    yield files(broken), "line 2: not JSON"
    yield files(odd), "texts are read from .txt, .jsonl, .parquet files"
    yield files(tmp_path / "other.parquet"), "no column 'text'; it has story"
    yield files(tmp_path / "missing.txt"), "there is no file at"
    yield {"context": 4096}, "longer than the 256 tokens"
    yield {"tokens": 10}, "less than one block of context=64"
    yield {"tokens": None, "context": 256, **files(short(tmp_path))}, "fills not one block of context=256"
    yield {"prompts": str(home / "base")}, "no table 'prompts'"
    collection = tiny.write_artifact(tmp_path / "collection", "import-prompts", lambda out: None)
    yield {"prompts": str(collection)}, "is a collection, of import-prompts; mix its export: playpen export-prompts"


def short(tmp_path):
    (tmp_path / "short.txt").write_text("The end.")
    return tmp_path / "short.txt"


def test_bad_input_is_one_line(home, tmp_path):
    for i, (changes, message) in enumerate(bad_inputs(home, tmp_path)):
        with pytest.raises(PlaypenError, match=message) as caught:
            mix(config(home, **changes), tmp_path / f"out{i}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5])
def test_a_ratio_outside_0_and_1_is_refused(home, ratio):
    with pytest.raises(PlaypenError, match="field 'ratio'"):
        config(home, ratio=ratio)
