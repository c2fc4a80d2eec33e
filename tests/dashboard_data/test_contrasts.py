"""What a feature tells apart equals scikit-learn's AUROC and hand-made odds, ties, silence and all."""

import numpy as np
import pytest
from made_up import dense, made_corpus, made_entries
from sklearn.metrics import roc_auc_score

from playpen.dashboard_data.contrasts import FEW, best_group, by_document, coarse, contrast, rank_within
from playpen.dashboard_data.entries import Entries

CORPUS = made_corpus()
EVERYTHING = np.ones(len(CORPUS.documents), bool)


def peaks(strength):
    """Return the maximum in each document, by a loop."""
    owner = CORPUS.document_of[CORPUS.row_of]
    return np.array([strength[owner == d].max(initial=0) for d in range(len(CORPUS.documents))])


def found(entries, groups, population=EVERYTHING, tokens=CORPUS.num_tokens):
    return contrast(rank_within(by_document(entries, CORPUS), population, tokens), groups)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.9])
def test_the_activity_of_documents_equals_a_loop(share):
    entries = made_entries(CORPUS, share)
    activity, strength = by_document(entries, CORPUS), dense(entries, CORPUS)
    expected, owner = peaks(strength), CORPUS.document_of[CORPUS.row_of]
    assert activity.document.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_array_equal(activity.peak, expected[expected > 0])
    assert activity.active.tolist() == [int((strength[owner == d] > 0).sum()) for d in activity.document]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.9])
def test_aurocs_equal_those_of_scikit_learn(share):
    entries = made_entries(CORPUS, share)
    expected = peaks(dense(entries, CORPUS))
    for groups in (CORPUS.sides, CORPUS.sources):
        aurocs = [roc_auc_score(groups.of_document == g, expected) for g in range(len(groups.names))]
        np.testing.assert_allclose(found(entries, groups).auroc, aurocs, rtol=1e-12)
    prompts, tokens = CORPUS.prompts()
    for g in range(3):
        is_in = CORPUS.categories.of_document[prompts] == g
        auroc = found(entries, CORPUS.categories, prompts, tokens).auroc[g]
        assert auroc == pytest.approx(roc_auc_score(is_in, expected[prompts]))


def test_densities_lift_and_log_odds_equal_their_formulas():
    entries = made_entries(CORPUS, 0.2)
    strength, owner = dense(entries, CORPUS), CORPUS.document_of[CORPUS.row_of]
    got = found(entries, CORPUS.sources)
    for g in range(4):
        inside = CORPUS.counted & (CORPUS.sources.of_document[owner] == g)
        rest = CORPUS.counted & ~inside
        a, b = int((strength[inside] > 0).sum()), int((strength[rest] > 0).sum())
        odds = (a + 0.5) / (inside.sum() - a + 0.5), (b + 0.5) / (rest.sum() - b + 0.5)
        assert got.active[g] == a
        assert got.density[g] == pytest.approx(a / inside.sum())
        assert got.lift[g] == pytest.approx(a / inside.sum() / (len(entries) / CORPUS.num_tokens))
        assert got.log_odds[g] == pytest.approx(np.log(odds[0] / odds[1]))


def test_a_category_is_compared_with_the_other_prompts_and_never_with_the_control():
    prompts, tokens = CORPUS.prompts()
    owner = CORPUS.document_of[CORPUS.row_of]
    token = np.flatnonzero(CORPUS.counted & ~prompts[owner])
    control_only = Entries(token, np.ones(len(token), np.float32))
    got = found(control_only, CORPUS.categories, prompts, tokens)
    assert got.active.tolist() == [0, 0, 0]
    for figures in (got.auroc, got.lift, got.log_odds):
        assert np.isnan(figures).all()


def test_a_silent_feature_tells_nothing_and_a_perfect_one_everything():
    silent = Entries(np.empty(0, np.int64), np.empty(0, np.float32))
    assert found(silent, CORPUS.sides).density.tolist() == [0, 0]
    for figures in (found(silent, CORPUS.sides).auroc, found(silent, CORPUS.sides).log_odds):
        assert np.isnan(figures).all()
    first = CORPUS.starts[:-1][CORPUS.sides.of_document[CORPUS.document_of] == 0] + 1
    perfect = found(Entries(first, np.ones(len(first), np.float32)), CORPUS.sides)
    np.testing.assert_array_equal(perfect.auroc, [1, 0])


def test_the_best_category_is_the_highest_with_enough_documents():
    groups = CORPUS.categories
    total = CORPUS.prompts()[0].sum()
    assert best_group(np.array([0.7, 0.9, 0.8]), groups, total) == 1
    assert best_group(np.array([np.nan, 0.4, np.nan]), groups, total) == 1
    few = type(groups)(groups.names, groups.of_document, groups.tokens, np.array([FEW, FEW - 1, FEW]))
    assert best_group(np.array([0.7, 0.9, 0.8]), few, total) == 2
    assert best_group(np.array([0.7, 0.9, 0.8]), few, FEW) is None


def test_rounding_errors_of_a_forward_pass_do_not_rank_documents():
    """Documents that begin alike have equal maxima but for errors that depend on the length of the batch, so on the side."""
    side = CORPUS.sides.of_document[CORPUS.document_of]
    error = np.where(side == 0, np.float32(1 + 3e-7), np.float32(1))
    noisy = Entries(CORPUS.starts[:-1] + 1, (np.float32(2.71) * error).astype(np.float32))
    assert len(set(noisy.strength.tolist())) == 2
    np.testing.assert_array_equal(found(noisy, CORPUS.sides).auroc, [0.5, 0.5])
    values = np.random.default_rng(0).gamma(2, 3, 1000).astype(np.float32)
    assert np.abs(coarse(values) / values - 1).max() <= 2.0**-12
    different = Entries(noisy.token, np.where(side == 0, np.float32(2.715), np.float32(2.71)))
    np.testing.assert_array_equal(found(different, CORPUS.sides).auroc, [1, 0])
