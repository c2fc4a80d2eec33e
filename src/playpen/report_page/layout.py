"""What a page is made of, and how it becomes HTML, Markdown and plain text. Nothing here knows what the numbers mean."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

HERE = Path(__file__).parent
MINUS = "\u2212"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    sort: float | None = None
    """Number to sort by; a cell with one is set to the right."""
    bar: float | None = None
    """Length of a bar behind the number, 0 to 1."""
    tone: str = ""
    """`good`, `bad` or `open`: how a difference stands to its interval."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under their heads."""

    name: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str
    """What to see, and the units."""
    strong: str = ""
    """Text of the first cell of the row to stress."""
    folded: bool = False
    """Shown only when asked for."""

    @property
    def block(self) -> str:
        """How the template lays it out."""
        return "folded" if self.folded else "table"

    def numeric(self, place: int) -> bool:
        """Say whether a column holds numbers, which are set to the right."""
        return any(row[place].sort is not None for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A picture, drawn once: as SVG for the page and as a file for everything else."""

    name: str
    svg: str
    alt: str
    caption: str
    block: str = "figure"


@dataclass(frozen=True)
class Chat:
    """One example as it was seen in training."""

    turns: tuple[tuple[str, str], ...]
    """(role, content) of each turn."""
    facts: tuple[tuple[str, str], ...]
    """(what, value) beside it: rank, score, tokens, source..."""
    reason: str
    opening: str


@dataclass(frozen=True)
class Chats:
    """Two columns of examples."""

    columns: tuple[tuple[str, tuple[Chat, ...]], ...]
    note: str
    block: str = "chats"


@dataclass(frozen=True)
class Lines:
    """Lines to copy, such as commands."""

    lines: tuple[str, ...]
    note: str
    block: str = "lines"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    lead: str
    blocks: tuple[Table | Figure | Chats | Lines, ...]

    @property
    def slug(self) -> str:
        """The anchor of the heading."""
        return "-".join(self.title.lower().split())

    @property
    def groups(self) -> list[tuple[str, list[Table | Figure | Chats | Lines]]]:
        """Its blocks, with figures that follow each other put side by side."""
        found: list[tuple[str, list[Table | Figure | Chats | Lines]]] = []
        for block in self.blocks:
            if block.block == "figure" and found and found[-1][0] == "figure":
                found[-1][1].append(block)
            else:
                found.append((block.block, [block]))
        return found


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    question: str
    answer: str
    verdict: str
    """Two or three words above the answer; none when empty."""
    tone: str
    others: tuple[tuple[str, str, str], ...]
    """(arm, sentence, tone) of the arms that the answer does not name."""
    sections: tuple[Section, ...] = field(default=())
    verb: str = "report"
    """The stage that made it."""


def render_html(page: Page) -> str:
    """Return one HTML page that loads nothing; every text in it is escaped."""
    loader, escape = FileSystemLoader(HERE), select_autoescape(["html"])
    maker = Environment(loader=loader, autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, script = ((HERE / name).read_text() for name in ("style.css", "sort.js"))
    return maker.get_template("template.html").render(page=page, style=Markup(style), script=Markup(script), Markup=Markup)


def render_markdown(page: Page) -> str:
    """Return the answer and the tables in Markdown; figures as links to `figures/`, chats left out."""
    parts = [f"# {page.title}", f"**{page.question}**", page.answer, *(f"- {text}" for _, text, _ in page.others)]
    for section in page.sections:
        parts += [f"## {section.title}", *([section.lead] if section.lead else [])]
        for block in section.blocks:
            parts += _markdown_block(block)
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Table | Figure | Chats | Lines) -> list[str]:
    if isinstance(block, Figure):
        return [f"![{block.alt}](figures/{block.name}.png)", f"*{block.caption}*"]
    if isinstance(block, Lines):
        return ["```\n" + "\n".join(block.lines) + "\n```"]
    if isinstance(block, Table):
        sides = ["---:" if block.numeric(place) else ":---" for place in range(len(block.heads))]
        rows = [block.heads, sides, *([cell.text.replace("|", "\\|") for cell in row] for row in block.rows)]
        return ["\n".join("| " + " | ".join(row) + " |" for row in rows), f"*{block.note}*"]
    return []


def render_text(table: Table, gap: int = 3) -> str:
    """Return a table in plain, aligned text."""
    rows = [list(table.heads), *([cell.text for cell in row] for row in table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.heads))]
    lines = []
    for row in rows:
        cells = [text.rjust(widths[at]) if table.numeric(at) else text.ljust(widths[at]) for at, text in enumerate(row)]
        lines.append((" " * gap).join(cells).rstrip())
    return "\n".join(lines)


def wrap(text: str, width: int = 100) -> str:
    """Return the text in lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width))


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Return a number with a real minus sign and thin thousands; a dash for none."""
    if value is None or not isfinite(value):
        return "\u2013"
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    return ("0." + "0" * digits if digits else "0") if float(text.replace(",", "")) == 0 else text.replace("-", MINUS)


def short(value: float) -> str:
    """Return a number of unknown size with three digits that count."""
    return f"{value:.3g}".replace("-", MINUS)


def span(low: float, high: float, digits: int = 3, sign: bool = True) -> str:
    """Return `low to high`."""
    return f"{number(low, digits, sign)} to {number(high, digits, sign)}"


def probability(value: float | None) -> str:
    """Return a p value with as many digits as it deserves."""
    if value is None:
        return "\u2013"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def num(value: float | None, digits: int = 3, sign: bool = False, bar: float | None = None, tone: str = "") -> Cell:
    """Return a cell of a number."""
    return Cell(number(value, digits, sign), value if value is not None and isfinite(value) else None, bar, tone)


def count(value: float | None) -> Cell:
    """Return a cell of a whole number."""
    return num(value, 0)


def listing(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
