"""A feature's view shows what its data file holds, coloured by strength, and nothing in the data is taken for more than text."""

import re
import shutil
from itertools import pairwise

import pytest
import synthetic
from playwright.sync_api import expect
from reading import ids, read, state

from playpen.dashboard.page import write_page

HOSTILE = (
    " </script><img src=x onerror=alert(1)>",
    " \u202eevil\u202c",
    " \u05e9\u05dc\u05d5\u05dd",
    " \U0001f9d1\u200d\U0001f680",
    " a\nb\r\n\tc",
    " \x00\x1b[31m",
    " {{7*7}}${1}",
    "",
)


def feature_of(dashboard, ident):
    shard = read(dashboard, f"shard-{ident // synthetic.SHARD:05}.js")
    return shard["features"][ident % synthetic.SHARD], shard["strings"]


def contrast(one, other):
    """Return the WCAG contrast of two colours of sRGB, 0 to 255."""

    def light(colour):
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


PAINT = """element => {
  const canvas = new OffscreenCanvas(1, 1), pen = canvas.getContext("2d", {willReadFrequently: true});
  const over = [];
  for (let node = element; node; node = node.parentElement) over.unshift(getComputedStyle(node).backgroundColor);
  for (const fill of over) { pen.fillStyle = fill; pen.fillRect(0, 0, 1, 1); }
  const back = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  pen.fillStyle = getComputedStyle(element).color; pen.fillRect(0, 0, 1, 1);
  return {back, ink: [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)};
}"""


def test_the_strongest_examples_are_those_of_the_data_with_their_peaks_marked(visit, dashboard):
    feature, strings = feature_of(dashboard, 0)
    page = visit(dashboard).go("#f=0")
    lines = page.locator(".example")
    expect(lines).to_have_count(len(feature["top"]))
    for line, example in zip(lines.all()[:5], feature["top"], strict=False):
        assert line.locator(".peak").inner_text().strip() == strings[example["t"][example["at"]]].strip()
        assert float(line.locator(".value").inner_text()) == pytest.approx(example["v"], rel=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_stronger_tokens_are_further_from_the_paper_and_all_can_be_read(visit, dashboard, scheme):
    feature, _ = feature_of(dashboard, synthetic.DENSE)
    page = visit(dashboard, color_scheme=scheme).go(f"#f={synthetic.DENSE}&tab=intervals")
    page.wait_for_selector(".example")
    examples = [example for group in feature["intervals"] for example in group["examples"]]
    paints = page.locator(".example .peak").evaluate_all(f"all => all.map({PAINT})")
    found = sorted((e["v"], paint["back"], paint["ink"]) for e, paint in zip(examples, paints, strict=True))
    paper = page.locator("body").evaluate(PAINT)["back"]
    distance = [sum((a - b) ** 2 for a, b in zip(back, paper, strict=True)) for _, back, _ in found]
    assert all(
        later >= 0.98 * earlier for earlier, later in pairwise(distance)
    )  # whole numbers of colour may turn near ones round
    assert distance[-1] > 4 * distance[0] > 0
    assert min(contrast(back, ink) for _, back, ink in found) >= 4.5


def test_pointing_at_a_token_tells_its_strength_and_effect(visit, dashboard):
    feature, strings = feature_of(dashboard, 0)
    example = feature["top"][0]
    page = visit(dashboard).go("#f=0")
    page.locator(".example .peak").first.hover()
    tip = page.locator("#tip")
    expect(tip).to_be_visible()
    text = tip.inner_text()
    assert f"{example['v']:.1f}" in text
    assert f"{abs(example['e'][example['at']]):.3f}" in text
    assert strings[example["t"][example["at"] + 1]].strip() in text
    assert example["d"] in text
    page.locator("#detail h2").hover()
    expect(tip).to_be_hidden()


def test_the_arrows_read_a_focused_example_token_by_token(visit, dashboard):
    feature, strings = feature_of(dashboard, 0)
    place = next(i for i, example in enumerate(feature["top"]) if 0 < example["at"] < len(example["t"]) - 1)
    example = feature["top"][place]
    page = visit(dashboard).go("#f=0")
    page.locator(".example").nth(place).focus()
    for key, at in [("ArrowRight", 0), ("ArrowLeft", -1), ("ArrowRight", 0), ("ArrowRight", 1)]:
        page.keyboard.press(key)
        expect(page.locator("#tip .tip-head")).to_contain_text(strings[example["t"][example["at"] + at]].strip())
    assert state(page)["f"] == "0"


def test_every_kind_of_examples_has_its_tab_and_groups_tell_their_bounds(visit, dashboard):
    feature, _ = feature_of(dashboard, 0)
    page = visit(dashboard).go("#f=0")
    page.get_by_role("tab", name="tenths").click()
    expect(page.locator(".group")).to_have_count(10)
    expect(page.locator(".group h4").first).to_contain_text(f"{feature['quantiles'][0]['count']} tokens")
    assert state(page)["tab"] == "quantiles"
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="equal widths")).to_be_focused()
    page.keyboard.press("5")
    expect(page.locator(".example.near")).to_have_count(len(feature["near"]))
    page.locator(".example.near .peak").first.hover()
    expect(page.locator("#tip")).to_contain_text("stayed off")


