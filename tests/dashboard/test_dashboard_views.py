"""Addresses, keys, comparison, map and colours."""

import pytest
from playwright.sync_api import expect
from reading import column, ids, read, rgba, settle, state


def test_an_address_brings_back_everything(visit, dashboard):
    address = "#f=5&sort=-density&filter=!dead&filter=density+%3E+0.5%25&q=the&cols=max%2Cauroc&tab=random&whole=1&by=effect"
    page = visit(dashboard).go(address)
    expect(page.locator("#detail h2")).to_have_text("#5")
    expect(page.get_by_role("tab", selected=True)).to_have_text("random")
    assert page.locator("#search").input_value() == "the"
    assert page.locator(".condition").all_inner_texts() == ["!dead×", "density > 0.5%×"]
    expect(page.locator("#heads [aria-sort=descending]")).to_have_text("density")
    expect(page.locator(".example.whole").first).to_be_visible()
    before = state(page)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert state(page) == before
    expect(page.locator("#detail h2")).to_have_text("#5")


def test_the_back_button_undoes_a_choice_and_steps_count_as_one(page, dashboard):
    dense = {i for i, flags in enumerate(column(dashboard, "flags")) if flags & 2}
    page.get_by_role("button", name="dense").first.click()
    page.locator("#window .row").first.click()
    expect(page.locator("#detail h2")).to_have_text("#2")
    page.go_back()
    expect(page.locator("#detail h2")).to_have_text("Questions and stories")
    assert set(ids(page)) == dense
    page.go_back()
    expect(page.locator("#count")).to_have_text("64 features")
    page.locator("#window .row").nth(3).click()
    for _ in range(4):
        page.keyboard.press("j")
    expect(page.locator("#detail h2")).to_have_text("#7")
    page.go_back()
    expect(page.locator("#detail h2")).to_have_text("#3")


