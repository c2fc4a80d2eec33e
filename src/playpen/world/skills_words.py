"""Skills that need care with words and numbers: reference, counting, sorting, past tense, stories."""

from random import Random

from playpen.world.draft import Draft
from playpen.world.grammar import fill, listing, sentence
from playpen.world.lexicon import GOODS, NUMBERS, VALUES, VERBS
from playpen.world.lore import Entity, Lore, any_facts, state, the
from playpen.world.scenes import Event, make_event, pool_pair

BLANKS = (
    "{deed} because _ {reason}. Who {reason}?",
    'Fill in the blank: "{deed} because _ {reason}." Is it {a} or {b}?',
    "{deed} because _ {reason}. Does the blank stand for {a} or {b}?",
)
"""How a sentence with a blank is asked about."""

PRONOUNS = (
    '{deed} because {she} {reason}. Who does "{she}" mean?',
    "{deed} because {she} {reason}. Who {reason}?",
    '"{deed}, for {she} {reason}." Is it {a} or {b} who {reason}?',
)
"""How a sentence with a pronoun is asked about."""


def ask_who(event: Event, wording: str) -> str:
    """Ask which of the two people of an event is meant."""
    a, b = event.a.name, event.b.name
    return wording.format(deed=event.deed, reason=event.reason, a=a, b=b, she=event.who.pronoun)


def reference(rng: Random, lore: Lore) -> Draft:
    """Say who is meant by a blank or by a pronoun that fits both people."""
    wordings = rng.choice((BLANKS, PRONOUNS))
    event = make_event(rng, *pool_pair(rng, lore, same_gender=wordings is PRONOUNS))
    question = ask_who(event, rng.choice(wordings))
    if rng.random() < 0.4:
        question = f"{state(any_facts(rng, rng.choice((event.a, event.b)), 1)[0], rng.randrange(4))} {question}"
    text = rng.choice(("It is {x}.", "It is {x}.", "{x}.", "It means {x}.", "{x} is meant.", "{x} {reason}."))
    more = rng.choice(("{x} {reason}.", "This tells us that {x} {reason}.", "{y} is not the one who {reason}."))
    right = {"x": event.who.name, "y": event.other.name, "reason": event.reason}
    wrong = {"x": event.other.name, "y": event.who.name, "reason": event.reason}
    return Draft(question, text.format(**right), more.format(**right), text.format(**wrong), more.format(**wrong))


def counting(rng: Random, lore: Lore) -> Draft:
    """Add, take away, or count what is named."""
    return rng.choice((_add, _take, _count_list))(rng, lore)


def _near(rng: Random, number: int) -> int:
    """Return another number close by, from 2 to 20."""
    return rng.choice([n for n in range(number - 2, number + 3) if n != number and 1 < n <= len(NUMBERS)])


def _word(number: int) -> str:
    return NUMBERS[number - 1]


def _add(rng: Random, lore: Lore) -> Draft:
    person, giver = rng.sample(lore.things["person"], 2)
    n, m, goods = rng.randint(2, 10), rng.randint(2, 9), rng.choice(GOODS)
    question = "{p} has {n} {goods} and gets {m} more from {q}. How many {goods} does {p} have now?"
    return _sum(rng, person, giver, goods, (n, m, n + m), question, "{n} and {m} make {r}.")


def _take(rng: Random, lore: Lore) -> Draft:
    person, taker = rng.sample(lore.things["person"], 2)
    n, goods = rng.randint(4, 20), rng.choice(GOODS)
    m = rng.randint(1, n - 2)
    question = "{p} had {n} {goods} and gave {m} of them to {q}. How many {goods} does {p} have now?"
    return _sum(rng, person, taker, goods, (n, m, n - m), question, "{m} from {n} leaves {r}.")


def _sum(rng: Random, p: Entity, q: Entity, goods: str, numbers: tuple[int, int, int], question: str, detail: str) -> Draft:
    n, m, right = numbers
    slots = {"p": p.name, "q": q.name, "goods": goods, "n": _word(n), "m": _word(m)}
    text = rng.choice(("{p} has {r} {goods} now.", "Now {p} has {r}.", "There are {r} {goods} now."))
    good, bad = _word(right), _word(_near(rng, right))
    return Draft(fill(question, **slots), *(fill(t, r=r, **slots) for r in (good, bad) for t in (text, detail)))


def _count_list(rng: Random, lore: Lore) -> Draft:
    number = rng.randint(3, 7)
    kind = rng.choice(("creature", "person", "town"))
    names = [thing.name for thing in rng.sample(lore.things[kind], number if kind != "town" else min(number, 6))]
    plural = {"creature": "creatures", "person": "people", "town": "towns"}[kind]
    good, bad = _word(len(names)), _word(_near(rng, len(names)))
    text = rng.choice(("There are {n} {kind} in the list.", "I count {n} {kind}.", "The list has {n} names."))
    question = f"How many {plural} are in this list: {', '.join(names)}?"
    detail = fill("the first is {x} and the last is {y}.", x=names[0], y=names[-1])
    return Draft(question, fill(text, n=good, kind=plural), detail, fill(text, n=bad, kind=plural), detail)


