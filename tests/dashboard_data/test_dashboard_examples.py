"""Examples are those that a slow reading of the definitions gives, cut out of their rows and nothing else."""

from random import Random

import numpy as np
import pytest
from made_up import VOCABULARY, dense, made_corpus, made_entries

from playpen.dashboard_data.entries import Entries
from playpen.dashboard_data.examples import GROUPS, Amounts, choose, cut, rank, rounded, to_examples

CORPUS = made_corpus()
AMOUNTS = Amounts(top=6, group=2, random=5, near=3, window=4)
SILENT = Entries(np.empty(0, np.int64), np.empty(0, np.float32))


def chosen(entries, amounts=AMOUNTS, seed=0):
    return choose(entries, CORPUS, amounts, Random(seed))


def test_ranks_are_strongest_first_and_the_earlier_of_equal_ones_first():
    strength = np.random.default_rng(0).integers(1, 9, 300).astype(np.float32) / 7
    assert rank(strength).tolist() == np.lexsort((np.arange(300), -strength)).tolist()


def test_the_strongest_examples_are_of_different_documents():
    entries = made_entries(CORPUS, 0.4)
    strength, owner = dense(entries, CORPUS), CORPUS.document_of[CORPUS.row_of]
    peaks = sorted((strength[owner == d].max() for d in range(len(CORPUS.documents))), reverse=True)
    top = chosen(entries).top
    assert entries.strength[top].tolist() == peaks[:6]
    assert len(set(owner[entries.token[top]])) == 6


def test_a_feature_of_one_document_has_one_strongest_example():
    token = np.arange(CORPUS.starts[0] + 1, CORPUS.starts[1])
    strength = np.arange(1, len(token) + 1).astype(np.float32)
    assert chosen(Entries(token, strength)).top.tolist() == [len(token) - 1]


def test_quantile_groups_have_equal_counts_and_part_the_strengths():
    entries = made_entries(CORPUS, 0.4)
    groups = chosen(entries).quantiles
    ordered = np.sort(entries.strength)[::-1]
    at = 0
    for group in groups:
        part = ordered[at : at + group.count]
        assert (group.high, group.low) == (part[0], part[-1])
        assert len(group.chosen) == 2
        assert all(group.low <= s <= group.high for s in entries.strength[group.chosen])
        at += group.count
    assert at == len(entries)
    assert max(g.count for g in groups) - min(g.count for g in groups) <= 1


def test_intervals_have_equal_width_and_hold_every_active_token_once():
    entries = made_entries(CORPUS, 0.4)
    groups = chosen(entries).intervals
    top = entries.strength.max()
    for i, group in enumerate(groups):
        assert (group.low, group.high) == pytest.approx((top * (9 - i) / 10, top * (10 - i) / 10))
        inside = (entries.strength > group.low) & (entries.strength <= group.high)
        assert group.count == inside.sum()
        assert inside[group.chosen].all()
        assert len(group.chosen) == min(2, group.count)
    assert sum(group.count for group in groups) == len(entries)


def test_random_examples_are_uniform_over_the_active_tokens():
    entries = made_entries(CORPUS, 0.05)
    drawn = np.concatenate([chosen(entries, seed=seed).random for seed in range(400)])
    counts = np.bincount(drawn, minlength=len(entries))
    expected = 400 * 5 / len(entries)
    assert ((counts - expected) ** 2 / expected).sum() < 2 * len(entries)  # chi-square, far from its mean
    assert len(chosen(entries, seed=3).random) == len(set(chosen(entries, seed=3).random)) == 5


def test_few_active_tokens_give_few_examples_and_none_gives_none():
    token = CORPUS.starts[:3] + 1
    few = chosen(Entries(token, np.array([3, 1, 2], np.float32)))
    assert few.top.tolist() == [0, 2, 1]
    assert [group.count for group in few.quantiles] == [1, 1, 1]
    assert [group.count for group in few.intervals] == [1, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    none = chosen(SILENT)
    assert (len(none.top), none.quantiles, none.intervals, len(none.random)) == (0, [], [], 0)
    assert GROUPS == 10


def examples(entries, peak, value, lens=None, window=4):
    windows = cut(peak, value, entries, CORPUS, window, lens)
    return to_examples(windows, CORPUS, np.arange(VOCABULARY) + 100)


def test_a_window_is_cut_at_its_row_and_shows_what_is_there():
    entries = made_entries(CORPUS, 0.4)
    lens = np.random.default_rng(0).normal(size=VOCABULARY).astype(np.float32)
    peak = np.array([CORPUS.starts[2] + 1, CORPUS.starts[3] - 1, CORPUS.starts[7] + 2])
    strength = dense(entries, CORPUS)
    for example, token in zip(examples(entries, peak, strength[peak], lens), peak, strict=True):
        row = int(CORPUS.row_of[token])
        start, end = int(CORPUS.starts[row]), int(CORPUS.starts[row + 1])
        low, high = max(start, token - 4), min(end, token + 5)
        assert example["d"] == CORPUS.documents[CORPUS.document_of[row]]
        assert (example["p"], example["n"], example["at"]) == (low - start, end - start, token - low)
        assert example["t"] == [int(i) + 100 for i in CORPUS.ids[low:high]]
        np.testing.assert_allclose(example["a"], strength[low:high], rtol=1e-3)
        effects = [strength[t] * lens[CORPUS.ids[t + 1]] if t + 1 < end else None for t in range(low, high)]
        assert [e is None for e in example["e"]] == [e is None for e in effects]
        np.testing.assert_allclose(*([e for e in es if e is not None] for es in (example["e"], effects)), atol=2e-3)


def test_source_and_category_are_numbers_and_none_is_minus_one():
    entries = made_entries(CORPUS, 0.4)
    for row in range(6):
        document = CORPUS.document_of[row]
        found = examples(entries, np.array([CORPUS.starts[row] + 1]), np.ones(1, np.float32))[0]
        assert found["s"] == CORPUS.sources.of_document[document]
        assert found["c"] == CORPUS.categories.of_document[document]
        assert found["e"] is None
    assert {int(c) for c in CORPUS.categories.of_document} == {-1, 0, 1, 2}


def test_a_near_miss_shows_its_pre_activation_on_a_token_that_is_off():
    entries = made_entries(CORPUS, 0.3)
    off = np.flatnonzero(CORPUS.counted & (dense(entries, CORPUS) == 0))[:1]
    found = examples(entries, off, np.array([-0.25], np.float32))[0]
    assert found["v"] == -0.25
    assert found["a"][found["at"]] == 0


def test_rounding_keeps_four_figures_of_the_largest_and_never_makes_a_small_one_zero():
    values = np.array([123.456, 1e-6, 0.0, -50.0, np.nan])
    assert rounded(values)[:4].tolist() == [123.5, 0.1, 0.0, -50.0]
    assert np.isnan(rounded(values)[4])
    assert not np.signbit(rounded(np.array([-1e-9, 5.0])))[0]