def test_whole_windows_show_every_token_with_its_place_source_and_row(visit, dashboard):
    feature, strings = feature_of(dashboard, 0)
    example = feature["top"][0]
    page = visit(dashboard).go("#f=0&whole=1")
    line = page.locator(".example").first
    expect(line.locator(".t")).to_have_count(len(example["t"]))
    shown = "".join(line.locator(".t").all_text_contents())
    assert shown == "".join(strings[t] for t in example["t"]).replace("\n", "↵")
    facts = line.locator(".facts").inner_text()
    assert example["d"] in facts
    assert f"tokens {example['p'] + 1} to {example['p'] + len(example['t'])} of {example['n']}" in facts


def test_colouring_by_effect_shows_its_sign(visit, dashboard):
    feature, _ = feature_of(dashboard, 0)
    page = visit(dashboard).go("#f=0")
    page.wait_for_selector(".example")
    page.keyboard.press("e")
    signs = [example["e"][example["at"]] for example in feature["top"]]
    assert min(signs) < 0 < max(signs)
    kinds = [re.findall(r"up|down", line.locator(".peak").get_attribute("class")) for line in page.locator(".example").all()]
    assert kinds == [["up"] if sign > 0 else ["down"] for sign in signs]


def test_the_tables_hold_the_numbers_of_the_data(visit, dashboard):
    feature, strings = feature_of(dashboard, 0)
    page = visit(dashboard).go("#f=0")
    lens = page.get_by_role("list", name="promoted").locator("li")
    assert strings[feature["logits"]["up"][0][0]].strip() in lens.first.inner_text()
    assert f"+{feature['logits']['up'][0][1]:.2f}" in lens.first.inner_text()
    rows = page.get_by_role("table", name="By source and category").locator("tbody tr")
    expect(rows).to_have_count(6)
    active, _, lift, _, auroc = feature["sources"][1]
    text = rows.nth(1).inner_text()
    assert f"{active:,}" in text
    assert f"{lift:.2f}" in text
    assert f"{auroc:.3f}" in text
    neighbour, cosine = feature["neighbours"][0]
    link = page.locator(".relatives li").first
    assert f"{cosine:.2f}" in link.inner_text()
    link.get_by_role("link").first.click()
    expect(page.locator("#detail h2")).to_have_text(f"#{neighbour}")


