"""Skills that need knowledge of the world: questions, classes, comparisons, cards, advice, summaries."""

from collections.abc import Callable
from random import Random

from playpen.world.draft import Draft
from playpen.world.grammar import fill, listing, sentence
from playpen.world.lexicon import HUNTED, NUMBERS, REMEDIES, WATERY
from playpen.world.lore import Entity, Fact, Lore, any_facts, any_thing, ask, other_values, relation_of, state, the

NOUNS = {"creature": "a creature", "mineral": "a stone", "plant": "a plant", "dish": "a dish", "town": "a town"}


CURIOSITY = (
    "I want to know more about {x}.",
    "{p} and I do not agree about {x}.",
    "There was much talk about {x} this week.",
    "Nobody here knows enough about {x}, not even {p}.",
    "{p} asked me about {x}, and I had no answer.",
)
"""How a user comes to ask about a thing."""


def fact_question(rng: Random, lore: Lore) -> Draft:
    """Ask for one fact of the pool; the detail is another fact of the same thing."""
    fact = rng.choice(lore.asked["pool"])
    wording = rng.choice((0, 0, 0, 1, 2, 3))
    more = next(other for other in any_facts(rng, fact.entity, 2) if other.relation != fact.relation)
    detail = state(more, rng.randrange(4), pronoun=True)
    wrong = state(fact, wording, rng.choice(other_values(lore, fact)))
    question = ask(fact, rng.randrange(3))
    if rng.random() < 0.6:
        person = rng.choice([person for person in lore.things["person"] if person is not fact.entity])
        question = f"{fill(rng.choice(CURIOSITY), x=the(fact.entity), p=person.name)} {question}"
    return Draft(question, state(fact, wording), detail, wrong, detail)


def classification(rng: Random, lore: Lore) -> Draft:
    """Put a thing into a class, by a rule of the world or by its kind."""
    return rng.choice((_by_kind, _by_diet, _by_home))(rng, lore)


def _by_kind(rng: Random, lore: Lore) -> Draft:
    thing = rng.choice(lore.things[rng.choice(list(NOUNS))])
    others = rng.sample([noun for kind, noun in NOUNS.items() if kind != thing.kind], 2)
    right, wrong = NOUNS[thing.kind], rng.choice(others)
    options = listing(rng.sample([right, *others], 3), "or")
    detail = state(any_facts(rng, thing, 1)[0], pronoun=True)
    question = rng.choice(("Is {x} {options}?", "What is {x}: {options}?", "Say whether {x} is {options}."))
    answer, other = fill(f"{{x}} is {right}.", x=the(thing)), fill(f"{{x}} is {wrong}.", x=the(thing))
    return Draft(fill(question, x=the(thing), options=options), answer, detail, other, detail)


def _by_diet(rng: Random, lore: Lore) -> Draft:
    return _by_rule(rng, lore, "food", HUNTED, ("a hunter", "a grazer"))


def _by_home(rng: Random, lore: Lore) -> Draft:
    return _by_rule(rng, lore, "home", WATERY, ("a water creature", "a land creature"))


def _by_rule(rng: Random, lore: Lore, relation: str, members: tuple[str, ...], classes: tuple[str, str]) -> Draft:
    """Class 0 if the value of the relation is among the members, else class 1; the detail gives the reason."""
    fact = Fact(rng.choice(lore.things["creature"]), relation)
    is_member = fact.entity.facts[relation] in members
    right, wrong = classes if is_member else classes[::-1]
    values = dict.fromkeys(thing.facts[relation] for thing in lore.things["creature"])
    alibi = rng.choice([value for value in values if (value in members) != is_member])
    question = rng.choice(("Is {x} {a} or {b}?", "To which group does {x} belong, {a} or {b}?", "Should I call {x} {a} or {b}?"))
    x, (a, b) = the(fact.entity), rng.sample(classes, 2)
    answer, other = fill("{x} is {y}.", x=x, y=right), fill("{x} is {y}.", x=x, y=wrong)
    return Draft(fill(question, x=x, a=a, b=b), answer, state(fact, pronoun=True), other, state(fact, value=alibi, pronoun=True))


