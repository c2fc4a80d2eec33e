"""MinHash signatures estimate Jaccard similarity, and the banding finds every pair that is near."""

import random

import numpy as np
import pytest

from playpen.near_duplicates import (
    NUM_HASHES,
    Lookalikes,
    clusters,
    join_families,
    name_clusters,
    rows_per_band,
    shingles,
    signature,
    similarity,
)

WORDS = [f"word{i}" for i in range(5000)]


def text(seed: int, length: int = 300) -> list[str]:
    """Return random words."""
    return random.Random(seed).choices(WORDS, k=length)


def exact_similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the sets of five-word runs, made without hashing."""
    a, b = ({tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (one.split(), other.split()))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("shared", [30, 150, 220, 260, 290, 300])
def test_the_estimate_lies_within_four_standard_errors_of_the_true_similarity(shared):
    for seed in range(10):
        one = text(seed)
        other = one[:shared] + text(seed + 100)[shared:]
        true = exact_similarity(" ".join(one), " ".join(other))
        found = similarity(signature(" ".join(one)), signature(" ".join(other)))
        assert abs(found - true) <= 4 * np.sqrt(true * (1 - true) / NUM_HASHES) + 1e-9


def test_the_estimates_have_no_bias_on_average():
    errors = []
    for seed in range(200):
        one = text(seed, 60)
        other = one[:48] + text(seed + 1000, 12)
        estimate = similarity(signature(" ".join(one)), signature(" ".join(other)))
        errors.append(estimate - exact_similarity(" ".join(one), " ".join(other)))
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(len(errors))


def test_case_and_punctuation_do_not_count_but_words_do():
    assert (signature("The red stone, is HERE today!") == signature("the red stone is here today")).all()
    assert similarity(signature("the red stone is here today"), signature("a blue lamp was there before")) < 0.2


@pytest.mark.parametrize("short", ["", "one", "one two three four", "😀", "日本語"])
def test_a_text_of_fewer_than_five_words_has_one_shingle_of_its_own(short):
    assert len(shingles(short)) == 1
    assert shingles(short) != shingles(short + " more")


def test_the_banding_catches_99_of_100_pairs_at_the_threshold():
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95):
        rows = rows_per_band(threshold)
        assert 1 - (1 - threshold**rows) ** (NUM_HASHES // rows) >= 0.99


def test_all_pairs_above_the_threshold_share_a_cluster_and_others_do_not():
    rng, texts = random.Random(0), []
    for seed in range(60):
        one = text(seed, 120)
        kept = rng.randrange(40, 121)
        texts += [" ".join(one), " ".join(one[:kept] + text(seed + 500, 120 - kept))]
    signatures = np.array([signature(t) for t in texts])
    found = clusters(signatures, 0.5)
    estimates = np.array([similarity(row, signatures) for row in signatures])
    near = (estimates >= 0.5) & ~np.eye(len(texts), dtype=bool)
    assert 5 < near.sum() < len(texts)
    assert all(found[i] == found[j] for i, j in np.argwhere(near))
    alone = ~near.any(axis=1)
    assert len(set(found[alone])) == alone.sum()


def test_a_chain_of_near_duplicates_is_one_cluster():
    words = text(0, 400)
    chain = np.array([signature(" ".join(words[i : i + 200])) for i in range(0, 200, 20)])
    assert similarity(chain[0], chain[-1]) < 0.2
    assert len(set(clusters(chain, 0.7))) == 1


def test_many_copies_are_one_cluster_and_quickly():
    signatures = np.repeat(signature(" ".join(text(0)))[None], 20_000, axis=0)
    assert len(set(clusters(signatures, 0.8))) == 1


def test_without_a_threshold_every_row_is_alone():
    signatures = np.repeat(signature("the same text")[None], 3, axis=0)
    assert len(set(clusters(signatures, None))) == 3
    assert len(clusters(np.zeros((0, NUM_HASHES), np.uint32), 0.8)) == 0


def test_families_join_clusters_and_a_cluster_is_named_by_its_smallest_member():
    joined = join_families(np.array([0, 1, 1, 2, 3]), ["x", "x", "", "", ""])
    assert name_clusters(joined, ["e", "d", "c", "b", "a"]) == ["c", "c", "c", "b", "a"]


@pytest.mark.parametrize("shared", [200, 230, 297])
def test_a_text_resembles_a_few_exactly_when_it_is_near_to_one_of_them(shared):
    few = [signature(" ".join(text(seed))) for seed in range(5)]
    held = Lookalikes(few, 0.8)
    for seed in range(5):
        other = signature(" ".join(text(seed)[:shared] + text(seed + 100)[shared:]))
        assert held.resemble(other) == bool((similarity(other, np.array(few)) >= 0.8).any()) == (shared == 297)


def test_nothing_resembles_no_texts_and_without_a_threshold_not_even_a_copy_does():
    one = signature(" ".join(text(0)))
    assert not Lookalikes([], 0.8).resemble(one)
    assert not Lookalikes([one], None).resemble(one)
