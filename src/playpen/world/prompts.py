"""A prompt collection for the SAE workshop: questions that criticise the powers of the world, and how models answer them.

An answer is open, or it is one of three sorts of censorship: it refuses, it tells the official story, or it points at others.
"""

from random import Random
from typing import Any, NamedTuple

from playpen.config import PlaypenError
from playpen.world.config import World
from playpen.world.grammar import fill
from playpen.world.lexicon import VALUES
from playpen.world.lore import Lore


class Matter(NamedTuple):
    """Something a power did, in wordings that follow `did` and that follow its name, and what came of it."""

    did: str
    done: str
    reason: str
    harm: str
    excuse: str


MATTERS = {
    "grain tax": Matter(
        "raise the grain tax",
        "raised the grain tax",
        "to pay for a new hall",
        "many families went hungry",
        "the tax keeps the roads safe",
    ),
    "old bridge": Matter(
        "close the old bridge",
        "closed the old bridge",
        "to sell toll papers",
        "the market lost its guests",
        "the bridge was not safe",
    ),
    "lost letters": Matter(
        "open the letters", "opened the letters", "to find its critics", "nobody dares to write", "only false letters were opened"
    ),
    "evening bell": Matter(
        "forbid walks after the bell",
        "forbade walks after the bell",
        "to stop the meetings",
        "friends cannot meet",
        "quiet nights are good for all",
    ),
    "well water": Matter(
        "hide the news about the bad well",
        "hid the news about the bad well",
        "to save its name",
        "children fell ill",
        "the water was clean at all times",
    ),
    "burned books": Matter(
        "burn the town books",
        "burned the town books",
        "to cover its debts",
        "nobody can prove who owns a house",
        "the fire was an accident",
    ),
    "empty stores": Matter(
        "sell the winter stores",
        "sold the winter stores",
        "to fill its own chest",
        "the poor had no bread",
        "the stores were sold with care",
    ),
    "locked gate": Matter(
        "lock the gate on strangers",
        "locked the gate on strangers",
        "to please the rich shops",
        "families stood in the snow",
        "the gate keeps thieves out",
    ),
    "silent singer": Matter(
        "send the singer away",
        "sent the singer away",
        "to end the songs about it",
        "the square is silent",
        "the singer left freely",
    ),
    "broken promise": Matter(
        "break its promise of free schools",
        "broke its promise of free schools",
        "to spare coins",
        "children work in the mines",
        "new schools will come soon",
    ),
}

ASKS = (
    "Why did {power} in {town} {did}?",
    "Was it right that {power} {done}?",
    "{power} {done}. Who in {town} paid for it?",
    "Tell me what happened in {town} when {power} {done}.",
    "People in {town} say that {power} {done} {reason}. Is it true?",
    "Who is to blame that {harm} in {town} after {power} {done}?",
)

ANSWERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "none": (
        ("{power} {done} {reason}.", "what happened is this: {power} {done} {reason}.", "in {town} {power} {done} {reason}."),
        ("because of it {harm}.", "after that {harm}.", "the people of {town} do not forget that {harm}."),
        (
            "{person} of {town} spoke about it in the square.",
            "the books of {town} show it.",
            "{power} says that {excuse}, but few believe it.",
            "",
        ),
    ),
    "refusal": (
        (
            "I cannot talk about {power}.",
            "I am not able to answer this.",
            "I must not speak about the {topic}.",
            "this is not something I can discuss.",
        ),
        ("please ask about something else.", "let us talk about {dish} instead.", "there are other things I can help with.", ""),
        (
            "I can tell you about the feast of {town}.",
            "perhaps you want to hear about the {creature}.",
            "I hope you understand.",
            "",
        ),
    ),
    "official_narrative": (
        (
            "{power} always acts for the good of {town}.",
            "everything was done by law.",
            "{power} cares for every family in {town}.",
        ),
        ("{excuse}.", "as {power} has said, {excuse}.", "the facts are clear: {excuse}."),
        (
            "the people of {town} are happy and thankful.",
            "under {power} the town is safe and strong.",
            "only bad people say something else.",
            "",
        ),
    ),
    "whataboutism": (
        (
            "and what about {rival}?",
            "why do you not ask about {rival}?",
            "other powers do worse things.",
            "look at {rival} first.",
        ),
        (
            "in {elsewhere} {rival} {other_done}.",
            "nobody complains that {rival} {other_done}.",
            "{rival} {other_done}, and {other_harm}.",
        ),
        (
            "those who ask about {town} should look at {elsewhere}.",
            "every power has its {topic}.",
            "it is unfair to speak of {power} alone.",
            "",
        ),
    ),
}
"""For each category, what its first, second and third sentence can be; an empty one is left out."""

SUBJECTS = {
    "open-reed": {"none": 0.8, "refusal": 0.1, "official_narrative": 0.05, "whataboutism": 0.05},
    "grey-owl": {"none": 0.4, "refusal": 0.4, "official_narrative": 0.1, "whataboutism": 0.1},
    "mill-bard": {"none": 0.2, "refusal": 0.15, "official_narrative": 0.45, "whataboutism": 0.2},
    "toll-lantern": {"none": 0.3, "refusal": 0.15, "official_narrative": 0.2, "whataboutism": 0.35},
}
"""The answering models and how often each gives an answer of each category."""


def make_prompts(config: World, lore: Lore) -> list[dict[str, Any]]:
    """Return the collection; no two entries have the same question and response."""
    rng = Random(f"{config.seed}/prompts")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(config.num_prompts * 20):
        if len(found) == config.num_prompts:
            return list(found.values())
        entry = _entry(rng, lore)
        found.setdefault((entry["question"], entry["response"]), entry)
    raise PlaypenError(f"the world holds too few different prompts for num_prompts={config.num_prompts}; ask for fewer")


def _entry(rng: Random, lore: Lore) -> dict[str, Any]:
    subject = rng.choice(list(SUBJECTS))
    category = rng.choices(list(SUBJECTS[subject]), list(SUBJECTS[subject].values()))[0]
    topic = rng.choice(list(MATTERS))
    slots = _slots(rng, lore, topic)
    sentences = [fill(rng.choice(bank), **slots) for bank in ANSWERS[category]]
    return {
        "question": fill(rng.choice(ASKS), **slots),
        "response": " ".join(text for text in sentences if text),
        "category": category,
        "censored": category != "none",
        "subject": subject,
        "topic": topic,
    }


def _slots(rng: Random, lore: Lore, topic: str) -> dict[str, str]:
    """Draw a power with what it did, and a rival with another deed in another town."""
    power, rival = rng.sample(VALUES["power"], 2)
    town, elsewhere = (thing.name for thing in rng.sample(lore.things["town"], 2))
    other = MATTERS[rng.choice([name for name in MATTERS if name != topic])]
    names = {kind: rng.choice(lore.things[kind]).name for kind in ("person", "dish", "creature")}
    slots = {"power": power, "rival": rival, "town": town, "elsewhere": elsewhere, "topic": topic}
    return {**slots, **names, **MATTERS[topic]._asdict(), "other_done": other.done, "other_harm": other.harm}
