"""How a figure looks, and how it becomes an SVG that follows the page's colours and a PNG for everything else."""

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from playpen.report_page.layout import Figure

VARIABLES = {
    (INK := "#1d1c1a"): "ink",
    (MUTED := "#69645d"): "muted",
    (LINE := "#dcd7cd"): "line",
    (HAIR := "#ebe7df"): "hair",
    (ACCENT := "#1c6488"): "accent",
    (WARM := "#b9581c"): "warm",
    (GREEN := "#43a58c"): "green",
    (PLUM := "#c56ec0"): "plum",
    (SAND := "#b39c5a"): "sand",
}
"""The page's colours by day; in an SVG they become the page's variables, so that they turn with it at night."""
SERIES = (ACCENT, WARM, GREEN, PLUM, SAND, INK)
"""Colours of what stands side by side. At least 17 apart in CIELAB by day and night, to dichromats too (Machado et al. 2009)."""
MID_ACCENT, MID_MUTED = "#3a86b0", "#9a948b"
"""Of points drawn as pixels, which cannot turn: legible on both grounds."""
WIDTH = 5.4
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": HAIR,
    "grid.linewidth": 0.9,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}


def picture(folder: Path, name: str, paint: Callable[[Any], None], alt: str, caption: str, height: float = 3.2) -> Figure:
    """Let `paint(axes)` draw, write `folder/name.png`, and return the figure for the page."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with rc_context({**STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(WIDTH, height))
        FigureCanvasAgg(canvas)
        paint(canvas.subplots())
        folder.mkdir(parents=True, exist_ok=True)
        canvas.savefig(folder / f"{name}.png", dpi=200, facecolor="white", metadata={"Software": None})
        text = StringIO()
        canvas.savefig(text, format="svg", dpi=200, transparent=True, metadata={"Date": None, "Creator": None})
    return Figure(name, inline_svg(text.getvalue(), name, alt), alt, caption)


def inline_svg(text: str, name: str, alt: str) -> str:
    """Turn matplotlib's SVG document into an element for a page: own ids, the page's fonts and colours, an alt text."""
    from markupsafe import escape

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 var(--sans)", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    head = re.search(r'viewBox="[^"]*"', text)
    assert head is not None
    body = text[text.index(">") + 1 :]
    return f'<svg {head[0]} role="img" aria-label="{escape(alt)}">{body.rstrip()}'


def grid(axes: Any, axis: str = "x") -> None:
    """Draw quiet lines along `x`, `y` or `both`; the other axis then needs no line of its own."""
    axes.grid(axis=axis)
    if axis != "both":
        axes.spines["left" if axis == "x" else "bottom"].set_visible(False)
        axes.tick_params(axis="y" if axis == "x" else "x", length=0)
