"""Scores for each query, learnt from fingerprints: a planted taste is found, ridge is ridge, and noise teaches nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from planted import FEATURES, planted
from scipy.stats import spearmanr

from playpen.config import PlaypenError
from playpen.feature_table import Features, dense
from playpen.query_regression import QueryRidge, predict_held_out, report
from playpen.query_scores import read_query_scores, write_query_scores
from playpen.trials import Trial

ROWS = 900
GROUPS = np.arange(ROWS).astype(str)


def of_feature(features: Features, feature: int) -> np.ndarray:
    return (np.log1p(features.strength / 30) * (features.ids == feature)).sum(1).astype(np.float64)


@pytest.fixture(scope="module")
def tastes() -> tuple[Features, np.ndarray]:
    """Return fingerprints, and the scores of two queries that like a feature each and of one that dislikes the first's."""
    features, _ = planted(ROWS)
    features = features.without_columns()
    scores = np.stack([of_feature(features, 3), of_feature(features, 7), -of_feature(features, 3)], 1)
    return features, scores + np.random.default_rng(5).normal(size=scores.shape) * 0.05


def trial_of(features: Features) -> tuple[Trial, pd.DataFrame]:
    trial = Trial("l2", "l2", "features", None, features)
    return trial, pd.DataFrame({"fold": np.arange(ROWS) % 3, "group": GROUPS})


def test_each_query_is_given_the_rows_of_its_own_planted_feature(tastes: tuple[Features, np.ndarray]) -> None:
    features, scores = tastes
    train, held = np.arange(600), np.arange(600, ROWS)
    arrays = QueryRidge().fit(features.rows(train), scores[train], GROUPS[train], 0)
    found = QueryRidge().predict(arrays, features.rows(held))
    assert found.shape == (300, 3)
    assert found.dtype == np.float32
    for query in range(3):
        assert np.corrcoef(found[:, query], scores[held, query])[0, 1] > 0.95
    assert abs(np.corrcoef(found[:, 0], scores[held, 1])[0, 1]) < 0.2


def test_the_report_says_how_far_predictions_for_each_query_are_ahead_of_their_mean(tastes: tuple[Features, np.ndarray]) -> None:
    features, scores = tastes
    trial, rows = trial_of(features)
    each, folds = predict_held_out(QueryRidge(), trial, scores, rows, 0), rows["fold"].to_numpy()
    table, numbers = report(scores, each, folds)
    assert table["query"].tolist() == [0, 1, 2]
    for name, predicted in (("spearman", each), ("spearman_of_mean", each.mean(1, keepdims=True).repeat(3, 1))):
        parts = [[spearmanr(scores[folds == fold, q], predicted[folds == fold, q])[0] for q in range(3)] for fold in range(3)]
        np.testing.assert_allclose(table[name], np.mean(parts, 0))
        assert numbers[name] == pytest.approx(np.mean(parts))
    assert numbers["gain"] == pytest.approx(numbers["spearman"] - numbers["spearman_of_mean"])
    assert numbers["gain_low"] < numbers["gain"] < numbers["gain_high"]
    assert numbers["gain"] > 0.1


def test_queries_of_one_taste_gain_nothing_by_themselves(tastes: tuple[Features, np.ndarray]) -> None:
    features, scores = tastes
    same = scores[:, :1] + np.random.default_rng(4).normal(size=(ROWS, 20)) * 0.05
    trial, rows = trial_of(features)
    each = predict_held_out(QueryRidge(), trial, same, rows, 0)
    _, numbers = report(same, each, rows["fold"].to_numpy())
    assert abs(numbers["gain"]) < 0.02


def test_noise_ranks_no_query_within_a_fold() -> None:
    """Across folds it would: the mean that a model learns leans against the rows that it was not given."""
    draw = np.random.default_rng(6)
    noise, columns = draw.normal(size=(ROWS, 40)), draw.normal(size=(ROWS, 3)).astype(np.float32)
    trial, rows = trial_of(dense(columns))
    each = predict_held_out(QueryRidge(), trial, noise, rows, 0)
    _, numbers = report(noise, each, rows["fold"].to_numpy())
    assert abs(numbers["spearman"]) < 0.02


