"""A corpus is numbered through without losing where its tokens come from, and drawn in whole rows."""

import numpy as np
import pytest
from made_up import BOS, made_corpus, made_rows

from playpen.config import PlaypenError
from playpen.dashboard_data import corpus as corpus_module
from playpen.dashboard_data.corpus import draw_rows, make_corpus
from playpen.dashboard_data.decoder_map import place_directions
from playpen.dashboard_data.listing import sources


def test_every_token_knows_its_row_position_and_document():
    rows, corpus = made_rows(), made_corpus()
    at = 0
    for number, ids in enumerate(rows.ids):
        token = np.arange(at, at + len(ids))
        np.testing.assert_array_equal(corpus.ids[token], ids)
        assert set(corpus.row_of[token]) == {number}
        assert corpus.positions(token).tolist() == list(range(len(ids)))
        assert {corpus.documents[d] for d in corpus.document_of_token(token)} == {rows.document[number]}
        at += len(ids)
    assert corpus.num_tokens == at - len(rows.ids)
    assert len(corpus.documents) == len(set(rows.document))


def test_groups_count_the_tokens_and_documents_of_each_source_and_side():
    rows, corpus = made_rows(), made_corpus()
    for column, groups in ((rows.source, corpus.sources), (rows.category, corpus.categories), (rows.side, corpus.sides)):
        for g, name in enumerate(groups.names):
            inside = column == name
            assert groups.tokens[g] == sum(len(ids) - 1 for ids, there in zip(rows.ids, inside, strict=True) if there)
            assert groups.documents[g] == len(set(rows.document[inside]))
    assert corpus.sides.names == ["prompts", "control"]
    assert corpus.categories.names == ["maybe", "no", "yes"]
    assert {each["side"] for each in sources(corpus)} == {"prompts", "control"}


def test_a_source_on_both_sides_is_on_none():
    rows = made_rows()
    rows.source[:] = "all"
    assert [each["side"] for each in sources(make_corpus(rows, BOS))] == [""]


@pytest.mark.parametrize("side", ["", "control"])
def test_rows_without_two_sides_have_no_sides_and_tell_categories_among_all(side):
    rows = made_rows()
    rows.side[:] = side
    corpus = make_corpus(rows, BOS)
    assert corpus.sides.names == []
    assert corpus.prompts()[0].all()


def test_rows_are_drawn_whole_in_a_random_order_until_the_budget_is_reached():
    rows = made_rows(200)
    every = draw_rows(rows, BOS, None, 0)
    assert sorted(map(tuple, every.ids)) == sorted(map(tuple, rows.ids))
    assert [tuple(row) for row in every.ids] != [tuple(row) for row in rows.ids]
    few = draw_rows(rows, BOS, 100, 0)
    sizes = [len(row) - 1 for row in few.ids]
    assert sum(sizes[:-1]) < 100 <= sum(sizes)
    assert [tuple(row) for row in few.ids] == [tuple(row) for row in every.ids[: len(few.ids)]]
    assert [tuple(row) for row in draw_rows(rows, BOS, 100, 1).ids] != [tuple(row) for row in few.ids]


def test_too_many_tokens_and_none_at_all_are_one_line(monkeypatch):
    rows = made_rows()
    with pytest.raises(PlaypenError, match="no token besides the BOS"):
        make_corpus(type(rows)([row[:1] for row in rows.ids], *(getattr(rows, n) for n in list(vars(rows))[1:])), BOS)
    monkeypatch.setattr(corpus_module, "MAX_TOKENS", 10)
    with pytest.raises(PlaypenError, match=r"at most 10: set tokens"):
        make_corpus(rows, BOS)


def test_directions_of_a_cluster_lie_together_on_the_map_which_is_the_same_each_time():
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(4, 16))
    kind = np.repeat(np.arange(4), 40)
    directions = (centres[kind] + 0.2 * draw.normal(size=(160, 16))) * draw.uniform(0.1, 9, (160, 1))
    places = place_directions(directions, 0)
    assert places.min() == 0
    assert places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(160)
    assert (kind[distance.argmin(1)] == kind).mean() > 0.98
    np.testing.assert_array_equal(places, place_directions(directions, 0))


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_a_map_of_few_directions_is_there_too(n):
    places = place_directions(np.random.default_rng(0).normal(size=(n, 8)), 0)
    assert places.shape == (n, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == n
