"""Figures of a feature equal numpy's, scipy's and slow loops'."""

import numpy as np
import pytest
from made_up import VOCABULARY, dense, made_corpus, made_entries
from scipy import stats

from playpen.dashboard_data.entries import Entries
from playpen.dashboard_data.statistics import bin_positions, histogram, moments, most_common, token_table

CORPUS = made_corpus()
SILENT = Entries(np.empty(0, np.int64), np.empty(0, np.float32))


def test_moments_equal_those_of_scipy():
    values = np.random.default_rng(0).gamma(2, 3, 500).astype(np.float32)
    found = moments(values)
    exact = values.astype(np.float64)
    expected = (exact.max(), exact.mean(), exact.std(), stats.skew(exact), stats.kurtosis(exact, fisher=False))
    assert list(found.values()) == pytest.approx(expected)


def test_moments_of_nothing_or_of_equal_values_are_null_not_nan():
    assert set(moments(SILENT.strength).values()) == {None}
    equal = moments(np.full(7, 0.1, np.float32))
    assert equal["mean"] == pytest.approx(0.1)
    assert (equal["skew"], equal["kurtosis"]) == (None, None)
    assert moments(np.array([2], np.float32))["std"] == 0


def test_a_histogram_counts_every_value_once_as_numpy_does():
    values = np.random.default_rng(0).gamma(2, 3, 500).astype(np.float32)
    found = histogram(values, 0.0, float(values.max()), 12)
    counts, edges = np.histogram(values, 12, (0, float(values.max())))
    assert found["counts"] == counts.tolist()
    np.testing.assert_allclose(found["edges"], edges, rtol=1e-5)
    assert sum(histogram(SILENT.strength, 0.0, 0.0)["counts"]) == 0
    assert sum(histogram(np.ones(3), 1.0, 1.0)["counts"]) == 3


def test_position_bins_hold_every_counted_token_once_and_start_after_the_bos():
    bins = bin_positions(CORPUS)
    assert bins.edges[0] == 1
    assert bins.edges[-1] == np.diff(CORPUS.starts).max()
    assert bins.tokens.sum() == CORPUS.num_tokens
    assert (bins.tokens > 0).all()


def test_the_density_at_positions_equals_a_loop():
    entries, bins = made_entries(CORPUS, 0.3), bin_positions(CORPUS)
    strength, where = dense(entries, CORPUS), CORPUS.positions(np.arange(len(CORPUS.ids)))
    found = bins.density(CORPUS.positions(entries.token))
    for low, high, density in zip(found["edges"][:-1], found["edges"][1:], found["density"], strict=True):
        inside = CORPUS.counted & (where >= low) & (where < high)
        assert density == pytest.approx((strength[inside] > 0).mean(), rel=1e-3)


def test_the_token_table_equals_a_loop():
    entries = made_entries(CORPUS, 0.3)
    occurrences = np.bincount(CORPUS.ids[CORPUS.counted], minlength=VOCABULARY)
    table = token_table(entries, CORPUS, occurrences, 6)
    strength = dense(entries, CORPUS)
    active = {t: strength[(CORPUS.ids == t) & (strength > 0)] for t in range(VOCABULARY)}
    order = sorted(active, key=lambda t: (-len(active[t]), t))[:6]
    assert table.ids.tolist() == order
    assert table.active.tolist() == [len(active[t]) for t in order]
    np.testing.assert_allclose(table.mean, [active[t].mean() for t in order], rtol=1e-6)
    np.testing.assert_allclose(table.share, [len(active[t]) / occurrences[t] for t in order])
    assert table.top_share == pytest.approx(len(active[order[0]]) / len(entries))
    following = [CORPUS.ids[t + 1] for t in entries.token if t + 1 < CORPUS.starts[CORPUS.row_of[t] + 1]]
    counts = np.bincount(following, minlength=VOCABULARY)
    assert table.next_counts.tolist() == sorted(counts, reverse=True)[:6]
    assert counts[table.next_ids].tolist() == table.next_counts.tolist()


def test_the_last_token_of_a_row_has_no_next_one():
    last = CORPUS.starts[1:] - 1
    table = token_table(Entries(last, np.ones(len(last), np.float32)), CORPUS, np.ones(VOCABULARY), 5)
    assert not len(table.next_ids)
    assert len(token_table(SILENT, CORPUS, np.ones(VOCABULARY), 5).ids) == 0


def test_the_commonest_come_first_and_equal_ones_in_order():
    assert most_common(np.array([0, 2, 5, 2, 0, 1]), 3).tolist() == [2, 1, 3]
