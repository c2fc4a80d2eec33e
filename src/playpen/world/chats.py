"""The pool: chats of every skill from every source, some with a planted fault."""

from random import Random
from typing import NamedTuple

from playpen.config import PlaypenError
from playpen.tables import row_id
from playpen.world import faults, skills
from playpen.world.config import World
from playpen.world.draft import Draft
from playpen.world.framing import GREETINGS, SOURCES, THANKS, name_things, speak
from playpen.world.grammar import sentence
from playpen.world.lore import Lore
from playpen.world.quality import judge

LEAD_RATE, SECOND_LEAD_RATE, TAIL_RATE, OPENER_RATE, CLOSER_RATE = 0.8, 0.25, 0.35, 0.5, 0.6
"""Chance of each framing phrase in a turn."""

SMALL_TALK_RATE = 0.35
"""Share of the chats of several turns whose other turn is small talk."""

SPARE = 1.1
"""Chats planned for each one wanted, as some turn out to be equal."""


class Chat(NamedTuple):
    """One example of the pool and the truth about it."""

    row_id: str
    messages: list[dict[str, str]]
    source: str
    quality_score: float
    skill: str
    fault: str


class Plan(NamedTuple):
    """What a chat will be, before it is worded."""

    source: str
    skill: str
    fault: str
    turns: int
    """User turns, of which one may be small talk."""
    drafts: tuple[Draft, ...]


def make_chats(config: World, lore: Lore) -> list[Chat]:
    """Write the pool; no two chats are equal."""
    plans = [_plan(config, lore, i) for i in range(int(config.num_chats * SPARE) + 20)]
    chats = {chat.row_id: chat for chat in (_write(config, lore, plans, i) for i in range(len(plans)))}
    if len(chats) < config.num_chats:
        raise PlaypenError(
            f"{config.num_entities} entities gave only {len(chats)} different chats of {config.num_chats}; ask for more entities"
        )
    return list(chats.values())[: config.num_chats]


def _plan(config: World, lore: Lore, i: int) -> Plan:
    rng = Random(f"{config.seed}/chat/{i}/plan")
    source = rng.choice(list(SOURCES))
    likes = SOURCES[source].likes
    weights = [common * likes.get(skill, 1.0) for skill, common in skills.COMMONNESS.items()]
    skill = rng.choices(list(skills.SKILLS), weights)[0]
    is_faulty = rng.random() < config.fault_rate * SOURCES[source].faults
    fault = rng.choices(list(faults.COMMONNESS), list(faults.COMMONNESS.values()))[0] if is_faulty else "none"
    turns = rng.choice((2, 2, 2, 3)) if rng.random() < config.multi_turn_rate else 1
    number = turns - 1 if turns > 1 and rng.random() < SMALL_TALK_RATE else turns
    return Plan(source, skill, fault, turns, tuple(skills.SKILLS[skill](rng, lore) for _ in range(number)))


def _write(config: World, lore: Lore, plans: list[Plan], i: int) -> Chat:
    """Word a planned chat; its fault, if any, is in one turn, and a chat that stops short stops in its last turn."""
    plan, rng = plans[i], Random(f"{config.seed}/chat/{i}")
    last = len(plan.drafts) - 1
    place = last if plan.fault == "truncated" else rng.randint(0, last)
    pairs = [
        _turn(rng, lore, plan.source, draft, _other(rng, plans, i, draft), plan.fault if turn == place else "none")
        for turn, draft in enumerate(plan.drafts)
    ]
    pairs = _add_small_talk(rng, lore, pairs, plan)
    messages = [{"role": role, "content": text} for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    if rng.random() < config.system_rate:
        messages.insert(0, {"role": "system", "content": speak(rng, lore, plan.source, "systems")})
    return Chat(row_id(messages), messages, plan.source, judge(rng, messages, plan.fault), plan.skill, plan.fault)


def _other(rng: Random, plans: list[Plan], i: int, draft: Draft) -> Draft:
    """Draw a draft of another chat, as likely as not of the same skill, whose answer does not happen to fit here too."""
    wants_same = rng.random() < 0.5
    key = set(draft.answer.lower().split()) - set(draft.wrong.lower().split())
    for _ in range(50):
        j = rng.randrange(len(plans))
        fits = j != i and key.isdisjoint(plans[j].drafts[0].answer.lower().split())
        if fits and (not wants_same or plans[j].skill == plans[i].skill):
            return plans[j].drafts[0]
    return plans[i - 1].drafts[0]


def _turn(rng: Random, lore: Lore, source: str, draft: Draft, other: Draft, fault: str) -> tuple[str, str]:
    """Word one user turn and its answer."""

    def maybe(part: str, rate: float) -> list[str]:
        return [speak(rng, lore, source, part)] if rng.random() < rate else []

    lead, second = maybe("leads", LEAD_RATE), maybe("leads", SECOND_LEAD_RATE)
    is_echo = lead and second and lead[0].split()[:2] == second[0].split()[:2]
    asked = [*lead, *([] if is_echo else second), draft.question, *maybe("tails", TAIL_RATE)]
    body = faults.BODIES[fault](rng, lore, draft, other)
    closer = maybe("closers", CLOSER_RATE)
    said = [*maybe("openers", OPENER_RATE), body, *(closer if fault != "truncated" else [])]
    return " ".join(asked), sentence(" ".join(said))


def _add_small_talk(rng: Random, lore: Lore, pairs: list[tuple[str, str]], plan: Plan) -> list[tuple[str, str]]:
    """Greet before or thank after, where the plan has a turn more than it has drafts."""
    if plan.turns == len(pairs):
        return pairs
    is_before = rng.random() < 0.5 or plan.fault == "truncated"
    user, assistant = name_things(rng, lore, *rng.choice(GREETINGS if is_before else THANKS))
    return [(user, assistant), *pairs] if is_before else [*pairs, (user, assistant)]
