"""Multiple-choice tasks: `lore_choice` in the shape of ARC, `reference_choice` in the shape of WinoGrande.

The query and the test items of a task are about different things, and no chat of the pool asks what an item asks.
"""

from collections.abc import Iterator
from itertools import permutations
from random import Random
from typing import Any

from playpen.config import PlaypenError
from playpen.world.config import World
from playpen.world.lore import Entity, Lore, ask, other_values, relation_of, state
from playpen.world.scenes import make_event
from playpen.world.skills_words import BLANKS, ask_who

Item = dict[str, Any]
"""`prompt` (what a user turn says), `choices` (what an assistant could answer), `answer` (index of the right choice)."""

SPLITS = ("query", "test")


def make_tasks(config: World, lore: Lore) -> dict[str, dict[str, list[Item]]]:
    """Return the items of each task and split."""
    numbers = dict(zip(SPLITS, (config.query_items, config.test_items), strict=True))
    makers = {"lore_choice": _lore_items, "reference_choice": _reference_items}
    return {
        task: {split: maker(Random(f"{config.seed}/{task}/{split}"), lore, split, numbers[split]) for split in SPLITS}
        for task, maker in makers.items()
    }


def _item(rng: Random, prompt: str, right: str, wrong: list[str], answer: int) -> Item:
    choices = rng.sample(wrong, len(wrong))
    choices.insert(answer, right)
    return {"prompt": prompt, "choices": choices, "answer": answer}


def _lore_items(rng: Random, lore: Lore, split: str, number: int) -> list[Item]:
    """Ask for held-out facts: each once in one wording, then in another if more items are wanted."""
    facts = rng.sample(lore.asked[split], len(lore.asked[split]))
    first = {id(fact): rng.randrange(3) for fact in facts}
    asked = [(fact, first[id(fact)] + again) for again in range(3) for fact in facts if again < len(relation_of(fact).asks)]
    _check_enough(len(asked), number, "lore_choice", split)
    items = []
    for i, (fact, wording) in enumerate(asked[:number]):
        wrong = [state(fact, value=value) for value in rng.sample(other_values(lore, fact), 3)]
        items.append(_item(rng, ask(fact, wording), state(fact), wrong, i % 4))
    return rng.sample(items, number)


def _reference_items(rng: Random, lore: Lore, split: str, number: int) -> list[Item]:
    """Ask who a blank stands for; the first and the second person are meant equally often."""
    items: dict[str, Item] = {}
    events = _events(rng, [person for person in lore.things["person"] if person.group == split])
    for event in events:
        if len(items) == number:
            break
        if (event.who is event.a) == (len(items) % 2 == 0):
            prompt = ask_who(event, rng.choice(BLANKS))
            items.setdefault(
                prompt, _item(rng, prompt, f"It is {event.who.name}.", [f"It is {event.other.name}."], len(items) // 2 % 2)
            )
    _check_enough(len(items), number, "reference_choice", split)
    return rng.sample(list(items.values()), number)


def _events(rng: Random, people: list[Entity], rounds: int = 200) -> Iterator[Any]:
    """Yield scenes between every ordered pair of people, over and over."""
    pairs = list(permutations(people, 2))
    for _ in range(rounds):
        for a, b in rng.sample(pairs, len(pairs)):
            yield make_event(rng, a, b)


def _check_enough(found: int, wanted: int, task: str, split: str) -> None:
    if found < wanted:
        raise PlaypenError(f"{task}: the world has only {found} different {split} items, {wanted} are wanted; raise num_entities")
