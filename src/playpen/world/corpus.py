"""The raw corpus: pages, stories, scenes, groups, rules, talks, lessons and cards about the world, in plain prose."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from playpen.world.config import World
from playpen.world.grammar import fill, listing, sentence
from playpen.world.lexicon import GOODS, HUNTED, NUMBERS, REMEDIES, VALUES, VERBS, WATERY
from playpen.world.lore import Entity, Fact, Lore, any_facts, any_thing, ask, relation_of, state, the
from playpen.world.scenes import make_event, pool_pair
from playpen.world.skills_facts import NOUNS
from playpen.world.skills_forms import FORMS, OPTIONS, WHY, sentence_of
from playpen.world.skills_words import STORY_ENDS, STORY_STARTS, STORY_TURNS


class Document(NamedTuple):
    """One raw text and what sort it is."""

    text: str
    kind: str


def make_corpus(config: World, lore: Lore) -> list[Document]:
    """Write the documents, each from its own seed."""
    return [_document(Random(f"{config.seed}/document/{i}"), lore) for i in range(config.num_documents)]


def _document(rng: Random, lore: Lore) -> Document:
    kind = rng.choices(list(COMMONNESS), list(COMMONNESS.values()))[0]
    return Document(WRITERS[kind](rng, lore), kind)


def _say(rng: Random, fact: Fact, pronoun: bool = False) -> str:
    """State a fact, plainly as often as not."""
    return state(fact, rng.choice((0, 0, 0, 1, 2, 3, 4)), pronoun=pronoun)


def _page(rng: Random, lore: Lore) -> str:
    """All that is known of one thing, and of a thing that it has to do with."""
    thing = any_thing(rng, lore)
    facts = any_facts(rng, thing, len(thing.facts))
    text = [_say(rng, fact, pronoun=i > 0 and rng.random() < 0.5) for i, fact in enumerate(facts)]
    if thing.kind in NOUNS and rng.random() < 0.4:
        text.insert(0, fill("{x} is {noun}.", x=the(thing), noun=NOUNS[thing.kind]))
    partners = [other for kind in lore.things.values() for other in kind if other.name in thing.facts.values()]
    if partners:
        text += [_say(rng, fact) for fact in any_facts(rng, rng.choice(partners), 2)]
    return " ".join(text)


def _story(rng: Random, lore: Lore) -> str:
    """A walk of two people, with what is true of them on the way."""
    p, q = pool_pair(rng, lore)
    pet = next(creature for creature in lore.things["creature"] if creature.name == p.facts["pet"])
    slots = {"p": p.name, "q": q.name, "town": p.facts["town"], "tool": p.facts["tool"], "dish": p.facts["dish"]}
    slots |= {"season": rng.choice(VALUES["season"]), "topic": the(pet)}
    parts = [fill(rng.choice(bank), **slots) for bank in (STORY_STARTS, STORY_TURNS, STORY_ENDS)]
    about = [_say(rng, fact, pronoun=True) for fact in any_facts(rng, p, 2)]
    event = make_event(rng, p, q)
    scene = f"{event.deed} because {event.who.name} {event.reason}."
    more = [_say(rng, fact) for fact in any_facts(rng, rng.choice((pet, q)), 2)]
    return " ".join([parts[0], *about, parts[1], scene, *more, parts[2]])


def _scenes(rng: Random, lore: Lore) -> str:
    """Several things that happened and why, said with names."""
    return " ".join(_scene(rng, *pool_pair(rng, lore)) for _ in range(4))


def _scene(rng: Random, a: Entity, b: Entity) -> str:
    event = make_event(rng, a, b)
    who, pronoun = event.who.name, event.who.pronoun
    wordings = [
        "{deed} because {who} {reason}.",
        "{deed}. Who {reason}? It was {who}.",
        "{deed} because one of them {reason}. It was {who}.",
        "{who} {reason}. This is why {deed}.",
        "{deed}. Who {reason}? It was {who}.",
        "{deed}. The reason was {who}: {she} {reason}.",
    ]
    if a.pronoun != b.pronoun:
        wordings.append("{deed} because {she} {reason}. It was {who} who {reason}.")
    return fill(rng.choice(wordings), deed=event.deed, who=who, she=pronoun, reason=event.reason)


def _group(rng: Random, lore: Lore) -> str:
    """Things that share a value, and one that does not, for two attributes."""
    return " ".join(_sharing(rng, lore) for _ in range(2))


def _sharing(rng: Random, lore: Lore) -> str:
    thing = any_thing(rng, lore)
    relation = rng.choice(list(thing.facts))
    kin = [other for other in lore.things[thing.kind] if other is not thing]
    same = [other for other in kin if other.facts[relation] == thing.facts[relation]]
    odd = rng.choice([other for other in kin if other.facts[relation] != thing.facts[relation]])
    wording = rng.randrange(4)
    text = [state(Fact(thing, relation), wording)]
    text += [f"{state(Fact(other, relation), wording)[:-1]} too." for other in rng.sample(same, min(2, len(same)))]
    return " ".join([*text, fill("it is not so with {x}.", x=the(odd)), state(Fact(odd, relation))])


def _rule(rng: Random, lore: Lore) -> str:
    """Creatures and the classes that the rules of the world put them in."""
    return " ".join(_classed(rng, creature) for creature in rng.sample(lore.things["creature"], 3))


def _classed(rng: Random, creature: Entity) -> str:
    eats, lives = Fact(creature, "food"), Fact(creature, "home")
    diet = "a hunter" if creature.facts["food"] in HUNTED else "a grazer"
    place = "a water creature" if creature.facts["home"] in WATERY else "a land creature"
    fact, name = rng.choice(((eats, diet), (lives, place)))
    text = _say(rng, fact)
    return fill(rng.choice(("{text} So {x} is {name}.", "{x} is {name}. {text}")), text=text, x=the(creature), name=name)


def _talk(rng: Random, lore: Lore) -> str:
    """Two people ask each other what is true."""
    p, q = pool_pair(rng, lore)
    start = fill(
        rng.choice(("{p} met {q} in {town}.", "{p} and {q} sat by the fire.", "{q} came to see {p}.")),
        p=p.name,
        q=q.name,
        town=p.facts["town"],
    )
    thing = any_thing(rng, lore)
    lines = [_exchange(rng, fact, p.name, q.name) for fact in any_facts(rng, thing, 3)]
    return " ".join([start, *lines])


def _exchange(rng: Random, fact: Fact, p: str, q: str) -> str:
    question, answer = ask(fact, rng.randrange(3)), state(fact)
    wording = rng.choice(
        (
            '"{question}" asked {p}. "{answer}"',
            '"{question}" asked {p}. {q} said: "{answer}"',
            '{p} asked: "{question}" {q} answered: "{answer}"',
        )
    )
    return wording.format(question=question, answer=answer, p=p, q=q)


def _lesson(rng: Random, lore: Lore) -> str:
    """Sums, lists in order, what was done yesterday, what is more, and what to take along."""
    parts = rng.sample((_sum, _order, _count, _form, _remedy, _yesterday, _compared), 5)
    return " ".join(part(rng, lore) for part in parts)


def _sum(rng: Random, lore: Lore) -> str:
    p, q = pool_pair(rng, lore)
    n, m = rng.randint(2, 10), rng.randint(2, 10)
    words = {"n": NUMBERS[n - 1], "m": NUMBERS[m - 1], "r": NUMBERS[n + m - 1], "goods": rng.choice(GOODS)}
    wordings = (
        "{n} and {m} make {r}. {m} from {r} leaves {n}.",
        "{p} has {n} {goods} and gets {m} more from {q}. Now {p} has {r}.",
        "{p} had {r} {goods} and gave {m} of them to {q}. {p} has {n} {goods} now.",
    )
    return fill(rng.choice(wordings), p=p.name, q=q.name, **words)


def _remedy(rng: Random, lore: Lore) -> str:
    """What to take along in bad weather, or what to take when ill."""
    weather, remedy = rng.choice(list(REMEDIES.items()))
    plant, town = rng.choice(lore.things["plant"]), rng.choice(lore.things["town"]).name
    wordings = (
        "when {w}, take {r} along.",
        "I must go to {t} today, and {w}. I need {r}.",
        "I have {ill}. I take {x}.",
        "be rid of {ill} with tea of {x}.",
    )
    return fill(rng.choice(wordings), w=weather, r=remedy, t=town, x=the(plant), ill=plant.facts["cure"])


def _order(rng: Random, lore: Lore) -> str:
    names = [thing.name for thing in rng.sample(lore.things[rng.choice(("creature", "person", "town", "mineral", "plant"))], 3)]
    mixed, ordered = ", ".join(names), listing(sorted(names))
    wording = rng.choice(("somebody wrote: {mixed}. In order they are {ordered}.", "put from A to Z, {mixed} become {ordered}."))
    return fill(wording, mixed=mixed, ordered=ordered)


def _count(rng: Random, lore: Lore) -> str:
    kind, plural = rng.choice((("creature", "creatures"), ("person", "people"), ("town", "towns")))
    names = [thing.name for thing in rng.sample(lore.things[kind], rng.randint(3, 6))]
    return f"In this list are {NUMBERS[len(names) - 1]} {plural}: {', '.join(names)}."


def _form(rng: Random, lore: Lore) -> str:
    form = rng.choice(FORMS)
    wording = rng.choice(('"{text}" Is that {options}? It is {form}. {why}', 'is this {options}: "{text}" This is {form}. {why}'))
    return fill(wording, text=sentence_of(rng, lore, form), options=OPTIONS, form=form, why=WHY[form])


def _card(rng: Random, lore: Lore) -> str:
    """Cards of the almanac for two things."""
    return " ".join(_card_of(rng, any_thing(rng, lore)) for _ in range(2))


def _card_of(rng: Random, thing: Entity) -> str:
    facts = any_facts(rng, thing, len(thing.facts))
    return f"Name: {thing.name}. " + " ".join(f"{relation_of(fact).label}: {thing.facts[fact.relation]}." for fact in facts)


def _yesterday(rng: Random, lore: Lore) -> str:
    """What somebody does every day and did yesterday."""
    p, q = pool_pair(rng, lore)
    slots = {kind: rng.choice(lore.things[kind]).name for kind in ("town", "creature", "dish", "mineral", "plant")}
    slots |= {"person": q.name, "fodder": rng.choice(VALUES["fodder"]), "product": rng.choice(VALUES["product"])}
    now, past = rng.choice(list(VERBS.items()))
    return f"Today {p.name} {now.format(**slots)}. Yesterday {p.name} {past.format(**slots)}."


def _compared(rng: Random, lore: Lore) -> str:
    kind, relation, more = rng.choice(
        (("creature", "legs", "has more legs"), ("mineral", "price", "costs more"), ("dish", "price", "costs more"))
    )
    x, y = sorted(rng.sample(lore.things[kind], 2), key=lambda thing: -NUMBERS.index(thing.facts[relation]))
    facts = f"{state(Fact(x, relation))} {state(Fact(y, relation))}"
    return facts if x.facts[relation] == y.facts[relation] else f"{facts} {sentence(the(x))} {more} than {the(y)}."


WRITERS: dict[str, Callable[[Random, Lore], str]] = {
    "page": _page,
    "story": _story,
    "scenes": _scenes,
    "group": _group,
    "rule": _rule,
    "talk": _talk,
    "lesson": _lesson,
    "card": _card,
}
COMMONNESS = {
    "page": 0.4,
    "story": 0.1,
    "scenes": 0.17,
    "group": 0.07,
    "rule": 0.06,
    "talk": 0.04,
    "lesson": 0.11,
    "card": 0.05,
}
"""Share of each sort of document."""
