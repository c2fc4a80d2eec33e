"""The stage score: every rival writes the same table, finds a planted copy, and goes on after it was killed."""

import numpy as np
import pandas as pd
import pytest
import tiny
from near_copy import CPU, PLACE, data_of, make_fingerprints, make_home, pool_of

from playpen import cli
from playpen.chat import IGNORE
from playpen.config import PlaypenError, make_config
from playpen.rivals import vectors
from playpen.selection_diversity import RoundRobin
from playpen.selection_rules import TopK
from playpen.stages import score, select
from playpen.tables import read_metrics, read_table, write_table


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = make_home(tmp_path_factory.mktemp("score"))
    make_fingerprints(path)
    return path


def plain(home, kind, **changes):
    """Return a method as plain data, with the inputs that it needs."""
    model, features = {"model": str(home / "base")}, {"features": str(home / "features")}
    needs = {"perplexity": model, "ifd": model, "rds": model, "hidden": model, "sae_coverage": features}
    needs["sae_similarity"] = {**features, "queries": str(home / "query_features")}
    return {"kind": kind, **needs.get(kind, {}), **changes}


def config(home, kind, data=None, **changes):
    values = {"data": str(data or home / "data"), "method": plain(home, kind, **changes)}
    return make_config(score.Config, values, "test")


def run(cfg, out, machine=CPU):
    out.mkdir(exist_ok=True)
    score.run(cfg, out, machine)
    return read_table(out, "scores")


FAST = ("random", "length", "column", "perplexity", "ifd", "bm25", "dsir", "rds", "hidden", "sae_coverage", "sae_similarity")


@pytest.mark.parametrize("kind", FAST)
def test_every_rival_scores_every_row_in_the_order_of_the_split(home, tmp_path, kind):
    found = run(config(home, kind), tmp_path / "out")
    assert found.dtypes["score"] == np.float32
    assert found["row_id"].tolist() == pool_of(home)["row_id"].tolist()
    assert np.isfinite(found["score"]).all()
    assert not (tmp_path / "out" / "work").exists()
    metrics = read_metrics(tmp_path / "out")
    with_queries = kind in ("bm25", "dsir", "rds", "hidden", "sae_similarity")
    assert metrics["queries"] == (3 if with_queries else 0)
    assert set(metrics["seconds"]) == {"open", "pool", "query"}
    assert (metrics["tokens"]["pool"] > 0) is (kind in ("perplexity", "ifd", "rds", "hidden"))
    assert (metrics["rows"], metrics["rows_without_score"]) == (16, 0)


@pytest.mark.parametrize("kind", ["bm25", "dsir", "rds", "hidden", "sae_similarity"])
def test_a_near_copy_of_a_query_is_at_the_top(home, tmp_path, kind):
    changes = {} if kind == "dsir" else {"aggregate": "max"}
    assert int(run(config(home, kind, **changes), tmp_path / "out")["score"].argmax()) == PLACE


def test_minilm_finds_the_near_copy_and_writes_its_vectors_and_the_scores_of_each_query(home, tmp_path):
    values = {"data": str(home / "data"), "method": plain(home, "minilm", aggregate="max"), "per_query": True}
    found = run(make_config(score.Config, values, "test"), tmp_path / "out")
    cells = np.stack(read_table(tmp_path / "out", "query_scores")["scores"].to_numpy())
    np.testing.assert_allclose(cells.max(1), found["score"], rtol=1e-5)
    assert int(found["score"].argmax()) == PLACE
    written = read_table(tmp_path / "out", "vectors")
    assert written["row_id"].tolist() == found["row_id"].tolist()
    np.testing.assert_allclose(np.linalg.norm(np.stack(written["vector"]), axis=1), 1, atol=1e-5)
    metrics = read_metrics(tmp_path / "out")
    assert 0 < metrics["tokens"]["query"] < metrics["tokens"]["pool"]
    assert not (tmp_path / "out" / "work").exists()


