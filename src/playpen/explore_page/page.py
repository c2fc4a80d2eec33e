"""Write the page of explore: parts of the feature dashboard, and scripts of its own."""

from pathlib import Path

from playpen.dashboard import page as dashboard

HERE = Path(__file__).parent
SHARED = ("base.js", "tokens.js", "load.js", "tips.js", "charts.js", "parts.js", "theme.js")
"""Scripts of the dashboard that the page is made of; they come first."""
SCRIPTS = ("rows.js", "address_of_rows.js", "controls.js", "scatter.js", "chat.js", "overview.js", "keymap.js", "main.js")
AFTER = {"address_of_rows.js": "address.js", "keymap.js": "keys.js"}
"""Scripts of the dashboard that need one of the page's own before them."""


def write_page(out: Path, title: str) -> None:
    """Write `index.html`; its data files are, or will be, in `out / "data"`."""
    scripts = [dashboard.HERE / name for name in SHARED]
    for name in SCRIPTS:
        scripts += [HERE / name, *([dashboard.HERE / AFTER[name]] if name in AFTER else [])]
    styles = [dashboard.HERE / "style.css", HERE / "explore.css"]
    dashboard.fill_page(out, title, HERE / "explore.html", styles, scripts)
