"""Small rules of English: articles, lists, capitals, and sentences from wordings."""

import re
from collections.abc import Sequence
from typing import Any


def with_article(noun: str) -> str:
    """Return the noun behind `a` or `an`; no word of the world has a silent h or begins like `unit`."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def listing(items: Sequence[str], word: str = "and") -> str:
    """Return `x, y and z`."""
    return f" {word} ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]


def sentence(text: str) -> str:
    """Return the text with a capital at the start of every sentence and quotation."""
    return re.sub(r'(^"?|[.?!]"? "?|: ")([a-z])', lambda found: found[1] + found[2].upper(), text)


def fill(wording: str, **slots: Any) -> str:
    """Return the wording with its slots filled, as proper sentences."""
    return sentence(wording.format(**slots))


def count_words(text: str) -> int:
    """Return how many words a text has, as split by white space."""
    return len(text.split())
