"""Attribution equals dot products of gradients made by hand, and says what is wrong with bad input."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny
from by_hand import assert_close, gradients_by_hand

from playpen import artifact, attribution_passes
from playpen.chat import IGNORE
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_model, model_files
from playpen.stages import attribute
from playpen.tables import read_metrics, read_table, write_table

CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("attribute")
    tiny.tiny_base(path / "base")
    tiny.tiny_adapter(path / "tuned", path / "base")
    tiny.tiny_data(path / "data", path / "base")
    return path


def config(home, **changes):
    return attribute.Config(**{"model": str(home / "tuned"), "data": str(home / "data"), "projection_dim": 0, **changes})


def scores(cfg, out, machine=CPU):
    out.mkdir(exist_ok=True)
    attribute.run(cfg, out, machine)
    return read_table(out, "scores")


@pytest.mark.parametrize("aggregation", ["mean", "nearest"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("unit_normalize", [False, True])
def test_scores_are_dot_products_of_gradients_made_by_hand(home, tmp_path, aggregation, reduction, unit_normalize):
    rows, queries = (gradients_by_hand(home / "tuned", home / "data", split, reduction) for split in ("pool", "query"))
    if unit_normalize:
        rows, queries = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (rows, queries))
    expected = (rows @ queries.T).mean(1) if aggregation == "mean" else (rows @ queries.T).max(1)
    cfg = config(home, aggregation=aggregation, loss_reduction=reduction, unit_normalize=unit_normalize)
    found = scores(cfg, tmp_path / "out")
    assert found["row_id"].tolist() == read_table(home / "data", "pool")["row_id"].tolist()
    assert found["score"].dtype == np.float32
    assert_close(found["score"].to_numpy(), expected)


@pytest.mark.parametrize("unit_normalize", [False, True])
@pytest.mark.parametrize("rows_of", ["query", "split"])
def test_the_preconditioner_is_the_damped_inverse_of_second_moments(home, tmp_path, unit_normalize, rows_of):
    from playpen.gradients import Comparing, Taking, open_adapter, query_gradients

    taking = Taking(open_adapter(home / "tuned", CPU), CPU, True, 4, 0)
    raw = Comparing(False, "nearest", None, 0.1)
    pool, query = (query_gradients(taking, raw, read_table(home / "data", split)) for split in ("pool", "query"))
    rows, queries = [], []
    for name in pool:
        g, q = pool[name].numpy().astype(float), query[name].numpy().astype(float)
        fitted = q if rows_of == "query" else g
        values, vectors = np.linalg.eigh(fitted.T @ fitted / len(fitted))
        inverse = 1 / (values.clip(0) + 0.3 * values.clip(0).mean())
        left, right = (inverse**0.5, inverse**0.5) if unit_normalize else (inverse, np.ones_like(inverse))
        queries.append(q @ vectors * left @ vectors.T)
        rows.append(g @ vectors * right @ vectors.T)
    rows, queries = np.concatenate(rows, 1), np.concatenate(queries, 1)
    if unit_normalize:
        rows, queries = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (rows, queries))
    changes = {"preconditioner": "autocorrelation", "preconditioner_rows": rows_of, "damping": 0.3, "projection_dim": 4}
    found = scores(config(home, unit_normalize=unit_normalize, **changes), tmp_path / "out")
    assert_close(found["score"].to_numpy(), (rows @ queries.T).mean(1), 1e-3)


def test_a_projection_keeps_the_order_of_the_scores_and_depends_on_its_seed(home, tmp_path):
    exact = scores(config(home), tmp_path / "exact")["score"]
    first = scores(config(home, projection_dim=64), tmp_path / "first")["score"]
    again = scores(config(home, projection_dim=64), tmp_path / "again")["score"]
    other = scores(config(home, projection_dim=64, seed=1), tmp_path / "other")["score"]
    assert np.corrcoef(exact, first)[0, 1] > 0.9
    assert first.equals(again)
    assert not first.equals(other)


def test_batches_of_other_sizes_change_nothing(home, tmp_path):
    together = scores(config(home), tmp_path / "together")
    alone = scores(config(home), tmp_path / "alone", Machine(device="cpu", forward_tokens=1))
    assert_close(alone["score"].to_numpy(), together["score"].to_numpy(), 1e-5)


def test_only_the_labels_that_a_token_predicts_count(home, tmp_path):
    pool = read_table(home / "data", "pool")
    chats = [list(messages) for messages in pool["messages"]]
    first_labelled = [[ids[0], *labels[1:]] for ids, labels in zip(pool["input_ids"], pool["labels"], strict=True)]
    prompt_too = [[IGNORE, *ids[1:]] for ids in pool["input_ids"]]
    before = scores(config(home), tmp_path / "before")["score"]
    for name, labels, same in (("first", first_labelled, True), ("prompt", prompt_too, False)):
        table = tiny.data_table(chats, labels=labels)
        tiny.tiny_data(tmp_path / name, home / "base", {"pool": table, "query": _table(home, "query")})
        after = scores(config(home, data=str(tmp_path / name)), tmp_path / f"{name}-out")["score"]
        assert after.equals(before) is same


def _table(home, split):
    import pyarrow.parquet as pq

    return pq.read_table(home / "data" / f"{split}.parquet")


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(home, tmp_path, monkeypatch):
    monkeypatch.setattr(attribution_passes, "SHARD", 5)
    cfg = config(home, projection_dim=8, preconditioner="autocorrelation")
    whole, real, made = scores(cfg, tmp_path / "whole"), attribution_passes._shard, []

    def killed_at_the_third(scoring, rows, file, bar):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(file)
        return real(scoring, rows, file, bar)

    monkeypatch.setattr(attribution_passes, "_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        scores(cfg, tmp_path / "killed")
    monkeypatch.setattr(attribution_passes, "_shard", real)
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "work").rglob("*") if file.is_file()}
    assert set(made) <= set(written)
    np.save(made[0], np.full((5, 2), 7.0, np.float32))  # what is there is taken, not made again
    resumed = scores(cfg, tmp_path / "killed")
    assert (resumed["score"][:5] == 7).all()
    assert resumed["score"][5:].equals(whole["score"][5:])
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


def test_diagnostics_summary_and_metrics_tell_what_was_done(home, tmp_path):
    from playpen.losses import row_losses

    table = scores(config(home, aggregation="nearest"), tmp_path / "out")
    pool = read_table(home / "data", "pool")
    lines = [json.loads(line) for line in (tmp_path / "out" / "row_diagnostics.jsonl").read_text().splitlines()]
    losses = row_losses(load_model(home / "tuned", CPU), pool["input_ids"], pool["labels"], CPU)
    np.testing.assert_allclose([line["loss"] for line in lines], losses, rtol=1e-5)
    assert [line["score"] for line in lines] == table["score"].tolist()
    assert [line["length"] for line in lines] == pool["num_tokens"].tolist()
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    ten_best = pool.loc[table["score"].nlargest(10).index]
    assert told["coverage"] == 1
    assert told["top"]["10"]["sources"] == ten_best["source"].value_counts(normalize=True).to_dict()
    assert told["spearman"]["length"] == pytest.approx(table["score"].corr(pool["num_tokens"], "spearman"))
    metrics = read_metrics(tmp_path / "out")
    assert metrics["tokens"]["pool"] == pool["num_tokens"].sum()
    query = read_table(home / "data", "query")
    assert metrics["labels"] == {"pool": pool["num_labels"].sum(), "query": query["num_labels"].sum()}
    assert metrics["settings"] | {"loss_reduction": "mean", "score": "nearest", "projection_dim": None} == metrics["settings"]


def test_correlations_leave_out_rows_without_a_quality_and_have_no_meaning_without_spread():
    rows = pd.DataFrame({"score": [1.0, 2.0, 3.0, 4.0], "quality_score": [5.0, None, 7.0, 6.0], "source": list("aabb")})
    found = attribute.summary(rows.assign(num_tokens=3, num_labels=1, loss=[4.0, 3.0, 2.0, 1.0]))["spearman"]
    assert found == {"length": None, "num_labels": None, "loss": pytest.approx(-1), "quality_score": pytest.approx(0.5)}


def test_the_inputs_stay_as_they_were(home, tmp_path):
    scores(config(home), tmp_path / "out")
    assert [artifact.verify(home / name) for name in ("base", "tuned", "data")] == [[], [], []]


def edited_adapter(home, path, change):
    """Return a finetune artifact whose adapter weights went through `change(dict) -> dict`."""
    from safetensors.torch import load_file, save_file

    tiny.tiny_adapter(path, home / "base")
    file = model_files(path).adapter / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return str(path)


def refused(cfg, out, words):
    with pytest.raises(PlaypenError, match=words) as error:
        scores(cfg, out)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_reach_the_model_are_an_error_instead_of_random_ones(home, tmp_path):
    renamed = edited_adapter(home, tmp_path / "tuned", lambda w: {k.replace("layers.1", "layers.9"): v for k, v in w.items()})
    refused(config(home, model=renamed), tmp_path / "out", "did not load")


def test_an_adapter_without_any_gradient_is_explained(home, tmp_path):
    zero = edited_adapter(home, tmp_path / "tuned", lambda w: {k: v * 0 for k, v in w.items()})
    refused(config(home, model=zero), tmp_path / "out", "all 16 scores are 0")


def test_an_adapter_as_it_starts_has_scores(home, tmp_path):
    tiny.tiny_adapter(tmp_path / "fresh", home / "base", zero_b=True)
    assert scores(config(home, model=str(tmp_path / "fresh")), tmp_path / "out")["score"].abs().min() > 0


def test_scores_that_are_not_finite_name_the_row(home, tmp_path):
    wild = edited_adapter(home, tmp_path / "tuned", lambda w: {k: v * 1e30 for k, v in w.items()})
    first = read_table(home / "data", "pool")["row_id"].iloc[0]
    refused(config(home, model=wild), tmp_path / "out", f"not finite, the first is row_id {first}")


def test_a_model_without_adapter_is_refused(home, tmp_path):
    refused(config(home, model=str(home / "base")), tmp_path / "out", "has no adapter")


def test_data_in_other_tokens_is_refused(home, tmp_path):
    tiny.tiny_data(tmp_path / "data", home / "base")
    metrics = tmp_path / "data" / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "tokenizer": "another"}))
    refused(config(home, data=str(tmp_path / "data")), tmp_path / "out", "another tokenizer")


@pytest.mark.parametrize("split", ["query", "pool"])
def test_data_without_queries_or_rows_is_refused(home, tmp_path, split):
    tiny.tiny_data(tmp_path / "none", home / "base", {"pool": 4, "query": 2, split: 0})
    refused(config(home, data=str(tmp_path / "none")), tmp_path / "out-none", split)
    tiny.tiny_data(tmp_path / "empty", home / "base", {"pool": 4, "query": 2, split: 0})
    write_table(tmp_path / "empty" / f"{split}.parquet", tiny.data_table([]))
    refused(config(home, data=str(tmp_path / "empty")), tmp_path / "out-empty", f"no {split} rows")


def test_a_row_longer_than_the_context_is_named(home, tmp_path):
    tiny.tiny_base(tmp_path / "base", context=64)
    tiny.tiny_adapter(tmp_path / "tuned", tmp_path / "base")
    longest = read_table(home / "data", "pool").sort_values("num_tokens").iloc[-1]
    cfg = replace(config(home), model=str(tmp_path / "tuned"))
    refused(cfg, tmp_path / "out", f"row_id {longest.row_id} has {longest.num_tokens} tokens, but the model's context is 64")


def test_a_row_without_a_label_is_named(home, tmp_path):
    chats = [tiny.make_chat(seed) for seed in range(3)]
    labels = [[IGNORE] * n for n in tiny.data_table(chats)["num_tokens"].to_pylist()]
    tiny.tiny_data(tmp_path / "data", home / "base", {"pool": tiny.data_table(chats, labels=labels), "query": 2})
    refused(config(home, data=str(tmp_path / "data")), tmp_path / "out", "no token with a label")


def test_a_preconditioner_of_whole_gradients_is_refused(home, tmp_path):
    refused(config(home, preconditioner="autocorrelation"), tmp_path / "out", "projection_dim")
