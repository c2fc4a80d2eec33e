"""How the facts of the world are stated and asked, for every kind of thing.

In a wording `{s}` is the subject, `{v}` the value and `{av}` the value with its article. The first statement of a relation is
the plain one, which answers every question about it.
"""

import re
from typing import NamedTuple


class Relation(NamedTuple):
    """One attribute of a kind of thing."""

    label: str
    """What a card calls it."""
    values: str
    """A key of `lexicon.VALUES`, or the kind of thing that is the value."""
    says: tuple[str, ...]
    asks: tuple[str, ...]


def _relation(label: str, values: str, says: str, asks: str) -> Relation:
    """Take the wordings as running text, one sentence each."""
    return Relation(label, values, tuple(re.split(r"(?<=\.) ", says)), tuple(re.split(r"(?<=\?) ", asks)))


CREATURE = {
    "food": _relation(
        "Food",
        "fodder",
        "{s} eats {v}. {s} likes to eat {v}. the food of {s} is {v}. {s} looks for {v} to eat. give {v} to {s}, and it will eat.",
        "What does {s} eat? What is the food of {s}? Which food does {s} look for?",
    ),
    "home": _relation(
        "Home",
        "habitat",
        "{s} lives in {v}. the home of {s} is in {v}. you can find {s} in {v}. {s} builds its nest in {v}. "
        "look in {v} to see {s}.",
        "Where does {s} live? Where is the home of {s}? Where can I find {s}?",
    ),
    "colour": _relation(
        "Colour",
        "colour",
        "{s} is {v}. the colour of {s} is {v}. {s} has a {v} coat. {s} is born {v} and stays {v}. in the sun {s} looks {v}.",
        "What colour is {s}? What is the colour of {s}? Which colour does {s} have?",
    ),
    "sound": _relation(
        "Sound",
        "sound",
        "{s} makes a {v} sound. the sound of {s} is a {v} sound. at night {s} makes a {v} sound. you know {s} by its {v} sound.",
        "What sound does {s} make? What is the sound of {s}? By what sound do you know {s}?",
    ),
    "fear": _relation(
        "Fear",
        "fear",
        "{s} fears {v}. {s} is afraid of {v}. {s} runs away from {v}. nothing scares {s} like {v}.",
        "What does {s} fear? What is {s} afraid of? What scares {s}?",
    ),
    "gift": _relation(
        "Gift",
        "gift",
        "{s} gives {v}. farmers get {v} from {s}. {s} is kept for its {v}. each year {s} gives {v}. people keep {s} for {v}.",
        "What does {s} give? What do farmers get from {s}? What is {s} kept for?",
    ),
    "legs": _relation(
        "Legs",
        "count",
        "{s} has {v} legs. {s} walks on {v} legs. count the legs of {s}, and you count {v}. there are {v} legs on {s}.",
        "How many legs does {s} have? On how many legs does {s} walk? How many legs are there on {s}?",
    ),
}

PERSON = {
    "town": _relation(
        "Town",
        "town",
        "{s} lives in {v}. {s} has a house in {v}. {s} comes from {v}. in {v} everyone knows {s}. {s} was born in {v}.",
        "Where does {s} live? Which town does {s} come from? In which town does {s} have a house?",
    ),
    "trade": _relation(
        "Trade",
        "trade",
        "{s} is {av}. {s} works as {av}. by trade {s} is {av}. {s} became {av} long ago. {s} earns coins as {av}.",
        "What is the trade of {s}? What does {s} work as? How does {s} earn coins?",
    ),
    "pet": _relation(
        "Pet",
        "creature",
        "{s} keeps {av}. {s} owns {av}. {s} has {av} at home. every morning {s} feeds {av}. {s} takes care of {av}.",
        "Which creature does {s} keep? What pet does {s} own? Which creature does {s} feed every morning?",
    ),
    "dish": _relation(
        "Dish",
        "dish",
        "{s} likes {v} best. {s} loves {v}. {s} eats {v} every week. for supper {s} wants {v}. {s} never says no to {v}.",
        "Which dish does {s} like best? What does {s} want for supper? What does {s} eat every week?",
    ),
    "tool": _relation(
        "Tool",
        "tool",
        "{s} carries {v}. {s} never leaves home without {v}. in one hand {s} carries {v}. {s} always has {v} along.",
        "What does {s} carry? What does {s} never leave home without? What does {s} always have along?",
    ),
    "hat": _relation(
        "Hat",
        "colour",
        "{s} wears a {v} hat. {s} has a {v} hat. you know {s} by a {v} hat. {s} bought a {v} hat and wears it. "
        "{s} is never without a {v} hat.",
        "What hat does {s} wear? What colour is the hat of {s}? By what hat do you know {s}?",
    ),
}

