"""A browser without a window, and pages of made-up dashboards opened in it from disk."""

import json
import re
import shutil

import pytest
import synthetic

from playpen.dashboard.page import write_page

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 60_000
"""Milliseconds to wait for what should come at once: a machine may be busy with other things."""


@pytest.fixture(scope="module")  # while it is open, playwright's event loop would be in the way of other tests
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here: install the system's package `chromium`, or Google Chrome")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """A window of the browser that writes down every complaint and every request that leaves the disk."""

    folder = None

    def __init__(self, browser, **options):
        self.problems = []
        options = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self._note)
        self.page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _note(self, request):
        if not re.match(r"(file|data|blob):", request.url) and not request.url.startswith(str(self.folder)):
            self.problems.append(f"request: {request.url}")

    def go(self, state=""):
        """Open the page with a state in its address, and wait until it is there."""
        self.page.goto("about:blank")
        self.page.mouse.move(0, 0)
        where = self.folder if isinstance(self.folder, str) else (self.folder / "index.html").as_uri()
        self.page.goto(where + state)
        self.page.wait_for_selector("body[data-ready]")
        return self.page


@pytest.fixture(scope="module")
def windows(browser):
    """The windows opened so far, by their options: to open one anew takes longer than most tests."""
    made = {}
    yield made
    for window in made.values():
        window.context.close()


@pytest.fixture
def visit(browser, windows):
    """Open windows on dashboards; after the test none of them may have complained or asked the network for anything."""
    used = []

    def make(folder, **options):
        key = json.dumps(options, sort_keys=True)
        window = windows.setdefault(key, None) or Visit(browser, **options)
        windows[key], window.folder = window, folder
        used.append(window)
        return window

    yield make
    problems = [problem for window in used for problem in window.problems]
    for window in used:
        window.page.evaluate("localStorage.clear()")
        window.problems.clear()
    assert not problems


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory):
    """64 features over a corpus with two sides and three categories."""
    out = synthetic.write(tmp_path_factory.mktemp("dashboard"), features=64, documents=200)
    write_page(out, "Questions and stories")
    return out


@pytest.fixture
def page(visit, dashboard):
    """The page of `dashboard`, opened without a state."""
    return visit(dashboard).go()
