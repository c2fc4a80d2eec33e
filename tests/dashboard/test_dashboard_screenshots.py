"""The pictures of the documentation: made when PLAYPEN_SCREENSHOTS names the folder that they go to.

    PLAYPEN_SCREENSHOTS=docs PLAYPEN_DASHBOARD=runs/mine/features PLAYPEN_FEATURES=17,402 .venv/bin/pytest \
        tests/dashboard/test_dashboard_screenshots.py

They show the dashboard in PLAYPEN_DASHBOARD, or a made-up one; and the two features that PLAYPEN_FEATURES names, or the
one that tells a category best with its nearest neighbour.
"""

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

FOLDER = os.environ.get("PLAYPEN_SCREENSHOTS")
MOST_BYTES = 350_000
COLOURS = 96
SIZE = {"viewport": {"width": 1400, "height": 860}, "device_scale_factor": 2}
PROMPTS, CATEGORY = "sort=-auroc&filter=!dead", "sort=-category_auroc&filter=!dead"

pytestmark = pytest.mark.skipif(not FOLDER, reason="PLAYPEN_SCREENSHOTS names no folder for the pictures")


@pytest.fixture(scope="module")
def shown(dashboard):
    found = os.environ.get("PLAYPEN_DASHBOARD")
    return Path(found).resolve() if found else dashboard


@pytest.fixture
def pair(visit, shown):
    """The two features to show."""
    if named := os.environ.get("PLAYPEN_FEATURES"):
        return named.split(",")
    page = visit(shown).go(f"#{CATEGORY}")
    page.keyboard.press("j")
    page.wait_for_selector(".relatives")
    return [page.locator(f"{place} .id").first.inner_text().strip("#") for place in (".row[data-chosen]", ".relatives")]


@pytest.mark.parametrize(
    ("name", "scheme", "state", "ready"),
    [
        ("list", "light", f"#{PROMPTS}", ".chart"),
        ("feature", "light", f"#{CATEGORY}&f={{a}}", ".example"),
        ("compare", "light", f"#{CATEGORY}&view=compare&f={{a}}&b={{b}}", ".half .example"),
        ("dark", "dark", f"#{CATEGORY}&f={{a}}&tab=quantiles", ".group"),
        ("map", "light", f"#{PROMPTS}&view=map&f={{a}}", "canvas"),
    ],
)
def test_the_pictures_of_the_documentation_are_made(visit, shown, pair, name, scheme, state, ready):
    page = visit(shown, color_scheme=scheme, **SIZE).go(state.format(a=pair[0], b=pair[1]))
    page.wait_for_selector(ready)
    page.wait_for_timeout(500)
    file = Path(FOLDER or "") / f"dashboard_{name}.png"
    whole = Image.open(BytesIO(page.screenshot())).convert("RGB")
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    assert Image.open(file).size == (2800, 1720)
    assert 20_000 < file.stat().st_size < MOST_BYTES
