"""Fingerprints equal a slow loop over single examples, whatever the batches; a killed run goes on."""

import json

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch

from playpen import fingerprints
from playpen.chat import IGNORE
from playpen.config import PlaypenError
from playpen.fingerprints import fingerprint_rows, open_fingerprinter
from playpen.machine import Machine
from playpen.models import load_base, model_files
from playpen.saes import open_sae, write_sae
from playpen.stages import fingerprint
from playpen.tables import read_metrics, read_table

BOS, D_SAE = tiny.SPECIAL.index("<bos>"), 96
HOOK = "model.layers.0.output"


def cpu(tokens=4096):
    return Machine(device="cpu", forward_tokens=tokens)


def random_sae(path, base, kind="jumprelu", d_in=32, model_id="own"):
    """Write a SAE artifact of random weights; its threshold leaves some 15 % of features active."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig

    draw = torch.Generator().manual_seed(0)
    if kind == "jumprelu":
        sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=D_SAE))
        sae.threshold.data.fill_(4.0)
    else:
        sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=D_SAE, k=5))
    sae.W_enc.data = torch.randn((d_in, D_SAE), generator=draw)
    found = model_files(base).base_id if model_id == "own" else model_id
    return tiny.write_artifact(path, "load-sae", lambda out: write_sae(out, sae, HOOK, found) and None)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("fingerprint")
    base = tiny.tiny_base(path / "base")
    random_sae(path / "sae", base)
    random_sae(path / "topk", base, "topk")
    odd = pa.table({"messages": [tiny.make_chat(i) for i in range(12)]})["messages"].to_pylist()
    tiny.tiny_data(path / "data", base, {"pool": tiny.data_table(odd), "train": 3})
    return path


def slow(home, sae_name, row, tokens, k):
    """Return one row's fingerprint by dense arithmetic over its own forward pass."""
    model, sae = load_base(home / "base", cpu()), open_sae(home / sae_name, cpu())
    ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
    with torch.no_grad():
        hidden = model(input_ids=torch.from_numpy(ids)[None].long(), output_hidden_states=True).hidden_states[1][0]
        acts = sae.encode(hidden).double().numpy()
    real, answer = ids != BOS, labels != IGNORE
    pools = {"answer": [real & answer], "prompt": [real & ~answer], "all": [real], "both": [real & ~answer, real & answer]}[
        tokens
    ]
    mean = np.concatenate([acts[pool].mean(0) for pool in pools])
    peak = np.concatenate([acts[pool].max(0) for pool in pools])
    fraction = np.concatenate([(acts[pool] > 0).mean(0) for pool in pools])
    ids = [i for i in np.argsort(-mean, kind="stable") if mean[i] > 0][:k]
    on = acts[np.any(pools, axis=0)]
    active, per_token, per_feature = on > 0, (on > 0).sum(1), (on > 0).sum(0)
    strengths, shares = on[active], per_feature / per_feature.sum()
    stats = [len(on), active.mean(), active.any(0).mean(), strengths.mean(), strengths.std(), strengths.max()]
    stats += [per_token.mean(), per_token.std(), per_token.std() / per_token.mean(), (shares**2).sum()]
    return {"ids": ids, "mean": mean[ids], "max": peak[ids], "fraction": fraction[ids], "stats": stats}


def fast(home, sae_name, tokens, k, budget=4096, rows=None):
    table = pa.Table.from_pandas(read_table(home / "data", "pool", fingerprints.COLUMNS))
    fingerprinter = open_fingerprinter(home / sae_name, home / "base", tokens, k, cpu(budget))
    return fingerprint_rows(fingerprinter, table if rows is None else table.take(rows))


