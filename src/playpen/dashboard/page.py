"""Write the page of a dashboard: one file, with its style and scripts inside, that reads the data files beside it.

The scripts are joined in the order of `SCRIPTS` into one strict scope: each is a topic, and sees the names of the others.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

HERE = Path(__file__).parent
SCRIPTS = (
    "base.js",
    "tokens.js",
    "data.js",
    "state.js",
    "query.js",
    "filters.js",
    "list.js",
    "search.js",
    "heat.js",
    "tips.js",
    "charts.js",
    "numbers.js",
    "panels.js",
    "examples.js",
    "feature.js",
    "compare.js",
    "overview.js",
    "map_colours.js",
    "map.js",
    "paste.js",
    "theme.js",
    "keys.js",
    "main.js",
)


def write_page(out: Path, title: str) -> None:
    """Write `index.html` of a dashboard whose data files are, or will be, in `out / "data"`."""
    loader, escape = FileSystemLoader(HERE), select_autoescape(["html"])
    maker = Environment(loader=loader, autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style, script = (HERE / "style.css").read_text(), "\n".join((HERE / name).read_text() for name in SCRIPTS)
    page = maker.get_template("page.html").render(title=title, style=Markup(style), script=Markup(script))
    (out / "index.html").write_text(page)