def test_a_held_out_prediction_knows_nothing_of_its_own_row(tastes: tuple[Features, np.ndarray]) -> None:
    features, _ = tastes
    trial, rows = trial_of(features)
    noise = np.random.default_rng(1).normal(size=(ROWS, 4))
    each = predict_held_out(QueryRidge(signals=(30.0,)), trial, noise, rows, 0)
    assert all(abs(spearmanr(noise[:, query], each[:, query])[0]) < 0.1 for query in range(4))


def test_noise_chooses_a_heavier_penalty_than_a_signal(tastes: tuple[Features, np.ndarray]) -> None:
    features, scores = tastes
    noise = np.random.default_rng(2).normal(size=(ROWS, 4))
    assert QueryRidge().fit(features, noise, GROUPS, 0)["signal"] < 0.1
    assert QueryRidge().fit(features, scores, GROUPS, 0)["signal"] > 1


def test_the_weights_are_those_of_ridge_regression_on_columns_of_unit_deviation() -> None:
    draw = np.random.default_rng(3)
    columns = (draw.normal(size=(ROWS, 5)) * [1, 10, 0.1, 3, 2] + 4).astype(np.float32)
    scores, alpha = columns @ draw.normal(size=(5, 2)) + draw.normal(size=(ROWS, 2)), 5 / 0.3
    settings = QueryRidge(signals=(0.3,))
    found = settings.predict(settings.fit(dense(columns), scores, GROUPS, 0), dense(columns))
    scaled = (columns - columns.mean(0, dtype=np.float64)) / columns.std(0, dtype=np.float64)
    weight = np.linalg.solve(scaled.T @ scaled + alpha * np.eye(5), scaled.T @ (scores - scores.mean(0)))
    np.testing.assert_allclose(found, scaled @ weight + scores.mean(0), rtol=1e-4)


def test_features_that_no_training_row_has_are_ignored(tastes: tuple[Features, np.ndarray]) -> None:
    features, scores = tastes
    rare = replace(features, ids=np.where(features.ids == 11, FEATURES, features.ids), strength=features.strength)
    arrays = QueryRidge().fit(rare, scores, GROUPS, 0)
    assert 11 not in arrays["vocabulary"]
    without = replace(features, strength=np.where(features.ids == 11, 0, features.strength))
    np.testing.assert_array_equal(QueryRidge().predict(arrays, features), QueryRidge().predict(arrays, without))


def test_a_query_that_scores_all_rows_alike_has_no_rank_correlation(tastes: tuple[Features, np.ndarray]) -> None:
    _, scores = tastes
    scores = np.concatenate([scores, np.ones((ROWS, 1))], axis=1)
    table, numbers = report(scores, scores.astype(np.float32), np.zeros(ROWS))
    assert table["spearman"].isna().tolist() == [False, False, False, True]
    assert numbers["queries"] == 3
    assert numbers["spearman"] == pytest.approx(1, abs=1e-3)
    _, none = report(scores[:, 3:], scores[:, 3:], np.zeros(ROWS))
    assert none == {"queries": 0, **dict.fromkeys(("spearman", "spearman_of_mean", "gain", "gain_low", "gain_high"))}


def test_scores_are_read_in_the_order_of_the_rows_and_must_be_finite(tmp_path: Path) -> None:
    names = pd.Series(["a", "b", "c"])
    each = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    good = tiny.write_artifact(
        tmp_path / "good", "attribute", lambda out: write_query_scores(names, each, out / "query_scores.parquet")
    )
    found = read_query_scores(str(good), pd.DataFrame({"row_id": ["c", "a"]}), "this")
    np.testing.assert_array_equal(found, [[5, 6], [1, 2]])
    each[1, 0] = np.nan
    bad = tiny.write_artifact(
        tmp_path / "bad", "attribute", lambda out: write_query_scores(names, each, out / "query_scores.parquet")
    )
    with pytest.raises(PlaypenError, match=r"the query_scores of row_id b in .* are not finite"):
        read_query_scores(str(bad), pd.DataFrame({"row_id": ["a", "b"]}), "this")
    none = tiny.write_artifact(tmp_path / "none", "attribute", lambda out: (out / "x").write_text(""))
    with pytest.raises(
        PlaypenError, match=r"this needs scores for each query, but .*none has no table 'query_scores': make it by attribute"
    ):
        read_query_scores(str(none), pd.DataFrame({"row_id": ["a"]}), "this")