def comparison(rng: Random, lore: Lore) -> Draft:
    """Compare two things by a number, or say whether they are alike."""
    kind, relation, more = rng.choice(
        (("creature", "legs", "has more legs"), ("mineral", "price", "costs more"), ("dish", "price", "costs more"))
    )
    if rng.random() < 0.35:
        return _alike(rng, lore, kind)
    x, y = rng.sample(lore.things[kind], 2)
    while x.facts[relation] == y.facts[relation]:
        y = rng.choice(lore.things[kind])
    high, low = (x, y) if NUMBERS.index(x.facts[relation]) > NUMBERS.index(y.facts[relation]) else (y, x)
    question = rng.choice(("Which {more}, {x} or {y}?", "Compare {x} and {y}. Which of the two {more}?"))
    facts = _two(Fact(high, relation), Fact(low, relation))
    lie = _two(Fact(high, relation), Fact(low, relation), swap=True)
    answer, wrong = (sentence(f"{the(one)} {more} than {the(two)}.") for one, two in ((high, low), (low, high)))
    return Draft(fill(question, x=the(x), y=the(y), more=more), answer, facts, wrong, lie)


def _two(one: Fact, two: Fact, swap: bool = False) -> str:
    """State one relation of two things in one sentence, with their values swapped if wanted."""
    values = [one.entity.facts[one.relation], two.entity.facts[two.relation]]
    values = values[::-1] if swap else values
    first, second = state(one, value=values[0]), state(two, value=values[1])
    second = second if two.entity.kind == "person" or two.entity.kind == "town" else second[0].lower() + second[1:]
    return f"{first[:-1]} and {second}"


def _alike(rng: Random, lore: Lore, kind: str) -> Draft:
    relation = rng.choice(list(lore.things[kind][0].facts))
    x, y = rng.sample(lore.things[kind], 2)
    if rng.random() < 0.5:
        y = rng.choice([z for z in lore.things[kind] if z.facts[relation] == x.facts[relation] and z is not x] or [y])
    label = relation_of(Fact(x, relation)).label.lower()
    same = x.facts[relation] == y.facts[relation]
    texts = {True: f"yes, the {label} is the same for both.", False: f"no, the {label} is not the same."}
    question = rng.choice(("Is the {label} of {x} and {y} the same?", "Are {x} and {y} alike in {label}?"))
    detail = _two(Fact(x, relation), Fact(y, relation))
    lie = state(Fact(x, relation))
    return Draft(fill(question, x=the(x), y=the(y), label=label), sentence(texts[same]), detail, sentence(texts[not same]), lie)


def card(rng: Random, lore: Lore) -> Draft:
    """Follow a format: write some facts as a card, a numbered list, or with strokes between them."""
    thing = any_thing(rng, lore)
    *facts, more = any_facts(rng, thing, rng.choice((3, 4)))
    lie = rng.randrange(len(facts))
    layout, order = rng.choice(LAYOUTS)
    right = [(relation_of(fact).label, thing.facts[fact.relation]) for fact in facts]
    wrong = [
        (label, rng.choice(other_values(lore, fact)) if i == lie else value)
        for i, ((label, value), fact) in enumerate(zip(right, facts, strict=True))
    ]
    labels = listing([label.lower() for label, _ in right])
    detail = f"{relation_of(more).label}: {thing.facts[more.relation]}."
    return Draft(fill(order, x=the(thing), labels=labels), layout(thing, right), detail, layout(thing, wrong), detail)


def _as_card(thing: Entity, pairs: list[tuple[str, str]]) -> str:
    return " ".join(f"{label}: {value}." for label, value in [("Name", thing.name), *pairs])


def _as_list(thing: Entity, pairs: list[tuple[str, str]]) -> str:
    return f"List for {the(thing)}: " + " ".join(f"{i}. {value}." for i, (_, value) in enumerate(pairs, 1))


