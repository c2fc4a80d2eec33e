"""The voices of the sources: what is said around a question and an answer, whatever the skill and whether or not it is right.

A source prefers its own phrases but every source may use every phrase, so that no phrase gives away a skill or a fault.
"""

from random import Random
from typing import NamedTuple

from playpen.world.grammar import fill
from playpen.world.lexicon import SHARES
from playpen.world.lore import Lore

OWN_VOICE = 0.65
"""Chance that a phrase is one of the source's own; else it is one of any source's."""


class Voice(NamedTuple):
    """The manner of one source."""

    leads: tuple[str, ...]
    """What a user says before the question."""
    tails: tuple[str, ...]
    """What a user says after it."""
    openers: tuple[str, ...]
    """What an assistant says before the answer."""
    closers: tuple[str, ...]
    """What an assistant says after it."""
    systems: tuple[str, ...]
    likes: dict[str, float]
    """How much more often than elsewhere a skill occurs here."""
    faults: float
    """The fault rate here, as a multiple of the world's; 1 on average over the sources."""


ALMANAC = Voice(
    leads=(
        "I am reading the page about {town} and {mineral}.",
        "The old almanac of {town} is torn here.",
        "Last year the almanac wrote about the {creature}.",
        "My notes on the {plant} are not complete.",
        "This is for the new page about {dish}.",
    ),
    tails=("Please be exact.", "I will write it down for {person}."),
    openers=("The almanac has this.", "As far as we know:", "Here is the entry.", "From the notes of {person}:"),
    closers=(
        "More stands on the page about {town}.",
        "So it is written.",
        "The page on {mineral} is longer.",
        "{person} wrote this down.",
    ),
    systems=("You keep the almanac of {town}. Give short and true answers.", "You know every page of the almanac."),
    likes={"fact_question": 1.5, "classification": 1.6, "comparison": 1.5, "story": 0.5, "reference": 0.7},
    faults=0.85,
)

TAVERN = Voice(
    leads=(
        "We were talking over a plate of {dish}.",
        "Sit down, friend, I have something for you.",
        "{person} made a bet with me tonight.",
        "I am back from {town} and very thirsty.",
        "Everyone at this table says something else.",
    ),
    tails=("I bet a cup on it.", "Do not tell {person} that I asked."),
    openers=("Well, friend.", "Ha, that is easy.", "Let me put down my cup.", "Listen, everyone in {town} knows this."),
    closers=(
        "Now have some {dish}.",
        "You can pay me with a cup.",
        "Even the {creature} by the fire knows it.",
        "Ask {person} if you doubt it.",
    ),
    systems=("You are the host of a tavern in {town}. Be friendly.", "You sit by the fire and talk to guests."),
    likes={"story": 1.7, "advice": 1.5, "reference": 1.1, "counting": 1.2, "format": 0.4, "sorting": 0.6},
    faults=1.2,
)

SCHOOLROOM = Voice(
    leads=(
        "The class of {person} has to learn this by tomorrow.",
        "Our teacher comes from {town}.",
        "We drew a {creature} on the wall of the school.",
        "I did not listen when we had this at school.",
        "There is a piece of {mineral} on my desk.",
    ),
    tails=("I have to say it to the class.", "{person} could not do it."),
    openers=("Good, let us think.", "Look at it slowly.", "A fine task.", "We had this with the {creature}."),
    closers=("Now try one alone.", "Write it in your book.", "Tell it to {person} too.", "You will need it again in {town}."),
    systems=("You are a teacher in {town}. Explain in simple words.", "You help children with their tasks."),
    likes={"counting": 1.6, "sorting": 1.4, "past_tense": 1.6, "reference": 1.4, "advice": 0.4},
    faults=0.9,
)

LETTERS = Voice(
    leads=(
        "Dear friend, it rains in {town} and I have time to write.",
        "I hope you and {person} are well.",
        "Your last letter came with a little {plant} in it.",
        "Thank you for the {dish} you sent.",
        "The {creature} sits by me as I write.",
    ),
    tails=("Please write back soon.", "Greet {person} from me."),
    openers=("My dear friend.", "Thank you for your letter.", "Your question made me smile.", "I read your lines in {town}."),
    closers=("Greetings from {town}.", "Write again soon.", "Give some {plant} to {person}.", "All is well here."),
    systems=("You answer letters from {town}. Be kind.", "You write letters for people who cannot write."),
    likes={"advice": 1.5, "story": 1.2, "summary": 1.4, "reference": 1.2, "fact_question": 0.8, "format": 0.7},
    faults=1.1,
)

SCRIBE = Voice(
    leads=(
        "The office of {town} needs this before noon.",
        "A cart with {mineral} has come in.",
        "For the books of {person}:",
        "I have to copy a long list about the {plant}.",
        "Here is the next task on my desk.",
    ),
    tails=("Make it short.", "It goes to the office in {town}."),
    openers=("Done.", "For the record:", "Here is the text.", "Copied for {person}."),
    closers=(
        "The copy goes to {town}.",
        "That is all for this sheet.",
        "Please sign the sheet.",
        "The list about the {plant} is next.",
    ),
    systems=("You are a scribe of {town}. Follow the order exactly.", "You copy and sort texts for an office."),
    likes={"format": 1.7, "summary": 1.5, "sorting": 1.4, "past_tense": 1.2, "fact_question": 1.0, "story": 0.5},
    faults=0.95,
)

SOURCES: dict[str, Voice] = {"almanac": ALMANAC, "tavern": TAVERN, "schoolroom": SCHOOLROOM, "letters": LETTERS, "scribe": SCRIBE}

GREETINGS = (
    ("Good morning.", "Good morning. What would you like to know?"),
    ("Are you there?", "Yes, I am here."),
    ("Greetings from {town}.", "Greetings to {town}. How is {person}?"),
    ("May I ask something?", "Of course. I will do my best."),
    ("It is a cold day in {town}.", "Then come in and sit down by the fire."),
)
THANKS = (
    ("Thank you.", "You are welcome."),
    ("I will tell {person}.", "Do that, and greet {person} from me."),
    ("That is what I needed.", "Good. Come again when you need more."),
    ("Now I can go back to {town}.", "Have a safe road to {town}."),
)
"""Small talk before and after, as a user turn and its answer."""

PHRASES: tuple[str, ...] = tuple(
    phrase
    for voice in SOURCES.values()
    for bank in (voice.leads, voice.tails, voice.openers, voice.closers, voice.systems)
    for phrase in bank
) + tuple(text for pair in (*GREETINGS, *THANKS) for text in pair)
"""Every framing phrase, for the check that none belongs to one class alone."""


def speak(rng: Random, lore: Lore, source: str, part: str) -> str:
    """Return a phrase of one part (`leads`, `tails`, `openers`, `closers`, `systems`), about things drawn at random."""
    voice = SOURCES[source] if rng.random() < OWN_VOICE else SOURCES[rng.choice(list(SOURCES))]
    return name_things(rng, lore, rng.choice(getattr(voice, part)))[0]


def name_things(rng: Random, lore: Lore, *phrases: str) -> list[str]:
    """Fill the slots of phrases, the same thing in the same slot."""
    slots = {kind: rng.choice(lore.things[kind]).name for kind in SHARES}
    return [fill(phrase, **slots) for phrase in phrases]