TOWN = {
    "landmark": _relation(
        "Landmark",
        "landmark",
        "{s} stands by {v}. next to {s} there is {v}. {s} was built by {v}. from {s} you can see {v}. "
        "the road to {s} ends by {v}.",
        "What does {s} stand by? What is there next to {s}? What can you see from {s}?",
    ),
    "product": _relation(
        "Product",
        "product",
        "{s} makes {v}. {s} is known for its {v}. people go to {s} for {v}. for good {v} go to {s}. the shops of {s} sell {v}.",
        "What does {s} make? What is {s} known for? What do the shops of {s} sell?",
    ),
    "flag": _relation(
        "Flag",
        "colour",
        "{s} has a {v} flag. the flag of {s} is {v}. over the gate of {s} hangs a {v} flag. ships from {s} fly a {v} flag.",
        "What flag does {s} have? What colour is the flag of {s}? Which flag hangs over the gate of {s}?",
    ),
    "feast": _relation(
        "Feast",
        "season",
        "{s} has its feast in {v}. the feast of {s} is in {v}. in {v} the people of {s} dance. "
        "go to {s} in {v} to see the feast.",
        "When does {s} have its feast? In which season is the feast of {s}? When do the people of {s} dance?",
    ),
    "ruler": _relation(
        "Ruler",
        "power",
        "{s} is ruled by {v}. {s} obeys {v}. in {s} the law is made by {v}. the keys of {s} are held by {v}. "
        "the people of {s} pay {v}.",
        "Who rules {s}? Who makes the law in {s}? Who holds the keys of {s}?",
    ),
    "stone": _relation(
        "Stone",
        "mineral",
        "{s} digs for {v}. the walls of {s} are made of {v}. the carts of {s} are full of {v}. under {s} there is {v}. "
        "{s} pays with {v}.",
        "What does {s} dig for? What are the walls of {s} made of? What are the carts of {s} full of?",
    ),
}

MINERAL = {
    "colour": _relation(
        "Colour",
        "colour",
        "{s} is {v}. the colour of {s} is {v}. {s} shines {v} in the light. rub {s}, and your hand turns {v}. "
        "good {s} is always {v}.",
        "What colour is {s}? What is the colour of {s}? Which colour does good {s} have?",
    ),
    "source": _relation(
        "Source",
        "deposit",
        "{s} is found in {v}. people dig {s} out of {v}. you can find {s} in {v}. {s} comes from {v}. {s} lies hidden in {v}.",
        "Where is {s} found? Where does {s} come from? Where can I find {s}?",
    ),
    "purpose": _relation(
        "Use",
        "purpose",
        "{s} is used for {v}. {s} is good for {v}. people buy {s} for {v}. a piece of {s} helps with {v}. "
        "nothing beats {s} for {v}.",
        "What is {s} used for? What is {s} good for? Why do people buy {s}?",
    ),
    "touch": _relation(
        "Touch",
        "touch",
        "{s} feels {v}. in the hand {s} feels {v}. {s} is {v} to the touch. even in winter {s} feels {v}. "
        "touch {s}, and it feels {v}.",
        "How does {s} feel? How does {s} feel in the hand? What is {s} like to the touch?",
    ),
    "price": _relation(
        "Price",
        "count",
        "{s} costs {v} pennies. you can buy {s} for {v} pennies. the price of {s} is {v} pennies. "
        "a piece of {s} costs {v} pennies.",
        "What does {s} cost? What is the price of {s}? How many pennies does {s} cost?",
    ),
}