def test_j_and_k_and_the_arrows_go_through_the_list_as_it_is_sorted(visit, dashboard):
    page = visit(dashboard, viewport={"width": 1440, "height": 400}).go("#sort=-max")
    order = ids(page)
    assert len(order) < 25
    for key, place in [("j", 0), ("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("k", 0)]:
        page.keyboard.press(key)
        expect(page.locator("#detail h2")).to_have_text(f"#{order[place]}")
    expect(page.locator(".row[data-chosen]")).to_have_attribute("aria-selected", "true")
    for _ in range(9):
        page.keyboard.press("j")
    expect(page.locator(".row[data-chosen]")).to_be_in_viewport()


def test_keys_that_are_typed_into_the_search_do_nothing_else(page):
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("jmcd?")
    assert page.locator("#search").input_value() == "jmcd?"
    assert "view" not in state(page)
    page.keyboard.press("Escape")
    expect(page.locator("#search")).not_to_be_focused()


def test_help_opens_and_closes(page):
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_two_features_stand_side_by_side_and_the_list_chooses_the_second(visit, dashboard):
    page = visit(dashboard).go("#f=5")
    page.keyboard.press("c")
    expect(page.locator(".empty")).to_contain_text("Pick the other one")
    page.locator("#row-8").click()
    assert page.locator(".half h2").all_inner_texts() == ["A#5", "B#8"]
    expect(page.locator("#row-8")).to_have_attribute("data-chosen", "B")
    page.keyboard.press("j")
    assert page.locator(".half h2").all_inner_texts() == ["A#5", "B#9"]
    page.keyboard.press("x")
    assert page.locator(".half h2").all_inner_texts() == ["A#9", "B#5"]
    page.keyboard.press("c")
    expect(page.locator("#detail h2")).to_have_text("#9")


def test_two_features_share_the_scales_of_their_pictures(visit, dashboard):
    maxima = [(most, i) for i, most in enumerate(column(dashboard, "max")) if most]
    (least, a), (most, b) = min(maxima), max(maxima)
    assert most > 1.5 * least
    page = visit(dashboard).go(f"#view=compare&f={a}&b={b}")
    charts = page.get_by_role("img", name="Histogram of strengths")
    expect(charts).to_have_count(2)
    marks = [
        [(m.text_content(), m.get_attribute("x")) for m in c.locator("text[text-anchor=middle]").all()] for c in charts.all()
    ]
    assert marks[0] == marks[1] != []


def test_the_comparison_tells_the_cosine_where_it_is_listed(visit, dashboard):
    first = read(dashboard, "shard-00000.js")["features"][5]
    other, cosine = first["neighbours"][0]
    page = visit(dashboard).go(f"#view=compare&f=5&b={other}")
    expect(page.locator("#between")).to_contain_text(f"cosine of their decoder directions is {cosine:.2f}")
    last = [i for i in range(64) if i not in dict(first["neighbours"]) and i != 5]
    others = {i for i in range(64) if 5 in dict(read(dashboard, f"shard-{i // 32:05}.js")["features"][i % 32]["neighbours"])}
    page.evaluate(f"location.hash = '#view=compare&f=5&b={next(i for i in last if i not in others)}'")
    expect(page.locator("#between")).to_contain_text("not among each other's nearest")


def spot(page, dashboard, ident):
    """Return where a feature stands on the map, in the window."""
    box = page.locator("canvas").bounding_box()
    side = min(box["width"], box["height"]) * 0.94
    place = [column(dashboard, key)[ident] for key in "xy"]
    return [box[p] + box[s] / 2 + (v - 0.5) * side for p, s, v in zip("xy", ("width", "height"), place, strict=True)]


def test_the_map_names_what_is_pointed_at_and_opens_what_is_clicked(page, dashboard):
    page.keyboard.press("m")
    page.wait_for_selector("canvas")
    page.mouse.move(*spot(page, dashboard, 12))
    expect(page.locator("#tip")).to_contain_text("#12")
    page.mouse.click(*spot(page, dashboard, 12))
    expect(page.locator("#detail h2")).to_have_text("#12")
    page.go_back()
    expect(page.locator("canvas")).to_be_visible()


def test_the_map_is_coloured_by_the_chosen_statistic_and_fades_what_the_list_leaves_out(visit, dashboard):
    page = visit(dashboard).go("#view=map&colour=log_odds")
    odds = [(value, i) for i, value in enumerate(column(dashboard, "log_odds")) if value is not None]
    (_, low), (_, high) = min(odds), max(odds)
    settle(page)
    blue, red = (rgba(page, *spot(page, dashboard, i)) for i in (low, high))
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    page.evaluate("location.hash = '#view=map&colour=log_odds&filter=log_odds+%3E+0'")
    settle(page)
    faint, strong = (rgba(page, *spot(page, dashboard, i))[3] for i in (low, high))
    assert 0 < faint < 0.5 * strong
    page.get_by_label("Colour").select_option("flags")
    expect(page.locator(".legend")).to_contain_text("single")
    assert state(page)["colour"] == "flags"


def test_the_map_zooms_at_the_pointer_and_moves_with_a_drag(page, dashboard):
    x = column(dashboard, "x")
    ident = x.index(min(x))
    page.keyboard.press("m")
    settle(page)
    at = spot(page, dashboard, ident)
    page.mouse.move(*at)
    page.mouse.wheel(0, -400)
    settle(page)
    page.mouse.move(at[0] + 1, at[1])
    expect(page.locator("#tip")).to_contain_text(f"#{ident}")
    page.mouse.down()
    page.mouse.move(at[0] + 60, at[1] + 40, steps=4)
    page.mouse.up()
    expect(page.locator("canvas")).to_be_visible()  # a drag opens nothing
    page.mouse.move(at[0] + 61, at[1] + 40)
    expect(page.locator("#tip")).to_contain_text(f"#{ident}")
    page.mouse.move(*at)
    expect(page.locator("#tip:not([hidden])", has_text=f"#{ident} ")).to_have_count(0)


def test_dark_and_light_follow_the_system_until_one_is_chosen_and_then_stay(visit, dashboard):
    paper = "getComputedStyle(document.body).backgroundColor"
    window = visit(dashboard, color_scheme="dark")
    page = window.go()
    dark = page.evaluate(paper)
    page.keyboard.press("d")
    light = page.evaluate(paper)
    assert dark == "rgb(22, 23, 24)"
    assert light == "rgb(251, 250, 247)"
    assert window.go().evaluate(paper) == light


@pytest.mark.parametrize("width", [1024, 400])
def test_nothing_is_wider_than_the_window(visit, dashboard, width):
    page = visit(dashboard, viewport={"width": width, "height": 800}).go()
    for address in ("", "#f=0", "#f=0&whole=1&tab=quantiles", "#view=compare&f=0&b=5", "#view=map", "#view=paste"):
        page.evaluate(f"location.hash = '{address}'")
        settle(page)
        expect(page.locator(".reading")).to_have_count(0)
        assert "[object" not in page.locator("#detail").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert page.locator("#detail").evaluate("pane => pane.scrollWidth <= pane.clientWidth"), address


def test_on_a_narrow_window_the_list_leads_to_a_feature_and_back(visit, dashboard):
    page = visit(dashboard, viewport={"width": 400, "height": 800}).go()
    expect(page.locator("#detail")).to_be_hidden()
    page.locator("#row-4").click()
    expect(page.locator("#side")).to_be_hidden()
    expect(page.locator(".example").first).to_be_visible()
    page.get_by_role("link", name="← list").click()
    expect(page.locator("#side")).to_be_visible()


def test_from_disk_the_text_view_says_how_to_start_the_server(visit, dashboard):
    page = visit(dashboard).go("#view=paste")
    expect(page.locator("#detail pre")).to_have_text("playpen serve PATH")
    expect(page.locator("textarea")).to_have_count(0)
