"""The list shows, sorts, filters and finds features, and the address tells what it shows."""

import json

import pytest
import synthetic
from playwright.sync_api import expect
from reading import column, ids, read, state

from playpen.dashboard.page import write_page


def shown(page, key):
    """Return the texts of a column of the rows in sight."""
    heads = page.locator("#heads > *").all_inner_texts()
    place = next(i for i, text in enumerate(heads) if text.strip(" ↑↓\xa0") == key)
    return [row.locator("> *").nth(place).inner_text() for row in page.locator("#window .row").all()]


def test_the_list_opens_from_disk_with_every_feature_by_id(page, dashboard):
    assert page.url.startswith("file://")
    assert ids(page)[:20] == list(range(20))
    expect(page.locator("#count")).to_have_text("64 features")
    assert shown(page, "density")[synthetic.DENSE].startswith(f"{100 * column(dashboard, 'density')[synthetic.DENSE]:.1f}")


def test_a_click_on_a_head_sorts_by_it_and_a_second_one_turns_the_order(page, dashboard):
    density = column(dashboard, "density")
    page.get_by_role("button", name="density").first.click()
    down = ids(page)
    assert [density[i] for i in down] == sorted(density, reverse=True)[: len(down)]
    assert state(page)["sort"] == "-density"
    page.get_by_role("button", name="density").first.click()
    assert [density[i] for i in ids(page)] == sorted(density)[: len(down)]
    expect(page.locator("#heads [aria-sort]")).to_have_attribute("aria-sort", "ascending")


def test_features_without_a_value_come_last_either_way(page, dashboard):
    dead = {i for i, flags in enumerate(column(dashboard, "flags")) if flags & 1}
    assert synthetic.DEAD in dead
    for name, direction in (("AUROC", "descending"), ("AUROC", "ascending")):
        page.locator("#heads").get_by_role("button", name=name).click()
        expect(page.locator("#heads [aria-sort]")).to_have_attribute("aria-sort", direction)
        page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight }")
        expect(page.locator('[aria-rowindex="65"]')).to_be_visible()
        assert set(ids(page)[-len(dead) :]) == dead


def test_conditions_filter_by_any_statistic(page, dashboard):
    density, auroc = column(dashboard, "density"), column(dashboard, "auroc")
    for condition in ("density > 1%", "auroc >= 0.5"):
        page.locator("#search").fill(condition)
        page.keyboard.press("Enter")
    wanted = [i for i, (d, a) in enumerate(zip(density, auroc, strict=True)) if d > 0.01 and (a or 0) >= 0.5]
    assert 0 < len(wanted) < 40
    assert ids(page) == wanted
    assert state(page)["filter"] == ["density > 1%", "auroc >= 0.5"]
    page.get_by_role("button", name="Remove the filter density > 1%").click()
    assert state(page)["filter"] == ["auroc >= 0.5"]


def test_the_menu_filters_by_numbers_flags_sources_and_categories(page, dashboard):
    page.get_by_text("+ filter").click()
    page.get_by_label("Statistic").select_option("max")
    page.get_by_label("Value").fill("40")
    page.get_by_role("button", name="add").click()
    most = column(dashboard, "max")
    expect(page.locator("#count")).to_contain_text(f"{sum((m or 0) > 40 for m in most)} of 64")
    page.get_by_text("+ filter").click()
    page.get_by_role("button", name="questions on firms").click()
    source = column(dashboard, "source")
    assert ids(page) == [i for i, m in enumerate(most) if (m or 0) > 40 and source[i] == 2]


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("densty > 1", "there is no statistic 'densty'; known: id, density,"),
        ("density > many", "density is compared with a number, found 'many'"),
        ("source = nowhere", "there is no source 'nowhere'; known: stories,"),
        ("what", "'what' is no condition; write for instance density > 0.1%"),
    ],
)
def test_a_bad_condition_is_told_in_one_line(visit, dashboard, condition, problem):
    found = visit(dashboard).go(f"#filter={condition.replace(' ', '+')}")
    expect(found.locator("#query-problem")).to_contain_text(problem)


def test_a_search_for_an_id_lists_and_opens_it(page):
    page.locator("#search").fill("#7")
    expect(page.locator("#count")).to_have_text("1 of 64 features")
    assert ids(page) == [7]
    page.keyboard.press("Enter")
    expect(page.locator("#detail h2")).to_have_text("#7")


def test_a_search_for_a_token_puts_those_active_on_it_first(page, dashboard):
    tokens, up = column(dashboard, "tokens"), column(dashboard, "up")
    page.locator("#search").fill('"mom"')
    active = [i for i, names in enumerate(tokens) if any(t.strip() == "mom" for t in names)]
    promoting = [i for i, names in enumerate(up) if i not in active and any(t.strip() == "mom" for t in names)]
    assert synthetic.SINGLE in active
    assert promoting
    expect(page.locator("#count")).to_contain_text(f"{len(active + promoting)} of 64")
    assert ids(page) == active + promoting
    expect(page.locator(f"#row-{promoting[0]} .label")).to_contain_text("promotes")


