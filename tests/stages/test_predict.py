"""The stage predict: one streaming pass that equals fingerprint and classifier, and goes on after it was killed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from playpen.classifiers import L1Logistic
from playpen.config import PlaypenError
from playpen.feature_table import dense
from playpen.machine import Machine
from playpen.models import model_files
from playpen.saes import write_sae
from playpen.saved_classifier import load_classifier
from playpen.stages import classify, fingerprint, predict
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
    tiny.write_artifact(path / "scores", "attribute", lambda out: write_table(out / "scores.parquet", scores))
    inputs = {"features": (str(path / "features"),), "scores": str(path / "scores"), "data": str(path / "data")}
    fast = {"models": ("l1",), "l1": L1Logistic(penalties=(25.0,)), "folds": 2, "bootstrap": 10, "label": Top(quantile=0.4)}
    run_stage(path / "classifier", classify, **inputs, **fast)
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
