"""The stage classify, on planted fingerprints: no model is needed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import FEATURES, QUICK, WIDTH, as_table, planted
from tiny import write_artifact

from playpen.config import PlaypenError, make_config
from playpen.feature_table import Features
from playpen.folds import grouped_folds
from playpen.machine import Machine
from playpen.saved_classifier import load_classifier
from playpen.stages.classify import Config, Rank, Top, Value, run, top_label
from playpen.tables import read_metrics, read_table, write_json, write_table

ROWS = 400
CONTROLS = ["length", "source", "source_length", "source_length trees"]
MODELS = ["statistics", "l1", "l2", "trees", "mean_pooling", "attention_pooling"]
NAMES = [*CONTROLS, *MODELS, "l2 + source_length", "l2 beyond source_length", "shuffled"]


def write_features(path: Path, features: Features) -> Path:
    def fill(out: Path) -> None:
        write_table(out / "features" / "shard-00000.parquet", as_table(features))
        write_json(
            out / "fingerprint.json", {"num_features": FEATURES, "k": WIDTH, "tokens": "answer", "sae": "s", "model_id": "m"}
        )

    return write_artifact(path, "fingerprint", fill)


def write_scores(path: Path, row_ids: list[str], score: np.ndarray) -> Path:
    table = pd.DataFrame({"row_id": row_ids, "score": score.astype(np.float32)})
    return write_artifact(path, "attribute", lambda out: write_table(out / "scores.parquet", table))


def write_data(path: Path, rows: int) -> Path:
    draw = np.random.default_rng(5)
    columns = {"group": [f"g{i // 2}" for i in range(rows)], "source": draw.choice(["web", "book"], rows)}
    lengths = {"num_tokens": draw.integers(20, 200, rows), "num_labels": draw.integers(5, 20, rows)}
    table = pd.DataFrame({"row_id": [f"r{i}" for i in range(rows)], **columns, **lengths})
    return write_artifact(path, "build-data", lambda out: write_table(out / "pool.parquet", table))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("inputs")
    features, score = planted(ROWS)
    noise, _ = planted(ROWS, seed=9)
    made = {
        "features": write_features(root / "features", features),
        "noise": write_features(root / "noise", noise),
        "scores": write_scores(root / "scores", [f"r{i}" for i in range(ROWS)], score),
        "data": write_data(root / "data", ROWS),
    }
    return {name: str(path) for name, path in made.items()}


def make(inputs: dict[str, str], out: Path, **changes: object) -> Path:
    given = {"features": (inputs["features"],), "scores": inputs["scores"], "data": inputs["data"], "ks": (WIDTH,), **QUICK}
    out.mkdir()
    few = {"folds": 3, "bootstrap": 100, "shuffles": 2}
    run(make_config(Config, {**given, **few, **changes}, "test"), out, Machine(device="cpu"))
    return out


@pytest.fixture(scope="module")
def made(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(inputs, tmp_path_factory.mktemp("made") / "out")


def test_the_report_finds_the_planted_signal_and_none_in_statistics_or_length(made: Path) -> None:
    report = read_table(made, "report").set_index("name")
    assert list(report.index) == NAMES
    assert (report.loc[["l1", "l2", "trees", "mean_pooling"], "auroc"] > 0.9).all()
    assert (report.loc[["l1", "mean_pooling"], "auroc_minus_statistics_low"] > 0).all()
    for name in ("statistics", "length", "source", "source_length", "source_length trees"):
        assert report.loc[name, "auroc_low"] < 0.55
    assert (report["auroc_low"] <= report["auroc"]).all()
    assert (report["auroc"] <= report["auroc_high"]).all()
    assert report.loc[read_metrics(made)["best"], "auroc_minus_best"] == 0


def test_every_row_is_predicted_once_by_each_model(made: Path) -> None:
    held = read_table(made, "heldout")
    assert held.columns.tolist() == ["row_id", "model", "fold", "label", "score", "prediction"]
    assert (held.groupby("model")["row_id"].nunique() == ROWS).all()
    assert held["model"].unique().tolist() == NAMES[:-1]
    assert (held.groupby("model")["label"].sum() == ROWS // 4).all()


def test_the_best_classifier_is_saved_with_what_predict_needs(made: Path, inputs: dict[str, str]) -> None:
    saved = load_classifier(made)
    best = read_metrics(made)["models"][read_metrics(made)["best"]]
    assert (saved.info["model"], saved.info["fingerprint"]["num_features"]) == (best["model"], FEATURES)
    features, score = planted(ROWS)
    order = np.argsort(-saved.predict(as_table(features)))
    assert score[order[:50]].mean() > score[order[-50:]].mean()


def test_the_same_config_gives_the_same_bytes(made: Path, inputs: dict[str, str], tmp_path: Path) -> None:
    again = make(inputs, tmp_path / "again")
    files = sorted(file.relative_to(made) for file in made.rglob("*") if file.is_file())
    assert len(files) == 6
    assert [f for f in files if (made / f).read_bytes() != (again / f).read_bytes()] == []


def test_ks_and_features_are_ablated_in_one_report(inputs: dict[str, str], tmp_path: Path) -> None:
    both = (inputs["noise"], inputs["features"])
    out = make(inputs, tmp_path / "out", features=both, ks=(2, WIDTH), models=("l1", "mean_pooling"))
    report = read_table(out, "report").set_index("name")
    assert list(report.index[4:7]) == ["l1 noise", "mean_pooling k2 noise", f"mean_pooling k{WIDTH} noise"]
    assert report.loc[f"mean_pooling k{WIDTH} features", "auroc"] > report.loc["mean_pooling k2 features", "auroc"]
    assert report.loc["l1 noise", "auroc"] < 0.65
    assert report["auroc_minus_statistics"].isna().all()
    assert (
        load_classifier(out).info["features"]
        == json.loads((Path(inputs["features"]) / "manifest.json").read_text())["fingerprint"]
    )


@pytest.mark.parametrize("label", [Rank(), Value()])
def test_ranks_and_scores_can_be_learnt(inputs: dict[str, str], tmp_path: Path, label: Rank | Value) -> None:
    out = make(inputs, tmp_path / "out", label=label, models=("statistics", "l1"))
    report = read_table(out, "report").set_index("name")
    assert read_metrics(out)["best"] == "l1"
    assert report.loc["l1", "spearman"] > 0.6
    assert report.loc["l1", "calibration_error"] < 0.1


def test_a_score_to_learn_keeps_its_distances_but_for_its_cut_tails() -> None:
    score = np.array([-50.0, *range(100), 900.0])
    target = Value(cut=0.02).target(score)
    low, high = np.quantile(score, [0.02, 0.98])
    assert (target.min(), target.max()) == (0, 1)
    assert target == pytest.approx((np.clip(score, low, high) - low) / (high - low))
    assert np.ptp(np.diff(target[5:-5])) < 1e-6
    with pytest.raises(PlaypenError, match=r"the middle 98\.0% of the scores are all 1\.0"):
        Value(cut=0.01).target(np.array([1.0] * 500 + [2.0]))


def test_a_few_high_scores_are_in_every_fold(tmp_path: Path) -> None:
    target = Value(cut=0).target(np.exp(np.random.default_rng(0).normal(size=400) * 2))
    folds = grouped_folds(target, np.array([f"g{i}" for i in range(400)]), 5, 0)
    assert (target > 0.75).sum() < 5
    assert all((target[folds == fold] >= np.quantile(target, 0.75)).sum() >= 15 for fold in range(5))


def test_the_top_is_exactly_its_share_also_among_ties() -> None:
    assert top_label(np.array([1.0, 1, 1, 0, 2, 0, 0, 0]), 0.25).tolist() == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_scores_of_another_pool_are_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    other = write_scores(tmp_path / "other", ["stranger", *(f"r{i}" for i in range(99))], np.arange(100))
    with pytest.raises(PlaypenError, match="stranger"):
        make(inputs, tmp_path / "out", scores=str(other))


def test_features_that_do_not_cover_the_scores_are_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    few = write_features(tmp_path / "few", planted(ROWS)[0].rows(np.arange(ROWS - 1)))
    with pytest.raises(PlaypenError, match=f"1 of {ROWS} rows have no partner, the first is row_id r{ROWS - 1}"):
        make(inputs, tmp_path / "out", features=(str(few),))


@pytest.mark.parametrize(
    ("score", "changes", "message"),
    [
        (np.zeros(ROWS), {}, "all 400 scores are 0.0"),
        (np.arange(ROWS), {"label": Top(quantile=0.02)}, "8 rows are in the top and 392 are not"),
        (np.where(np.arange(ROWS) == 3, np.nan, 1.0), {}, "1 scores are not finite, the first is that of row_id r3"),
        (np.arange(ROWS), {"folds": 60}, "60 folds need at least 60 groups"),
        (np.arange(ROWS), {"ks": (WIDTH + 1,)}, "ks asks for 17 features a row"),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused(
    score: np.ndarray, changes: dict[str, object], message: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    scores = write_scores(tmp_path / "scores", [f"r{i}" for i in range(ROWS)], score)
    with pytest.raises(PlaypenError, match=message):
        make(inputs, tmp_path / "out", scores=str(scores), **changes)


@pytest.mark.parametrize("changes", [{"models": ()}, {"models": ("forest",)}, {"ks": (4, 4)}, {"ks": ()}, {"features": ()}])
def test_a_config_that_cannot_work_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PlaypenError, match=next(iter(changes))):
        make_config(Config, {"features": ("a",), "scores": "b", "data": "c", **changes}, "classify")
