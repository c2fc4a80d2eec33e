"""The faults that are planted: what an assistant says when its answer is right, and in five ways when it is not."""

from collections.abc import Callable
from random import Random

from playpen.world.draft import Draft
from playpen.world.lore import Fact, Lore, any_thing, state

DETAIL_RATE = 0.5
"""Chance that an answer, right or wrong, goes on with a detail."""

Body = Callable[[Random, Lore, Draft, Draft], str]


def _clean(rng: Random, lore: Lore, draft: Draft, other: Draft) -> str:
    return f"{draft.answer} {draft.detail}" if rng.random() < DETAIL_RATE else draft.answer


def _wrong_answer(rng: Random, lore: Lore, draft: Draft, other: Draft) -> str:
    return f"{draft.wrong} {draft.wrong_detail}" if rng.random() < DETAIL_RATE else draft.wrong


def _truncated(rng: Random, lore: Lore, draft: Draft, other: Draft) -> str:
    """Stop in the middle of a sentence."""
    words = f"{draft.answer} {draft.detail}".split()
    places = [i for i in range(1, len(words)) if words[i - 1][-1] not in ".?!"]
    late = [i for i in places if i >= len(words) // 3]
    return " ".join(words[: rng.choice(late or places)])


def _off_topic(rng: Random, lore: Lore, draft: Draft, other: Draft) -> str:
    """Give the real answer to a question from another chat."""
    return _clean(rng, lore, other, draft)


def _padded(rng: Random, lore: Lore, draft: Draft, other: Draft) -> str:
    """Hide a right answer among true sentences that nobody asked for."""
    idle = [_idle(rng, lore) for _ in range(rng.choice((2, 3, 4)))]
    before = rng.choice((0, 0, 1, 2))
    return " ".join([*idle[:before], _clean(rng, lore, draft, other), *idle[before:]])


def _idle(rng: Random, lore: Lore) -> str:
    thing = any_thing(rng, lore)
    return state(Fact(thing, rng.choice(list(thing.facts))), rng.randrange(5))


def _contradictory(rng: Random, lore: Lore, draft: Draft, other: Draft) -> str:
    """State two answers, in either order."""
    return " ".join(rng.sample((draft.answer, draft.wrong), 2))


BODIES: dict[str, Body] = {
    "none": _clean,
    "wrong_answer": _wrong_answer,
    "truncated": _truncated,
    "off_topic": _off_topic,
    "padded": _padded,
    "contradictory": _contradictory,
}
"""How each fault writes the answer to `draft`; `other` is a draft of another chat."""

COMMONNESS = {"wrong_answer": 0.3, "truncated": 0.2, "off_topic": 0.15, "padded": 0.15, "contradictory": 0.2}
"""Share of each fault among the faulty chats."""

SPOILING = ("wrong_answer", "truncated", "off_topic", "contradictory")
"""Faults that keep a chat of a target skill from being helpful; a padded answer still holds the right one."""
