"""The parser's boxes about wrong flags, told as one line."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from difflib import get_close_matches
from io import StringIO
from typing import TypeVar

from playpen.config import PlaypenError

T = TypeVar("T")
WIDE = 10_000
"""Columns in which no line of a box is broken."""
RULE = re.compile("[─-]{8}")
ENTRY = re.compile(r"^ {4}(\S+)")
"""A flag, or a word that none takes, in a list; its help is further in."""


def parsed(parse: Callable[[list[str]], T], args: list[str], verb: str) -> T:
    """Return what a parser makes of the arguments; raises PlaypenError, one line, in the place of the box that it ends with."""
    told = StringIO()
    try:
        with redirect_stderr(told):
            return parse(args)
    except SystemExit as end:
        if not end.code:
            raise
    finally:
        if not RULE.search(told.getvalue()):  # no box: what was told is told
            print(told.getvalue(), end="", file=sys.stderr)
    box = _printed(parse, args)
    flags = re.findall(r"--[a-z][\w.-]*", _printed(parse, ["--help"]))
    raise PlaypenError(f"{verb}: {condense(box, list(dict.fromkeys(flags)))}; see playpen {verb} --help")


def _printed(parse: Callable[[list[str]], object], args: list[str]) -> str:
    """Return what a parser prints before it ends, its lines as long as they are."""
    told, columns = StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDE)
    try:
        with redirect_stderr(told), redirect_stdout(told), suppress(SystemExit):
            parse(args)
    finally:
        os.environ.pop("COLUMNS")
        os.environ |= {} if columns is None else {"COLUMNS": columns}
    return told.getvalue()


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
            wrong = re.findall(r"(\S+) \(applied to", head) or found or words.get("Unrecognized options", [])
            said.append(_misplaced(wrong[0], flags, box) or _unknown(wrong, known))
        elif not head.startswith(
            ("For full helptext", "Perhaps you meant", "Available subcommands", "Argument helptext", "Arguments similar")
        ):
            said.append(head.rstrip("."))
    return "; ".join(said)


def _misplaced(word: str, flags: list[str], box: str) -> str:
    """Say where a flag belongs that stands on the wrong side of a sub-command; nothing when it is none."""
    if word in flags:
        return f"{word} belongs before the sub-command"
    home = re.search(rf"^. {{5}}{re.escape(word)} .*?^. {{9}}in \S[^\n]* (\S+) --help", box, re.MULTILINE | re.DOTALL)
    return f"{word} belongs after the sub-command {home[1]}" if home and word.startswith("--") else ""


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
