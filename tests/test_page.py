"""The page to explore models, in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import skip_or_fail
from vggscope.analysis.memory.allocation_log import KINDS
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.settings import SIMULATED_AS, WEIGHTS_AS, step_memory
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import MODES, StepConfig
from vggscope.analysis.receptive_field.result import describe
from vggscope.analysis.summary import summarize
from vggscope.cli.app import run
from vggscope.explorer import Exhibit, page
from vggscope.explorer.data import memory as memory_data
from vggscope.explorer.embed import data_block
from vggscope.graph import Network, module_node, one_input
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import conv2d
from vggscope.sources.resolve import resolve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]

HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<!--<script>",
    "a\u2028b",
    "<img src=x onerror=window.pwned=1>",
    "'\"&amp;`${window.pwned=1}",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The page of some models, written once."""
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def write(*words: str) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.html"
        assert run(["report", *words, "-o", str(path)]) == 0
        return path

    return write


@pytest.fixture
def opened(browser: Browser, written: Callable[..., Path]) -> Iterator[Open]:
    """Open a page; that nothing was asked of the net and nothing went wrong is checked at the end of each test."""
    wrong: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(*words: str, path: Path | None = None, at: str = "", width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((path or written(*words)).as_uri() + at)
        shown.wait_for_selector("html[data-ready]")
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
    assert [url for url in asked if not re.match(r"file://.*\.html(#.*)?$|data:", url)] == []


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def value(page: Page, selector: str) -> int:
    return int(page.locator(selector).get_attribute("value") or "")


def choose(page: Page, **settings: str | int) -> None:
    """Set the controls of the memory timeline, and let a frame pass."""
    for name, chosen in settings.items():
        control = page.locator(f"#memory-{name}")
        if name == "batch":
            control.fill(str(chosen))
        else:
            control.select_option(str(chosen))
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def shows(page: Page, label: str) -> None:
    """Wait until the layer is the one that is shown."""
    from playwright.sync_api import expect

    expect(page.locator("#inspector h2")).to_have_text(label)


def chosen_everywhere(page: Page, label: str) -> None:
    """The layer is the one that every view shows, from the next frame on."""
    shows(page, label)
    assert page.locator("#layers tbody tr[aria-current] a").inner_text() == label
    assert text(page, "#map-caption").startswith(f"Feature map of {label}:")
    for plot in page.locator(".plot").all():
        assert (plot.get_attribute("aria-valuetext") or "").startswith(f"{label}: ")


COLUMNS_IN_SIGHT = """() => [...document.querySelectorAll('.scroll')].filter((at) => at.clientWidth).map((frame) => {
  const { left } = frame.getBoundingClientRect();
  const cells = [...frame.querySelectorAll('thead th')].filter((cell) => cell.getBoundingClientRect().width);
  const ends = cells.map((cell) => cell.getBoundingClientRect().right - left - frame.clientWidth);
  return [frame.querySelector('table').id, ends, frame.scrollWidth - frame.clientWidth];
})"""


@pytest.mark.parametrize("word", ["D", "torchvision:resnet18"])
def test_no_column_of_a_table_is_cut_at_rest(word: str, opened: Open) -> None:
    page = opened(word, width=1400)
    for width in (1400, 1000, 760):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        tables = page.evaluate(COLUMNS_IN_SIGHT)
        assert {"layers", "memory-kinds"} <= {name for name, _, _ in tables}
        for name, ends, hidden in tables:
            # The last column in sight ends where the frame does, and the next ones are reached by scrolling.
            assert min(abs(end) for end in ends) < 1.5 or hidden < 1.5, (width, name)
            assert (max(ends) < 1.5) == (hidden < 1.5), (width, name)
            assert width < 1400 or hidden < 1.5, name


def test_selecting_a_layer_anywhere_selects_it_everywhere(opened: Open) -> None:
    page = opened("D")
    chosen_everywhere(page, "conv5_3")
    page.locator(".picture:visible a[href='#conv3_2']").click()
    chosen_everywhere(page, "conv3_2")
    assert page.evaluate("location.hash") == "#conv3_2"
    assert page.locator(".picture:visible a.chosen").get_attribute("href") == "#conv3_2"
    page.locator("#layers tbody tr", has_text="pool4").click()
    chosen_everywhere(page, "pool4")
    assert page.locator(".picture:visible a.chosen").get_attribute("href") == "#pool4"
    assert text(page, "#formula .line:last-child") == "(28 − 2 + 2·0) / 2 + 1 = 14"
    page.locator("[data-chart=macs]").focus()
    page.keyboard.press("ArrowRight")
    chosen_everywhere(page, "conv5_1")
    assert page.evaluate("location.hash") == "#conv5_1"
    # An activation is shown by the row that it stands in.
    page.evaluate("location.hash = '#relu2_1'")
    shows(page, "relu2_1")
    chosen_everywhere(page, "relu2_1")
    assert page.locator(".picture:visible a.chosen").get_attribute("href") == "#conv2_1"


def test_pointing_shows_and_leaving_shows_the_choice_again(opened: Open) -> None:
    page = opened("D", at="#conv4_1")
    page.locator(".picture:visible a[href='#conv2_2']").hover()
    shows(page, "conv2_2")
    assert page.evaluate("location.hash") == "#conv4_1"
    page.mouse.move(5, 5)
    shows(page, "conv4_1")


def test_the_address_selects_on_opening(opened: Open) -> None:
    words = ("conv3-8 conv3-8 maxpool conv3-8 FC-10", "--input", "3x20x20")
    for at, label in (
        ("#conv1_2", "conv1_2"),
        ("#features.0", "conv1_1"),
        ("#no-such-layer", "conv2_1"),
        ("#%E0%A4%A", "conv2_1"),
    ):
        chosen_everywhere(opened(*words, at=at), label)


def test_the_table_sorts_and_filters(opened: Open) -> None:
    page = opened("D")
    names = "#layers tbody tr:visible th a"
    head = page.locator("#layers thead th[data-key=params]")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    sizes = [
        int(found.replace(",", "")) for found in page.locator("#layers tbody td[data-column=params]").all_inner_texts()
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == 138_357_544
    assert page.locator(names).all_inner_texts()[:3] == ["fc6", "fc7", "fc8"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.locator(names).all_inner_texts()[-1] == "fc6"
    page.locator("#layers thead th[data-key=place] button").click()
    assert page.locator(names).all_inner_texts()[:2] == ["conv1_1", "relu1_1"]
    assert head.get_attribute("aria-sort") is None
    page.locator("#filter").fill("conv3")
    assert page.locator(names).all_inner_texts() == ["conv3_1", "conv3_2", "conv3_3"]
    assert text(page, "#shown") == "3 of 40 layers"


FIELDS = [
    ("conv1_1", (0, 0)),
    ("conv3_2", (55, 7)),
    ("conv5_3", (7, 7)),
    ("conv5_3", (0, 13)),
    ("pool5", (6, 0)),
    ("fc6", (0, 0)),
]


def test_the_explorers_box_is_that_of_rf(opened: Open) -> None:
    network = resolve("D")
    page = opened("D")
    for label, unit in FIELDS:
        (found,) = describe(network, [label], unit).units
        (first_row, first_column), (last_row, last_column) = found.box.first, found.box.last
        go_to(page, label, unit)
        rect = page.locator("#image rect.box")
        drawn = [float(rect.get_attribute(side) or "") for side in ("x", "y", "width", "height")]
        assert drawn == [first_column, first_row, *reversed(found.box.size)]
        assert text(page, "#rows") == f"{first_row} to {last_row}"
        assert text(page, "#columns") == f"{first_column} to {last_column}"
        told = dict(
            zip(page.locator("#field-facts dt").all_inner_texts(), page.locator("#field-facts dd").all_inner_texts())
        )
        layer = next(layer for layer in describe(network).layers if layer.label == label)
        assert (layer.size, layer.stride, layer.padding) == tuple(
            (int(told[name].removesuffix(" px")),) * 2 for name in ("size", "stride", "padding")
        )
        assert told["padding’s share"] == f"{100 * found.padding_pixels / found.pixels:.1f}%"


def go_to(page: Page, label: str, unit: tuple[int, int]) -> None:
    """To a unit from the middle of its layer's map, by the keyboard."""
    page.evaluate("(key) => { location.hash = key; }", f"#{label}")
    shows(page, label)
    page.locator("#map").focus()
    page.keyboard.press("Home")
    for key, steps in zip(("ArrowDown", "ArrowRight"), unit):
        for _ in range(steps):
            page.keyboard.press(key)


def test_units_with_different_fields_are_shown_as_in_rf(opened: Open) -> None:
    model = "conv3-8 avgpool conv3-8 FC-10"
    network = replace(resolve(model, replace_input(10)), name=model)
    page = opened(model, "--input", "3x10x10")
    label = network.nodes[3].label
    (found,) = describe(network, [label], (4, 2)).units
    go_to(page, label, (4, 2))
    assert text(page, "#rows") == f"{found.box.first[0]} to {found.box.last[0]}"
    assert text(page, "#columns") == f"{found.box.first[1]} to {found.box.last[1]}"


def replace_input(side: int) -> Any:
    from vggscope.vgg.options import BuildOptions

    return BuildOptions(input=(3, side, side))


SETTINGS = [
    ("train", "sgd-momentum", "float32", 1),
    ("train", "sgd", "float32", 64),
    ("train", "adam", "float32", 8),
    ("train", "adamw", "amp", 128),
    ("train", "rmsprop", "float16", 33),
    ("train", "sgd-momentum", "bfloat16", 1000),
    ("inference", "sgd-momentum", "float32", 256),
    ("inference", "sgd-momentum", "amp", 5),
    ("finetune-head", "adam", "float32", 512),
    ("finetune-head", "sgd", "amp", 17),
]


@pytest.mark.parametrize("word", ["D", "vgg11_bn"])
def test_memory_in_the_page_is_that_of_memory(opened: Open, word: str) -> None:
    network = resolve(word)
    page = opened(word)
    for mode, optimizer, dtype, batch in SETTINGS:
        expected = memory(network, batch, StepConfig(mode=mode, optimizer=optimizer, dtype=dtype))
        choose(
            page,
            mode=mode,
            dtype=dtype,
            batch=batch,
            gpu=24,
            **({} if mode == "inference" else {"optimizer": optimizer}),
        )
        assert value(page, "#peak") == expected.peak_bytes
        for kind in KINDS:
            assert value(page, f"[data-kind={kind}]") == getattr(expected, f"{kind}_bytes")
        assert f"at {expected.peak_at.partition(' (')[0].split(' of ')[0]}" in text(page, "#memory-answer")
        assert page.locator("#assumptions li").all_text_contents() == list(expected.assumptions)
        book = simulate_step(network, StepConfig(mode=mode, optimizer=optimizer, dtype=dtype))
        assert value(page, "#fits") == book.largest_batch(24 * 2**30)


def test_a_half_precision_model_is_shown_in_its_own_dtype(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).half()\n"
    )
    page = opened(f"{tmp_path / 'half.py'}:net", "--input", "3x16x16")
    assert "in float16" in text(page, "#totals")
    assert page.locator("#memory-dtype").input_value() == "float16"
    # 8x3x3x3 weights and 8 biases, two bytes each
    assert value(page, "[data-kind=parameters]") == 448


@pytest.mark.parametrize("word", ["A-LRN", "C", "vgg11_bn", "conv3-8 maxpool FC-10"])
def test_the_timelines_data_is_the_walk_of_every_setting(word: str) -> None:
    network = resolve(word)
    data, every = json.loads(json.dumps(memory_data(network))), step_memory(network)
    for mode, optimizer, dtype in product(MODES, OPTIMIZERS, SIMULATED_AS):
        book = simulate_step(network, StepConfig(mode=mode, optimizer=optimizer, dtype=dtype))
        states, taken, _ = data["optimizers"].get(f"{mode}/{WEIGHTS_AS[dtype]}", {}).get(optimizer, (0, 0, 0))
        totals, fixed, slope = [], 0, 0
        for event, _, *changes in data["walks"][f"{mode}/{SIMULATED_AS[dtype]}"]:
            fixed += sum(changes[1::3])
            slope += sum(changes[2::3])
            totals.append((fixed + states + (taken if data["events"][event] == "optimizer step" else 0), slope))
        for batch in (1, 2, 100, 10**6):
            assert max(f + s * batch for f, s in totals) == book.peak_bytes(batch)
            assert every.peak_bytes(mode, optimizer, dtype, batch) == book.peak_bytes(batch)
        before = [moment.total for moment in book.moments if moment.event != "optimizer step"]
        assert totals[: len(before)] == before


def test_the_rule_is_filled_in_and_the_window_slides(opened: Open) -> None:
    from playwright.sync_api import expect

    page = opened("conv11-64/s4p2 maxpool3/s2", at="#conv1_1")
    assert text(page, "#formula .line:last-child") == "(224 − 11 + 2·2) / 4 + 1 = 55.25, rounded down: 55"
    page.locator("#slide-in").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    rect = page.locator("#window")
    assert [rect.get_attribute(side) for side in ("x", "y", "width", "height")] == ["2", "6", "11", "11"]
    assert text(page, "#slide-text").startswith("Unit 2, 1 reads rows 6 to 16 and columns 2 to 12; 0 of its 121 places")
    page.keyboard.press("End")
    assert rect.get_attribute("x") == str(54 * 4 - 2)
    page.keyboard.press("Home")
    assert "40 of its 121 places are padding" in text(page, "#slide-text")
    assert "11 × 11 × 3 = 363 products" in text(page, "#slide-text")
    page.get_by_role("button", name="Step", exact=True).click()
    assert rect.get_attribute("x") == "2"
    page.get_by_role("button", name="Play").click()
    expect(rect).to_have_attribute("x", re.compile(r"\d{2,}"))  # 10 or later: a busy machine reads it late
    page.get_by_role("button", name="Pause").click()


def test_the_keyboard_reaches_everything(opened: Open) -> None:
    page = opened("D", at="#conv1_1")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "table-heading"
    assert page.evaluate("location.hash") == "#conv1_1"
    page.locator("#layers tbody a", has_text="conv1_1").focus()
    page.keyboard.press("ArrowDown")
    chosen_everywhere(page, "relu1_1")
    page.locator(".picture:visible a.chosen").focus()
    page.keyboard.press("ArrowRight")
    chosen_everywhere(page, "conv1_2")
    page.locator("#timeline").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    chosen_everywhere(page, "relu1_1")
    page.locator("#inspector").get_by_role("button", name="Layer after").click()
    chosen_everywhere(page, "conv1_2")
    missing = {"map", "slide-in", "slide-play", "memory-mode", "memory-batch", "timeline", "filter"}
    for _ in range(300):
        if not missing:
            break
        page.keyboard.press("Tab")
        missing.discard(page.evaluate("document.activeElement.id"))
    assert missing == set()


def test_the_diagram_zooms_and_pans(opened: Open) -> None:
    page = opened("torchvision:resnet18", has_touch=True)
    level = page.locator("#zoom-level")

    def wide() -> float:
        return float(
            page.evaluate("document.querySelector('.picture:not([hidden]) svg').getBoundingClientRect().width")
        )

    def frames() -> None:
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    first = wide()
    page.get_by_role("button", name="Zoom in").click()
    assert wide() == pytest.approx(1.25 * first, rel=1e-3)
    assert level.inner_text() == "125%"
    page.locator("#pictures").focus()
    page.keyboard.press("+")
    assert wide() == pytest.approx(1.25**2 * first, rel=1e-3)
    # The wheel alone scrolls; with Ctrl it zooms, and the point under it stays.
    box = page.locator("#pictures").bounding_box()
    assert box is not None
    x, y = box["x"] + 200, box["y"] + 150
    page.mouse.move(x, y)
    under = "([x, y]) => document.elementFromPoint(x, y).closest('a, svg').outerHTML.slice(0, 60)"
    before = page.evaluate(under, [x, y])
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    frames()
    assert wide() > 1.25**2 * first * 1.2
    assert page.evaluate(under, [x, y]) == before
    scrolled = "[document.querySelector('#pictures').scrollLeft, document.querySelector('#pictures').scrollTop]"
    start, chosen = page.evaluate(scrolled), text(page, "#inspector h2")
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=3)
    page.mouse.up()
    assert page.evaluate(scrolled) == [start[0] + 60, start[1] + 40]
    assert page.evaluate("location.hash") == ""  # a drag chooses nothing
    assert text(page, "#inspector h2") == chosen or page.locator(".picture:visible a.seen").count()
    assert page.locator("#minimap").is_visible()
    page.locator("#minimap").click(position={"x": 4, "y": 4})
    assert page.evaluate(scrolled) == [0, 0]
    page.keyboard.press("0")
    page.locator("#pictures").focus()
    page.keyboard.press("0")
    assert not page.locator("#minimap").is_visible()
    pane = "document.querySelector('#pictures')"
    for side in ("Width", "Height"):
        assert page.evaluate(f"{pane}.scroll{side} <= {pane}.client{side}")
    # Two fingers that move apart to twice their distance double the size.
    before_pinch = wide()
    page.evaluate(
        """() => {
          const target = document.querySelector('#pictures'), { left, top } = target.getBoundingClientRect();
          const touch = (x, identifier) => new Touch({ identifier, target, clientX: left + x, clientY: top + 80 });
          const send = (type, ...at) => target.dispatchEvent(
            new TouchEvent(type, { cancelable: true, bubbles: true, touches: at.map(touch) }));
          send('touchstart', 100, 200);
          send('touchmove', 50, 250);
          send('touchend');
        }"""
    )
    assert wide() == pytest.approx(2 * before_pinch, rel=1e-3)


def test_a_search_finds_a_layer_by_name_label_or_op(opened: Open) -> None:
    page = opened("D", at="#conv1_1")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    options = page.locator("#found [data-place]")
    for words, count, first in (("conv3", 3, "conv3_1"), ("features.28", 1, "conv5_3"), ("maxpool2d", 5, "pool1")):
        page.locator("#find").fill(words)
        assert options.count() == count
        assert options.first.locator("b").inner_text() == first
    page.locator("#find").fill("conv2d")
    assert options.count() == 12
    assert "and 1 other" in text(page, "#found")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    chosen_everywhere(page, "conv1_2")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#conv1_2"
    page.keyboard.press("/")
    page.locator("#find").fill("nothing such")
    assert "No layer is called nothing such" in text(page, "#found")
    page.keyboard.press("Escape")
    assert not page.locator("#found").is_visible()
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    page.locator("#find").focus()
    page.locator("#find").fill("")
    page.keyboard.press("Control+v")
    assert page.locator("#find").input_value() == f"{page.url.split('#')[0]}#conv1_2"


def test_modules_collapse_and_expand(opened: Open) -> None:
    page = opened("torchvision:resnet18", at="#layer1.0.conv1")
    page.get_by_role("button", name="modules", exact=True).click()
    rows = page.locator(".picture:visible a")
    page.get_by_role("button", name="Collapse all").click()
    names = page.locator(".picture:visible .row .name")
    modules = [f"▸ layer{number}" for number in range(1, 5)]
    assert names.all_text_contents() == [
        "input",
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        *modules,
        "avgpool",
        "flatten",
        "fc",
    ]
    # The module that holds the chosen layer stands for it.
    assert page.locator(".picture:visible a.chosen .name").text_content() == "▸ layer1"
    page.locator(".picture:visible a[data-group]").first.focus()
    page.keyboard.press("ArrowRight")
    assert rows.count() == 11 + 2
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert rows.count() == 11 + 2 + 7
    page.keyboard.press("ArrowDown")
    chosen_everywhere(page, "layer1.0.conv1")
    # The skip connection of a basic block passes its layers in a lane.
    assert page.locator(".picture:visible path.lane").count() == 1
    page.locator("#find").fill("layer4.1.conv2")
    page.keyboard.press("Enter")
    chosen_everywhere(page, "layer4.1.conv2")
    assert page.locator(".picture:visible a.chosen").get_attribute("href") == "#layer4.1.conv2"
    page.get_by_role("button", name="Expand all").click()
    assert rows.count() == 69 + 4 + 8 + 3


def test_a_narrow_page_opens_with_the_modules(opened: Open) -> None:
    page = opened("D", width=360, has_touch=True)
    inside = "document.querySelector('#pictures').scrollWidth - document.querySelector('#pictures').clientWidth"
    assert page.locator(".picture:visible").get_attribute("data-style") == "modules"
    assert page.evaluate(inside) <= 0
    page.locator(".picture:visible a[href='#conv5_1']").tap()
    shows(page, "conv5_1")


def test_charts_have_axes_units_and_a_legend(opened: Open) -> None:
    page = opened("D")
    chart = page.locator(".chart", has=page.locator("[data-chart=params]"))
    assert chart.locator(".unit-word").inner_html() == "parameters"
    assert chart.locator(".tick-label").all_text_contents() == ["0", "50 M", "100 M"]
    assert chart.locator(".legend-word").all_text_contents() == ["convolution", "fully connected"]
    memory_words = page.locator("#timeline .legend-word").all_text_contents()
    assert memory_words == ["parameters", "gradients", "optimizer", "activations", "temporary", "input batch"]
    assert page.locator("#timeline .tick-label").all_text_contents() == ["0 B", "512 MiB", "1 GiB", "1.5 GiB"]
    # The bar of fc6, with 102,764,544 parameters, reaches the height that the axis has for them.
    page.locator("[data-chart=params]").scroll_into_view_if_needed()
    low, middle, high = [
        line.bounding_box()["y"]  # type: ignore[index]
        for line in chart.locator(".tick").all()
    ]
    fc = page.locator("[data-chart=params] path.fc").bounding_box()
    assert fc is not None
    assert (low - fc["y"]) / (low - high) == pytest.approx(1.02764544, abs=0.01)
    assert low - middle == pytest.approx(middle - high, abs=0.1)
    page.locator("#logarithmic").check()
    assert chart.locator(".tick-label").all_text_contents() == ["0", "100", "10 k", "1 M", "100 M"]


def downloaded(page: Page, name: str) -> bytes:
    """The file that a button saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_bytes()


def test_pictures_and_tables_are_saved(opened: Open) -> None:
    from io import BytesIO
    from xml.etree import ElementTree

    from PIL import Image

    page = opened("A", color_scheme="dark")
    space = "{http://www.w3.org/2000/svg}"
    for what in ("the diagram", "Parameters", "the timeline", "receptive field"):
        saved = downloaded(page, f"Save {what} as SVG").decode()
        root = ElementTree.fromstring(saved)
        assert root.tag == f"{space}svg"
        assert not re.search(r"var\(|color\(|class=|https?://(?!www\.w3\.org)", saved)
        assert root.find(f"{space}rect").get("fill") == "rgb(22, 29, 38)"  # type: ignore[union-attr]
        if what == "the diagram":
            assert {"conv1_1", "fc8"} <= {text.text for text in root.iter(f"{space}text")}
        if what == "receptive field":
            assert root.find(f"{space}symbol[@id='scene']") is not None
    image = Image.open(BytesIO(downloaded(page, "Save Parameters as PNG"))).convert("RGB")
    assert image.getpixel((1, 1)) == (22, 29, 38)
    assert len(image.getcolors(10**6) or ()) > 10
    page.locator("#filter").fill("conv2_")
    command = [sys.executable, "-m", "vggscope", "summary", "A", "--format", "csv"]
    summary = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = downloaded(page, "Save the layers as CSV").decode().splitlines()
    assert rows == [summary[0], *(row for row in summary if ",conv2_" in row)]
    kinds = downloaded(page, "Save the memory as CSV").decode().splitlines()
    assert kinds[1] == f"parameters,{132863336 * 4},{132863336 * 4}"
    assert page.evaluate("document.scripts.length") == 2


def test_a_change_is_followed_by_all_figures(opened: Open) -> None:
    page = opened("D")

    def figures(label: str) -> list[str]:
        return (
            page.locator("#edit-layers tr", has=page.get_by_role("link", name=label, exact=True))
            .locator("[data-figure]")
            .all_inner_texts()
        )

    def total(key: str) -> str:
        settle = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        page.evaluate(settle)
        return page.locator(f"#edit-totals [data-total={key}]").get_attribute("data-value") or ""

    summary = summarize(resolve("D"))
    assert total("params") == str(summary.totals.params)
    assert total("inferencePeak") == str(summary.memory.inference_peak_bytes)
    assert total("trainingPeak") == str(summary.memory.training_peak_bytes)
    assert page.locator("#edit-section .changed").count() == 0
    page.get_by_label("units of fc8").fill("10")
    assert total("params") == str(138_357_544 - 990 * 4097)
    page.get_by_label("channels of conv3_1").fill("100")
    total("params")
    # 100 kernels of 3x3x128, each with a bias
    assert figures("conv3_1")[0:3] == ["100 × 56 × 56", "24", f"{100 * (9 * 128 + 1):,}"]
    assert figures("conv3_2")[2] == f"{256 * (9 * 100 + 1):,}"
    assert text(page, "#edit-count") == "2 changes"
    page.get_by_label("each layer fits its width").uncheck()
    total("params")
    assert text(page, "#edit-error") == "conv3_2: 256 channels are expected, the input has 100: 100x56x56."
    page.get_by_label("each layer fits its width").check()
    for label in ("pool1", "pool2"):
        page.get_by_label(f"leave out {label}").check()
    page.get_by_label("Height").fill("2")
    total("params")
    assert text(page, "#edit-error") == "pool4: a window of 2x2 does not fit its input of 1x112."
    assert page.locator("#edit-layers tr.broken").get_attribute("data-edit") == "23"
    assert figures("conv5_1") == [""] * 5
    page.get_by_role("button", name="Reset").click()
    assert text(page, "#edit-count") == "no change yet"
    assert total("macs") == str(summary.totals.macs)


def test_dark_and_light_follow_the_reader_and_the_switch(opened: Open) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    card = "getComputedStyle(document.querySelector('.picture:not([hidden]) text')).fill"
    light, dark = opened("D", color_scheme="light"), opened("D", color_scheme="dark")
    day, night = light.evaluate(ground), dark.evaluate(ground)
    assert (day, night) == ("rgb(245, 247, 249)", "rgb(14, 19, 25)")
    ink = light.evaluate(card), dark.evaluate(card)
    assert ink[0] != ink[1]
    light.get_by_role("button", name="Dark").click()
    assert (light.evaluate(ground), light.evaluate(card)) == (night, ink[1])
    light.reload()
    assert light.evaluate(ground) == night
    light.get_by_role("button", name="Auto").click()
    assert light.evaluate(ground) == day
    dark.get_by_role("button", name="Light").click()
    assert (dark.evaluate(ground), dark.evaluate(card)) == (day, ink[0])


def test_names_can_break_nothing(opened: Open, tmp_path: Path) -> None:
    nodes, before = [], "input"
    for name in HOSTILE:
        nodes += [module_node(name, conv2d(3, 3, 3, padding=1), before)]
        before = name
    network = Network("</title><script>window.pwned=1</script>", one_input((1, 3, 16, 16)), tuple(nodes))
    path = tmp_path / "hostile.html"
    path.write_text(page([Exhibit(network, network.name)]), encoding="utf-8")
    shown = opened(path=path)
    assert shown.locator("#layers tbody th a").all_text_contents() == list(HOSTILE)
    assert shown.evaluate("window.pwned") is None
    for place, name in enumerate(HOSTILE):
        shown.locator("#layers tbody tr").nth(place).click()
        assert shown.locator("#inspector h2").text_content() == name
        assert shown.evaluate("decodeURIComponent(location.hash.slice(1))") == name
        shown.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
        assert shown.locator("#inspector h2").text_content() == name
    assert shown.evaluate("[window.pwned ?? 0, document.scripts.length, document.images.length]") == [0, 2, 0]


def test_data_that_ends_no_script() -> None:
    block = data_block({"names": HOSTILE})
    assert not re.search(r"[<>&\u2028]", block)
    assert json.loads(block)["names"] == list(HOSTILE)


def test_no_code_but_the_pages_own_runs(opened: Open) -> None:
    page = opened("A")
    policy = page.locator("meta[http-equiv]").get_attribute("content") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(
        r"http://www\.w3\.org/(2000/svg|1999/xhtml)", "", page.locator("script:not([type])").text_content() or ""
    )


def serious_findings(page: Page) -> list[object]:
    """What axe-core finds that shuts readers out."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        skip_or_fail("axe-playwright-python is not installed")
    found = Axe().run(page).response["violations"]
    return [
        (rule["id"], [node["html"][:120] for node in rule["nodes"][:3]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(opened: Open, theme: str, width: int) -> None:
    assert serious_findings(opened("A", "B", color_scheme=theme, width=width)) == []


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_the_page_is_as_wide_as_the_window(opened: Open, width: int) -> None:
    page = opened("E", width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_without_its_controls(opened: Open) -> None:
    page = opened("A")
    page.emulate_media(media="print")
    assert not page.locator(".top").is_visible()
    assert page.locator("#layers tbody tr").last.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('#table-section .scroll')).maxHeight") == "none"


def test_several_models_share_a_page(opened: Open) -> None:
    page = opened("A", "D", "vgg19", at="#A%20(VGG-11)/conv3_2")
    assert text(page, "h1") == "A (VGG-11)"
    chosen_everywhere(page, "conv3_2")
    page.locator("#models").get_by_role("button", name="E (VGG-19)").click()
    assert text(page, "h1") == "E (VGG-19)"
    chosen_everywhere(page, "conv3_2")
    assert page.evaluate("decodeURIComponent(location.hash)") == "#E (VGG-19)/conv3_2"
    assert text(page, "#diffs h3") == "E against A different"
    messages = page.locator(".differences > li").all_inner_texts()
    assert len(messages) == 8
    assert "138.36 M" not in text(page, "#totals")
    totals = page.locator("#compare-totals tbody tr").all_inner_texts()
    assert ["132,863,336" in totals[0], "138,357,544" in totals[1], "143,667,240" in totals[2]] == [True] * 3


def test_a_reference_is_compared_with(opened: Open) -> None:
    page = opened("C", "--ref", "D")
    assert text(page, "#diffs h3") == "C against D different"
    page.locator(".differences a").first.click()
    chosen_everywhere(page, "conv3_3")


def test_somebody_elses_vgg_is_compared_with_the_papers(opened: Open, written: Callable[..., Path]) -> None:
    page = opened("torchvision:vgg11_bn")
    assert text(page, "#diffs h3").startswith("torchvision:vgg11_bn against the paper's column A")
    assert opened("A").locator("#diffs").count() == 0
    # Its last pool forgotten, the fifth stage has no end.
    stages = "conv3-64 maxpool conv3-128 maxpool conv3-256 conv3-256 maxpool conv3-512 conv3-512 maxpool"
    page = opened(f"{stages} conv3-512 conv3-512 FC-4096 FC-4096 FC-1000")
    assert "(pool5): MaxPool2d(kernel_size=2, stride=2) is missing" in text(page, "#diffs")


def test_a_network_that_branches(opened: Open, written: Callable[..., Path]) -> None:
    page = opened("torchvision:resnet18", at="#layer3.0.conv2")
    chosen_everywhere(page, "layer3.0.conv2")
    assert page.locator(".picture:visible a.chosen").count() == 1
    assert "layer1.0.add does not read the layer before it alone" in text(page, "#edit-why")
    page.get_by_role("button", name="graph").click()
    assert page.locator(".picture:visible a.chosen").get_attribute("href") == "#layer3.0.conv2"
    choose(page, mode="train", optimizer="adam", dtype="amp", batch=7)
    expected = memory(resolve("torchvision:resnet18"), 7, StepConfig(optimizer="adam", dtype="amp"))
    assert value(page, "#peak") == expected.peak_bytes
    assert written("torchvision:resnet18").stat().st_size < 10**6


@pytest.mark.slow
def test_a_deep_network_opens(opened: Open, written: Callable[..., Path]) -> None:
    assert written("torchvision:resnet152").stat().st_size < 10**6
    page = opened("torchvision:resnet152")
    page.locator("[data-chart=params]").focus()
    last = text(page, "#inspector h2")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert text(page, "#inspector h2") != last


def test_the_page_of_d_takes_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "d.html"
    code = (
        "import sys; from vggscope.cli.app import run;"
        f"code = run(['report', 'D', '-o', {str(path)!r}]);"
        "print(code, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code, *heavy = done.stdout.split()
    assert (code, heavy) == ("0", ["False", "False"])
    assert path.stat().st_size < 400_000


def test_what_cannot_be_analysed_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.html"
    for words in (
        ["D", "--input", "3x8x8", "--head", "flatten"],
        ["no-such-model"],
        ["D", "no-such-model"],
        ["D", "--ref", "nobody"],
    ):
        assert run(["report", *words, "-o", str(path)]) == 2
        assert not path.exists()
        assert capsys.readouterr().err.startswith("vggscope: ")
    assert run(["report", "D", "-o", str(tmp_path / "page.svg")]) == 2
    assert "-o takes .html" in capsys.readouterr().err
    empty = replace(resolve("A"), nodes=())
    with pytest.raises(Exception, match="has no layers"):
        page([Exhibit(empty, "nothing")])


def test_an_activation_has_no_window_and_leads_to_one_that_has(opened: Open) -> None:
    page = opened("D", at="#relu3_1")
    assert "relu3_1 slides no window." in text(page, "#rule-none")
    page.locator("#rule-none button").click()
    chosen_everywhere(page, "conv3_1")
    assert ReLU().window((3, 3)) is None


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that is wider than high, one half red and one half blue."""
    from PIL import Image

    path = tmp_path_factory.mktemp("photo") / "photo.png"
    image = Image.new("RGB", (300, 200), (200, 30, 20))
    image.paste((20, 40, 220), (150, 0, 300, 200))
    image.save(path)
    return path


def test_an_image_takes_the_samples_place(opened: Open, written: Callable[..., Path], photo: Path) -> None:
    page = opened("A", "--image", str(photo))
    assert (page.locator("#image image").get_attribute("href") or "").startswith("data:image/jpeg;base64,")
    assert page.locator("#image use").count() == 0
    assert page.locator("#maps-section").count() == 0
    assert written("A", "--image", str(photo)).stat().st_size < written("A").stat().st_size + 100_000


MAPPED = "conv3-8 maxpool conv5-6/s2p1 FC-4"


def test_feature_maps_are_torchs(opened: Open, photo: Path, tmp_path: Path) -> None:
    import torch

    from vggscope.execution.activations import image_tensor
    from vggscope.photo import open_photo
    from vggscope.sources.resolve import resolve_module

    torch.manual_seed(3)
    options = replace_input(20)
    network, module = resolve(MAPPED, options), resolve_module(MAPPED, options)
    weights = tmp_path / "weights.pth"
    torch.save(module.state_dict(), weights)
    page = opened(MAPPED, "--input", "3x20x20", "--image", str(photo), "--weights", str(weights), at="#conv2_1")
    image = image_tensor(network, open_photo(str(photo)))
    assert image.shape == (1, 3, 20, 20)
    with torch.no_grad():
        made = module.eval().features[:4](image)[0]  # type: ignore[index]
    means = made.clamp(min=0).mean((1, 2))
    order = means.argsort(descending=True, stable=True).tolist()
    captions = page.locator("#maps button span:first-of-type").all_inner_texts()
    assert captions == [f"channel {channel}" for channel in order]
    page.locator("#maps button").first.click()
    best = made[order[0]]
    unit = divmod(int(best.argmax()), best.shape[1])
    assert text(page, "#product h3").startswith(f"Unit {unit[0]}, {unit[1]} of channel {order[0]} of conv2_1 is ")
    assert float(page.locator("#product data").get_attribute("value") or "") == pytest.approx(
        float(best.max()), rel=1e-4
    )
    told = re.sub(r" from \d+ other channels?|\s", "", text(page, "#sum")).replace("−", "-")
    parts, _, total = told.partition("=")
    terms = [float(term) for term in re.findall(r"[+-]?\d+\.?\d*(?:e-\d+)?", parts)]
    assert len(terms) == 6
    assert sum(terms) == pytest.approx(float(total), abs=0.02)
    assert text(page, "#field-text").startswith(f"Unit {unit[0]}, {unit[1]} of conv2_1")
    assert serious_findings(page) == []
    page.evaluate("location.hash = '#pool1'")
    shows(page, "pool1")
    page.locator("#maps button").first.click()
    assert "the largest of" in text(page, "#product")
    page.evaluate("location.hash = '#fc3'")
    shows(page, network.nodes[-1].label)
    with torch.no_grad():
        strongest = module(image)[0].argsort(descending=True).tolist()
    assert page.locator("#maps tbody th").all_inner_texts() == [str(found) for found in strongest]
    told = page.locator("#maps tbody td:last-child").all_inner_texts()
    with torch.no_grad():
        shares = module(image)[0].softmax(0)[strongest].tolist()
    assert [float(share.removesuffix("%")) for share in told] == pytest.approx([100 * p for p in shares], rel=0.01)


def test_any_unit_of_the_first_layer_and_any_channel(opened: Open, photo: Path, tmp_path: Path) -> None:
    import torch
    from PIL import Image

    from vggscope.execution.activations import image_tensor
    from vggscope.photo import open_photo
    from vggscope.sources.resolve import resolve_module

    torch.manual_seed(4)
    options = replace_input(20)
    network, module = resolve(MAPPED, options), resolve_module(MAPPED, options)
    weights, second = tmp_path / "weights.pth", tmp_path / "green.png"
    torch.save(module.state_dict(), weights)
    Image.new("RGB", (40, 40), (10, 200, 30)).save(second)
    images = ["--image", str(photo), "--image", str(second)]
    page = opened(MAPPED, "--input", "3x20x20", *images, "--weights", str(weights), at="#conv1_1")
    page.locator("#sheet-mark").wait_for()
    page.locator("#map").focus()
    page.keyboard.press("Home")
    with torch.no_grad():
        made = {
            path.name: module.features[0](image_tensor(network, open_photo(str(path))))[0]  # type: ignore[index]
            for path in (photo, second)
        }
    for name, presses, unit in (("photo.png", 0, (0, 0)), ("green.png", 3, (3, 0))):
        page.locator("#maps-section .images").get_by_role("button", name=name).click()
        page.locator("#sheet-mark").wait_for()
        page.locator("#map").focus()
        for _ in range(presses):
            page.keyboard.press("ArrowDown")
        for channel in (5, 2):
            page.get_by_label("Channel", exact=True).fill(str(channel))
            page.locator(
                "#product h3", has_text=f"Unit {unit[0]}, {unit[1]} of channel {channel} of conv1_1"
            ).wait_for()
            found = float(page.locator("#product data").get_attribute("value") or "")
            assert found == pytest.approx(float(made[name][channel, unit[0], unit[1]]), abs=1e-4)
    mean = float(made["green.png"][2].clamp(min=0).mean())
    assert f"mean activation {float(f'{mean:.3g}')}" in text(page, "#sheet-text")
    assert page.locator("#kernels button").count() == 8
    for what in ("the feature maps", "all channels"):
        assert downloaded(page, f"Save {what} as PNG").startswith(b"\x89PNG")
    weight = module.features[0].weight  # type: ignore[index]
    assert text(page, "#weights-text").startswith("216 weights of conv1_1 from ")
    assert f"standard deviation {float(f'{weight.std(correction=0):.3g}')}" in text(page, "#weights-text")
    assert serious_findings(page) == []
    # The second convolution is small enough for the page to hold its weights and its input.
    page.evaluate("location.hash = '#conv2_1'")
    shows(page, "conv2_1")
    page.locator("#map").focus()
    page.keyboard.press("End")
    with torch.no_grad():
        deeper = module.features[:4](image_tensor(network, open_photo(str(second))))[0]  # type: ignore[index]
    page.get_by_label("Channel", exact=True).fill("3")
    row, column = deeper.shape[1] - 1, deeper.shape[2] - 1
    page.locator("#product h3", has_text=f"Unit {row}, {column} of channel 3 of conv2_1").wait_for()
    found = float(page.locator("#product data").get_attribute("value") or "")
    assert found == pytest.approx(float(deeper[3, row, column]), abs=1e-4)
    assert "from 4 other channels" in text(page, "#sum")
    assert page.locator("#image image").get_attribute("href") != page.evaluate(
        "JSON.parse(document.querySelector('#data').textContent).images[0].uri"
    )


@pytest.mark.parametrize("is_phone", [False, True])
def test_every_control_can_be_used(opened: Open, photo: Path, tmp_path: Path, is_phone: bool) -> None:
    """By mouse on a desk, by touch on a phone. `opened` finds any error and any request."""
    import torch

    from vggscope.sources.resolve import resolve_module

    weights = tmp_path / "weights.pth"
    torch.save(resolve_module(MAPPED, replace_input(20)).state_dict(), weights)
    words = [MAPPED, "--input", "3x20x20", "--image", str(photo), "--image", str(photo), "--weights", str(weights)]
    width = 360 if is_phone else 1280
    page = opened(*words, at="#conv1_1", width=width, has_touch=is_phone, reduced_motion="reduce")
    page.locator("#sheet-mark").wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    used = 0
    controls = page.locator("button, input, select, nav a, .plot, .stage, #timeline, .picture [data-group]")
    for place in range(controls.count()):
        control = controls.nth(place)
        if not control.is_visible() or not control.is_enabled() or control.get_attribute("class") == "save":
            continue
        # Some controls replace others, so that a number may no longer name the same one.
        kind = control.evaluate("(element) => element.type ?? element.localName")
        if kind == "number":
            control.fill("2")
        elif kind == "select-one":
            control.select_option(index=1)
        elif kind == "search":
            control.fill("conv")
            control.press("Escape")
        elif kind != "range":
            (control.tap if is_phone else control.click)(timeout=5000)
        used += 1
    assert used > 50
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_inner_product_adds_up_to_what_torch_gives() -> None:
    import torch

    from vggscope.execution.inner_product import InnerProduct, inner_product
    from vggscope.ops.convolution import Convolution

    torch.manual_seed(0)
    for groups, stride, dilation, bias in ((1, 1, 1, True), (2, 2, 1, False), (6, 1, 2, True)):
        op = Convolution(6, 12, (3, 3), (stride,) * 2, (1, 1), (dilation,) * 2, groups, bias)
        layer = torch.nn.Conv2d(6, 12, 3, stride, 1, dilation, groups, bias)
        given = torch.randn(6, 9, 9)
        layer.requires_grad_(False)
        made = layer(given[None])[0]
        for channel, row, column in ((0, 0, 0), (7, 3, 2), (11, made.shape[1] - 1, made.shape[2] - 1)):
            told = inner_product(module_node("conv", op, "input"), layer, given, channel, (row, column))
            assert isinstance(told, InnerProduct)
            total = sum(term.sum for term in told.terms) + told.others + (told.bias or 0)
            assert total == pytest.approx(float(made[channel, row, column]), abs=1e-3)
            for term in told.terms:
                rows = zip(term.values, term.weights)
                assert term.sum == pytest.approx(sum(x * w for xs, ws in rows for x, w in zip(xs, ws)), abs=1e-3)


def test_an_image_that_is_none_is_refused(tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, broken = tmp_path / "page.html", tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no image")
    for words, said in (
        (["--image", str(tmp_path / "nowhere.jpg")], "there is no such file"),
        (["--image", str(tmp_path / "text.jpg")], "it is not an image"),
        (["--image", str(broken)], "cannot be read"),
        (["--weights", "w.pth"], "--image photo.jpg"),
    ):
        assert run(["report", "A", *words, "-o", str(path)]) == 2
        assert said in capsys.readouterr().err
        assert not path.exists()
