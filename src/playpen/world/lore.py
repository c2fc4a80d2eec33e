"""The truth of the world: named things, their facts, and which facts are kept for the tasks."""

from itertools import cycle, islice
from random import Random
from typing import NamedTuple

from playpen.config import PlaypenError
from playpen.world.config import World
from playpen.world.grammar import fill, with_article
from playpen.world.lexicon import SHARES, SYLLABLES, VALUES
from playpen.world.relations import RELATIONS, Relation

HELD_OUT_SHARE = 0.65
"""Share of the facts of a query or test entity that no chat of the pool asks about."""


class Entity(NamedTuple):
    """A named thing and all that is true of it."""

    name: str
    kind: str
    pronoun: str
    group: str
    """`query`, `test` or `pool`: whose tasks may be about it."""
    facts: dict[str, str]
    """The value of each relation of its kind."""


class Fact(NamedTuple):
    """A question that can be asked: one relation of one thing."""

    entity: Entity
    relation: str


class Lore(NamedTuple):
    """Everything that is true, and the facts by who may ask about them."""

    things: dict[str, tuple[Entity, ...]]
    asked: dict[str, tuple[Fact, ...]]
    """Facts of `query` items, of `test` items and of the `pool`; disjoint."""


def make_lore(config: World) -> Lore:
    """Draw the world's things and facts from the seed."""
    rng = Random(f"{config.seed}/lore")
    names = {kind: _names(rng, kind, config.num_entities * share // 8) for kind, share in SHARES.items()}
    values = {**VALUES, **{kind: tuple(name for name, _ in named) for kind, named in names.items()}}
    things = {kind: _make_kind(rng, kind, named, values) for kind, named in names.items()}
    asked: dict[str, list[Fact]] = {"query": [], "test": [], "pool": []}
    for entity in (entity for kind in things.values() for entity in kind):
        held_out = rng.sample(list(entity.facts), round(HELD_OUT_SHARE * len(entity.facts)))
        for relation in entity.facts:
            asked[entity.group if relation in held_out else "pool"].append(Fact(entity, relation))
    return Lore(things, {group: tuple(facts) for group, facts in asked.items()})


def _names(rng: Random, kind: str, number: int) -> list[tuple[str, str]]:
    """Draw (name, pronoun) pairs; half of the people are women."""
    if kind != "person":
        return [(name, "it") for name in _spell(rng, kind, number)]
    women = [(name, "she") for name in _spell(rng, "woman", number - number // 2)]
    men = [(name, "he") for name in _spell(rng, "man", number // 2)]
    return women + men


def _spell(rng: Random, kind: str, number: int) -> list[str]:
    """Build different names, of which as few as can be begin alike."""
    first, second = (part.split() for part in SYLLABLES[kind])
    gap = " " if kind == "dish" else ""
    if number > len(first) * len(second):
        raise PlaypenError(f"the syllables spell too few names of kind {kind} for {number}; ask for fewer entities")
    first = rng.sample(first, len(first))
    ends = {a: rng.sample(second, len(second)) for a in first}
    return [a + gap + ends[a][turn] for turn in range(len(second)) for a in first][:number]


def _make_kind(rng: Random, kind: str, names: list[tuple[str, str]], values: dict[str, tuple[str, ...]]) -> tuple[Entity, ...]:
    """Deal the values of each relation evenly over the things of a kind."""
    dealt = {name: _deal(rng, values[relation.values], len(names)) for name, relation in RELATIONS[kind].items()}
    groups = cycle(("query", "test", "pool", "test") if kind != "person" else ("query", "test", "pool"))
    return tuple(
        Entity(name, kind, pronoun, group, {relation: column[i] for relation, column in dealt.items()})
        for i, ((name, pronoun), group) in enumerate(zip(names, groups, strict=False))
    )


def _deal(rng: Random, values: tuple[str, ...], number: int) -> list[str]:
    column = list(islice(cycle(rng.sample(values, len(values))), number))
    rng.shuffle(column)
    return column


def relation_of(fact: Fact) -> Relation:
    """Return how a fact is worded."""
    return RELATIONS[fact.entity.kind][fact.relation]


def the(entity: Entity) -> str:
    """Return the name as it stands inside a sentence: creatures and plants have an article."""
    return f"the {entity.name}" if entity.kind in ("creature", "plant") else entity.name


def state(fact: Fact, wording: int = 0, value: str | None = None, pronoun: bool = False) -> str:
    """State a fact; `value` puts another value in its place, `pronoun` speaks of `it` where the wording allows."""
    says = relation_of(fact).says
    says = says[wording % len(says)]
    value = fact.entity.facts[fact.relation] if value is None else value
    subject = fact.entity.pronoun if pronoun and says.startswith("{s}") else the(fact.entity)
    return fill(says, s=subject, v=value, av=with_article(value))


def ask(fact: Fact, wording: int = 0) -> str:
    """Ask about a fact."""
    asks = relation_of(fact).asks
    return fill(asks[wording % len(asks)], s=the(fact.entity))


def other_values(lore: Lore, fact: Fact) -> list[str]:
    """Return the values of the same relation that are true of other things only, in their order of appearance."""
    seen = dict.fromkeys(thing.facts[fact.relation] for thing in lore.things[fact.entity.kind])
    return [value for value in seen if value != fact.entity.facts[fact.relation]]


def any_thing(rng: Random, lore: Lore) -> Entity:
    """Draw a thing of any kind; each kind is as likely as it has things."""
    return rng.choice(lore.things[rng.choices(list(SHARES), list(SHARES.values()))[0]])


def any_facts(rng: Random, entity: Entity, number: int) -> list[Fact]:
    """Draw different facts of a thing."""
    return [Fact(entity, relation) for relation in rng.sample(list(entity.facts), number)]
