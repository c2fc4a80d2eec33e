"""Near-duplicate questions: the first stays, rows are compared with kept rows of their group alone, blocks change nothing."""

import numpy as np
import pytest

from playpen import near_questions
from playpen.near_questions import near_duplicates


def directions(rows: int, width: int = 3, seed: int = 0) -> np.ndarray:
    """Return random directions, many of them near one another."""
    raw = np.random.default_rng(seed).normal(size=(rows, width))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def at(degrees: list[float]) -> np.ndarray:
    """Return directions in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def one_by_one(vectors: np.ndarray, groups: list[int], max_cosine: float) -> dict[int, int]:
    """Return what the definition says, pair by pair."""
    kept: list[int] = []
    refused = {}
    for row, vector in enumerate(vectors.astype(float)):
        near = [(float(vectors[other].astype(float) @ vector), -other) for other in kept if groups[other] == groups[row]]
        if near and max(near)[0] > max_cosine:
            refused[row] = -max(near)[1]
        else:
            kept.append(row)
    return refused


@pytest.mark.parametrize("max_cosine", [0.5, 0.85, 0.99])
@pytest.mark.parametrize(("block", "kept"), [(512, 65536), (7, 65536), (16, 5), (1, 1)])
def test_it_is_what_comparing_pair_by_pair_gives_whatever_the_blocks(max_cosine, block, kept, monkeypatch):
    monkeypatch.setattr(near_questions, "BLOCK", block)
    monkeypatch.setattr(near_questions, "KEPT", kept)
    vectors, groups = directions(400), np.random.default_rng(1).integers(0, 3, 400).tolist()
    found = near_duplicates(vectors, groups, max_cosine)
    assert {row: other for row, (other, _) in found.items()} == one_by_one(vectors, groups, max_cosine)
    assert 0 < len(found) < 400
    for row, (other, cosine) in found.items():
        assert cosine == pytest.approx(float(vectors[row] @ vectors[other]), abs=1e-6)
        assert max_cosine < cosine <= 1


def test_the_first_stays_and_one_near_a_refused_row_alone_stays_too():
    vectors = at([0, 20, 40, 5])
    found = near_duplicates(vectors, ["owl"] * 4, float(np.cos(np.radians(25))))
    assert {row: other for row, (other, _) in found.items()} == {1: 0, 3: 0}


def test_rows_of_other_groups_are_not_compared():
    assert near_duplicates(at([0, 0, 0]), ["owl", "reed", None], 0.85) == {}
    assert near_duplicates(at([0, 0, 0]), [None, "owl", None], 0.85) == {2: (0, 1.0)}


def test_equal_vectors_have_a_cosine_of_one_and_no_more():
    vectors = np.repeat(directions(1, width=384), 3, axis=0)
    found = near_duplicates(vectors, ["owl"] * 3, 0.999)
    assert {row: other for row, (other, _) in found.items()} == {1: 0, 2: 0}
    assert all(1 - 1e-6 < cosine <= 1 for _, cosine in found.values())
    assert near_duplicates(vectors, ["owl"] * 3, 1.0) == {}


def test_a_pair_that_float32_cannot_tell_from_the_limit_is_decided_in_float64():
    one, other = directions(2, width=384)
    vectors = np.stack([one, (one + other) / np.linalg.norm(one + other)]).astype(np.float32)
    cosine = float(vectors[0].astype(float) @ vectors[1].astype(float))
    assert 0.5 < cosine < 0.9
    assert near_duplicates(vectors, [0, 0], float(np.nextafter(cosine, 0))) == {1: (0, cosine)}
    assert near_duplicates(vectors, [0, 0], cosine) == {}
