"""The page of explore in a browser: the plot, its filters, a chat as a heat map, two selections side by side."""

import re
from pathlib import Path

import pytest
from explore_world import NASTY, ROWS, SHOWN, WORDS, make_rows, values_of, write_world
from playwright.sync_api import expect
from reading import settle, state

from playpen.dashboard import page as dashboard_page
from playpen.explore_page import page as explore_page
from playpen.machine import Machine
from playpen.stage import run_stage
from playpen.stages import explore


@pytest.fixture(scope="session")
def explored(tmp_path_factory):
    home = write_world(tmp_path_factory.mktemp("world"))
    names = {name: str(home / name) for name in ("data", "scores", "explanation")}
    selections = {"one": str(home / "first"), "other": str(home / "second")}
    out = tmp_path_factory.mktemp("explored")
    run_stage("explore", explore.Config(**names, selections=selections, title="A & <b>B</b>"), out, Machine(device="cpu"))
    return out


@pytest.fixture
def page(visit, explored):
    return visit(explored).go()


def listed(rows, *masks):
    """Return the text of the count when these rows are listed."""
    found = rows["row_id"].astype(bool)
    for mask in masks:
        found &= mask
    laid_out = int((found & rows["shown"]).sum())
    count = f"{ROWS} rows" if found.all() else f"{int(found.sum())} of {ROWS} rows"
    return f"{count} · {laid_out} laid out token by token"


def row(i):
    return f"{i:016x}"


def test_the_page_opens_on_the_two_selections_and_what_parts_kept_from_rejected(page):
    expect(page).to_have_title("A & <b>B</b>")
    expect(page.locator("#count")).to_contain_text(listed(make_rows()))
    parts = page.get_by_role("table", name="What the two selections keep")
    cells = parts.locator("tbody tr").all_inner_texts()
    rows = make_rows()
    one, other = rows["kept"], rows.index % 3 == 0
    counts = [(one & other).sum(), (one & ~other).sum(), (~one & other).sum(), (~one & ~other).sum()]
    assert [line.split("\t")[:2] for line in cells] == [
        [name, str(n)] for name, n in zip(("both", "one alone", "other alone", "neither"), counts, strict=True)
    ]
    features = page.get_by_role("table", name="What parts kept rows from rejected ones")
    assert [line.split("\t")[0] for line in features.locator("tbody tr").all_inner_texts()] == ["#3", "#4", "#5"]
    expect(features).to_contain_text("here")
    link = features.get_by_role("link", name="dashboard").get_attribute("href") or ""
    assert link.endswith("features-01234567/index.html#f=3")


def test_filters_by_source_fault_range_feature_and_part_add_up_and_stand_in_the_address(page):
    rows = make_rows()
    count = page.locator("#count")
    masks = []
    for choose, mask in [
        (lambda: page.locator("#choose-source").select_option("exam"), rows["source"] == "exam"),
        (lambda: page.locator("#choose-fault").select_option("none"), rows["fault"] == "none"),
        (lambda: page.get_by_role("link", name="#3").first.click(), rows.index % 2 == 0),
        (lambda: (page.locator("#choose-low").fill("0.5"), page.keyboard.press("Enter")), rows["log_odds"] >= 0.5),
        (lambda: page.locator("#choose-part").select_option("first"), rows["kept"] & (rows.index % 3 != 0)),
    ]:
        choose()
        masks.append(mask)
        expect(count).to_contain_text(listed(rows, *masks))
    assert state(page) == {
        **{"source": "exam", "fault": "none", "feature": "3", "low": "0.5"},
        **{"first": "one", "second": "other", "part": "first"},
    }
    page.reload()
    page.wait_for_selector("body[data-ready]")
    expect(count).to_contain_text(listed(rows, *masks))
    page.go_back()
    expect(count).to_contain_text(listed(rows, *masks[:-1]))
    page.keyboard.press("c")
    expect(count).to_contain_text(listed(rows))


def spot(page, i):
    """Return where a row stands in the plot, in the window, by the axes that the page draws."""
    rows = make_rows()
    box = page.locator("#plot").bounding_box()
    left, right, top, bottom = 46, 12, 12, 34
    place = []
    for column, size, before, after in (("log_odds", "width", left, right), ("true", "height", bottom, top)):
        low, high = rows[column].min(), rows[column].max()
        room = (high - low) * 0.03
        inside = box[size] - 2 - before - after
        place.append(before + (rows[column][i] - low + room) / (high - low + 2 * room) * inside)
    return box["x"] + 1 + place[0], box["y"] + 1 + box["height"] - 2 - place[1]


def test_a_point_tells_its_row_and_opens_it_when_clicked(page):
    i = int(make_rows()["true"][:SHOWN].idxmax())
    settle(page)
    page.mouse.move(*spot(page, i))
    expect(page.locator("#tip")).to_contain_text(make_rows()["source"][i])
    page.mouse.click(*spot(page, i))
    page.wait_for_url(re.compile(r"[#&]row="))
    assert state(page)["row"] == row(i)
    expect(page.locator(".chat")).to_contain_text("where is it")


def test_a_drag_keeps_a_range_of_predictions(page):
    settle(page)
    box = page.locator("#plot").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 140, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile(r"[#&]high="))
    low, high = (float(state(page)[key]) for key in ("low", "high"))
    assert low < high
    expect(page.locator("#count")).to_contain_text(listed(make_rows(), make_rows()["log_odds"].between(low, high)))