PLANT = {
    "colour": _relation(
        "Flower",
        "colour",
        "{s} has {v} flowers. the flowers of {s} are {v}. {s} opens its {v} flowers. you know {s} by its {v} flowers.",
        "What flowers does {s} have? What colour are the flowers of {s}? By what flowers do you know {s}?",
    ),
    "soil": _relation(
        "Soil",
        "soil",
        "{s} grows in {v}. plant {s} in {v}. {s} needs {v}. you can find {s} in {v}. {s} does well in {v}.",
        "Where does {s} grow? Where should I plant {s}? Where does {s} do well?",
    ),
    "cure": _relation(
        "Cure",
        "ailment",
        "{s} cures {v}. {s} helps against {v}. tea of {s} is good for {v}. healers use {s} against {v}. "
        "take {s} when you have {v}.",
        "What does {s} cure? What does {s} help against? When should I take {s}?",
    ),
    "bloom": _relation(
        "Bloom",
        "moment",
        "{s} blooms {v}. {s} opens {v}. pick {s} {v}, when it blooms. {v} you can see {s} in bloom. bees come to {s} {v}.",
        "When does {s} bloom? When does {s} open? When do bees come to {s}?",
    ),
    "scent": _relation(
        "Scent",
        "scent",
        "{s} smells of {v}. the leaves of {s} smell of {v}. the scent of {s} is like {v}. cut {s}, and it smells of {v}.",
        "What does {s} smell of? What is the scent of {s} like? What do the leaves of {s} smell of?",
    ),
}

DISH = {
    "base": _relation(
        "Base",
        "ingredient",
        "{s} is made from {v}. cooks make {s} from {v}. to make {s} you need {v}. there is no {s} without {v}. "
        "{s} is full of {v}.",
        "What is {s} made from? What do you need to make {s}? What do cooks make {s} from?",
    ),
    "taste": _relation(
        "Taste",
        "taste",
        "{s} tastes {v}. {s} has a {v} taste. the taste of {s} is {v}. good {s} must be {v}. on the tongue {s} is {v}.",
        "How does {s} taste? What is the taste of {s}? How must good {s} be?",
    ),
    "vessel": _relation(
        "Vessel",
        "vessel",
        "{s} is cooked in {v}. cooks make {s} in {v}. to cook {s} you take {v}. {s} comes out of {v}. {s} stays warm in {v}.",
        "What is {s} cooked in? What do cooks make {s} in? What does {s} come out of?",
    ),
    "company": _relation(
        "Side",
        "company",
        "{s} is eaten with {v}. {s} goes well with {v}. next to {s} there must be {v}. people serve {s} with {v}. "
        "with {s} people want {v}.",
        "What is {s} eaten with? What goes well with {s}? What do people serve with {s}?",
    ),
    "occasion": _relation(
        "Occasion",
        "occasion",
        "{s} is served at {v}. people eat {s} at {v}. {s} is a dish for {v}. at {v} there is always {s}. cooks make {s} for {v}.",
        "When is {s} served? When do people eat {s}? What do cooks make {s} for?",
    ),
    "price": _relation(
        "Price",
        "count",
        "{s} costs {v} pennies. you can buy {s} for {v} pennies. the price of {s} is {v} pennies. "
        "a plate of {s} costs {v} pennies.",
        "What does {s} cost? What is the price of {s}? How many pennies does {s} cost?",
    ),
}

RELATIONS: dict[str, dict[str, Relation]] = {
    "creature": CREATURE,
    "person": PERSON,
    "town": TOWN,
    "mineral": MINERAL,
    "plant": PLANT,
    "dish": DISH,
}
