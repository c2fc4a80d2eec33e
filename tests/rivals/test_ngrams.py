"""DSIR equals counts made one by one, and prefers what reads like the target."""

import re
from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pytest
import tiny
from near_copy import chat, data_of, job

from playpen.rivals.ngrams import Dsir

LIKE = [chat(f"Where is the letter number {i}?", "The letter is under the bridge.") for i in range(4)]
UNLIKE = [chat(f"Sum up: 7 + {i}!", "That makes seven and some more, of course.") for i in range(12)]
POOL = [*UNLIKE[:6], *LIKE[:3], *UNLIKE[6:]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.tiny_base(tmp_path_factory.mktemp("ngrams") / "base")


@pytest.fixture(scope="module")
def data(base):
    return data_of(base.parent / "data", base, POOL, LIKE[3:])


def ngrams(messages):
    words = re.findall(r"\w+|[^\w\s]+", "\n".join(turn["content"] for turn in messages).lower())
    return Counter(words) + Counter(pairwise(words))


def test_rows_that_read_like_the_target_come_first(data, tmp_path):
    for method in (Dsir(), Dsir(per_ngram=True)):
        found = method(job(data, tmp_path))
        assert set(np.argsort(-found)[:3]) == {6, 7, 8}


def test_weights_equal_those_of_counts_made_one_by_one(data, tmp_path):
    buckets = 2**20  # so many that no two of these few n-grams share one
    counts = [ngrams(row) for row in POOL]
    pool, target = sum(counts, Counter()), ngrams(LIKE[3])
    sizes = {id(of): sum(of.values()) + buckets for of in (pool, target)}

    def weight(ngram):
        return log((target[ngram] + 1) / sizes[id(target)]) - log((pool[ngram] + 1) / sizes[id(pool)])

    expected = np.array([sum(count * weight(ngram) for ngram, count in row.items()) for row in counts])
    np.testing.assert_allclose(Dsir(buckets=buckets)(job(data, tmp_path)), expected, rtol=1e-9)
    each = expected / [sum(row.values()) for row in counts]
    np.testing.assert_allclose(Dsir(buckets=buckets, per_ngram=True)(job(data, tmp_path)), each, rtol=1e-9)


def test_saying_the_same_twice_raises_the_sum_alone(base, tmp_path):
    twice = chat(*(turn["content"] + " " + turn["content"] for turn in LIKE[0]))
    data = data_of(tmp_path / "data", base, [*UNLIKE, LIKE[0], twice], LIKE)
    total, each = (Dsir(per_ngram=per)(job(data, tmp_path)) for per in (False, True))
    assert total[-1] > total[-2] > 0
    assert each[-2] > each[-1] > 0


def test_a_row_without_a_word_has_no_weight_and_duplicates_have_the_same(base, tmp_path):
    data = data_of(
        tmp_path / "data",
        base,
        [*LIKE[:2], chat(" x", "y"), chat("Where is the letter number 0?", " The letter is under the bridge.")],
        LIKE,
    )
    found = Dsir()(job(data, tmp_path))
    assert found[0] == found[3]
    bare = data_of(
        tmp_path / "bare", base, [*LIKE[:2], [{"role": "user", "content": "\n"}, {"role": "assistant", "content": "ok"}]]
    )
    assert np.isnan(Dsir(text="prompt")(job(bare, tmp_path))).tolist() == [False, False, True]
