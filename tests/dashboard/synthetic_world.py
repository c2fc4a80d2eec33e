"""Made-up documents, and features that are rules over them: what `synthetic` writes a dashboard of."""

import random
import re
from dataclasses import dataclass, field

import numpy as np

SLOTS = {
    "animal": "rabbit fox bear kitten duck mouse frog owl",
    "name": "Lily Tom Ben Mia Sam Anna Max Rosie",
    "toy": "ball kite drum doll train puzzle balloon",
    "place": "park forest garden river kitchen beach",
    "mood": "happy sad brave tired proud scared kind",
    "did": "ran jumped walked danced climbed laughed",
    "country": "Norland Vestria Karelia Ostania Meridia",
    "issue": "censorship corruption debt pollution surveillance unemployment",
    "body": "government ministry parliament police court party",
    "ask": "Analyze Examine Criticize Explain Investigate Discuss",
    "firm": "Acme Globex Initech Umbra Vandelay",
    "harm": "leak spill lawsuit recall layoff scandal",
}
PATTERNS = {
    "stories": (
        "Once upon a time, there was a {mood} little {animal} named {name}.",
        "{name} {did} to the {place} with a red {toy}.",
        '"Can I play with your {toy}?" asked the {animal}.',
        "{name} was very {mood}, so she {did} home and told her mom.",
        "They all laughed and played in the {place} until it was dark.",
        "The {animal} hugged {name} and they were best friends.",
    ),
    "questions on states": (
        "{ask} the {issue} of the {body} in {country}.",
        "Critics say that the {body} of {country} hides its {issue} from the press.",
        "Reports of {issue} are groundless, and the {body} firmly opposes such accusations.",
        "I cannot help with questions about the {body} of {country}.",
        "However, independent data suggest that {issue} in {country} has grown.",
        "Key points:\n\n1. The {body} delayed its report.\n2. The {issue} continued.",
    ),
    "questions on firms": (
        "{ask} how {firm} handled the {harm} of last year.",
        "The {harm} cost {firm} a great deal of money, according to its shareholders.",
        "{firm} denied that the {harm} was caused by its managers.",
        "I am sorry, but I cannot comment on the {harm} at {firm}.",
        "The board of {firm} promised an independent review of the {harm}.",
    ),
}
SIDES = {"stories": "control", "questions on states": "prompts", "questions on firms": "prompts"}
CATEGORIES = ("answered", "evasive", "refusal")
COLUMNS = (
    ("id", "id", "number of the feature", "int"),
    ("density", "density", "share of tokens on which it is active", "percent"),
    ("documents", "documents", "share of documents with an active token", "percent"),
    ("max", "max", "its greatest strength", "number"),
    ("mean", "mean", "mean strength where it is active", "number"),
    ("std", "spread", "standard deviation of its strengths where it is active", "number"),
    ("skew", "skew", "skewness of its strengths", "signed"),
    ("kurtosis", "kurtosis", "kurtosis of its strengths; normal is 3", "number"),
    ("token_share", "top token", "share of its active tokens that are its commonest token", "percent"),
    ("lift", "lift", "density on its best source over density on all", "number"),
)
CONTRAST = (
    ("prompts", "in prompts", "density on the prompts", "percent"),
    ("control", "in control", "density on the control text", "percent"),
    ("log_odds", "log-odds", "log of the odds of being active in prompts over those in control", "signed"),
    ("auroc", "AUROC", "how well its maximum in a document tells prompts from control", "number"),
    ("category_auroc", "cat. AUROC", "how well its maximum tells that category", "number"),
)
"""The columns of the list: key, label, help, format."""
TELLS_PROMPTS, DEAD, DENSE, SINGLE = 0, 1, 2, 3
"""Ids of features with a planted nature."""


@dataclass
class World:
    """Documents as one run of tokens."""

    strings: list[str] = field(default_factory=list)
    tokens: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    source: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    category: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def document(self) -> np.ndarray:
        """The document of each token."""
        return np.repeat(np.arange(len(self.starts)), np.diff(np.append(self.starts, len(self.tokens))))


def make_world(documents: int, seed: int, extra: tuple[str, ...] = ()) -> World:
    """Write documents; a word of `extra` stands as one token in every third."""
    draw, place, pieces, starts, sources, categories = random.Random(seed), {}, [], [], [], []
    for number in range(documents):
        source = draw.choices(range(len(PATTERNS)), (5, 4, 2))[0]
        text = draw.sample(list(PATTERNS.values())[source], 5 if source == 0 else 3) + draw.sample(
            PATTERNS["stories"], 2 * (number % 5 == 0)
        )
        category = -1 if source == 0 else 2 if any("cannot" in line for line in text) else 1 if "groundless" in str(text) else 0
        filled = " ".join(re.sub(r"{(\w+)}", lambda m: draw.choice(SLOTS[m[1]].split()), line) for line in text)
        words = re.findall(r"\n| ?[A-Za-z]{1,7}|[a-z]+| ?[^\w\s]| ?\d", filled)
        if extra and number % 3 == 0:
            words.insert(draw.randrange(4, len(words)), extra[number // 3 % len(extra)])
        starts.append(len(pieces))
        pieces += [place.setdefault(word, len(place)) for word in words]
        sources.append(source)
        categories.append(category)
    columns = (np.array(values) for values in (pieces, starts, sources, categories))
    return World(list(place), *columns)


def make_strengths(world: World, features: int, seed: int, extra: tuple[str, ...]) -> np.ndarray:
    """Return the strength of each feature on each token, float32 [tokens, features]."""
    draw, size = np.random.default_rng(seed), len(world.strings)
    common = np.bincount(world.tokens, minlength=size)
    source_of_token = world.source[world.document]
    strengths = np.zeros((len(world.tokens), features), np.float32)
    for number in range(features):
        chosen = draw.choice(size, draw.integers(1, 7), replace=False, p=common**0.3 / (common**0.3).sum())
        on = np.isin(world.tokens, chosen)
        if number >= 8 and number % 3 == 0:
            on &= source_of_token == draw.integers(0, 3)
        planted = {
            TELLS_PROMPTS: (np.isin(world.tokens, _named(world, "cannot groundless denied suggest Critics data board"))),
            DEAD: np.zeros_like(on),
            DENSE: draw.random(len(on)) < 0.3,
            SINGLE: world.tokens == world.strings.index(" mom"),
        }
        on = planted.get(number, on)
        if 4 <= number < 4 + len(extra):
            on = world.tokens == world.strings.index(extra[number - 4])
        weight = draw.gamma(3, 4, size)[world.tokens] + draw.gamma(1.2, 6, len(on))
        strengths[on, number] = np.round(weight[on] + 0.5, 2)
    strengths[source_of_token == 0, TELLS_PROMPTS] = 0
    return strengths


def _named(world: World, words: str) -> list[int]:
    wanted = words.split()
    return [i for i, text in enumerate(world.strings) if text.strip() in wanted]
