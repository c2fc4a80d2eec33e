"""Classifiers, splits, measures and intervals, on fingerprints with a planted signal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from planted import FEATURES, QUICK, WIDTH, as_table, planted, top_quarter
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from playpen.classifiers import CLASSIFIERS
from playpen.config import PlaypenError
from playpen.feature_matrix import before_the_rise
from playpen.feature_table import Features, dense, from_table, side_by_side
from playpen.folds import grouped_folds
from playpen.intervals import Statistic, estimate, interval, resample
from playpen.l2_classifier import BeyondColumns, L2Logistic
from playpen.prediction_metrics import NAMES, auroc, measures, ranking, strata_of
from playpen.saved_classifier import load_classifier, save_classifier
from playpen.tree_classifier import flatten, grow


@pytest.fixture(scope="module")
def signal() -> tuple[Features, np.ndarray]:
    return planted(1200)


@pytest.mark.parametrize("name", ["l1", "l2", "trees", "mean_pooling", "attention_pooling"])
def test_a_planted_signal_is_found(name: str, signal: tuple[Features, np.ndarray]) -> None:
    features, score = signal
    train, held, group = np.arange(800), np.arange(800, 1200), np.arange(1200).astype(str)
    arrays = QUICK[name].fit(features.rows(train), top_quarter(score)[train], group[train], 0)
    assert roc_auc_score(top_quarter(score)[held], QUICK[name].predict(arrays, features.rows(held))) > 0.9


@pytest.mark.parametrize("name", ["statistics", "l1", "l2", "trees", "mean_pooling"])
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
    uses = "statistics" if name == "statistics" else "features"
    info = {"model": name, "uses": uses, "k": None, "settings": vars(QUICK[name])}
    info["fingerprint"] = {"num_features": FEATURES, "k": WIDTH}
    seen = features if uses == "statistics" else features.without_columns()
    for place in ("a", "b"):
        arrays = QUICK[name].fit(seen, top_quarter(score), group, 0)
        save_classifier(tmp_path / place / "classifier", info, arrays)
    weights = [(tmp_path / place / "classifier" / "weights.safetensors").read_bytes() for place in ("a", "b")]
    assert weights[0] == weights[1]
    loaded = load_classifier(tmp_path / "a").predict(as_table(features))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, QUICK[name].predict(arrays, seen))


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


def test_ranking_measures_equal_those_of_sklearn_and_scipy_also_under_weights() -> None:
    draw = np.random.default_rng(0)
    label, score = draw.random(80) < 0.3, np.round(draw.normal(size=80), 1)
    prediction, times = np.round(np.clip(draw.random(80) * 0.6 + 0.2 * label, 0, 1), 1), draw.integers(0, 4, 80)
    repeat = np.repeat(np.arange(80), times)
    for weights, rows in ((np.ones(80), np.arange(80)), (times.astype(float), repeat)):
        weights = np.stack([np.ones(80), weights])
        assert auroc(label, prediction)(weights)[1] == pytest.approx(roc_auc_score(label[rows], prediction[rows]))
        both = ranking(label, score, [prediction], np.zeros(80, np.int64))(weights)
        assert both[1, 0, 1] == pytest.approx(spearmanr(score[rows], prediction[rows])[0])


def by_hand(label: np.ndarray, score: np.ndarray, prediction: np.ndarray, strata: np.ndarray) -> tuple[float, float]:
    """Return AUROC and Spearman of scikit-learn and scipy in each stratum, averaged over rows where the labels define them."""
    found: list[list[tuple[float, int]]] = [[], []]
    for name in np.unique(strata):
        rows = strata == name
        if label[rows].min() < label[rows].max():
            found[0].append((float(roc_auc_score(label[rows], prediction[rows])), rows.sum()))
        if len(set(score[rows])) > 1:
            rho = spearmanr(score[rows], prediction[rows])[0] if len(set(prediction[rows])) > 1 else 0.0
            found[1].append((float(rho), rows.sum()))
    return tuple(np.average([v for v, _ in values], weights=[n for _, n in values]) for values in found)  # type: ignore[return-value]


def test_ranking_within_strata_equals_a_loop_over_them_for_every_model_and_every_sample() -> None:
    draw = np.random.default_rng(1)
    label, score = (draw.random(120) < 0.3).astype(int), np.round(draw.normal(size=120), 1)
    strata, times = draw.integers(0, 30, 120), draw.integers(0, 4, (2, 120))
    predictions = [np.round(draw.random(120), 1), draw.random(120).astype(np.float32)]
    found = ranking(label, score, predictions, strata)(times.astype(float))
    assert found.shape == (2, 2, 2)
    for d, weights in enumerate(times):
        rows = np.repeat(np.arange(120), weights)
        for m, prediction in enumerate(predictions):
            assert found[d, m] == pytest.approx(by_hand(label[rows], score[rows], prediction[rows], strata[rows]))


def test_ranking_within_a_source_sees_nothing_of_the_source() -> None:
    source, label = np.repeat([0, 1], 200), np.tile([0, 1], 200)
    between = (source == 0) * 1.0
    found = estimate(400, ranking(label, label, [label * 0.5 + between, between], source))
    assert found[0].tolist() == [1.0, 1.0]
    assert found[1].tolist() == [0.5, 0.0]
    assert np.isnan(estimate(400, ranking(label, label, [between], label))[0]).all()


def test_rows_that_two_folds_predicted_are_not_ranked_together() -> None:
    fold, label = np.repeat([0, 1], 200), np.tile([0, 0, 0, 1], 100)
    rows = made_rows(label, label).assign(fold=fold)
    found = estimate(400, measures(rows, label, [0.5 * label + 0.4 * fold, 0.4 * fold]))
    named = dict(zip(NAMES, found.T, strict=True))
    assert named["auroc_within_source"].tolist() == named["auroc_within_source_length"].tolist() == [1.0, 0.5]
    assert named["spearman_within_source"] == pytest.approx([1.0, 0.0])
    assert named["auroc"][0] == 1.0


def test_the_strata_of_source_and_length_hold_rows_of_one_source_and_fold_and_of_like_length() -> None:
    draw = np.random.default_rng(0)
    rows = pd.DataFrame({"source": draw.choice(["a", "b"], 800), "num_tokens": draw.integers(10, 500, 800)})
    rows["num_labels"], rows["fold"] = rows["num_tokens"] // 2, draw.integers(0, 3, 800)
    _, own, both = strata_of(rows)
    assert len(set(own)) == 2 * 3
    spread = rows.groupby(both)["num_tokens"].agg(lambda lengths: lengths.max() - lengths.min())
    assert spread.max() < 140
    for strata in (own, both):
        assert rows.groupby(strata)[["source", "fold"]].nunique().max().tolist() == [1, 1]


def made_rows(label: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    fixed = {"source": "a", "fold": 0, "num_tokens": 5, "num_labels": 3}
    return pd.DataFrame({"label": label.astype(np.int8), "score": score}).assign(**fixed)


def test_calibration_accuracy_and_brier_are_those_of_hand_made_predictions() -> None:
    label = np.array([0, 0, 0, 1] * 50)
    predictions = [np.full(200, 0.25), np.full(200, 0.65), label * 0.1, -label * 0.1]
    found = estimate(200, measures(made_rows(label, label), label, predictions))
    named = dict(zip(NAMES, found.T, strict=True))
    assert named["calibration_error"][0] == pytest.approx(0, abs=0.05)
    assert named["calibration_error"][1] == pytest.approx(0.4, abs=0.05)
    assert named["accuracy"][2:].tolist() == [1.0, 0.5]
    assert named["brier"][:2] == pytest.approx([brier_score_loss(label, p) for p in predictions[:2]])


def test_trees_as_arrays_predict_as_the_library_does() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(300, 6))
    label = (matrix[:, 0] * matrix[:, 1] + matrix[:, 2] > 0).astype(int)
    parts = {"X_val": matrix[200:], "y_val": label[200:]}
    made = HistGradientBoostingClassifier(max_iter=40, early_stopping=True, n_iter_no_change=40).fit(
        matrix[:200], label[:200], **parts
    )
    arrays = flatten(made)
    kept = len(arrays["leaf"])
    assert 1 < kept <= 40
    staged = list(made.staged_predict_proba(matrix))[kept - 1][:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-grow(arrays, matrix))), staged, rtol=1e-9)
    losses = [log_loss(label[200:], p[200:]) for p in made.staged_predict_proba(matrix)]
    assert kept == int(np.argmin(losses)) + 1


def test_a_weaker_penalty_is_tried_until_the_loss_rises() -> None:
    tried = []

    def loss(setting: float) -> float:
        tried.append(setting)
        return abs(setting - 3)

    assert before_the_rise((9.0, 1.0, 4.0, 3.0), loss) == 3.0
    assert tried == [1.0, 3.0, 4.0]


def lengthy(rows: int, seed: int = 0) -> tuple[Features, np.ndarray]:
    """Return features that are the more, the longer a row is, with the length as the dense column; and the length's label."""
    draw = np.random.default_rng(seed)
    length = draw.integers(2, WIDTH + 1, rows)
    ids = np.stack([draw.permutation(FEATURES)[:WIDTH] for _ in range(rows)])
    ids[np.arange(WIDTH) >= length[:, None]] = FEATURES
    strength = np.where(ids < FEATURES, draw.gamma(2.0, 1.0, ids.shape), 0).astype(np.float32)
    label = (length + draw.normal(size=rows) > WIDTH * 0.7).astype(np.float32)
    return Features(ids.astype(np.int64), strength, length[:, None].astype(np.float32), FEATURES), label


