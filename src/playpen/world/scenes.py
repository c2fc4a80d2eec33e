"""Little scenes between two people where the reason for what happens tells who is meant."""

from random import Random
from typing import NamedTuple

from playpen.world.lexicon import VALUES
from playpen.world.lore import Entity, Lore


class Scene(NamedTuple):
    """What `{a}` does to `{b}`, and reasons that fit only the one or only the other."""

    deed: str
    first: tuple[str, ...]
    second: tuple[str, ...]


SCENES = (
    Scene("{a} sold {o} to {b}", ("needed coins", "wanted less to carry"), ("wanted to own one", "had money to spend")),
    Scene("{a} thanked {b}", ("felt grateful", "had been given a gift"), ("had helped all day", "had done a kind deed")),
    Scene("{a} scolded {b}", ("was in a bad mood", "had lost all patience"), ("had come too late", "had broken a pot")),
    Scene("{a} followed {b}", ("did not know the way", "was afraid to be alone"), ("knew the way", "walked in front")),
    Scene("{a} taught {b} to sing", ("was a good teacher", "had sung for years"), ("wanted to learn", "had never sung before")),
    Scene("{a} visited {b}", ("felt lonely", "had a free day"), ("was ill in bed", "had asked for a visit")),
    Scene("{a} waited for {b}", ("had come too early", "was there first"), ("was slow", "was still on the road")),
    Scene("{a} carried {b} home", ("was strong", "had a strong back"), ("was tired", "could not walk")),
)
"""Few on purpose: each reason occurs often enough for a very small model to learn whom it fits."""


class Event(NamedTuple):
    """One scene with its people: `who` is the one the reason is about."""

    a: Entity
    b: Entity
    who: Entity
    deed: str
    reason: str

    @property
    def other(self) -> Entity:
        """The one the reason is not about."""
        return self.b if self.who is self.a else self.a


def make_event(rng: Random, a: Entity, b: Entity) -> Event:
    """Draw a scene between two people; either is as likely to be the one meant."""
    scene = rng.choice(SCENES)
    who, reasons = rng.choice(((a, scene.first), (b, scene.second)))
    deed = scene.deed.format(a=a.name, b=b.name, o=rng.choice(VALUES["tool"]))
    return Event(a, b, who, deed, rng.choice(reasons))


def pool_pair(rng: Random, lore: Lore, same_gender: bool = False) -> tuple[Entity, Entity]:
    """Draw two people who can both stand in a chat or document, which are never two of one task's people."""
    a = rng.choice(lore.things["person"])
    fits = [b for b in lore.things["person"] if b is not a and (b.group == "pool" or b.group != a.group)]
    return a, rng.choice([b for b in fits if not same_gender or b.pronoun == a.pronoun])
