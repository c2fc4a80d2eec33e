"""Coverage picks like a brute-force greedy, and SAE similarity is the cosine of weighted strengths."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from near_copy import D_SAE, PLACE, job, make_fingerprints, make_home, pool_of
from scipy.sparse import csr_array

from playpen.config import PlaypenError
from playpen.rivals.coverage import SaeCoverage, greedy
from playpen.rivals.sae_similarity import SaeSimilarity, idf
from playpen.rivals.sparse import read_sparse
from playpen.tables import read_table, write_table


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = make_home(tmp_path_factory.mktemp("sae_rivals"))
    make_fingerprints(path)
    return path


def brute_force(rows):
    """Return the order of the picks by comparing sets, each pick anew."""
    left, covered, picks = list(range(len(rows))), set(), []
    while left:
        gains = [len(rows[i] - covered) for i in left]
        if max(gains) == 0:
            covered, gains = set(), [len(rows[i]) for i in left]
        best = left[int(np.argmax(gains))]
        covered |= rows[best]
        picks.append(best)
        left.remove(best)
    return picks


@pytest.mark.parametrize(("features", "share"), [(400, 0.05), (60, 0.2), (8, 0.4)])
def test_the_picks_equal_a_brute_force_greedy_through_every_reset(features, share):
    draw = np.random.default_rng(features)
    dense = draw.random((120, features)) < share * draw.random((120, 1)) * 2
    dense[[3, 90]] = dense[17]  # duplicates
    dense[[5, 6]] = False  # rows without a feature
    picks = greedy(csr_array(dense)).tolist()
    assert picks == brute_force([set(np.flatnonzero(row)) for row in dense])
    empty = set(np.flatnonzero(~dense.any(1)).tolist())
    assert {5, 6} <= empty == set(picks[-len(empty) :])


def test_the_score_is_minus_the_rank_and_ties_are_drawn(home, tmp_path):
    method = SaeCoverage(features=str(home / "features"))
    orders = {}
    for seed in range(8):
        score = method(job(home / "data", tmp_path, seed))
        assert sorted(score) == list(range(-16, 0))
        orders[seed] = tuple(np.argsort(-score))
    assert len(set(orders.values())) > 1
    sets = [set(ids) for ids in read_table(home / "features", "features")["ids"]]
    assert {len(sets[order[0]]) for order in orders.values()} == {max(map(len, sets))}
    assert tuple(np.argsort(-method(job(home / "data", tmp_path, 0)))) == orders[0]


def test_a_threshold_looks_at_the_greatest_strength(home, tmp_path):
    table = read_table(home / "features", "features")
    threshold = float(np.median(np.concatenate(table["max"])))
    score = SaeCoverage(features=str(home / "features"), threshold=threshold)(job(home / "data", tmp_path))
    active = [int((peak > threshold).sum()) for peak in table["max"]]
    assert active[int(score.argmax())] == max(active) < max(map(len, table["ids"]))


def dense(home, name):
    table, found = read_table(home / name, "features"), np.zeros((0, D_SAE))
    for row in table.itertuples():
        one = np.zeros(D_SAE)
        one[row.ids] = row.mean
        found = np.vstack([found, one])
    return found


@pytest.mark.parametrize("aggregate", ["mean", "max"])
@pytest.mark.parametrize("weighted", [True, False])
def test_similarity_is_the_cosine_of_strengths_weighted_by_rarity(home, tmp_path, aggregate, weighted):
    rows, queries = dense(home, "features"), dense(home, "query_features")
    weight = np.log(17 / (1 + (rows > 0).sum(0))) if weighted else np.ones(D_SAE)
    rows, queries = (x * weight / np.linalg.norm(x * weight, axis=1, keepdims=True) for x in (rows, queries))
    method = SaeSimilarity(
        features=str(home / "features"), queries=str(home / "query_features"), idf=weighted, aggregate=aggregate
    )
    found = method(job(home / "data", tmp_path))
    np.testing.assert_allclose(found, getattr(rows @ queries.T, aggregate)(1), atol=1e-6)
    if aggregate == "max":
        assert int(found.argmax()) == PLACE


def test_a_feature_that_is_always_on_counts_nothing():
    rows = csr_array(np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 0.0], [4.0, 0.0, 3.0]]))
    np.testing.assert_allclose(idf(rows), [0, np.log(2), np.log(2)])


def test_fingerprints_of_another_sae_are_refused(home, tmp_path):
    shutil.copytree(home / "query_features", tmp_path / "other")
    info = json.loads((tmp_path / "other" / "fingerprint.json").read_text())
    (tmp_path / "other" / "fingerprint.json").write_text(json.dumps({**info, "tokens": "all"}))
    method = SaeSimilarity(features=str(home / "features"), queries=str(tmp_path / "other"))
    with pytest.raises(PlaypenError, match=r"has tokens answer, but .* has all; fingerprint both in the same way"):
        method(job(home / "data", tmp_path / "out"))


def test_fingerprints_of_other_rows_are_refused(home, tmp_path):
    method = SaeSimilarity(features=str(home / "features"), queries=str(home / "features"))
    with pytest.raises(PlaypenError, match=r"query of .* and features .*: 3 of 3 rows have no partner"):
        method(job(home / "data", tmp_path))
    with pytest.raises(PlaypenError, match=r"no fingerprint\.json: expected an artifact of fingerprint"):
        SaeCoverage(features=str(home / "data"))(job(home / "data", tmp_path))


def test_broken_fingerprints_are_refused_in_one_line(home, tmp_path):
    for name, change, words in (
        ("nan", {"mean": np.nan}, "not finite"),
        ("far", {"ids": D_SAE}, f"feature {D_SAE}, but its id space"),
    ):
        table = read_table(home / "features", "features")
        for column, value in change.items():
            table[column] = [np.append(old[:-1], value).astype(old.dtype) for old in table[column]]
        (tmp_path / name).mkdir()
        write_table(tmp_path / name / "features.parquet", table)
        shutil.copy(home / "features" / "fingerprint.json", tmp_path / name)
        with pytest.raises(PlaypenError, match=words):
            read_sparse(str(tmp_path / name), pool_of(home), "mean", "pool")


def test_rows_without_any_feature_stay_in_the_table(home, tmp_path):
    table = read_table(home / "features", "features")
    for column in ("ids", "mean", "max", "fraction"):
        table[column] = [values[:0] if i == 2 else values for i, values in enumerate(table[column])]
    (tmp_path / "some").mkdir()
    write_table(tmp_path / "some" / "features.parquet", pd.DataFrame(table))
    shutil.copy(home / "features" / "fingerprint.json", tmp_path / "some")
    assert SaeCoverage(features=str(tmp_path / "some"))(job(home / "data", tmp_path)).argmin() == 2
    method = SaeSimilarity(features=str(tmp_path / "some"), queries=str(home / "query_features"))
    assert np.flatnonzero(np.isnan(method(job(home / "data", tmp_path)))).tolist() == [2]
