"""The page is one file that loads nothing but its data."""

import re

from playpen.dashboard import page


def test_the_page_holds_its_style_and_every_script_and_escapes_its_title(tmp_path):
    page.write_page(tmp_path, "A & <b>B</b>")
    text = (tmp_path / "index.html").read_text()
    assert "<title>A &amp; &lt;b&gt;B&lt;/b&gt;</title>" in text
    assert {file.name for file in page.HERE.glob("*.js")} == set(page.SCRIPTS)
    for file in (*page.SCRIPTS, "style.css"):
        assert (page.HERE / file).read_text().strip() in text
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_the_page_names_no_address_but_that_of_the_namespace_of_svg(tmp_path):
    page.write_page(tmp_path, "Any")
    assert set(re.findall(r"https?://[\w./-]+", (tmp_path / "index.html").read_text())) == {"http://www.w3.org/2000/svg"}


def test_no_script_reads_text_as_html():
    for name in page.SCRIPTS:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", (page.HERE / name).read_text()
        ), name