def test_the_scores_can_be_selected_from(home, tmp_path):
    tiny.write_artifact(tmp_path / "scores", "score", lambda out: score.run(config(home, "bm25", aggregate="max"), out, CPU))
    cfg = select.Config(data=str(home / "data"), scores=str(tmp_path / "scores"), method=TopK(k=1))
    chosen = select.choose(cfg)
    assert chosen.loc[chosen["kept"], "row_id"].tolist() == [pool_of(home)["row_id"][PLACE]]


@pytest.mark.parametrize("kind", ["bm25", "rds", "hidden", "sae_similarity"])
def test_scores_of_each_query_are_those_whose_mean_or_maximum_is_the_score(home, tmp_path, kind):
    for aggregate in ("mean", "max"):
        values = {"data": str(home / "data"), "method": plain(home, kind, aggregate=aggregate), "per_query": True}
        found = run(make_config(score.Config, values, "test"), tmp_path / aggregate)
        each = read_table(tmp_path / aggregate, "query_scores")
        assert each["row_id"].tolist() == found["row_id"].tolist()
        cells = np.stack(each["scores"].to_numpy())
        assert (cells.shape, cells.dtype) == ((16, 3), np.float32)
        np.testing.assert_allclose(getattr(cells, aggregate)(1), found["score"], rtol=1e-5)
        assert run(config(home, kind, aggregate=aggregate), tmp_path / f"plain_{aggregate}").equals(found)
        assert not (tmp_path / f"plain_{aggregate}" / "query_scores.parquet").exists()
    assert int(cells[:, 0].argmax()) == PLACE


def test_round_robin_lets_the_queries_of_rds_pick(home, tmp_path):
    values = {"data": str(home / "data"), "method": plain(home, "rds"), "per_query": True}
    tiny.write_artifact(tmp_path / "rds", "score", lambda out: score.run(make_config(score.Config, values, "test"), out, CPU))
    chosen = select.choose(
        select.Config(data=str(home / "data"), scores=str(tmp_path / "rds"), method=RoundRobin(k=3, order="split"))
    )
    cells = pd.DataFrame(np.stack(read_table(tmp_path / "rds", "query_scores")["scores"].to_numpy()), pool_of(home)["row_id"])
    expected = []
    for query in range(3):
        expected.append(cells[query].drop(expected).idxmax())
    assert chosen.loc[chosen["kept"], "row_id"].tolist() == expected
    assert expected[0] == pool_of(home)["row_id"][PLACE]


def test_a_row_without_a_score_is_the_last_of_each_query_that_prefers_any():
    each = np.float32([[0.5, 0.0], [9.0, 9.0], [-0.5, 0.0]])
    found = score.complete_each(each, np.array([True, False, True]))
    assert found[[0, 2]].tolist() == each[[0, 2]].tolist()
    assert -0.5001 < found[1, 0] < -0.5
    assert found[1, 1] == 0


def test_scores_of_each_query_are_refused_where_no_query_is_looked_at(home):
    with pytest.raises(PlaypenError, match="per_query: length compares no row with a query; bm25, rds, hidden"):
        make_config(score.Config, {"data": str(home / "data"), "method": {"kind": "length"}, "per_query": True}, "test")


def test_rows_without_a_score_come_just_below_the_last_that_has_one(home, tmp_path):
    pool = [tiny.make_chat(seed) for seed in range(4)]
    labels = tiny.data_table(pool)["labels"].to_pylist()
    labels[1] = [IGNORE] * len(labels[1])
    data = data_of(tmp_path / "data", home / "base", pool, labels=labels)
    found = run(config(home, "perplexity", data, prefer="low"), tmp_path / "out")["score"]
    assert int(found.argmin()) == 1
    assert found.drop(1).min() - found[1] < 1e-5
    assert read_metrics(tmp_path / "out")["rows_without_score"] == 1


