"""The stage explain: sums that hold, tokens on which features fire, names, links, and a killed run that ends like any other."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from playpen import artifact
from playpen.chat import IGNORE
from playpen.classifiers import L1Logistic, MeanPooling, Statistics
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_tokenizer, model_files
from playpen.saes import write_sae
from playpen.selection_rules import Random, TopK
from playpen.stages import classify, explain, fingerprint, predict, select
from playpen.stages.classify import Top
from playpen.tables import read_metrics, read_table, write_table

POOL, LARGE, KEPT, D_SAE = 80, 45, 15, 64
CPU = Machine(device="cpu")
FAST = {
    "l1": L1Logistic(penalties=(25.0,)),
    "mean_pooling": MeanPooling(members=2, epochs=4, dim=4, hidden=4, lr=0.02),
    "statistics": Statistics(),
}


def write_random_sae(path: Path, base: Path, seed: int) -> Path:
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=32, d_sae=D_SAE, k=4))
    sae.W_enc.data = torch.randn((32, D_SAE), generator=torch.Generator().manual_seed(seed))

    def fill(out: Path) -> None:
        write_sae(out, sae, "model.layers.0.output", model_files(base).base_id)

    return tiny.write_artifact(path, "load-sae", fill, {"seed": seed})


def run_stage(path: Path, stage: object, **fields: object) -> Path:
    config = stage.Config(**fields)
    return tiny.write_artifact(path, stage.__name__, lambda out: stage.run(config, out, CPU))


def planted_scores(features: pd.DataFrame) -> tuple[int, pd.DataFrame]:
    """Return a feature that some rows have and others lack, and scores that are its strength and nothing else."""
    strength = np.zeros((len(features), D_SAE))
    for row, (ids, mean) in enumerate(zip(features["ids"], features["mean"], strict=True)):
        strength[row, ids] = mean
    share = (strength > 0).mean(0)
    feature = int(np.argmax(np.where((share > 0.2) & (share < 0.45), strength.std(0), -1)))
    return feature, pd.DataFrame({"row_id": features["row_id"], "score": strength[:, feature]})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain")
    base = tiny.tiny_base(path / "base")
    write_random_sae(path / "sae", base, 0)
    write_random_sae(path / "other_sae", base, 1)
    tiny.tiny_data(path / "data", base, {"pool": POOL, "large_pool": LARGE})
    shared = {"sae": str(path / "sae"), "model": str(base), "data": str(path / "data")}
    run_stage(path / "features", fingerprint, **shared, k=40)
    run_stage(path / "both", fingerprint, **shared, k=40, tokens="both")
    feature, scores = planted_scores(read_table(path / "features", "features", ["row_id", "ids", "mean"]))
    (path / "planted").write_text(str(feature))
    tiny.write_artifact(path / "scores", "attribute", lambda out: write_table(out / "scores.parquet", scores))
    fast = {"folds": 2, "bootstrap": 10, "label": Top(quantile=0.4), "ks": (20,)}
    inputs = {"scores": str(path / "scores"), "data": str(path / "data")}
    for name, features in [("l1", "features"), ("mean_pooling", "features"), ("statistics", "features"), ("l1_both", "both")]:
        kind = name.removesuffix("_both")
        fields = {"features": (str(path / features),), "models": (kind,), kind: FAST[kind], "save": kind, "shuffles": 0}
        run_stage(path / name, classify, **inputs, **fast, **fields)
    run_stage(path / "predictions", predict, classifier=str(path / "l1"), **shared)
    chosen = {"data": str(path / "data"), "splits": ("large_pool",), "scores": str(path / "predictions")}
    run_stage(path / "selection", select, **chosen, method=TopK(k=KEPT))
    return path


def config(home: Path, classifier: str = "l1", **changes: object) -> explain.Config:
    names = {name: str(home / name) for name in ("sae", "data", "selection")}
    return explain.Config(**{"classifier": str(home / classifier), "model": str(home / "base"), **names, "shown": 4, **changes})


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    explain.run(config(home), out, CPU)
    return out


def log_odds(prediction: pd.Series) -> np.ndarray:
    exact = prediction.to_numpy(np.float64)
    return np.log(exact / (1 - exact))


@pytest.mark.parametrize("classifier", ["l1", "mean_pooling", "statistics", "l1_both"])
def test_every_row_has_contributions_that_sum_to_its_prediction(home: Path, tmp_path: Path, classifier: str) -> None:
    explain.run(config(home, classifier), tmp_path, CPU)
    rows = read_table(tmp_path, "explained")
    summed = read_table(tmp_path, "contributions").groupby("row_id")["contribution"].sum()
    assert rows["row_id"].tolist() == read_table(home / "data", "large_pool")["row_id"].tolist()
    np.testing.assert_allclose(rows["baseline"] + rows["row_id"].map(summed).fillna(0), rows["log_odds"], atol=1e-9)
    told = rows["prediction"].between(1e-6, 0.99)
    assert told.sum() > 30
    np.testing.assert_allclose(rows.loc[told, "log_odds"], log_odds(rows.loc[told, "prediction"]), rtol=0, atol=1e-5)
    assert read_metrics(tmp_path)["largest_gap"] < 1e-5
    tokens = read_table(tmp_path, "tokens").groupby("row_id")["value"].sum()
    expected = summed.reindex(tokens.index, fill_value=0) if classifier != "statistics" else 0 * tokens
    np.testing.assert_allclose(tokens, expected, atol=1e-9)


def test_predictions_are_those_of_predict(home: Path, made: Path) -> None:
    theirs = read_table(home / "predictions", "scores").set_index("row_id")["score"]
    rows = read_table(made, "explained")
    np.testing.assert_allclose(rows["prediction"], theirs.loc[rows["row_id"]], rtol=1e-4)
    np.testing.assert_allclose(rows["score"], theirs.loc[rows["row_id"]], rtol=1e-6)
    assert read_metrics(made)["kept_auroc"] == 1.0


def test_the_planted_feature_moves_the_predictions_and_is_over_represented_among_the_kept(home: Path, made: Path) -> None:
    planted = int((home / "planted").read_text())
    found = read_table(made, "selection_features")
    assert found["feature"].iloc[0] == planted
    first = found.iloc[0]
    assert first["log_odds_low"] > 0
    assert first["kept_share"] > first["offered_share"]
    assert first["gap"] > 0.5 * found["gap"].sum() > 0
    metrics = read_metrics(made)
    np.testing.assert_allclose(found["gap"].sum(), metrics["kept_log_odds"] - metrics["rejected_log_odds"], atol=1e-9)


def test_a_contribution_lies_on_the_tokens_on_which_its_feature_fires_by_their_strength(home: Path, made: Path) -> None:
    firings, contributions = read_table(made, "firings"), read_table(made, "contributions")
    data = read_table(home / "data", "large_pool").set_index("row_id")
    keys = ["row_id", "feature"]
    shown = contributions[contributions["row_id"].isin(firings["row_id"])]
    fired = firings.groupby(keys)[["value", "strength"]].sum().reset_index()
    both = fired.merge(shown, on=keys, how="outer", suffixes=("", "_mean"))
    assert len(both) == len(shown) > 20
    np.testing.assert_allclose(both["value"], both["contribution"], atol=1e-12)
    pooled = [(np.asarray(data.loc[row, "labels"]) != IGNORE).sum() for row in both["row_id"]]
    np.testing.assert_allclose(both["strength"] / pooled, both["strength_mean"], rtol=1e-5)
    ratio = firings["value"] / firings["strength"]
    assert (ratio.groupby([firings[key] for key in keys]).agg(np.ptp) < 1e-6).all()


def test_tokens_are_those_of_the_chat_and_nothing_lies_outside_the_answer(home: Path, made: Path) -> None:
    data = read_table(home / "data", "large_pool").set_index("row_id")
    tokens, decode = read_table(made, "tokens"), load_tokenizer(home / "base").decode
    assert tokens["row_id"].nunique() == 8
    for row_id, mine in tokens.groupby("row_id", sort=False):
        ids, labels = data.loc[row_id, ["input_ids", "labels"]]
        assert mine["position"].tolist() == list(range(len(ids)))
        assert "".join(mine["token"]) == decode(ids)
        assert not mine["value"][np.asarray(labels) == IGNORE].any()
    assert (tokens["value"] != 0).sum() > 30


def test_the_rows_shown_are_the_first_and_the_last_of_either_side_and_some_between(made: Path) -> None:
    rows = read_table(made, "explained")
    for kept, ranks in [(True, [1, 6, 10, 15]), (False, [16, 26, 35, 45])]:
        assert sorted(rows.loc[rows["shown"] & (rows["kept"] == kept), "rank"]) == ranks


def test_a_killed_run_ends_like_one_that_was_not(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "SHARD_ROWS", 15)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out in (whole, killed):
        out.mkdir()
    explain.run(config(home), whole, CPU)
    done = explain.explain_shard

    def die(job: explain.Job, table: object, name: str) -> bool:
        if name == "shard-00001.parquet":
            monkeypatch.setattr("playpen.explained_rows.token_table", lambda *_: 1 / 0)  # firings are there, the rest is not
        return done(job, table, name)

    with monkeypatch.context() as patched:
        patched.setattr(explain, "explain_shard", die)
        with pytest.raises(ZeroDivisionError):
            explain.run(config(home), killed, CPU)
    monkeypatch.undo()
    monkeypatch.setattr(explain, "SHARD_ROWS", 15)
    kept = killed / "explained" / "shard-00000.parquet"
    stamp = kept.stat().st_mtime_ns
    explain.run(config(home), killed, CPU)
    assert kept.stat().st_mtime_ns == stamp
    files = sorted(str(file.relative_to(whole)) for file in whole.rglob("*.parquet"))
    assert len(files) == 4 * 3 + 1
    for file in files:
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file
    first, second = ({k: v for k, v in read_metrics(out).items() if "second" not in k} for out in (whole, killed))
    assert first == second


def write_dashboard(home: Path, path: Path, sae: str = "sae") -> Path:
    listed = pd.DataFrame({"id": np.arange(0, D_SAE, 2, dtype=np.int32), "tokens": [[f"t{i}", "x"] for i in range(0, D_SAE, 2)]})
    mark = artifact.read_manifest(home / sae)["fingerprint"]
    return tiny.write_artifact(path, "features", lambda out: write_table(out / "features.parquet", listed), {"sae": mark})


def test_features_are_named_by_a_dashboard_and_linked_to_it_and_to_neuronpedia(home: Path, tmp_path: Path) -> None:
    page = write_dashboard(home, tmp_path / "page")
    out = tmp_path / "out"
    out.mkdir()
    names = {"names": str(page), "neuronpedia": "gemma-3-270m/12-gemmascope-2-res-16k"}
    explain.run(config(home, "l1_both", **names), out, CPU)
    found = read_table(out, "selection_features")
    assert set(found["part"]) == {"prompt", "answer"}
    for row in found.itertuples():
        assert row.sae_feature == row.feature % D_SAE
        assert (row.part == "answer") == (row.feature >= D_SAE)
        there = row.sae_feature % 2 == 0
        assert list(row.tokens) == ([f"t{row.sae_feature}", "x"] if there else [])
        assert pd.isna(row.dashboard) if not there else row.dashboard == f"../page/index.html#f={row.sae_feature}"
        assert row.neuronpedia == f"https://www.neuronpedia.org/gemma-3-270m/12-gemmascope-2-res-16k/{row.sae_feature}"


def test_without_a_dashboard_the_rows_shown_name_the_features(made: Path) -> None:
    found = read_table(made, "selection_features")
    firings = read_table(made, "firings").merge(read_table(made, "tokens"), on=["row_id", "position"])
    row = found.iloc[0]
    mine = firings[firings["feature"] == row["feature"]].groupby("token")["strength"].sum().sort_values(ascending=False)
    assert list(row["tokens"]) == mine.index[:5].tolist()
    assert found["dashboard"].isna().all()


def test_statistics_are_named_and_fire_on_no_token(home: Path, tmp_path: Path) -> None:
    explain.run(config(home, "statistics"), tmp_path, CPU)
    found = read_table(tmp_path, "selection_features")
    assert {tokens[0] for tokens in found["tokens"]} >= {"tokens", "concentration", "max_strength"}
    assert read_table(tmp_path, "firings").empty
    assert read_metrics(tmp_path)["of"] == "statistics"


def test_rows_that_the_classifier_learnt_from_are_marked(home: Path, tmp_path: Path) -> None:
    run_stage(tmp_path / "pick", select, data=str(home / "data"), scores=str(home / "scores"), method=TopK(k=9))
    (tmp_path / "out").mkdir()
    explain.run(config(home, splits=("pool",), selection=str(tmp_path / "pick")), tmp_path / "out", CPU)
    assert read_metrics(tmp_path / "out")["in_sample_rows"] == POOL
    assert read_table(tmp_path / "out", "explained")["in_sample"].all()


def test_what_does_not_fit_is_refused_in_one_line_before_any_work(home: Path, tmp_path: Path) -> None:
    run_stage(tmp_path / "all", select, data=str(home / "data"), splits=("large_pool",), method=Random(k=LARGE))
    other = write_dashboard(home, tmp_path / "page", "other_sae")
    refused = [
        (config(home, selection=str(tmp_path / "all")), "all keeps every row, so nothing tells kept rows from rejected ones"),
        (config(home, splits=("pool",)), "45 of 45 rows have no partner"),
        (config(home, splits=("pool", "large_pool")), "80 of 125 rows have no partner"),
        (config(home, sae=str(home / "other_sae")), "other_sae is SAE .* was trained on features of SAE"),
        (config(home, names=str(other)), "page shows the features of SAE .* make its own dashboard"),
        (config(home, names=str(home / "features")), "features is an artifact of .*; expected a dashboard"),
        (config(home, classifier=str(home / "scores")), "holds no classifier"),
    ]
    for bad, message in refused:
        with pytest.raises(PlaypenError, match=message) as error:
            explain.run(bad, tmp_path, CPU)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "explained").exists()


def test_a_classifier_without_contributions_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("playpen.contributions", fromlist=["x"]).EXPLAINED, "l1")
    with pytest.raises(PlaypenError, match=r"l1 is a classifier of kind 'l1', whose predictions have no contributions"):
        explain.run(config(home), tmp_path, CPU)
    assert json.loads((home / "l1/classifier/classifier.json").read_text())["model"] == "l1"