def test_what_is_left_after_regressing_length_out_carries_no_length() -> None:
    features, label = lengthy(1500)
    group, train, held = np.arange(1500).astype(str), np.arange(1000), np.arange(1000, 1500)
    plain, beyond = L2Logistic(), BeyondColumns()
    alone = features.without_columns()
    prediction = plain.predict(plain.fit(alone.rows(train), label[train], group[train], 0), alone.rows(held))
    assert roc_auc_score(label[held], prediction) > 0.8
    arrays = beyond.fit(features.rows(train), label[train], group[train], 0)
    seen, left = (beyond.predict(arrays, features.rows(rows)).astype(float) for rows in (train, held))
    logit = np.log(seen / (1 - seen))
    assert abs(np.corrcoef(logit, features.stats[train, 0])[0, 1]) < 1e-3
    assert abs(roc_auc_score(label[held], left) - 0.5) < 0.06
    assert abs(spearmanr(left, features.stats[held, 0])[0]) < 0.15


def test_a_signal_beside_length_is_left_after_regressing_length_out() -> None:
    features, _ = lengthy(1500)
    group, signal = np.arange(1500).astype(str), (features.ids == 3).any(1)
    label = (signal * 2 + features.stats[:, 0] * 0.2 > 2.4).astype(np.float32)
    train, held, beyond = np.arange(1000), np.arange(1000, 1500), BeyondColumns()
    arrays = beyond.fit(features.rows(train), label[train], group[train], 0)
    assert roc_auc_score(signal[held], beyond.predict(arrays, features.rows(held))) > 0.95


