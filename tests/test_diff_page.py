"""The HTML page of a diff: it loads nothing, each difference leads to its place, and it works by keyboard and on a
phone, in both themes and on paper.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vggscope
from tests.conftest import skip_or_fail
from tests.test_diagram import svg_texts
from tests.test_diff_picture import REPLICAS, diff, failing
from vggscope.diffing.compare import not_compared
from vggscope.diffing.result import EFFECTS, TRAINING, Diff
from vggscope.drawing.diff import diagram
from vggscope.render.formats import PAGES, write
from vggscope.sources.resolve import resolve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def result_of(name: str, folder: Path) -> Diff:
    if name == "fails":
        return failing(folder)
    if name == "no VGG":
        return not_compared(resolve("conv3-8"), resolve("A"), ("a note",))
    if name == "by hand":
        # Wrong layers, other names and other inplace flags.
        return diff(f"{REPLICAS}/conv_units.py:VGG13", "torchvision:vgg16_bn")
    words = {"C": ("C", "D"), "bn": ("vgg16", "vgg16_bn"), "same": ("A", "A"), "lrn": ("A-LRN", "A")}
    return diff("D", "D", head="dense") if name == "dense" else diff(*words[name])


CASES = ("C", "bn", "same", "lrn", "dense", "fails", "no VGG", "by hand")


def plain(page: str) -> str:
    """The text of a page, without its style, its script and its tags."""
    return " ".join(unescape(re.sub(r"(?s)<(style|script).*?</\1>|<[^>]*>", "", page)).split())


@pytest.mark.parametrize("name", CASES)
def test_every_difference_is_told_and_leads_to_its_rows(name: str, tmp_path: Path) -> None:
    result = result_of(name, tmp_path)
    page = write(result, "html")
    text = plain(page)
    assert result.verdict in text
    for difference in result.differences:
        if difference.kind != "renamed":
            assert " ".join(difference.message.split()) in text
        assert all(" ".join(also.split()) in text for also in (*difference.consequences, *difference.follows))
    for row in result.rows:
        for layer in (row.our_layer, row.reference_layer):
            assert layer is None or layer.name in text
    assert all(note in text for note in result.notes)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name.startswith("row-")] == [f"row-{place}" for place in range(len(result.rows))]
    targets = {target.removeprefix("#") for target in re.findall(r'href="(#[^"]+)"', page)} - {"differences"}
    assert targets <= set(ids)
    for place, row in enumerate(result.rows):
        before = result.rows[place - 1].difference if place else None
        index = row.difference
        if index is not None and index != before and result.differences[index].kind != "renamed":
            assert f"row-{place}" in targets


def test_differences_stand_in_the_order_of_their_effect(tmp_path: Path) -> None:
    for name in CASES:
        page = write(result_of(name, tmp_path), "html")
        effects = re.findall(r'class="difference (\w+)"', page)
        assert effects == sorted(effects, key=[*EFFECTS][::-1].index)


def test_one_harmless_difference_is_counted_in_the_singular() -> None:
    from torch import nn

    ours, reference = (nn.Sequential(nn.Conv2d(3, 4, 3), layer) for layer in (nn.LeakyReLU(0), nn.ReLU()))
    text = plain(write(vggscope.diff(ours, ref=reference, input_size=(3, 8, 8)), "html"))
    assert "1 difference" in text
    assert "1 differences" not in text


def test_harmless_differences_are_folded_unless_there_are_no_others(tmp_path: Path) -> None:
    assert '<details class="harmless">' in write(result_of("by hand", tmp_path), "html")
    assert '<details class="harmless" open>' in write(result_of("dense", tmp_path), "html")
    assert "harmless" not in plain(write(result_of("C", tmp_path), "html"))


def test_the_page_loads_nothing_and_runs_its_own_script_alone(vggscope, tmp_path: Path) -> None:
    target = tmp_path / "x.html"
    ran = vggscope("diff", "C", "--ref", "D", "-o", str(target))
    assert ran.code == 1
    page = target.read_text(encoding="utf-8")
    assert page == vggscope("diff", "C", "--ref", "D", "-f", "html").out
    assert not [word for word in ("http:", "https:", "url(", "@import", "src=", "javascript:") if word in page]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for tag in ("style", "script"):
        (text,) = re.findall(rf"(?s)<{tag}>(.*?)</{tag}>", page)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert " style=" not in page
    assert not re.search(r' on\w+="', page)
    assert set(PAGES) == {"diff"}


def test_the_line_the_remedy_and_the_patch_are_code(tmp_path: Path) -> None:
    source = (
        (REPLICAS / "by_hand.py")
        .read_text()
        .replace("nn.Conv2d(64, 128, kernel_size=3, padding=1)", "nn.Conv2d(64, 128, 3)")
    )
    (tmp_path / "net.py").write_text(source)
    result = vggscope.diff(f"{tmp_path}/net.py:VGG11", ref="A", patch=True)
    (difference,) = (difference for difference in result.differences if difference.changes_output)
    assert difference.remedy.startswith("write ")
    assert result.patch
    page = write(result, "html")
    assert f"<code>{escape(difference.line)}</code>: write <code>{escape(difference.remedy[6:])}</code>" in page
    assert f"<code>{escape(result.patch.rstrip())}</code></pre>" in page
    shown = " ".join(svg_texts(diagram(result)))
    assert difference.remedy in shown


def test_what_structure_does_not_show_is_a_table() -> None:
    from dataclasses import replace

    page = write(replace(diff("A", "A"), training=TRAINING), "html")
    assert page.count('<th scope="row">') == len(TRAINING)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[1280, 400])
def shown(browser: Browser, scheme: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(color_scheme=scheme, viewport={"width": request.param, "height": 800})  # type: ignore[arg-type]
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("data:") else None)
    yield page
    context.close()
    assert wrong == []


def test_the_page_can_be_read(shown: Page, tmp_path: Path) -> None:
    """No text has too little contrast, and each control has a name."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        skip_or_fail("axe-playwright-python is not installed")
    for name in ("by hand", "bn", "fails", "no VGG"):
        shown.set_content(write(result_of(name, tmp_path), "html"))
        shown.locator("html[data-ready]").wait_for()
        shown.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
        found = Axe().run(shown)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == [], name


