"""The parser's boxes about wrong flags, told as one line."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from io import StringIO

from playpen.config import PlaypenError

RULE = re.compile("[─-]{8}")
ENTRY = re.compile(r"^ {4}(\S+)")
"""A flag, or a word that none takes, in a list; its help is further in."""


@contextmanager
def in_one_line(verb: str, show_help: Callable[[], object]) -> Iterator[None]:
    """Turn the box that the parser ends with into a PlaypenError of one line; `show_help` prints the flags that there are."""
    told = StringIO()
    try:
        with redirect_stderr(told):
            yield
    except SystemExit as end:
        if not end.code:
            raise
        raise PlaypenError(f"{verb}: {condense(told.getvalue(), flags_in(show_help))}; see playpen {verb} --help") from None


def flags_in(show_help: Callable[[], object]) -> list[str]:
    """Return the flags that a help text names."""
    told = StringIO()
    try:
        with redirect_stdout(told):
            show_help()
    except SystemExit:
        pass
    return list(dict.fromkeys(re.findall(r"--[a-z][\w.-]*", told.getvalue())))


def condense(box: str, flags: list[str]) -> str:
    """Return what a box says: lists of flags without their help, and for a word that no flag takes the nearest that there is."""
    parts = list(_parts(box))
    heads = [" ".join(line.strip() for line in part if not line.startswith("    ")) for part in parts]
    listed = [[match[1] for line in part if (match := ENTRY.match(line))] for part in parts]
    words = {head.partition(": ")[0]: re.split(r",\s*", head.partition(": ")[2]) for head in heads}
    known = [*flags, *words.get("Available subcommands", []), *(flag for found in listed for flag in found)]
    said = []
    for head, found in zip(heads, listed, strict=True):
        if head.startswith("Missing from"):
            said.append(f"missing {', '.join(found)}")
        elif head.startswith("Unrecognized"):
            said.append(
                _unknown(re.findall(r"(\S+) \(applied to", head) or found or words.get("Unrecognized options", []), known)
            )
        elif not head.startswith(("For full helptext", "Perhaps you meant", "Available subcommands", "Argument helptext")):
            said.append(head.rstrip("."))
    return "; ".join(said)


def _parts(box: str) -> Iterator[list[str]]:
    """Yield the lines between two rules of a box, without its title and its frame, which a stream of no Unicode goes without."""
    part: list[str] = []
    for line in [*box.splitlines()[1:], "─" * 8]:
        if RULE.search(line):
            if any(part):
                yield part
            part = []
        else:
            part.append(line[2:].rstrip(" │"))


def _unknown(words: list[str], known: list[str]) -> str:
    near = [
        match
        for word in words
        for match in get_close_matches(word, [flag for flag in known if flag not in words], n=1, cutoff=0.7)
    ]
    hint = f", did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    return f"nothing takes '{' '.join(words)}'{hint}"