def test_features_and_columns_side_by_side_know_both() -> None:
    draw, (features, score) = np.random.default_rng(0), planted(1200)
    column = draw.normal(size=1200)
    both = features.with_columns(column[:, None])
    label = top_quarter(score / score.std() + 2 * column)
    group, train, held, model = np.arange(1200).astype(str), np.arange(800), np.arange(800, 1200), L2Logistic()

    def held_out(seen: Features) -> float:
        arrays = model.fit(seen.rows(train), label[train], group[train], 0)
        return float(roc_auc_score(label[held], model.predict(arrays, seen.rows(held))))

    assert held_out(both) > max(held_out(features.without_columns()), held_out(dense(column[:, None]))) + 0.02


def test_fingerprints_side_by_side_keep_their_features_apart_and_strengths_alike() -> None:
    first = Features(np.array([[1, 0, 3]]), np.array([[30.0, 20.0, 0.0]], np.float32), np.ones((1, 10), np.float32), 3)
    second = Features(np.array([[4, 2]]), np.array([[0.3, 0.1]], np.float32), np.zeros((1, 10), np.float32), 5)
    both = side_by_side([first, second])
    assert both.num_features == 8
    assert both.ids.tolist() == [[7, 1, 0, 5, 8]]
    np.testing.assert_allclose(both.strength, [[1.5, 1.2, 0.8, 0.5, 0.0]])
    assert both.stats.shape == (1, 20)


def bootstrap(groups: np.ndarray, statistic: Statistic, draws: int, seed: int) -> tuple[float, float]:
    low, high = interval(resample(groups, statistic, draws, seed))
    return float(low), float(high)


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

    def difference(weights: np.ndarray) -> np.ndarray:
        return parts[0](weights) - parts[1](weights)

    low, high = bootstrap(np.arange(300), difference, 500, 0)
    assert low < estimate(300, difference) < high
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
    low, high = bootstrap(group, auroc(label, prediction), 300, 0)
    assert low < 0.5 < high
