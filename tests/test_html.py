"""Results as HTML: the same rows and words as in every other format, in a page that loads nothing, and readable within
a notebook's own style, light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vggscope
from tests.conftest import skip_or_fail
from tests.test_hostile_names import MAKERS
from vggscope.document import Facts, Items, Lines, Note, Table
from vggscope.errors import visible
from vggscope.render import formats
from vggscope.render.html import fragment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

JUPYTER = """
.jp-RenderedHTMLCommon table { border-collapse: collapse; font-size: 12px; table-layout: fixed; margin: 0 auto 1em; }
.jp-RenderedHTMLCommon :is(td, th, tr) { vertical-align: middle; padding: .5em; white-space: normal; max-width: none; }
.jp-RenderedHTMLCommon:not(.jp-RenderedMarkdown) :is(td, th) { text-align: right; }
.jp-RenderedHTMLCommon tbody tr:nth-child(even) { background: #f5f5f5; }
.jp-RenderedHTMLCommon ul:not(.list-inline) { padding-left: 2em; }
.jp-RenderedHTMLCommon pre, .jp-RenderedHTMLCommon code { background: #eee; color: #111; }
"""
"""What JupyterLab says of tables, lists and code in an output, as its rendermime has it."""

PLACES = {
    "light": ("#ffffff", "#000000de", 'data-jp-theme-light="true"'),
    "dark": ("#111111", "#ffffff", 'data-jp-theme-light="false"'),
    "vscode": ("#1e1e1e", "#d4d4d4", 'class="vscode-dark"'),
}
"""A page's ground, its ink, and how it says whether it is dark."""


class _Cells(HTMLParser):
    """The texts of the cells of each row, and of all that is no cell."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self.within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "br"):
            self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.within:
            return
        if {"td", "th"} & set(self.within):
            self.rows[-1][-1] += data
        self.text.append(data)


def read(text: str) -> _Cells:
    parser = _Cells()
    parser.feed(text)
    assert parser.within == []
    return parser


@pytest.mark.parametrize("kind", formats.DOCUMENTS)
def test_every_word_and_every_number_is_there(kind: str, tmp_path: Path) -> None:
    document = formats.document(MAKERS[kind]("layer<1>", tmp_path))
    found = read(fragment(document))
    text, rows = "".join(found.text), iter(found.rows)
    assert visible(document.title) in text
    for block in document.blocks:
        if isinstance(block, Table) and not block.data and block.rows:  # an empty one is left out
            assert next(rows) == [column.title for column in block.columns]
            for row in (*block.rows, *([block.total] if block.total else [])):
                assert next(rows) == ["" if v == "" else c.text(v) for c, v in zip(block.columns, row)]
        elif isinstance(block, Facts):
            assert [next(rows) for _ in block.items] == [list(item) for item in block.items]
        elif isinstance(block, Items):
            assert all(f"{item.sign} {item.text}" in text for item in block.items)
            assert all(detail in text for item in block.items for detail in item.details)
        elif isinstance(block, Lines):
            assert "\n".join(block.lines) in text
        elif isinstance(block, Note):
            assert block.text in text
    assert next(rows, None) is None


def test_a_page_loads_nothing_and_names_what_it_shows(vggscope, tmp_path: Path) -> None:
    for words in (["-f", "html"], ["-o", str(tmp_path / "x.html")]):
        ran = vggscope("summary", "D", *words)
        assert ran.code == 0
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert text == vggscope("summary", "D", "-f", "html").out
    assert text.startswith("<!doctype html>")
    assert "<title>D (VGG-16)   input 3x224x224, float32</title>" in text
    assert not [word for word in ("http", "<script", "url(", "@import", "src=", "href=") if word in text]


def within(result: object, place: str) -> str:
    """A page of a notebook's that shows a result."""
    ground, ink, mark = PLACES[place]
    return (
        f"<!doctype html><html lang=en><title>x</title><style>{JUPYTER} body {{ background: {ground}; color: {ink};"
        f" --jp-content-font-color1: {ink} }}</style><body {mark}><main><div class=jp-RenderedHTMLCommon>"
        f"{result._repr_html_()}</div></main>"  # type: ignore[attr-defined]
    )


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 700, "height": 800})
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("place", PLACES)
def test_it_can_be_read_in_a_notebook(page: Page, place: str) -> None:
    """No text has too little contrast; numbers stand to the right and names to the left; what is wide scrolls."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        skip_or_fail("axe-playwright-python is not installed")
    for result in (vggscope.summary("D"), vggscope.diff("C", ref="D"), vggscope.memory("D", batch=512, gpu="24GiB")):
        page.set_content(within(result, place))
        found = Axe().run(page, ".vggscope")
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_content(within(vggscope.summary("D"), place))
    sides = page.eval_on_selector_all("tbody tr:first-child > *", "all => all.map(e => getComputedStyle(e).textAlign)")
    assert sides[:3] == ["left"] * 3
    assert sides[5:9] == ["right"] * 4
    colors = page.eval_on_selector_all("tbody tr", "all => all.map(e => getComputedStyle(e).backgroundColor)")
    assert set(colors) == {"rgba(0, 0, 0, 0)"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_its_own_can_be_read(browser: Browser, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(color_scheme=scheme)
    shown = context.new_page()
    shown.set_content(formats.write(vggscope.diff("C", ref="D"), "html"))
    found = Axe().run(shown).response["violations"]
    context.close()
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_a_page_in_a_frame_works(page: Page) -> None:
    """The frame shuts its script in, which runs all the same."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.set_content(vggscope.report("conv3-8 maxpool FC-10")._repr_html_())
    inside = page.frame_locator("iframe")
    inside.locator("html[data-ready]").wait_for()
    inside.get_by_role("link", name="Layers", exact=True).click()
    assert "4,154" in inside.locator("body").inner_text()
    assert wrong == []
