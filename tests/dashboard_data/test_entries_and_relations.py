"""What pass one wrote is read back whole, whatever the chunks; correlations equal numpy's over the dense table."""

import numpy as np
import pytest
import torch
from made_up import made_corpus, write_chunks

from playpen.dashboard_data import entries as entries_module
from playpen.dashboard_data import relations
from playpen.dashboard_data.entries import plan_chunks, read_features
from playpen.dashboard_data.relations import correlated, neighbours

CORPUS, D = made_corpus(rows=120), 15


@pytest.fixture(params=[1, 100, 10**6])
def chunk_tokens(request, monkeypatch):
    monkeypatch.setattr(entries_module, "CHUNK_TOKENS", request.param)
    return request.param


def table():
    """Return strengths [tokens, D]: 0 and 1 go together, 2 is never and 3 always active, the rest are rare."""
    draw = np.random.default_rng(0)
    found = draw.gamma(2, 1, (len(CORPUS.ids), D)).astype(np.float32) * (draw.random((len(CORPUS.ids), D)) < 0.1)
    found[:, 1] = 2 * found[:, 0] + found[:, 1] / 10
    found[:, 2], found[:, 3] = 0, 1 + draw.random(len(CORPUS.ids))
    found[~CORPUS.counted] = 0
    return found


def test_chunks_hold_every_row_once_and_no_more_tokens_than_asked_but_for_their_last_row(chunk_tokens, tmp_path):
    found = plan_chunks(CORPUS, tmp_path, D)
    assert [row for chunk in found for row in chunk.rows] == list(range(120))
    for chunk in found:
        assert chunk.first == CORPUS.starts[chunk.rows.start]
        assert CORPUS.starts[chunk.rows.stop - 1] - chunk.first < chunk_tokens
    assert len(found) == (120 if chunk_tokens == 1 else 1 if chunk_tokens > 10**5 else len(found))


@pytest.mark.parametrize("features", [np.arange(D), np.array([0, 1, 4, 7, 8, 14]), np.array([2])])
def test_entries_read_back_are_those_of_the_table(chunk_tokens, tmp_path, features):
    dense = table()
    found = list(read_features(write_chunks(dense, CORPUS, tmp_path), features))
    for feature, entries in zip(features, found, strict=True):
        assert entries.token.tolist() == np.flatnonzero(dense[:, feature]).tolist()
        np.testing.assert_array_equal(entries.strength, dense[entries.token, feature])


def test_the_strength_at_any_token_is_that_of_the_table(tmp_path):
    dense = table()
    for feature, entries in enumerate(read_features(write_chunks(dense, CORPUS, tmp_path), np.arange(D))):
        np.testing.assert_array_equal(entries.at(np.arange(len(CORPUS.ids))), dense[:, feature])


@pytest.mark.parametrize("bytes_held", [2**28, 8 * D * 4, 8 * D])
def test_correlations_equal_those_of_numpy_over_all_tokens_and_features(chunk_tokens, bytes_held, tmp_path, monkeypatch):
    monkeypatch.setattr(relations, "TABLE_BYTES", bytes_held)
    dense = table()
    found = correlated(write_chunks(dense, CORPUS, tmp_path), np.arange(D), CORPUS.num_tokens, 6)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.corrcoef(dense[CORPUS.counted].T.astype(np.float64))
        unit = dense / np.linalg.norm(dense, axis=0)
    expected[np.arange(D), np.arange(D)] = np.nan
    for feature in range(D):
        order = [i for i in np.argsort(-np.nan_to_num(expected[feature], nan=-2)) if expected[feature, i] > 0][:6]
        there = found.id[feature] >= 0
        assert found.id[feature][there].tolist() == order
        np.testing.assert_allclose(found.value[feature][there], expected[feature, order], rtol=1e-5)
        np.testing.assert_allclose(found.cosine[feature][there], (unit.T @ unit)[feature, order], rtol=1e-4)
    assert found.id[0, 0] == 1
    assert found.value[0, 0] > 0.95
    assert found.pairs(2) == []


def test_correlations_of_some_features_reach_over_the_whole_dictionary(tmp_path):
    chunks = write_chunks(table(), CORPUS, tmp_path)
    some, every = (correlated(chunks, ids, CORPUS.num_tokens, 6) for ids in (np.array([0, 9]), np.arange(D)))
    np.testing.assert_array_equal(some.id, every.id[[0, 9]])
    assert 1 in some.id[0]


def test_neighbours_are_the_highest_cosines_without_oneself():
    directions = torch.randn((30, 8), generator=torch.Generator().manual_seed(0))
    directions[5] = 3 * directions[4] + 0.01
    found = neighbours(directions, np.array([4, 11]), 5)
    unit = (directions / directions.norm(dim=1, keepdim=True)).numpy()
    for place, feature in enumerate((4, 11)):
        cosine = unit @ unit[feature]
        order = [i for i in np.argsort(-cosine) if i != feature][:5]
        assert found.id[place].tolist() == order
        assert found.pairs(place) == [[i, pytest.approx(cosine[i], abs=1e-4)] for i in order]
    assert found.id[0, 0] == 5
    assert neighbours(directions[:3], np.arange(3), 5).id.shape == (3, 2)
    assert neighbours(directions[:1], np.arange(1), 5).pairs(0) == []
