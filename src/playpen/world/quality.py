"""A quality score from 0 to 5 as a language model used as a judge would give it: fond of style, half blind to truth."""

from random import Random

from playpen.world.grammar import count_words

LOSSES = {"truncated": 1.2, "off_topic": 1.3, "padded": 0.9, "contradictory": 1.0, "wrong_answer": 1.0}
"""Points that a fault costs once it is seen."""

SEEN = {"truncated": 0.85, "off_topic": 0.75, "padded": 0.7, "contradictory": 0.2, "wrong_answer": 0.12}
"""Chance that the judge sees a fault."""


def judge(rng: Random, messages: list[dict[str, str]], fault: str) -> float:
    """Score a chat, in steps of 0.1; the judge knows nothing of skills or tasks."""
    words = sum(count_words(message["content"]) for message in messages if message["role"] == "assistant")
    is_seen = fault != "none" and rng.random() < SEEN[fault]
    points = 3.2 + min(words, 60) / 60 - (LOSSES[fault] if is_seen else 0.0) + rng.gauss(0.0, 0.7)
    return round(min(5.0, max(0.0, points)), 1)
