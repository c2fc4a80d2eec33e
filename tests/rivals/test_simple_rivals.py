"""Chance, length and a column of the data."""

import numpy as np
import pytest
import tiny
from near_copy import data_of, job

from playpen.config import PlaypenError
from playpen.rivals.simple import Column, Length, Random
from playpen.tables import read_table

MARKS = [3.0, None, 5.0, 3.0, 1.0, None, 3.0, 5.0, None, 2.0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("simple")
    pool = [tiny.make_chat(seed) for seed in range(len(MARKS))]
    return data_of(path / "data", tiny.tiny_base(path / "base"), pool, quality_score=MARKS)


def test_random_scores_depend_on_the_seed_alone(data, tmp_path):
    first, again, other = (Random()(job(data, tmp_path, seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).all()
    assert ((first >= 0) & (first < 1)).all()


def test_length_counts_the_tokens_of_the_answer(data, tmp_path):
    labels = read_table(data, "pool")["num_labels"]
    assert Length()(job(data, tmp_path)).tolist() == labels.tolist()
    assert Length(prefer="shortest")(job(data, tmp_path)).tolist() == (-labels).tolist()


@pytest.mark.parametrize(("prefer", "order"), [("high", [5, 3, 2, 1]), ("low", [1, 2, 3, 5])])
def test_a_column_ranks_its_values_and_puts_rows_without_one_last(data, tmp_path, prefer, order):
    given = job(data, tmp_path)
    score = Column(prefer=prefer)(given)
    best_first = [MARKS[i] for i in np.argsort(-score)]
    assert list(dict.fromkeys(best_first)) == [*order, None]
    assert best_first[-3:] == [None] * 3
    assert sorted(score) == pytest.approx(np.arange(1, 11) / 10)
    assert given.facts["rows_without_value"] == 3


def test_equal_values_of_a_column_stand_in_another_order_with_another_seed(data, tmp_path):
    threes, missing = ([i for i, mark in enumerate(MARKS) if mark == wanted] for wanted in (3.0, None))
    scores = [Column()(job(data, tmp_path, seed)) for seed in range(20)]
    for tied in (threes, missing):
        assert len({tuple(np.argsort(score[tied])) for score in scores}) > 1
    assert (Column()(job(data, tmp_path, 3)) == scores[3]).all()


def test_a_column_that_cannot_rank_is_refused(data, tmp_path):
    with pytest.raises(PlaypenError, match=r"column 'source' of .* holds .*, expected numbers"):
        Column(column="source")(job(data, tmp_path))
    with pytest.raises(PlaypenError, match="has no column grade; it has row_id, messages"):
        Column(column="grade")(job(data, tmp_path))
    empty = data_of(tmp_path / "empty", data.parent / "base", [tiny.make_chat(0)], quality_score=[None])
    with pytest.raises(PlaypenError, match="no values in column 'quality_score'; name another with column"):
        Column()(job(empty, tmp_path))
