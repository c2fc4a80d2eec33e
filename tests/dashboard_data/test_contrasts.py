"""What a feature tells apart equals scikit-learn's AUROC and hand-made odds, ties, silence and all."""

import numpy as np
import pytest
from made_up import dense, made_corpus, made_entries
from sklearn.metrics import roc_auc_score

from playpen.dashboard_data.contrasts import (
    FEW,
    FEW_ACTIVE,
    best_group,
    best_source,
    by_document,
    coarse,
    contrast,
    length_auroc,
    rank_within,
)
from playpen.dashboard_data.corpus import make_corpus
from playpen.dashboard_data.entries import Entries
from playpen.dashboard_data.listing import categories, sides_length_auroc
from playpen.token_rows import CONTROL, PROMPTS, TokenRows

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
    corpus = made_corpus(500)
    groups, total = corpus.categories, corpus.prompts()[0].sum()
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


def test_a_source_with_few_active_documents_is_never_the_one_a_feature_is_at_home_in():
    corpus = made_corpus(500)
    source = corpus.sources.of_document[corpus.document_of]
    rows = [np.flatnonzero((source == s) & (np.diff(corpus.document_of, prepend=-1) != 0)) for s in range(3)]

    def found_in(*counts):
        chosen = np.sort(np.concatenate([some[:n] for some, n in zip(rows, counts, strict=True)]))
        entries = Entries(corpus.starts[chosen] + 1, np.ones(len(chosen), np.float32))
        everything = np.ones(len(corpus.documents), bool)
        return contrast(rank_within(by_document(entries, corpus), everything, corpus.num_tokens), corpus.sources)

    few = found_in(FEW_ACTIVE - 1, 0, 0)
    assert few.documents.tolist() == [FEW_ACTIVE - 1, 0, 0, 0]
    assert few.lift[0] > 3
    assert best_source(few) is None
    assert best_source(found_in(FEW_ACTIVE, 0, 0)) == 0
    assert best_source(found_in(FEW_ACTIVE - 1, FEW_ACTIVE, 3 * FEW_ACTIVE)) == 2


def uneven_corpus(documents=300):
    """Return documents of two rows each: prompts are longer than control, and among them those of category `long`."""
    draw = np.random.default_rng(3)
    side = np.where(np.arange(documents) % 2 == 0, PROMPTS, CONTROL).astype(object)
    kind = np.where(side == CONTROL, "", np.where(np.arange(documents) % 4 == 0, "long", "short")).astype(object)
    low = np.select([kind == "long", kind == "short"], [25, 15], 5)
    ids = [np.append(0, draw.integers(1, 40, size + draw.integers(0, 25))).astype(np.int32) for size in low for _ in range(2)]
    name = np.array([f"d{i:03d}" for i in range(documents)], dtype=object)
    return make_corpus(TokenRows(ids, *(np.repeat(column, 2) for column in (name, side, kind, side, name))), 0)


def test_the_auroc_of_length_is_what_a_feature_that_fires_at_random_reaches_on_unequal_documents():
    corpus = uneven_corpus()
    side, kind = corpus.sides.of_document, corpus.categories.of_document
    prompts, tokens = corpus.prompts()
    owner = corpus.document_of[corpus.row_of]
    length = np.array([np.count_nonzero(corpus.counted & (owner == d)) for d in range(len(corpus.documents))])
    assert corpus.tokens_of.tolist() == length.tolist()
    everything = np.ones(len(length), bool)
    sides = length_auroc(corpus, corpus.sides, everything)
    np.testing.assert_allclose(sides, [roc_auc_score(side == 0, length), roc_auc_score(side == 1, length)], rtol=1e-12)
    among = length_auroc(corpus, corpus.categories, prompts)
    np.testing.assert_allclose(among, [roc_auc_score(kind[prompts] == g, length[prompts]) for g in range(2)], rtol=1e-12)
    assert sides_length_auroc(corpus) == pytest.approx(sides[0], abs=1e-4)
    assert [each["length_auroc"] for each in categories(corpus)] == pytest.approx(among, abs=1e-4)

    noise = made_entries(corpus, 0.1)  # the same chance on every token, whatever its document
    activity = by_document(noise, corpus)
    told = contrast(rank_within(activity, everything, corpus.num_tokens), corpus.sides)
    assert abs(told.log_odds[0]) < 0.2
    assert sides[0] > told.auroc[0] > 0.6
    of_long = contrast(rank_within(activity, prompts, tokens), corpus.categories).auroc[corpus.categories.names.index("long")]
    assert among[corpus.categories.names.index("long")] > of_long > 0.55


def test_documents_of_equal_length_give_an_auroc_of_length_of_a_half():
    side, name, none = (np.array(list(text), dtype=object) for text in ("pcpcpcpc", "abcdefgh", " " * 8))
    side = np.where(side == "p", PROMPTS, CONTROL).astype(object)
    corpus = make_corpus(TokenRows([np.arange(9, dtype=np.int32)] * 8, name, side, none, side, name), 0)
    assert length_auroc(corpus, corpus.sides, np.ones(8, bool)).tolist() == [0.5, 0.5]