def test_a_chat_is_coloured_by_its_tokens_values_and_by_one_feature_when_it_is_chosen(visit, explored):
    page = visit(explored).go(f"#row={row(6)}")
    heat = "tokens => tokens.map(t => [t.textContent, t.className, t.style.getPropertyValue('--heat')])"
    values = [0, 0, 0, 0, -0.4, 0.75 - 0.4 + 0.13, 0.75 + 0.13]
    shown = page.locator(".chat .t").evaluate_all(heat)
    assert [text for text, _, _ in shown] == [word.replace("\n", "↵") for word in WORDS]
    for value, (_, name, share) in zip(values, shown, strict=True):
        assert ("up" in name.split(), "down" in name.split()) == (value > 0, value < 0)
        assert abs(float(share or 0) - abs(value) / 0.88) < 2e-3
    expect(page.locator(".sentence")).to_contain_text("−1.00 of the baseline and +0.96 of its features")
    assert page.locator(".why").all_inner_texts() == [
        f"{name}: {place} says so of {row(6)}." for name, place in (("one", "first"), ("other", "second"))
    ]
    moved = page.get_by_role("table", name="What moved it")
    assert [line.split("\t")[0] for line in moved.locator("tbody tr").all_inner_texts()] == ["#3", "#4", "#5"]
    moved.get_by_role("button", name="#4").click()
    shown = page.locator(".chat .t").evaluate_all(heat)
    assert [share for _, _, share in shown] == ["", "", "", "", "1.000", "1.000", ""]
    assert state(page)["by"] == "4"
    page.get_by_role("button", name="all features").click()
    expect(page.locator(".chat .up")).to_have_count(2)


def test_a_token_tells_what_fires_on_it_by_pointing_and_by_the_arrows(visit, explored):
    page = visit(explored).go(f"#row={row(6)}")
    page.locator(".chat .t").nth(5).hover()
    expect(page.locator("#tip")).to_contain_text("+0.480 log-odds")
    assert page.locator("#tip dt").all_inner_texts() == ["#3", "#4", "#5"]
    page.locator(".chat").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tip")).to_contain_text("−0.400 log-odds")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#tip")).to_contain_text("nothing fires here")


def test_a_row_that_is_not_laid_out_has_its_features_all_the_same(visit, explored):
    page = visit(explored).go(f"#row={row(100)}")
    expect(page.locator("#detail")).to_contain_text("Not laid out token by token")
    moved = page.get_by_role("table", name="What moved it").locator("tbody tr").all_inner_texts()
    assert [line.split("\t")[3] for line in moved] == ["+1.500", f"+{values_of(100)[5]:.3f}"]


def test_keys_go_through_the_listed_rows_choose_a_part_and_swap_the_selections(page):
    rows = make_rows()
    order = rows[rows["shown"] & (rows["source"] == "story")].sort_values("log_odds", ascending=False)["row_id"].tolist()
    page.locator("#choose-source").select_option("story")
    page.locator("#detail").focus()
    for key, place in [("j", 0), ("j", 1), ("j", 2), ("k", 1)]:
        page.keyboard.press(key)
        assert state(page)["row"] == order[place]
    page.keyboard.press("o")
    assert "row" not in state(page)
    page.keyboard.press("2")
    assert state(page)["part"] == "first"
    page.keyboard.press("x")
    assert (state(page)["first"], state(page)["second"]) == ("other", "one")
    expect(page.locator("h3").first).to_contain_text("other against one")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_the_tokens_of_a_chat_stay_text(visit, explored):
    page = visit(explored).go(f"#row={row(0)}")
    expect(page.locator(".chat .t").last).to_have_text(NASTY)
    assert page.locator("#detail b").count() == 0


def test_the_plot_is_coloured_by_source_and_fades_what_the_filters_leave_out(visit, explored):
    from reading import rgba

    page = visit(explored).go("#source=story")
    settle(page)
    story, exam = (rgba(page, *spot(page, i)) for i in (118 - 118 % 4, 119))
    assert story[3] > 150
    assert exam[3] < 60


@pytest.mark.parametrize("width", [1440, 1000, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window_in_either_colour(visit, explored, width, scheme):
    page = visit(explored, viewport={"width": width, "height": 800}, color_scheme=scheme).go()
    for address in ("", f"#row={row(6)}", f"#row={row(100)}", "#part=first"):
        page.evaluate(f"location.hash = '{address}'")
        settle(page)
        expect(page.locator(".reading")).to_have_count(0)
        assert "undefined" not in page.locator("body").inner_text()
        assert "[object" not in page.locator("body").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address


def test_the_page_is_made_of_the_dashboards_scripts_and_its_own_and_names_no_address(explored):
    import re

    text = (explored / "index.html").read_text()
    assert {file.name for file in explore_page.HERE.glob("*.js")} == set(explore_page.SCRIPTS)
    shared = {*explore_page.SHARED, *explore_page.AFTER.values()}
    for file in [dashboard_page.HERE / name for name in shared] + [explore_page.HERE / name for name in explore_page.SCRIPTS]:
        assert file.read_text().strip() in text
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", file.read_text()), file
    assert set(re.findall(r"https?://[\w./-]+", text)) == {"http://www.w3.org/2000/svg"}


def test_a_lost_data_file_is_told_in_the_page(visit, explored, tmp_path):
    import shutil

    copy = Path(shutil.copytree(explored, tmp_path / "copy"))
    (copy / "data" / "shard-00000.js").unlink()
    window = visit(copy)
    page = window.go(f"#row={row(6)}")
    expect(page.get_by_role("alert").last).to_contain_text("data/shard-00000.js could not be read")
    assert all("shard-00000.js" in problem or "ERR_FILE_NOT_FOUND" in problem for problem in window.problems)
    window.problems.clear()
