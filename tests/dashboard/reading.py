"""Read what a page shows, and what its data files hold."""

import base64
import gzip
import json
from functools import cache
from urllib.parse import parse_qs, urlsplit


def ids(page):
    """Return the ids of the rows in sight, in their order."""
    return [int(text) for text in page.locator("#window .row .id").all_inner_texts()]


def state(page):
    """Return what the address says."""
    return {key: values if key == "filter" else values[0] for key, values in parse_qs(urlsplit(page.url).fragment).items()}


def settle(page):
    """Wait until what was asked for is drawn: sizes are told a frame later, and the map drawn in the frame after."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))")


def rgba(page, x, y):
    """Return the colour of the map at a spot of the window, 0 to 255 each."""
    return page.evaluate(
        """([x, y]) => {
          const map = document.querySelector("canvas"), box = map.getBoundingClientRect(), at = devicePixelRatio;
          const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
          pen.drawImage(map, -Math.round((x - box.left) * at), -Math.round((y - box.top) * at));
          return [...pen.getImageData(0, 0, 1, 1).data];
        }""",
        [x, y],
    )


def column(dashboard, key):
    """Return a column of the list, as the data file holds it."""
    return read(dashboard, "list.js")[key]


@cache
def read(dashboard, name):
    """Return what a packed data file holds."""
    return json.loads(gzip.decompress(base64.b64decode((dashboard / "data" / name).read_text().split('"')[1])))