def sorting(rng: Random, lore: Lore) -> Draft:
    """Put names in the order of the alphabet, or things in the order of a number."""
    if rng.random() < 0.5:
        return _by_number(rng, lore)
    kind = rng.choice(("creature", "person", "town", "mineral", "plant"))
    names = [thing.name for thing in rng.sample(lore.things[kind], rng.choice((3, 4)))]
    order = rng.choice(
        ("Put these names in the order of the alphabet", "Sort these names from A to Z", "Order these names by letter")
    )
    return _ordered(rng, f"{order}: {', '.join(names)}.", sorted(names), "{x} comes first and {y} comes last.")


def _by_number(rng: Random, lore: Lore) -> Draft:
    kind, relation, order = rng.choice(
        (
            ("creature", "legs", "Sort these creatures by their legs, the fewest first"),
            ("mineral", "price", "Sort these stones by price, the cheapest first"),
            ("dish", "price", "Order these dishes by price, the cheapest first"),
        )
    )
    by_value = {thing.facts[relation]: thing for thing in rng.sample(lore.things[kind], 6)}
    things = rng.sample(list(by_value.values()), min(3, len(by_value)))
    ordered = sorted(things, key=lambda thing: NUMBERS.index(thing.facts[relation]))
    question = f"{order}: {', '.join(thing.name for thing in things)}."
    return _ordered(rng, question, [thing.name for thing in ordered], "{x} comes first and {y} comes last.")


def _ordered(rng: Random, question: str, right: list[str], detail: str) -> Draft:
    wrong = rng.sample(right, len(right))
    while wrong == right:
        wrong = rng.sample(right, len(right))
    text = rng.choice(("The order is {names}.", "In order they are {names}.", "Sorted, that is {names}."))
    texts = [(fill(text, names=listing(names)), fill(detail, x=names[0], y=names[-1])) for names in (right, wrong)]
    return Draft(question, *texts[0], *texts[1])


def past_tense(rng: Random, lore: Lore) -> Draft:
    """Rewrite what somebody does into the past."""
    person, other = rng.sample(lore.things["person"], 2)
    slots = {kind: rng.choice(lore.things[kind]).name for kind in ("town", "creature", "dish", "mineral", "plant")}
    slots |= {"person": other.name, "fodder": rng.choice(VALUES["fodder"]), "product": rng.choice(VALUES["product"])}
    now = rng.sample(list(VERBS), 3)
    present, past = ([text.format(**slots) for text in texts] for texts in (now, [VERBS[verb] for verb in now]))
    mixed = [past[0], present[1], past[2]] if rng.random() < 0.5 else [past[0], past[1], present[2]]
    order = rng.choice(
        (
            "Put this into the past: {p} {text}.",
            "Write this as if it was yesterday: {p} {text}.",
            "{p} {text}. Say it in the past.",
        )
    )
    detail, lie = (f"We say that {person.name} {text}." for text in (past[0], present[0]))
    answer, wrong = (f"{person.name} {listing(texts)}." for texts in (past, mixed))
    return Draft(order.format(p=person.name, text=listing(present)), answer, detail, wrong, lie)


STORY_STARTS = (
    "one {season} morning {p} left {town} with {tool}.",
    "{p} came back to {town} with {tool}, and it was dark.",
    "it was market day in {town}, and {p} was there with {tool}.",
    "{p} woke up early in {town} and heard a strange sound.",
    "the road to {town} was long, and {p} was alone on it.",
)
STORY_TURNS = (
    "on the road {p} met {q} and asked for the way. They went on together.",
    "soon {p} saw {q} at the gate. They had not met for a year.",
    "{q} came along, and {p} told {q} everything. {q} only laughed.",
    "there {p} found a letter from {q}. It was about {topic}.",
    "{p} looked for {q} in every street and found only {topic}.",
)
STORY_ENDS = (
    "in the evening {p} and {q} ate {dish}.",
    "that night {p} slept well.",
    "since that day {p} and {q} are friends.",
    "at home {p} told the story over a plate of {dish}.",
    "then {p} went home and closed the door.",
)


def story(rng: Random, lore: Lore) -> Draft:
    """Go on with a story; the wrong answer tells of somebody else."""
    p, q, stranger = rng.sample(lore.things["person"], 3)
    slots = {"town": p.facts["town"], "tool": p.facts["tool"], "dish": p.facts["dish"], "season": rng.choice(VALUES["season"])}
    slots["topic"] = the(rng.choice(lore.things[rng.choice(("creature", "mineral", "plant", "dish"))]))
    start, turn, end = rng.choice(STORY_STARTS), rng.choice(STORY_TURNS), rng.choice(STORY_ENDS)
    order = rng.choice(("Go on with this story: {start}", "{start} What happened next?", "{start} Tell me the rest."))
    question = sentence(order.format(start=fill(start, p=p.name, **slots)))
    told = [fill(part, p=who.name, q=q.name, **slots) for who in (p, stranger) for part in (turn, end)]
    return Draft(question, *told)