WIDE = "(all) => all.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.outerHTML)"
"""The elements whose text is wider than they are."""


def test_nothing_is_wider_than_its_place(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    for name in ("by hand", "bn", "fails", "no VGG"):
        page.set_content(write(result_of(name, tmp_path), "html"))
        page.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
        for width in (320, 400, 700, 980, 981, 1280, 1800):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            assert page.eval_on_selector_all(".layer, .gap, .between > span", WIDE) == [], (name, width)
    page.close()


def test_links_and_keys_lead_to_differences(browser: Browser, tmp_path: Path) -> None:
    result = result_of("bn", tmp_path)
    context = browser.new_context()
    page = context.new_page()
    target = tmp_path / "diff.html"
    target.write_text(write(result, "html"), encoding="utf-8")
    page.goto(target.as_uri())
    last = max(place for place, row in enumerate(result.rows) if row.difference == 0)
    assert not page.locator(f"#row-{last}").is_visible()
    page.locator(f'.places a[href="#row-{last}"]').click()
    assert page.locator(f"#row-{last}").is_visible()
    assert page.evaluate("document.activeElement.id") == f"row-{last}"
    page.locator(f"#row-{last} a.badge").press("Enter")
    assert page.evaluate("document.activeElement.id") == "difference-1"
    page.goto(f"{target.as_uri()}?again#row-{last}")
    assert page.locator(f"#row-{last}").is_visible()
    target.write_text(write(result_of("C", tmp_path), "html"), encoding="utf-8")
    page.goto(f"{target.as_uri()}?other")
    seen = []
    for key in ("n", "n", "n", "n", "p"):
        page.keyboard.press(key)
        seen.append(page.evaluate("document.activeElement.id"))
    assert seen == [f"difference-{number}" for number in (1, 2, 3, 3, 2)]
    context.close()


def test_boxes_hide_effects_and_buttons_change_the_theme(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_content(write(result_of("by hand", tmp_path), "html"))
    functions, hollow = page.locator(".difference.function"), page.locator(".row.none > .marks > *:visible")
    assert functions.first.is_visible()
    page.get_by_label("another function").uncheck()
    assert not functions.first.is_visible()
    page.get_by_role("button", name="Open all").click()
    assert hollow.count() == 0
    page.get_by_label("no effect on this input").check()
    assert hollow.count() > 0
    assert page.locator(".difference.none").first.is_visible()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    for _ in range(2):
        page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(ground) != light
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert not page.get_by_role("button", name="Open all").is_visible()
    page.close()


def test_the_page_shows_the_same_without_its_script(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(write(result_of("by hand", tmp_path), "html"))
    assert page.locator(".difference.function").first.is_visible()
    page.locator(".stack summary").first.click()
    assert page.locator(".stack .row").first.is_visible()
    page.get_by_label("another function").uncheck()
    assert not page.locator(".difference.function").first.is_visible()
    context.close()
