"""Skills about the form of a sentence: rewriting it, or saying what sort it is.

They use the very sentences that the target skills ask about but want something else with them, so that a likeness of words
alone does not find the chats that help.
"""

from random import Random

from playpen.world.draft import Draft
from playpen.world.lore import Fact, Lore, any_facts, ask, state
from playpen.world.scenes import make_event, pool_pair
from playpen.world.skills_words import BLANKS, ask_who

WHY = {
    "a question": "It wants an answer.",
    "a statement": "It says how things are.",
    "an order": "It says what somebody has to do.",
}
FORMS = tuple(WHY)
OPTIONS = f"{FORMS[0]}, {FORMS[1]} or {FORMS[2]}"
ORDERS = ("Look for {x} at once.", "Do not speak about {x}.", "Tell {y} what you know of {x}.", "Bring {x} to {y} before noon.")
FILLERS = ("somebody", "nobody", "the other one", "the first one", "one of them", "a friend")


def rewriting(rng: Random, lore: Lore) -> Draft:
    """Turn a statement into its question, fill a blank with given words, or swap two people."""
    return rng.choice((_to_question, _fill_blank, _swap))(rng, lore)


def _to_question(rng: Random, lore: Lore) -> Draft:
    fact = rng.choice(lore.asked["pool"])
    other = rng.choice([relation for relation in fact.entity.facts if relation != fact.relation])
    order = rng.choice(
        ('Write the question to this answer: "{x}"', 'Make a question of this: "{x}"', '"{x}" What was the question?')
    )
    texts = [f'You can ask: "{ask(Fact(fact.entity, relation), rng.randrange(3))}"' for relation in (fact.relation, other)]
    details = [f'The answer is: "{state(Fact(fact.entity, relation))}"' for relation in (fact.relation, other)]
    return Draft(order.format(x=state(fact, rng.randrange(4))), texts[0], details[0], texts[1], details[1])


def _fill_blank(rng: Random, lore: Lore) -> Draft:
    event = make_event(rng, *pool_pair(rng, lore))
    good, bad = rng.sample(FILLERS, 2)
    order = rng.choice(
        (
            'Put "{x}" in the blank: "{text}"',
            'Write "{x}" where the blank is: "{text}"',
            'Copy this with "{x}" for the blank: "{text}"',
        )
    )
    text = f"{event.deed} because {{x}} {event.reason}."
    details = [f'Now "{x}" stands where the blank was.' for x in (good, bad)]
    return Draft(order.format(x=good, text=text.format(x="_")), text.format(x=good), details[0], text.format(x=bad), details[1])


def _swap(rng: Random, lore: Lore) -> Draft:
    event = make_event(rng, *pool_pair(rng, lore))
    a, b = event.a.name, event.b.name
    before = f"{event.deed} because {event.who.name} {event.reason}."
    after = before.replace(a, "_").replace(b, a).replace("_", b)
    order = rng.choice(
        (
            "Swap the two people: {text}",
            "Write this with {a} for {b} and {b} for {a}: {text}",
            "{text} Tell it with the two names swapped.",
        )
    )
    detail = f"The one who {event.reason} is now {event.other.name}."
    return Draft(
        order.format(text=before, a=a, b=b), after, detail, before, f"The one who {event.reason} is now {event.who.name}."
    )


def sentence_form(rng: Random, lore: Lore) -> Draft:
    """Say whether a sentence is a question, a statement or an order."""
    form, wrong = rng.sample(FORMS, 2)
    text = sentence_of(rng, lore, form)
    order = rng.choice(('Is this {options}: "{text}"', '"{text}" Is that {options}?', 'Say what this is, {options}: "{text}"'))
    reply = rng.choice(("It is {x}.", "This is {x}.", "I would call it {x}."))
    return Draft(order.format(text=text, options=OPTIONS), reply.format(x=form), WHY[form], reply.format(x=wrong), WHY[wrong])


def sentence_of(rng: Random, lore: Lore, form: str) -> str:
    """Return a sentence of one of the forms about a fact or an event that chats may use."""
    a, b = pool_pair(rng, lore)
    event, fact = make_event(rng, a, b), rng.choice(lore.asked["pool"])
    if form == "a question":
        return rng.choice((ask(fact, rng.randrange(3)), ask_who(event, BLANKS[0])))
    if form == "a statement":
        return rng.choice((state(fact, rng.randrange(4)), f"{event.deed} because {event.who.name} {event.reason}."))
    topic = any_facts(rng, fact.entity, 1)[0]
    return rng.choice(ORDERS).format(x=topic.entity.facts[topic.relation], y=a.name)
