"""Write the page of a dashboard: one file, with its style and scripts inside, that reads the data files beside it.

The scripts are joined in the order of `SCRIPTS` into one strict scope: each is a topic, and sees the names of the others.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

HERE = Path(__file__).parent
SCRIPTS = (
    "base.js",
    "tokens.js",
    "load.js",
    "data.js",
    "state.js",
    "address.js",
    "query.js",
    "filters.js",
    "list.js",
    "search.js",
    "heat.js",
    "tips.js",
    "charts.js",
    "numbers.js",
    "parts.js",
    "panels.js",
    "examples.js",
    "feature.js",
    "compare.js",
    "overview.js",
    "map_colours.js",
    "map.js",
    "paste.js",
    "theme.js",
    "keymap.js",
    "keys.js",
    "main.js",
)


def write_page(out: Path, title: str) -> None:
    """Write `index.html` of a dashboard whose data files are, or will be, in `out / "data"`."""
    fill_page(out, title, HERE / "page.html", [HERE / "style.css"], [HERE / name for name in SCRIPTS])


def fill_page(out: Path, title: str, template: Path, styles: Sequence[Path], scripts: Sequence[Path]) -> None:
    """Write `index.html` from a template, which may extend `page.html`, with styles and scripts inside."""
    loader, escape = FileSystemLoader([template.parent, HERE]), select_autoescape(["html"])
    maker = Environment(loader=loader, autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, script = ("\n".join(file.read_text() for file in files) for files in (styles, scripts))
    page = maker.get_template(template.name).render(title=title, style=Markup(style), script=Markup(script))
    (out / "index.html").write_text(page)