@pytest.mark.parametrize(
    ("sae", "tokens", "k"), [("sae", "answer", 20), ("sae", "both", 500), ("topk", "prompt", 8), ("topk", "all", 500)]
)
def test_fingerprints_equal_a_slow_loop(home, sae, tokens, k):
    found = fast(home, sae, tokens, k, budget=300).to_pylist()
    rows = read_table(home / "data", "pool").to_dict("records")
    assert [f["row_id"] for f in found] == [row["row_id"] for row in rows]
    for f, row in zip(found, rows, strict=True):
        expected = slow(home, sae, row, tokens, k)
        assert f["ids"] == expected["ids"]
        for name in ("mean", "max", "fraction", "stats"):
            np.testing.assert_allclose(f[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_batches_and_order_do_not_change_fingerprints(home):
    one, many = fast(home, "sae", "answer", 16, budget=1), fast(home, "sae", "answer", 16, rows=list(range(11, -1, -1)))
    many = many.take(list(range(11, -1, -1)))
    assert one["ids"].to_pylist() == many["ids"].to_pylist()
    for name in ("mean", "max", "fraction", "stats"):
        a, b = (table[name].combine_chunks().flatten().to_numpy() for table in (one, many))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_row_without_pooled_tokens_is_empty_not_an_error(home):
    table = pa.Table.from_pandas(read_table(home / "data", "pool", fingerprints.COLUMNS)).slice(0, 2)
    none = pa.array([[IGNORE] * len(row) for row in table["labels"].to_pylist()], pa.list_(pa.int32()))
    fingerprinter = open_fingerprinter(home / "sae", home / "base", "answer", 8, cpu())
    found = fingerprint_rows(fingerprinter, table.set_column(2, "labels", none)).to_pylist()
    assert [(f["ids"], f["stats"]) for f in found] == [([], [0.0] * 10)] * 2
    assert fingerprint_rows(fingerprinter, table.slice(0, 0)).schema == fingerprints.SCHEMA


@pytest.mark.parametrize("tokens", ["answer", "prompt", "all", "both"])
def test_hidden_states_are_the_mean_of_what_the_sae_reads_over_the_same_tokens(home, tokens):
    table = pa.Table.from_pandas(read_table(home / "data", "pool", fingerprints.COLUMNS))
    fingerprinter = open_fingerprinter(home / "sae", home / "base", tokens, 8, cpu(300))
    made = fingerprint_rows(fingerprinter, table, hidden=True)
    plain = fingerprint_rows(fingerprinter, table)
    assert made.drop_columns("vector").equals(plain)
    model = load_base(home / "base", cpu())
    for row, vector in zip(table.to_pylist(), made["vector"].to_pylist(), strict=True):
        ids, answer = np.array(row["input_ids"]), np.array(row["labels"]) != IGNORE
        with torch.no_grad():
            states = model(input_ids=torch.from_numpy(ids)[None].long(), output_hidden_states=True).hidden_states[1][0].numpy()
        pools = {"answer": [answer], "prompt": [~answer], "all": [answer | True], "both": [~answer, answer]}[tokens]
        expected = np.concatenate([states[pool & (ids != BOS)].mean(0) for pool in pools])
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_row_without_pooled_tokens_has_a_hidden_state_of_zeros(home):
    table = pa.Table.from_pandas(read_table(home / "data", "pool", fingerprints.COLUMNS)).slice(0, 1)
    none = pa.array([[IGNORE] * len(row) for row in table["labels"].to_pylist()], pa.list_(pa.int32()))
    fingerprinter = open_fingerprinter(home / "sae", home / "base", "answer", 8, cpu())
    found = fingerprint_rows(fingerprinter, table.set_column(2, "labels", none), hidden=True)
    assert found["vector"].to_pylist() == [[0.0] * 32]


def run(home, out, **changes):
    out.mkdir(exist_ok=True)
    names = {"sae": "sae", "model": "base", "data": "data"}
    cfg = {**{key: str(home / name) for key, name in names.items()}, "k": 8, **changes}
    fingerprint.run(fingerprint.Config(**cfg), out, cpu())


def test_the_stage_writes_whole_shards_and_skips_those_it_finds(home, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SHARD_ROWS", 5)
    run(home, tmp_path / "whole")
    whole = read_table(tmp_path / "whole", "features")
    assert [p.name for p in sorted((tmp_path / "whole/features").iterdir())] == [f"shard-0000{i}.parquet" for i in range(3)]
    kept, lost = (tmp_path / "whole/features" / f"shard-0000{i}.parquet" for i in (0, 1))
    beside = tmp_path / "whole/hidden" / lost.name
    before, stamp = (lost.read_bytes(), beside.read_bytes()), kept.stat().st_mtime_ns
    lost.unlink()  # as in a run killed between the two tables: the hidden states are written first
    (tmp_path / "whole/metrics.json").unlink()
    run(home, tmp_path / "whole")
    assert (lost.read_bytes(), beside.read_bytes()) == before
    assert kept.stat().st_mtime_ns == stamp
    assert list(whole["row_id"]) == list(read_table(home / "data", "pool")["row_id"])
    assert read_metrics(tmp_path / "whole")["rows"] == 12


def test_a_shard_that_cannot_be_written_ends_the_work(home, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SHARD_ROWS", 5)
    (tmp_path / "features").write_text("in the way of the directory")
    with pytest.raises(FileExistsError):
        run(home, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_hidden_states_are_a_table_beside_the_features_that_can_be_left_out(home, tmp_path):
    run(home, tmp_path / "with")
    run(home, tmp_path / "without", hidden=False)
    hidden, features = (read_table(tmp_path / "with", name) for name in ("hidden", "features"))
    assert hidden["row_id"].tolist() == features["row_id"].tolist()
    assert {len(vector) for vector in hidden["vector"]} == {32}
    assert not (tmp_path / "without/hidden").exists()
    names = (tmp_path / "with/features/shard-00000.parquet", tmp_path / "without/features/shard-00000.parquet")
    assert names[0].read_bytes() == names[1].read_bytes()


def test_fingerprint_json_says_what_predict_must_repeat(home, tmp_path):
    run(home, tmp_path / "out", tokens="both")
    found = json.loads((tmp_path / "out/fingerprint.json").read_text())
    assert {key: found[key] for key in ("tokens", "k", "d_sae", "num_features", "hook")} == {
        "tokens": "both",
        "k": 8,
        "d_sae": D_SAE,
        "num_features": 2 * D_SAE,
        "hook": HOOK,
    }
    ids = np.concatenate(read_table(tmp_path / "out", "features")["ids"])
    assert ids.min() < D_SAE <= ids.max() < 2 * D_SAE


def test_an_adapter_changes_nothing_because_the_base_is_read(home, tmp_path):
    tiny.tiny_adapter(home / "tuned", home / "base")
    run(home, tmp_path / "plain")
    run(home, tmp_path / "tuned", model=str(home / "tuned"))
    a, b = (read_table(tmp_path / name, "features") for name in ("plain", "tuned"))
    assert a["mean"].map(list).tolist() == b["mean"].map(list).tolist()


def test_a_sae_of_another_base_is_refused_and_one_of_no_base_is_not(home, tmp_path):
    random_sae(tmp_path / "strange", home / "base", model_id="0123abcd")
    with pytest.raises(PlaypenError, match="was made for base 0123abcd, but"):
        run(home, tmp_path / "out", sae=str(tmp_path / "strange"))
    random_sae(tmp_path / "free", home / "base", model_id=None)
    run(home, tmp_path / "out", sae=str(tmp_path / "free"))


def test_a_sae_of_another_width_is_refused(home, tmp_path):
    random_sae(tmp_path / "wide", home / "base", d_in=48)
    with pytest.raises(PlaypenError, match=r"width 48, but those at 'model\.layers\.0\.output' are 32 wide"):
        run(home, tmp_path / "out", sae=str(tmp_path / "wide"))
