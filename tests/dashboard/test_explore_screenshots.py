"""The pictures of the page of explore: made when PLAYPEN_SCREENSHOTS names the folder that they go to.

    PLAYPEN_SCREENSHOTS=docs PLAYPEN_EXPLORE=runs/mine/explore PLAYPEN_ROW=0123456789abcdef .venv/bin/pytest \
        tests/dashboard/test_explore_screenshots.py

They show the page in PLAYPEN_EXPLORE, or a made-up one; and the row that PLAYPEN_ROW names, or the one predicted highest.
"""

import os
from io import BytesIO
from pathlib import Path

import pytest
from explore_world import write_world
from PIL import Image

from playpen.machine import Machine
from playpen.stage import run_stage
from playpen.stages import explore

FOLDER = os.environ.get("PLAYPEN_SCREENSHOTS")
MOST_BYTES = 400_000
COLOURS = 224
SIZE = {"viewport": {"width": 1400, "height": 860}, "device_scale_factor": 2}

pytestmark = pytest.mark.skipif(not FOLDER, reason="PLAYPEN_SCREENSHOTS names no folder for the pictures")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    if found := os.environ.get("PLAYPEN_EXPLORE"):
        return Path(found).resolve()
    home, out = write_world(tmp_path_factory.mktemp("world")), tmp_path_factory.mktemp("explored")
    names = {name: str(home / name) for name in ("data", "scores", "explanation")}
    selections = {"one": str(home / "first"), "other": str(home / "second")}
    run_stage("explore", explore.Config(**names, selections=selections), out, Machine(device="cpu"))
    return out


@pytest.mark.parametrize(
    ("name", "scheme", "ready"), [("overview", "light", "table"), ("row", "light", ".chat"), ("dark", "dark", ".chat")]
)
def test_the_pictures_of_the_documentation_are_made(visit, shown, name, scheme, ready):
    page = visit(shown, color_scheme=scheme, **SIZE).go()
    if name != "overview":
        page.keyboard.press("j")
        if row := os.environ.get("PLAYPEN_ROW"):
            page.evaluate(f"location.hash = '#row={row}'")
    page.wait_for_selector(ready)
    page.wait_for_timeout(500)
    file = Path(FOLDER or "") / f"explore_{name}.png"
    whole = Image.open(BytesIO(page.screenshot())).convert("RGB")
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    assert Image.open(file).size == (2800, 1720)
    assert 20_000 < file.stat().st_size < MOST_BYTES
