"""Near misses found in one pass equal those of the whole table, whatever the order and the pieces."""

import numpy as np
import pytest
import torch
from made_up import made_corpus

from playpen.dashboard_data import near_misses
from playpen.dashboard_data.near_misses import NearMisses

CORPUS = made_corpus(rows=200)
CPU = torch.device("cpu")


def table(features=12, seed=0):
    """Return pre-activations [tokens, D] in which a tenth are active, so -inf, and feature 3 is always active."""
    draw = np.random.default_rng(seed)
    found = draw.normal(size=(len(CORPUS.ids), features)).astype(np.float32)
    found[draw.random(found.shape) < 0.1] = -np.inf
    found[:, 3] = -np.inf
    return found


def brute(before, feature, keep):
    """Return the highest pre-activations of a feature, one a document, by a sort of all."""
    owner = CORPUS.document_of[CORPUS.row_of]
    best = {}
    for token in np.flatnonzero(CORPUS.counted):
        value = before[token, feature]
        if value > best.get(owner[token], (-np.inf,))[0]:
            best[owner[token]] = (value, token)
    return sorted(best.values(), reverse=True)[:keep]


def seen(before, order, pieces, features=None, keep=5):
    near = NearMisses(np.arange(before.shape[1]) if features is None else features, keep, CORPUS, CPU)
    for tokens in np.array_split(order, pieces):
        near.see(torch.from_numpy(before[tokens]), tokens)
    return near


@pytest.mark.parametrize("pieces", [1, 7, 100])
@pytest.mark.parametrize("few", [10**6, 64])
def test_near_misses_equal_those_of_the_whole_table(pieces, few, monkeypatch):
    monkeypatch.setattr(near_misses, "MAX_CANDIDATES", few)
    before, order = table(), np.random.default_rng(1).permutation(np.flatnonzero(CORPUS.counted))
    near = seen(before, order, pieces)
    for feature in range(before.shape[1]):
        expected = brute(before, feature, 5)
        there = near.token[feature] >= 0
        assert list(zip(near.value[feature][there], near.token[feature][there], strict=True)) == expected
    assert not (near.token[3] >= 0).any()


def test_some_features_only_are_those_of_all():
    before, order = table(), np.flatnonzero(CORPUS.counted)
    near, all_of_them = seen(before, order, 9, np.array([1, 7])), seen(before, order, 9)
    np.testing.assert_array_equal(near.token, all_of_them.token[[1, 7]])


def test_a_saved_state_goes_on_as_if_it_had_not_been_saved(tmp_path):
    before, order = table(), np.flatnonzero(CORPUS.counted)
    whole, half = seen(before, order, 8), seen(before, order[: len(order) // 2], 4)
    half.save(tmp_path / "near.npz")
    again = NearMisses(np.arange(12), 5, CORPUS, CPU)
    again.load(tmp_path / "near.npz")
    for tokens in np.array_split(order[len(order) // 2 :], 4):
        again.see(torch.from_numpy(before[tokens]), tokens)
    np.testing.assert_array_equal(again.token, whole.token)
    np.testing.assert_array_equal(again.value, whole.value)


def test_none_is_kept_when_none_is_wanted():
    assert seen(table(), np.flatnonzero(CORPUS.counted), 3, keep=0).value.shape == (12, 0)