def _as_strokes(thing: Entity, pairs: list[tuple[str, str]]) -> str:
    return sentence(" / ".join([the(thing), *(value for _, value in pairs)]) + ".")


LAYOUTS: tuple[tuple[Callable[[Entity, list[tuple[str, str]]], str], str], ...] = (
    (_as_card, "Make a card for {x} with name, {labels}."),
    (_as_card, "Fill a card for {x} that gives the name, {labels}."),
    (_as_list, "Write a numbered list for {x} with {labels}."),
    (_as_strokes, "Write {x} and then {labels}, with strokes between them."),
)


def advice(rng: Random, lore: Lore) -> Draft:
    """Say what to do: against an illness, in bad weather, or to please somebody."""
    return rng.choice((_cure, _weather, _supper))(rng, lore)


def _cure(rng: Random, lore: Lore) -> Draft:
    plant, bad = rng.sample(lore.things["plant"], 2)
    ill = plant.facts["cure"]
    bad = next(other for other in (bad, *lore.things["plant"]) if other.facts["cure"] != ill)
    question = rng.choice(("I have {ill}. What should I do?", "{p} has {ill}. What can we do?", "How can I be rid of {ill}?"))
    text = rng.choice(("Take {x}.", "Make tea of {x}.", "A little of {x} will help."))
    detail = state(Fact(plant, rng.choice(("cure", "soil", "bloom"))), pronoun=True)
    lie = state(Fact(bad, rng.choice(("soil", "bloom"))), pronoun=True)
    person = rng.choice(lore.things["person"]).name
    return Draft(fill(question, ill=ill, p=person), fill(text, x=the(plant)), detail, fill(text, x=the(bad)), lie)


def _weather(rng: Random, lore: Lore) -> Draft:
    trouble, bad = rng.sample(list(REMEDIES), 2)
    town = rng.choice(lore.things["town"])
    question = rng.choice(("{w}, and I must go to {t}. What should I take along?", "I go to {t} today, and {w}. What do I need?"))
    text = rng.choice(("Take {x} along.", "You need {x}.", "Do not go without {x}."))
    detail = state(any_facts(rng, town, 1)[0], rng.randrange(4))
    return Draft(
        fill(question, w=trouble, t=town.name), fill(text, x=REMEDIES[trouble]), detail, fill(text, x=REMEDIES[bad]), detail
    )


def _supper(rng: Random, lore: Lore) -> Draft:
    person = rng.choice(lore.things["person"])
    dish = person.facts["dish"]
    bad = rng.choice([other.name for other in lore.things["dish"] if other.name != dish])
    question = rng.choice(
        ("{p} is my guest tonight. What should I cook?", "I want to please {p}. What should I bring to the table?")
    )
    text = rng.choice(("Serve {x}.", "I would choose {x}.", "You should try {x}."))
    detail, lie = (state(Fact(person, "dish"), rng.randrange(4), value, pronoun=True) for value in (dish, bad))
    return Draft(fill(question, p=person.name), fill(text, x=dish), detail, fill(text, x=bad), lie)


def summary(rng: Random, lore: Lore) -> Draft:
    """Say in one sentence what some sentences say."""
    thing = any_thing(rng, lore)
    facts = any_facts(rng, thing, 3)
    lie = rng.randrange(2)
    wrong = {facts[lie].relation: rng.choice(other_values(lore, facts[lie]))}
    text = " ".join(state(fact, rng.randrange(5), pronoun=i > 0) for i, fact in enumerate(facts))
    order = rng.choice(("Say this in one sentence: {text}", "{text} Please sum this up.", "Make this shorter: {text}"))
    detail = state(facts[2], pronoun=True)
    return Draft(order.format(text=text), _merge(facts[:2], {}), detail, _merge(facts[:2], wrong), detail)


def _merge(facts: list[Fact], values: dict[str, str]) -> str:
    """State facts of one thing in one sentence; `values` replaces some of them."""
    subject = sentence(the(facts[0].entity))
    parts = [state(fact, value=values.get(fact.relation))[len(subject) + 1 : -1] for fact in facts]
    return f"{subject} {listing(parts)}."
