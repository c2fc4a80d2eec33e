"""Classifiers, splits, measures and intervals, on fingerprints with a planted signal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from planted import FEATURES, QUICK, WIDTH, as_table, planted, top_quarter
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, roc_auc_score

from playpen.classifiers import CLASSIFIERS
from playpen.config import PlaypenError
from playpen.feature_table import Features, from_table
from playpen.folds import grouped_folds
from playpen.intervals import bootstrap, estimate, paired_difference
from playpen.prediction_metrics import accuracy, auroc, brier, calibration_error, evaluate_predictions, spearman, within
from playpen.saved_classifier import load_classifier, save_classifier


@pytest.fixture(scope="module")
def signal() -> tuple[Features, np.ndarray]:
    return planted(1200)


@pytest.mark.parametrize("name", ["l1", "mean_pooling", "attention_pooling"])
def test_a_planted_signal_is_found(name: str, signal: tuple[Features, np.ndarray]) -> None:
    features, score = signal
    train, held, group = np.arange(800), np.arange(800, 1200), np.arange(1200).astype(str)
    arrays = QUICK[name].fit(features.rows(train), top_quarter(score)[train], group[train], 0)
    assert roc_auc_score(top_quarter(score)[held], QUICK[name].predict(arrays, features.rows(held))) > 0.9


@pytest.mark.parametrize("name", ["statistics", "l1", "mean_pooling"])
def test_ranks_are_learnt_and_predicted_in_their_range(name: str, signal: tuple[Features, np.ndarray]) -> None:
    features, score = signal
    rank = (np.argsort(np.argsort(score)) / (len(score) - 1)).astype(np.float32)
    features = replace(features, stats=np.column_stack([features.stats, score]).astype(np.float32))
    prediction = QUICK[name].predict(QUICK[name].fit(features, rank, np.arange(1200).astype(str), 0), features)
    assert spearmanr(rank, prediction)[0] > 0.7
    assert abs(prediction.mean() - 0.5) < 0.05
    assert 0 <= prediction.min() <= prediction.max() <= 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_saved_classifier_predicts_as_before_and_the_same_seed_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    features, score = planted(200)
    group = np.arange(200).astype(str)
    info = {"model": name, "k": None, "settings": vars(QUICK[name]), "fingerprint": {"num_features": FEATURES, "k": WIDTH}}
    for place in ("a", "b"):
        arrays = QUICK[name].fit(features, top_quarter(score), group, 0)
        save_classifier(tmp_path / place / "classifier", info, arrays)
    weights = [(tmp_path / place / "classifier" / "weights.safetensors").read_bytes() for place in ("a", "b")]
    assert weights[0] == weights[1]
    loaded = load_classifier(tmp_path / "a").predict(as_table(features))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, QUICK[name].predict(arrays, features))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_row_without_features_has_a_prediction(name: str) -> None:
    features, score = planted(200)
    arrays = QUICK[name].fit(features, top_quarter(score), np.arange(200).astype(str), 0)
    features.ids[0], features.strength[0] = FEATURES, 0
    assert np.isfinite(QUICK[name].predict(arrays, features)).all()


def test_a_features_table_is_cut_and_padded() -> None:
    table = pa.table({"row_id": ["a", "b"], "ids": [[4, 2, 1], []], "mean": [[3.0, 2.0, 1.0], []], "stats": [[1.0] * 10] * 2})
    found = from_table(table, 9, 2)
    assert found.ids.tolist() == [[4, 2], [9, 9]]
    assert found.strength.tolist() == [[3.0, 2.0], [0.0, 0.0]]
    sliced = from_table(table.slice(1), 9, 2)
    assert sliced.ids.tolist() == [[9, 9]]


def test_a_features_table_that_is_not_finite_or_of_another_space_is_refused() -> None:
    table = pa.table({"row_id": ["a"], "ids": [[4]], "mean": [[float("inf")]], "stats": [[1.0] * 10]})
    with pytest.raises(PlaypenError, match="row_id a are not finite"):
        from_table(table, 9, 2)
    with pytest.raises(PlaypenError, match="id space has 3"):
        from_table(table.set_column(2, "mean", pa.array([[1.0]])), 3, 2)


def test_near_duplicates_never_straddle_folds_and_every_fold_has_its_share_of_positives() -> None:
    draw = np.random.default_rng(0)
    group, target = draw.integers(0, 60, 400).astype(str), (draw.random(400) < 0.25).astype(float)
    folds = grouped_folds(target, group, 5, 0)
    assert set(folds) == set(range(5))
    assert all(len(set(folds[group == name])) == 1 for name in set(group))
    assert all(0.12 < target[folds == fold].mean() < 0.4 for fold in range(5))
    assert (folds != grouped_folds(target, group, 5, 1)).any()


def test_fewer_groups_than_folds_are_refused() -> None:
    target = np.array([0.0, 1.0] * 10)
    with pytest.raises(PlaypenError, match="found only 3"):
        grouped_folds(target, np.arange(20) // 7, 5, 0)


def test_measures_equal_those_of_sklearn_and_scipy_also_under_weights() -> None:
    draw = np.random.default_rng(0)
    label, score = draw.random(80) < 0.3, np.round(draw.normal(size=80), 1)
    prediction, times = np.round(np.clip(draw.random(80) * 0.6 + 0.2 * label, 0, 1), 1), draw.integers(0, 4, 80)
    repeat = np.repeat(np.arange(80), times)
    for weights, rows in ((np.ones(80), np.arange(80)), (times.astype(float), repeat)):
        weights = np.stack([np.ones(80), weights])
        assert auroc(label, prediction)(weights)[1] == pytest.approx(roc_auc_score(label[rows], prediction[rows]))
        assert spearman(score, prediction)(weights)[1] == pytest.approx(spearmanr(score[rows], prediction[rows])[0])
        assert brier(label, prediction)(weights)[1] == pytest.approx(brier_score_loss(label[rows], prediction[rows]))


def test_the_measure_within_a_source_sees_nothing_of_the_source() -> None:
    source = np.repeat(["a", "b"], 200)
    label = np.tile([0, 1], 200)
    between = (source == "a") * 1.0
    good = label * 0.5 + between
    assert estimate(400, within(source, lambda rows: auroc(label[rows], good[rows]))) == 1.0
    assert estimate(400, within(source, lambda rows: auroc(label[rows], between[rows]))) == 0.5
    assert np.isnan(estimate(400, within(label, lambda rows: auroc(label[rows], good[rows]))))


def test_calibration_and_accuracy_are_those_of_hand_made_predictions() -> None:
    label = np.array([0, 0, 0, 1] * 50)
    assert estimate(200, calibration_error(label, np.full(200, 0.25))) == pytest.approx(0, abs=0.05)
    assert estimate(200, calibration_error(label, np.full(200, 0.65))) == pytest.approx(0.4, abs=0.05)
    assert estimate(200, accuracy(label, label * 0.1)) == 1.0
    assert estimate(200, accuracy(label, -label * 0.1)) == 0.5


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(size=60)
        low, high = bootstrap(np.arange(60), lambda weights, v=values: weights @ v / weights.sum(1), 300, seed)
        hits += low < 0 < high
    assert 86 <= hits <= 99


def test_duplicates_do_not_narrow_an_interval() -> None:
    values = np.random.default_rng(0).normal(size=50)
    widths = []
    for rows, group in ((values, np.arange(50)), (np.tile(values, 20), np.tile(np.arange(50), 20))):
        low, high = bootstrap(group, lambda weights, v=rows: weights @ v / weights.sum(1), 500, 0)
        widths.append(high - low)
    assert widths[0] == pytest.approx(widths[1])


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    draw = np.random.default_rng(0)
    label = draw.random(300) < 0.3
    left = label + draw.normal(size=300)
    right = left + draw.normal(size=300) * 0.1
    parts = auroc(label, left), auroc(label, right)
    gap, low, high = paired_difference(np.arange(300), *parts, 500, 0)
    assert low < gap < high
    part_low, part_high = bootstrap(np.arange(300), parts[0], 500, 0)
    assert high - low < (part_high - part_low) / 3


def test_shuffled_labels_give_an_interval_that_holds_one_half() -> None:
    features, score = planted(400)
    label, group = np.random.default_rng(1).permutation(top_quarter(score)), np.arange(400).astype(str)
    folds, prediction = grouped_folds(label, group, 4, 0), np.empty(400, np.float32)
    for fold in range(4):
        train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        arrays = QUICK["mean_pooling"].fit(features.rows(train), label[train], group[train], 0)
        prediction[held] = QUICK["mean_pooling"].predict(arrays, features.rows(held))
    found = evaluate_predictions(label, label, prediction, group, group, 0, 300)
    assert found["auroc_low"] < 0.5 < found["auroc_high"]
    assert found["auroc_within_source"] is None