def test_scores_that_rank_nothing_are_refused():
    with pytest.raises(PlaypenError, match="bm25 gives all 3 rows the score 0, so it ranks nothing"):
        score.complete(np.zeros(3), "bm25")
    with pytest.raises(PlaypenError, match="ifd finds nothing to score in any of 2 rows"):
        score.complete(np.full(2, np.nan), "ifd")
    with pytest.raises(PlaypenError, match="rds gives 1 of 2 rows an infinite score"):
        score.complete(np.array([1.0, np.inf]), "rds")
    assert score.complete(np.array([5.0]), "length").tolist() == [5]
    assert np.diff(score.complete(np.array([0.0, np.nan]), "dsir"))[0] < 0


def test_rank_correlations_with_length_have_no_value_without_spread():
    rows = pd.DataFrame({"score": np.float32([1, 2, 3]), "num_tokens": [3, 2, 1], "num_labels": [4, 4, 4]})
    found = score.numbers(rows, 0)
    assert found["spearman"] == {"num_tokens": pytest.approx(-1), "num_labels": None}
    assert found["score"] == {"mean": 2, "std": pytest.approx((2 / 3) ** 0.5), "min": 1, "max": 3}


def test_a_killed_run_ends_like_one_that_was_not(home, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "SHARD", 6)
    cfg, real, made = config(home, "hidden"), vectors.weighted_means, []
    whole = run(cfg, tmp_path / "whole")

    def killed_at_the_third(*args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args)
        return real(*args)

    monkeypatch.setattr(vectors, "weighted_means", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(cfg, tmp_path / "killed")
    assert not (tmp_path / "killed" / "scores.parquet").exists()
    monkeypatch.setattr(vectors, "weighted_means", real)
    assert run(cfg, tmp_path / "killed").equals(whole)
    names = [sorted(str(p.relative_to(out)) for p in out.rglob("*")) for out in (tmp_path / "whole", tmp_path / "killed")]
    assert names[0] == names[1]


@pytest.mark.parametrize("kind", ["bm25", "rds"])
def test_data_without_queries_are_refused(home, tmp_path, kind):
    tiny.tiny_data(tmp_path / "none", home / "base", {"pool": 4})
    with pytest.raises(PlaypenError, match=r"score needs 'query' rows: .* has no table 'query'; it holds pool"):
        run(config(home, kind, tmp_path / "none"), tmp_path / "out")
    assert run(config(home, "length", tmp_path / "none"), tmp_path / "out")["score"].gt(0).all()


def test_an_empty_split_is_refused(home, tmp_path):
    tiny.tiny_data(tmp_path / "data", home / "base", {"pool": 2, "query": 2})
    write_table(tmp_path / "data" / "pool.parquet", tiny.data_table([]))
    with pytest.raises(PlaypenError, match="has no pool rows; build the data with some"):
        run(config(home, "random", tmp_path / "data"), tmp_path / "out")


def test_data_in_other_tokens_are_refused(home, tmp_path):
    import json

    tiny.tiny_data(tmp_path / "data", home / "base")
    metrics = tmp_path / "data" / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "tokenizer": "another"}))
    for kind in ("ifd", "rds"):
        with pytest.raises(PlaypenError, match="another tokenizer"):
            run(config(home, kind, tmp_path / "data"), tmp_path / "out")


def test_the_command_line_takes_the_method_as_a_sub_command(home, tmp_path, capsys):
    root, data = ["--root", str(tmp_path / "runs")], ["--data", str(home / "data")]
    cli.main(["score", *data, "--split", "train", *root, "length", "--prefer", "shortest"])
    made = capsys.readouterr().out.splitlines()[-1]
    assert (read_table(made, "scores")["score"] == -read_table(home / "data", "train")["num_labels"]).all()
    with pytest.raises(SystemExit):
        cli.main(["score", *data, "--split", "test", *root, "random"])
    with pytest.raises(SystemExit):
        cli.main(["score", *data, *root, "column", "--column", "mark"])
    assert "has no column mark; it has row_id" in capsys.readouterr().err
