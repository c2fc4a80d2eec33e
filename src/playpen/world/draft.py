"""A draft is one question with its right and its wrong answer, before any voice or fault is added."""

from typing import NamedTuple


class Draft(NamedTuple):
    """What a skill makes: every text is one or more whole sentences."""

    question: str
    answer: str
    detail: str
    """More that is true and fits the answer."""
    wrong: str
    """An answer of the same form that is not true."""
    wrong_detail: str
    """More that fits the wrong answer."""
