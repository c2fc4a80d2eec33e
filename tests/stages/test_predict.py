"""The stage predict: one streaming pass that equals fingerprint and classifier, and goes on after it was killed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from playpen.artifact import read_manifest
from playpen.classifiers import L1Logistic
from playpen.config import PlaypenError
from playpen.feature_table import dense
from playpen.machine import Machine
from playpen.models import model_files
from playpen.query_scores import write_query_scores
from playpen.saes import write_sae
from playpen.saved_classifier import load_classifier
from playpen.stages import classify, fingerprint, predict, select
from playpen.stages.classify import Top
from playpen.tables import read_metrics, read_table, write_table

POOL, LARGE = 60, 25
CPU = Machine(device="cpu")


def write_random_sae(path: Path, base: Path, seed: int) -> Path:
    from sae_lens import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4))
    sae.W_enc.data = torch.randn((32, 64), generator=torch.Generator().manual_seed(seed))

    def fill(out: Path) -> None:
        write_sae(out, sae, "model.layers.0.output", model_files(base).base_id)

    return tiny.write_artifact(path, "load-sae", fill, {"seed": seed})


def run_stage(path: Path, stage: object, **fields: object) -> Path:
    config = stage.Config(**fields)
    return tiny.write_artifact(path, stage.__name__, lambda out: stage.run(config, out, CPU))


def write_scores(out: Path, scores: pd.DataFrame) -> None:
    """Write scores and those of three queries: the first likes what they like, the second the contrary, the third all alike."""
    write_table(out / "scores.parquet", scores)
    each = np.stack([scores["score"], -scores["score"], np.zeros(len(scores))], 1)
    write_query_scores(scores["row_id"], each, out / "query_scores.parquet")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predict")
    base = tiny.tiny_base(path / "base")
    write_random_sae(path / "sae", base, 0)
    write_random_sae(path / "other_sae", base, 1)
    tiny.tiny_data(path / "data", base, {"pool": POOL, "large_pool": LARGE})
    shared = {"sae": str(path / "sae"), "model": str(base), "data": str(path / "data")}
    run_stage(path / "features", fingerprint, **shared, k=16)
    run_stage(path / "large_features", fingerprint, **shared, k=16, split="large_pool")
    pool = read_table(path / "features", "features", ["row_id", "mean"])
    scores = pd.DataFrame({"row_id": pool["row_id"], "score": [float(mean[0]) for mean in pool["mean"]]})
    of = {"data": read_manifest(path / "data")["fingerprint"]}
    tiny.write_artifact(path / "scores", "attribute", lambda out: write_scores(out, scores), of)
    inputs = {"features": (str(path / "features"),), "scores": str(path / "scores"), "data": str(path / "data")}
    fast = {"models": ("l1",), "l1": L1Logistic(penalties=(25.0,)), "folds": 2, "bootstrap": 10, "label": Top(quantile=0.4)}
    run_stage(path / "classifier", classify, **inputs, **fast)
    run_stage(path / "queries", classify, **inputs, **fast, per_query=True)
    return path


def config(home: Path, **changes: object) -> predict.Config:
    names = {name: str(home / name) for name in ("classifier", "sae", "data")}
    return predict.Config(**{**names, "model": str(home / "base"), "shard_rows": 10, **changes})


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    predict.run(config(home), out, CPU)
    return out


def test_a_classifier_of_hidden_states_predicts_from_those_of_the_rows(home: Path) -> None:
    fields = {"models": ("l1",), "save": "hidden", "shuffles": 0, "folds": 2, "bootstrap": 10, "label": Top(quantile=0.4)}
    inputs = {"features": (str(home / "features"),), "scores": str(home / "scores"), "data": str(home / "data")}
    made = run_stage(home / "hidden_classifier", classify, **inputs, **fields)
    shared = {"sae": str(home / "sae"), "model": str(home / "base"), "data": str(home / "data")}
    found = read_table(run_stage(home / "hidden_predictions", predict, classifier=str(made), **shared), "scores")
    saved, states = load_classifier(made), read_table(home / "large_features", "hidden")
    assert (saved.info["model"], saved.info["uses"]) == ("l2", "hidden")
    assert found["row_id"].tolist() == states["row_id"].tolist()
    expected = saved.config.predict(saved.arrays, dense(np.stack(states["vector"].tolist())))
    np.testing.assert_allclose(found["score"], expected, rtol=1e-5)
    assert np.ptp(expected) > 0.01


def test_predictions_equal_those_from_a_stored_features_table(home: Path, made: Path) -> None:
    import pyarrow.parquet as pq

    stored = pq.read_table(home / "large_features" / "features")
    scores = read_table(made, "scores")
    assert scores.columns.tolist() == ["row_id", "score"]
    assert scores["row_id"].tolist() == stored["row_id"].to_pylist() == read_table(home / "data", "large_pool")["row_id"].tolist()
    assert scores["score"].dtype == np.float32
    np.testing.assert_allclose(scores["score"], load_classifier(home / "classifier").predict(stored), rtol=1e-4)
    assert scores["score"].nunique() > 5


def test_nothing_but_scores_is_stored_and_the_rows_are_counted(home: Path, made: Path) -> None:
    assert sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()) == [
        "metrics.json",
        *(f"scores/shard-0000{i}.parquet" for i in range(3)),
    ]
    found = read_metrics(made)
    assert (found["rows"], found["predicted_rows"], found["in_sample_rows"]) == (LARGE, LARGE, 0)
    assert found["tokens"] == read_table(home / "data", "large_pool")["num_tokens"].sum()
    assert 0 < found["pooled_tokens"] < found["tokens"]


def test_a_killed_run_goes_on_with_the_shards_that_lack(home: Path, made: Path, tmp_path: Path) -> None:
    predict.run(config(home), tmp_path, CPU)
    kept = tmp_path / "scores" / "shard-00000.parquet"
    os.utime(kept, (1, 1))
    (tmp_path / "scores" / "shard-00001.parquet").unlink()
    (tmp_path / "scores" / ".shard-00001.parquet.99").write_bytes(b"half a shard")
    predict.run(config(home), tmp_path, CPU)
    assert kept.stat().st_mtime == 1
    assert read_metrics(tmp_path)["predicted_rows"] == 10
    for i in range(3):
        name = f"scores/shard-0000{i}.parquet"
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_rows_that_the_classifier_learnt_from_are_counted_and_get_their_held_out_prediction(home: Path, tmp_path: Path) -> None:
    predict.run(config(home, splits=("pool",)), tmp_path, CPU)
    assert read_metrics(tmp_path)["in_sample_rows"] == POOL
    heldout = read_table(home / "classifier", "heldout").query("model == 'l1'").set_index("row_id")["prediction"]
    scores = read_table(tmp_path, "scores").set_index("row_id")["score"]
    np.testing.assert_allclose(scores, heldout.loc[scores.index], rtol=1e-6)


def test_scores_for_each_query_equal_those_from_a_stored_features_table_and_the_scores_stay(
    home: Path, made: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    predict.run(config(home, classifier=str(home / "queries"), per_query=True), tmp_path, CPU)
    found = read_table(tmp_path, "query_scores")
    expected = load_classifier(home / "queries").predict_queries(pq.read_table(home / "large_features" / "features"))
    assert found["row_id"].tolist() == read_table(tmp_path, "scores")["row_id"].tolist()
    np.testing.assert_allclose(np.stack(found["scores"]), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(expected[:, 0], -expected[:, 1], atol=1e-5)  # what one query likes the other does not
    assert np.ptp(expected[:, 0]) > 0.01
    pd.testing.assert_frame_equal(read_table(tmp_path, "scores"), read_table(made, "scores"))


def test_queries_take_turns_at_predicted_rows(home: Path, tmp_path: Path) -> None:
    made = run_stage(tmp_path / "made", predict, **vars(config(home, classifier=str(home / "queries"), per_query=True)))
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    fields = {"data": str(home / "data"), "splits": ("large_pool",), "scores": str(made)}
    select.run(select.Config(**fields, method=select.RoundRobin(k=4, order="split")), chosen, CPU)
    each = np.stack(read_table(made, "query_scores").sort_values("row_id")["scores"])
    kept = np.flatnonzero(read_table(chosen, "selection").sort_values("row_id")["kept"])
    order = np.argsort(-each[:, :2], axis=0)
    assert {*kept} == {*order[:2, 0], *order[:2, 1]}


def test_whose_queries_were_learnt_goes_with_the_scores(home: Path, tmp_path: Path) -> None:
    of = read_manifest(home / "data")["fingerprint"]
    assert load_classifier(home / "queries").queries_of == of
    predict.run(config(home, classifier=str(home / "queries"), per_query=True), tmp_path, CPU)
    assert read_metrics(tmp_path)["queries_of"] == of


def test_a_killed_run_for_each_query_goes_on_to_the_same_bytes(home: Path, tmp_path: Path) -> None:
    settings = config(home, classifier=str(home / "queries"), per_query=True)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in (whole, broken):
        out.mkdir()
        predict.run(settings, out, CPU)
    (broken / "scores" / "shard-00001.parquet").unlink()  # its query_scores were written, then the kill came
    predict.run(settings, broken, CPU)
    for name in ("scores", "query_scores"):
        for i in range(3):
            assert (whole / name / f"shard-0000{i}.parquet").read_bytes() == (
                broken / name / f"shard-0000{i}.parquet"
            ).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)  # two actors import all that a stage does, on cores that may be taken
@pytest.mark.usefixtures("ray_home")
def test_two_workers_of_ray_write_the_bytes_that_the_loop_writes(home: Path, tmp_path: Path) -> None:
    settings = config(home, classifier=str(home / "queries"), per_query=True, splits=("pool", "large_pool"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # which two workers share, so that each has one, as the loop below
    for workers, out in ((2, tmp_path / "ray"), (0, tmp_path / "loop")):
        out.mkdir()
        predict.run(settings, out, Machine(device="cpu", ray_workers=workers))
        torch.set_num_threads(1)
    torch.set_num_threads(threads)
    made = [
        {file.relative_to(out): file.read_bytes() for file in out.rglob("shard-*")}
        for out in (tmp_path / "ray", tmp_path / "loop")
    ]
    assert len(made[0]) == 2 * (6 + 3)
    assert made[0] == made[1]


def test_rows_that_were_learnt_from_get_their_held_out_scores_for_each_query(home: Path, tmp_path: Path) -> None:
    predict.run(config(home, classifier=str(home / "queries"), splits=("pool",), per_query=True), tmp_path, CPU)
    found, held = (read_table(place, name) for place, name in ((tmp_path, "query_scores"), (home / "queries", "heldout_queries")))
    by_row = held.set_index("row_id")["scores"].loc[found["row_id"]]
    np.testing.assert_allclose(np.stack(found["scores"]), np.stack(by_row))


def test_how_well_each_query_is_ranked_stands_in_the_numbers_of_the_classifier(home: Path) -> None:
    numbers = read_metrics(home / "queries")["per_query"]
    assert numbers["queries"] == 2  # the third has no order
    table = read_table(home / "queries", "query_report")
    assert numbers["spearman"] == pytest.approx(table["spearman"].mean())
    assert "per_query" not in read_metrics(home / "classifier")


def test_what_is_learnt_of_each_query_beside_the_statistics_knows_nothing_else(home: Path) -> None:
    fields = {"models": ("l1", "statistics"), "l1": L1Logistic(penalties=(25.0,)), "save": "statistics", "shuffles": 0}
    inputs = {"features": (str(home / "features"),), "scores": str(home / "scores"), "data": str(home / "data")}
    fast = {"folds": 2, "bootstrap": 10, "label": Top(quantile=0.4), "per_query": True}
    saved = load_classifier(run_stage(home / "statistics", classify, **inputs, **fields, **fast))
    assert saved.queries is not None
    assert (len(saved.queries["vocabulary"]), saved.queries["column_weight"].shape) == (0, (10, 3))
    shared = {"sae": str(home / "sae"), "model": str(home / "base"), "data": str(home / "data")}
    made = run_stage(home / "by_statistics", predict, classifier=str(home / "statistics"), per_query=True, **shared)
    stats = np.stack(read_table(home / "large_features", "features")["stats"].tolist())
    expected = stats @ saved.queries["column_weight"] + saved.queries["bias"]
    np.testing.assert_allclose(np.stack(read_table(made, "query_scores")["scores"]), expected, rtol=1e-3, atol=1e-5)


def test_scores_without_those_of_each_query_are_refused_before_anything_is_learnt(home: Path, tmp_path: Path) -> None:
    pool = read_table(home / "scores", "scores")
    plain = tiny.write_artifact(tmp_path / "plain", "attribute", lambda out: write_table(out / "scores.parquet", pool))
    inputs = {"features": (str(home / "nothing"),), "scores": str(plain), "data": str(home / "data")}
    with pytest.raises(PlaypenError, match="per_query needs scores for each query"):
        classify.run(classify.Config(**inputs, per_query=True, label=Top(quantile=0.4)), tmp_path, CPU)


def test_a_classifier_that_learnt_no_queries_is_refused_for_them(home: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match=r"learnt no score for each query; make it with classify --per-query"):
        predict.run(config(home, per_query=True), tmp_path, CPU)


def test_another_sae_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match=r"other_sae is SAE .* was trained on features of SAE"):
        predict.run(config(home, sae=str(home / "other_sae")), tmp_path, CPU)


def test_another_base_is_refused(home: Path, tmp_path: Path) -> None:
    other = tiny.tiny_base(tmp_path / "other_base", seed=7)
    with pytest.raises(PlaypenError, match=r"other_base is base .* was trained on features of base"):
        predict.run(config(home, model=str(other)), tmp_path, CPU)


def test_an_artifact_that_holds_no_classifier_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match="holds no classifier"):
        predict.run(config(home, classifier=str(home / "scores")), tmp_path, CPU)
