"""BM25 equals an example worked by hand, and words that nobody shares give nothing."""

from math import log

import numpy as np
import pytest
import tiny
from near_copy import chat, data_of, job

from playpen.config import PlaypenError
from playpen.rivals.lexical import Bm25

POOL = [
    chat("red stone", "red river 5"),
    chat("blue stone", "lamp"),
    chat("?!", "..."),
    chat("green lamp", "tower lamp tower bridge"),
    chat("blue stone", "lamp "),
]
QUERIES = [chat("Red, red!", "LAMP 5"), chat("the tower", "castle"), chat("?", "!")]
LENGTHS = [5, 3, 0, 6, 3]
HOLDING = {"red": 1, "lamp": 3, "5": 1, "tower": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.tiny_base(tmp_path_factory.mktemp("lexical") / "base")


@pytest.fixture(scope="module")
def data(base):
    return data_of(base.parent / "data", base, POOL, QUERIES)


def worked(word, count, length, k1, b):
    """Return what one word of a query gives a row, in Lucene's form."""
    rarity = log(1 + (5 - HOLDING[word] + 0.5) / (HOLDING[word] + 0.5))
    return rarity * count / (count + k1 * (1 - b + b * length / (sum(LENGTHS) / 5)))


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (1.2, 0.0)])
def test_bm25_equals_an_example_worked_by_hand(data, tmp_path, k1, b):
    first = [2 * worked("red", 2, 5, k1, b) + worked("5", 1, 5, k1, b), worked("lamp", 1, 3, k1, b), 0]
    first += [worked("lamp", 2, 6, k1, b), worked("lamp", 1, 3, k1, b)]
    second = [0, 0, 0, worked("tower", 2, 6, k1, b), 0]
    given = job(data, tmp_path)
    mean = Bm25(k1=k1, b=b)(given)
    np.testing.assert_allclose(mean, (np.array(first) + second) / 3, rtol=1e-5)
    np.testing.assert_allclose(Bm25(k1=k1, b=b, aggregate="max")(given), np.maximum(first, second), rtol=1e-5)
    assert given.facts["queries"] == 3


def test_common_english_words_count_only_when_asked_for(base, tmp_path):
    data = data_of(tmp_path / "data", base, [chat("the bridge", "x"), chat("lamp", "y")], [chat("the", "it")])
    assert Bm25()(job(data, tmp_path)).tolist() == [0, 0]
    first, second = Bm25(stopwords="none")(job(data, tmp_path))
    assert first > second == 0


@pytest.mark.parametrize(("text", "best"), [("prompt", 0), ("answer", 1)])
def test_the_text_is_taken_from_the_turns_asked_for_on_both_sides(base, tmp_path, text, best):
    pool = [chat("amber bridge", "white cloud"), chat("black lamp", "river letter")]
    data = data_of(tmp_path / "data", base, pool, [chat("amber bridge", "river letter")])
    found = Bm25(text=text)(job(data, tmp_path))
    assert found[best] > found[1 - best] == 0


def test_rows_without_any_word_are_refused(base, tmp_path):
    data = data_of(tmp_path / "data", base, [chat("?", "!"), chat("...", ",")])
    with pytest.raises(PlaypenError, match="no row of pool has a word in its chat"):
        Bm25()(job(data, tmp_path))