def test_pictures_have_axes_and_tell_what_is_pointed_at(visit, dashboard):
    feature, _ = feature_of(dashboard, 0)
    page = visit(dashboard).go("#f=0")
    chart = page.get_by_role("img", name="Histogram of strengths")
    expect(chart.locator("rect.bar")).to_have_count(len(feature["histogram"]["counts"]))
    assert len(chart.locator(".tick").all()) >= 4
    place = feature["histogram"]["counts"].index(max(feature["histogram"]["counts"]))
    chart.locator("rect.catch").nth(place).hover()
    expect(page.locator("#tip")).to_contain_text(f"{max(feature['histogram']['counts'])} tokens")
    assert {"Density of all features", "Density by position", "Histogram of the logit lens"} <= {
        picture.get_attribute("aria-label") for picture in page.locator(".chart").all()
    }


def test_a_dead_feature_says_so_and_still_shows_its_direction(visit, dashboard):
    page = visit(dashboard).go(f"#f={synthetic.DEAD}")
    expect(page.locator(".sentence")).to_contain_text("Never active on the")
    expect(page.locator(".examples")).to_have_count(1)  # near misses exist all the same
    expect(page.get_by_role("list", name="promoted")).to_be_visible()


def test_a_feature_that_is_not_there_is_told_in_one_line(visit, dashboard):
    page = visit(dashboard).go("#f=9999")
    expect(page.locator("#detail .problem")).to_contain_text("There is no feature 9999 here: this dashboard holds 64 features.")


def test_a_missing_data_file_is_told_and_read_again_when_asked(visit, dashboard, tmp_path):
    shutil.copytree(dashboard / "data", tmp_path / "data")
    write_page(tmp_path, "Incomplete")
    shard = tmp_path / "data" / "shard-00001.js"
    content = shard.read_text()
    shard.unlink()
    window = visit(tmp_path)
    page = window.go("#f=40")
    expect(page.locator("#detail .problem")).to_contain_text("data/shard-00001.js could not be read")
    assert window.problems == ["error: Failed to load resource: net::ERR_FILE_NOT_FOUND"]
    window.problems.clear()
    shard.write_text(content)
    page.get_by_role("button", name="try again").click()
    expect(page.locator(".example").first).to_be_visible()


def test_a_truncated_data_file_is_told_in_one_line(visit, dashboard, tmp_path):
    shutil.copytree(dashboard / "data", tmp_path / "data")
    write_page(tmp_path, "Truncated")
    shard = tmp_path / "data" / "shard-00001.js"
    name, payload, end = shard.read_text().split('"')
    shard.write_text(f'{name}"{payload[: len(payload) // 8 * 4]}"{end}')
    page = visit(tmp_path).go("#f=40")
    expect(page.locator("#detail .problem")).to_contain_text("data/shard-00001.js is damaged")


def test_hostile_tokens_stay_text(visit, tmp_path):
    write_page(synthetic.write(tmp_path, features=16, documents=90, extra=HOSTILE), "</title><script>alert(2)</script>")
    page = visit(tmp_path).go()
    assert page.title() == "</title><script>alert(2)</script>"
    for number, token in enumerate(HOSTILE):
        page.evaluate(f"location.hash = '#f={4 + number}&whole=1'")
        expect(page.locator("#detail h2")).to_have_text(f"#{4 + number}")
        page.wait_for_selector(".example")
        expect(page.locator(".peak").first).to_be_attached()
        page.locator(".example").first.focus()
        page.keyboard.press("ArrowRight")
        assert not re.search(r"[\u202e\x00\x1b]", page.locator("body").inner_text()), repr(token)
    assert page.locator("img, iframe").count() == 0
    assert page.locator("script").count() == 1
    page.evaluate("location.hash = '#f=4'")
    expect(page.locator(".example .peak").first).to_contain_text("</script><img src=x onerror=alert(1)>")
    page.evaluate("location.hash = '#f=6'")
    expect(page.locator(".example").first).to_have_attribute("dir", "rtl")
    page.locator("#search").fill("<img")
    expect(page.locator("#count")).to_contain_text("of 16")
    assert ids(page)[0] == 4