def test_a_search_for_a_text_reads_the_texts_once_and_shows_what_matched(page, dashboard):
    texts = read(dashboard, "search.js")
    wanted = {i for i, text in zip(texts["id"], texts["text"], strict=True) if "best friends" in text}
    assert len(wanted) > 3
    page.locator("#search").fill("Best Friends")
    expect(page.locator("#count")).to_have_text(f"{len(wanted)} of 64 features")
    assert set(ids(page)) == wanted
    expect(page.locator("#window mark").first).to_have_text("best friends")


def test_nothing_found_says_so_and_leads_back(page):
    page.locator("#search").fill("xyzzy")
    expect(page.locator("#count")).to_contain_text("0 of 64")
    page.get_by_role("button", name="clear the search and all filters").click()
    expect(page.locator("#count")).to_have_text("64 features")


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("densty > 0.1%", "there is no statistic 'densty'; known: id, density,"),
        ("#9999", "feature 9999 is not here; ids go from 0 to 63"),
    ],
)
def test_a_search_with_a_slip_says_what_is_wrong_until_it_is_emptied(page, typed, problem):
    page.locator("#search").fill(typed)
    expect(page.locator("#query-problem")).to_contain_text(problem)
    page.locator("#search").fill("")
    expect(page.locator("#query-problem")).to_have_text("")


def test_what_tells_prompts_from_control_is_found_in_two_clicks(page, dashboard):
    assert column(dashboard, "auroc")[synthetic.TELLS_PROMPTS] > 0.9
    page.get_by_role("button", name="tells prompts from control").click()
    page.locator("#window .row").first.click()
    expect(page.locator("#detail h2")).to_have_text(f"#{synthetic.TELLS_PROMPTS}")
    expect(page.locator("#detail .tile", has_text="AUROC").first).to_contain_text("0.9")


@pytest.mark.parametrize(("name", "bit"), [("dead", 1), ("dense", 2), ("single token", 4)])
def test_ready_made_lists_show_the_features_of_a_flag_and_their_number(page, dashboard, name, bit):
    wanted = {i for i, flags in enumerate(column(dashboard, "flags")) if flags & bit}
    made = page.get_by_role("button", name=f"{name}{len(wanted)}")
    made.click()
    assert set(ids(page)) == wanted
    expect(made).to_have_attribute("aria-pressed", "true")


def test_without_sides_and_categories_nothing_speaks_of_them(visit, tmp_path):
    write_page(synthetic.write(tmp_path, features=20, documents=60, sides=False), "Plain")
    found = visit(tmp_path).go("#f=0")
    expect(found.locator(".beside .panel").first).to_contain_text("There is none: the SAE reads attention heads")
    found.get_by_role("tab", name="near misses").click()
    expect(found.get_by_role("tabpanel")).to_have_text("There are none: a gated SAE decides by more than one number.")
    assert "control" not in found.locator("body").inner_text()
    assert "AUROC" not in found.locator("#side").inner_text()


def test_columns_can_be_chosen_and_stay_in_the_address(page):
    page.get_by_text("columns").click()
    page.get_by_role("checkbox", name="kurtosis").check()
    page.get_by_role("checkbox", name="density").uncheck()
    heads = page.locator("#heads").inner_text()
    assert "kurtosis" in heads
    assert "density" not in heads
    assert "kurtosis" in state(page)["cols"]


def test_sixteen_thousand_features_are_few_elements_and_the_last_is_reached(visit, tmp_path):
    write_page(synthetic.write(tmp_path, features=32, documents=60, listed=16384), "Many")
    found = visit(tmp_path).go()
    expect(found.locator("#count")).to_have_text("16,384 features")
    assert found.locator("#window .row").count() < 200
    found.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight }")
    expect(found.locator("#row-16383")).to_be_visible()
    assert found.locator("#window .row").count() < 200
    found.locator("#row-16383").click()
    expect(found.locator("#detail h2")).to_have_text("#16383")
    expect(found.locator(".example").first).to_be_visible()


def test_the_overview_tells_what_length_alone_reaches(page, dashboard):
    meta = json.loads((dashboard / "data/meta.js").read_text().removeprefix("playpen.meta(").removesuffix(");\n"))
    expect(page.locator("#detail .sentence")).to_contain_text(f"alone tells them apart with AUROC {meta['length_auroc']:.2f}")
    for name, parts in (("Sources", meta["sources"]), ("Categories", meta["categories"])):
        rows = page.get_by_role("table", name=name).locator("tbody tr")
        assert [row.locator("td").last.inner_text() for row in rows.all()] == [f"{part['length_auroc']:.3f}" for part in parts]
