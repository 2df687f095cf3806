"""The site that runs vggscope in a browser, driven in Chromium. `make web` makes it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import caffe, matconvnet, torch7
from tests.conftest import skip_or_fail
from vggscope.tutorials import TOPICS
from vggscope.vgg.configs import CONFIGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

SITE = Path(__file__).parent.parent / "web/_site"

START = 60_000
"""Milliseconds that the first answer may take on a busy machine."""

HOSTILE = "<img src=x onerror=window.pwned=1>"

Ask = Callable[..., dict[str, Any]]


class Quiet(SimpleHTTPRequestHandler):
    """A static host that says nothing."""

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site in a sub-folder of a static host."""
    if not (SITE / "index.html").exists():
        skip_or_fail("there is no site: run make web")
    folder = tmp_path_factory.mktemp("host")
    (folder / "tools").mkdir()
    (folder / "tools/vggscope").symlink_to(SITE, target_is_directory=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/tools/vggscope/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    """A browser that has visited the site once, and notes what goes wrong and each request to another address."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.wrong = wrong = []  # type: ignore[attr-defined]
    own = (address, "blob:", "data:")
    context.on("request", lambda request: request.url.startswith(own) or wrong.append(request.url))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    yield context
    context.close()


@pytest.fixture(scope="module")
def page(context: BrowserContext, address: str) -> Page:
    """The page after its first answer."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#shown .picture svg", timeout=START)
    page.wait_for_function("() => vggscope.offered().version")
    return page


@pytest.fixture(scope="module")
def ask(page: Page) -> Ask:
    """Ask what the page would ask."""

    def ask(view: str, *models: str, **chosen: str) -> dict[str, Any]:
        reply = page.evaluate("asked => vggscope.ask(asked)", {"view": view, "models": models, "chosen": chosen})
        answer: dict[str, Any] = reply["answer"]
        return answer

    return ask


SHOWN = """wanted => {
    const text = [...document.querySelectorAll(".table")].map((box) => box.shadowRoot.textContent).join();
    return text.includes(wanted) && !document.querySelector("#shown.stale") ? text : null;
}"""


def shown(page: Page, wanted: str) -> str:
    """The text of the tables, once it has what is wanted."""
    return str(page.wait_for_function(SHOWN, arg=wanted, timeout=START).json_value())


def test_what_is_typed_is_shown_and_errors_stand_under_the_word(page: Page) -> None:
    page.fill("#model", "E")
    assert "143,667,240" in shown(page, "E (VGG-19)")
    page.fill("#model", "conv3-8 maxpoool FC-10")
    page.wait_for_selector("#problem:not([hidden])")
    assert "word 2, 'maxpoool', cannot be read" in page.inner_text("#problem")
    page.fill("#model", "conv3-8 maxpool FC-10")
    assert "4,154" in shown(page, "conv3-8 maxpool FC-10")
    assert page.is_hidden("#problem")


def test_a_column_is_edited_as_layers_and_everything_follows(page: Page) -> None:
    page.fill("#model", "A")
    shown(page, "A (VGG-11)")
    page.click("#layers summary")
    assert page.input_value("#notation").startswith("conv3-64 maxpool conv3-128")
    page.fill("#notation", "conv5-64 maxpool FC-10")
    assert "4,864" in shown(page, "4,864")  # 5 x 5 x 3 x 64 + 64
    assert page.input_value("#model") == "conv5-64 maxpool FC-10"


def test_a_single_layer_can_be_edited_on(page: Page) -> None:
    page.fill("#notation", "conv3-64")
    assert "1,792" in shown(page, "1,792")  # 3 x 3 x 3 x 64 + 64
    assert page.is_visible("#notation")
    page.fill("#notation", "conv3-8\nmaxpool\nFC-10")
    shown(page, "conv3-8 maxpool FC-10")
    assert page.input_value("#model") == "conv3-8 maxpool FC-10"


def test_back_returns_to_the_view_before(page: Page) -> None:
    page.click("#tab-memory")
    page.click("#tab-fields")
    page.go_back()
    page.wait_for_function("() => vggscope.state.view === 'memory'")
    page.go_back()
    page.wait_for_function("() => vggscope.state.view === 'overview'")


@pytest.mark.parametrize("view", ["constructor", "inspect"])
def test_an_address_without_a_view_that_can_be_shown_gives_the_overview(page: Page, view: str) -> None:
    page.evaluate("view => { location.hash = `#view=${view}&model=A` }", view)
    assert "132,863,336" in shown(page, "A (VGG-11)")
    assert page.evaluate("vggscope.state.view") == "overview"


def test_a_link_to_a_file_asks_for_the_file(ask: Ask) -> None:
    answer = ask("overview", "weights.pth")
    assert answer["problem"] == "weights.pth: there is no such file"
    assert answer["remedy"].startswith("open the file here")


def test_long_work_is_said_and_stopped(page: Page) -> None:
    asked = "{view: 'overview', models: ['conv3-8 '.repeat(5000)], chosen: {}}"
    page.evaluate(f"() => {{ window.stopped = vggscope.ask({asked}) }}")
    page.click("#stop")
    assert page.evaluate("stopped")["answer"]["problem"] == "stopped"
    page.fill("#model", "E")
    assert "143,667,240" in shown(page, "E (VGG-19)")
    assert page.is_hidden("#stop")


VIEWS = [("fields", "212"), ("memory", "1,643.17 MiB"), ("compare", "138.36 M"), ("lesson", "convolution")]


@pytest.mark.parametrize(("view", "wanted"), VIEWS)
def test_each_view_shows_its_table(page: Page, view: str, wanted: str) -> None:
    page.fill("#model", "D")
    page.click(f"#tab-{view}")
    assert wanted in shown(page, wanted)
    assert "vggscope " in page.inner_text("#command")
    page.click("#tab-overview")


def test_a_branched_network_is_laid_out_and_compared(page: Page, ask: Ask) -> None:
    page.fill("#model", "torchvision:resnet18")
    assert "11,689,512" in shown(page, "11,689,512")
    diff = ask("diff", "A", ref="torchvision")
    assert "identical" in diff["html"]
    assert "different" in ask("diff", "A", ref="B")["html"]


def test_the_interactive_page_works_inside(page: Page) -> None:
    page.fill("#model", "D")
    page.click("#tab-explore")
    inside = page.frame_locator("iframe")
    inside.locator("h1", has_text="D (VGG-16)").wait_for(timeout=START)
    assert inside.locator("#totals").inner_text().count("MiB") >= 3
    page.click("#tab-overview")


def drawn() -> list[str]:
    """Fifty networks in Table 1's notation."""
    rng = random.Random(24)

    def layer() -> str:
        kind = rng.choice(["conv{k}-{c}", "conv{k}-{c}/s2", "maxpool", "avgpool", "BN", "LRN", "conv1-{c}/p0"])
        return kind.format(k=rng.choice([1, 3, 5]), c=rng.choice([4, 8, 24]))

    heads = ["", " FC-10", " FC-64 dropout FC-7", " FC-5 soft-max"]
    return [" ".join(["conv3-8", *(layer() for _ in range(rng.randint(0, 7)))]) + rng.choice(heads) for _ in range(50)]


OPTIONS = [
    ("D", "input_size", "3x64x96"),
    ("C", "head", "dense"),
    ("B", "num_classes", "10"),
    ("A-LRN", "soft_max", "yes"),
    ("E", "input_size", "3x16x16"),
]


def test_figures_are_those_of_the_command_line_to_the_byte(ask: Ask, vggscope: Any) -> None:
    cases = [(command, word, {}) for command in COMMANDS for word in (*CONFIGS, "vgg16_bn")]
    cases += [("summary", word, {}) for word in drawn()]
    cases += [("summary", word, {name: value}) for word, name, value in OPTIONS]
    for command, word, chosen in cases:
        answer = ask("save", word, what=COMMANDS[command], form="json", **chosen)
        ran = vggscope(command, word, *options(chosen), "--format", "json")
        assert "".join(map(answer.get, answer.keys() & {"text"})) == ran.out, word
        assert answer.get("problem", "") == ran.err.partition("\n")[0].removeprefix("vggscope: "), word


COMMANDS = {"summary": "overview", "memory": "memory", "rf": "fields"}
"""The view of each command."""


def options(chosen: dict[str, str]) -> list[str]:
    """The options of the command line."""
    names = {name: "--" + name.replace("input_size", "input").replace("_", "-") for name in chosen}
    return [
        word for name, value in chosen.items() for word in ([names[name], value] if value != "yes" else [names[name]])
    ]


def test_a_stand_in_has_the_layers_of_the_library(ask: Ask, vggscope: Any) -> None:
    here = json.loads(ask("save", "torchvision:resnet18", what="overview", form="json")["text"])
    there = json.loads(vggscope("summary", "torchvision:resnet18", "--format", "json").out)
    assert here["layers"] == there["layers"]
    assert here["totals"] == there["totals"]


def test_every_lesson_is_there(ask: Ask, vggscope: Any) -> None:
    for topic in TOPICS:
        assert ask("save", topic=topic, what="lesson", form="table")["text"] == vggscope("explain", topic).out


def test_what_needs_torch_says_how_to_run_it_in_a_shell(ask: Ask) -> None:
    answer = ask("memory", "timm:resnet50", batch="32")
    assert answer["problem"] == "torch is not installed"
    assert answer["remedy"].endswith("in a shell: vggscope memory timm:resnet50 --batch 32")


def files(folder: Path) -> dict[str, str]:
    """A file of each format, and a text that is shown when it is opened."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    import vggscope

    module = vggscope.build("A", input_size=(3, 32, 32), num_classes=10, head="flatten")
    state = {key: value.half().contiguous() for key, value in module.state_dict().items()}
    torch.save(state, folder / "a.pth")
    save_file(state, folder / "a.safetensors")
    np.savez(folder / "a.npz", **{key: value.numpy() for key, value in list(state.items())[:2]})
    vggscope.export("conv3-8 maxpool FC-10", folder / "small.onnx", input_size=(3, 8, 8))
    vggscope.export("conv3-8 maxpool FC-10", folder / "small.pt2", input_size=(3, 8, 8))
    vggscope.lock("D").save(folder / "arch.json")
    (folder / "deploy.prototxt").write_text(caffe.deploy([[8], [16]], [32, 10], side=16))
    matconvnet.write(folder / "net.mat", matconvnet.small())
    torch7.write(folder / "net.t7", torch7.container("Sequential", torch7.layer(torch.nn.Conv2d(3, 8, 3))))
    tensor = {"dtype": "F32", "shape": [125_000_000], "data_offsets": [0, 500_000_000]}
    header = json.dumps({f"{HOSTILE}.weight": tensor}).encode()
    with open(folder / "large.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 500_000_000)
    return {
        "a.pth": "column A",
        "a.safetensors": "column A",
        "a.npz": "numpy npz",
        "small.onnx": "ONNX",
        "small.pt2": "torch.export",
        "arch.json": "138,357,544",
        "deploy.prototxt": "conv1_1",
        "net.mat": "matconvnet",
        "net.t7": "Torch7",
        "large.safetensors": "125,000,000",
    }


def test_files_are_read_where_they_lie(page: Page, ask: Ask, tmp_path: Path) -> None:
    before = page.evaluate("performance.memory?.usedJSHeapSize ?? 0")
    for name, wanted in files(tmp_path).items():
        page.set_input_files("#file", str(tmp_path / name))
        page.wait_for_function("name => vggscope.state.model === name", arg=name)
        assert wanted in shown(page, wanted)
        assert ("html" in ask("overview", name)) == (name not in ("a.npz", "large.safetensors")), name
    assert page.evaluate("performance.memory?.usedJSHeapSize ?? 0") - before < 200e6
    assert page.evaluate("window.pwned") is None
    page.set_input_files("#file", [str(tmp_path / "arch.json"), str(tmp_path / "a.pth")])
    shown(page, "138,357,544")
    assert "identical" in ask("diff", "arch.json", ref="D")["html"]
    assert "different" in ask("diff", "a.pth", ref="arch.json")["html"]


def test_python_starts_anew_after_a_file_that_ends_it(context: BrowserContext, page: Page, tmp_path: Path) -> None:
    """JSON nested beyond the stack of WebAssembly, which no Python there survives."""
    noted = len(context.wrong)  # type: ignore[attr-defined]
    (tmp_path / "deep.json").write_text("[" * 100_000)
    page.set_input_files("#file", str(tmp_path / "deep.json"))
    page.wait_for_selector("#problem:not([hidden])")
    assert "started anew" in page.inner_text("#problem")
    del context.wrong[noted:]  # type: ignore[attr-defined]  # what Pyodide wrote of its end
    (tmp_path / " in front.json").write_text("{}")
    page.set_input_files("#file", str(tmp_path / " in front.json"))
    page.locator("#problem", has_text="in front.json is no lock").wait_for()
    page.fill("#model", "D")
    shown(page, "D (VGG-16)")


DROP = """text => {
    const data = new DataTransfer();
    data.items.add(new File([text], "dropped.json"));
    dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true, bubbles: true }));
}"""


def test_a_file_is_dropped_anywhere_on_the_page(page: Page) -> None:
    import vggscope

    page.evaluate(DROP, vggscope.lock("conv3-8 FC-10", input_size=(3, 8, 8)).json_text)
    assert "4,154" in shown(page, "dropped.json")  # 3 x 3 x 3 x 8 + 8, and 8 x 7 x 7 x 10 + 10 after the pool
    assert page.is_hidden("#drop")


def test_a_hostile_word_stays_text(page: Page) -> None:
    page.fill("#model", HOSTILE)
    page.wait_for_selector("#problem:not([hidden])")
    assert HOSTILE[:10] in page.inner_text("#problem")
    assert page.evaluate("window.pwned") is None
    page.fill("#model", "D")


def test_a_link_shows_the_same(context: BrowserContext, address: str, page: Page) -> None:
    other = context.new_page()
    other.goto(f"{address}#view=memory&model=vgg11&batch=32&mode=inference")
    assert "inference, batch 32" in shown(other, "batch 32")
    assert other.input_value("#controls input[name=batch]") == "32"
    other.close()


def test_tables_and_pictures_are_saved(page: Page, tmp_path: Path) -> None:
    page.fill("#model", "B")
    shown(page, "B (VGG-13)")
    for form, start in (("csv", b"name,label"), ("picture svg", b"<svg"), ("picture png", b"\x89PNG")):
        page.select_option("#controls select[aria-label=Format]", form)
        with page.expect_download() as download:
            page.click("#controls button")
        download.value.save_as(tmp_path / "saved")
        assert (tmp_path / "saved").read_bytes().startswith(start)


def test_a_phone_shows_it_without_a_horizontal_scroll(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#shown .picture svg", timeout=START)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


AXE = SITE.parent / "node_modules/axe-core/axe.min.js"

FINDINGS = """async () => (await axe.run({ iframes: false }))
    .violations.map((found) => `${found.id}: ${found.nodes[0].html.slice(0, 200)}`)"""
"""Each frame is asked by itself: axe would message a frame whose origin the sandbox hides, which is an error."""


@pytest.mark.parametrize("view", ["overview", "memory", "explore", "diff", "lesson"])
def test_axe_finds_nothing(page: Page, view: str) -> None:
    page.click(f"#tab-{view}")
    page.wait_for_selector("#shown iframe" if view == "explore" else "#shown .table", timeout=START)
    assert len(page.frames) == (2 if view == "explore" else 1)
    for frame in page.frames:
        frame.wait_for_selector("main")
        frame.evaluate(AXE.read_text(encoding="utf-8"))
        if frame.evaluate(FINDINGS):
            page.wait_for_timeout(1000)  # it may be half drawn
        assert frame.evaluate(FINDINGS) == []
    page.click("#tab-overview")


def test_after_one_visit_it_works_offline_and_starts_from_a_snapshot(context: BrowserContext, page: Page) -> None:
    page.wait_for_function("() => document.documentElement.dataset.snapshot", timeout=2 * START)
    assert page.evaluate("document.documentElement.dataset.snapshot") == "stored"
    context.set_offline(True)
    other = context.new_page()
    other.goto(page.url.partition("#")[0])
    other.wait_for_selector("#shown .picture svg", timeout=START)
    assert other.evaluate("vggscope.startedFromSnapshot()")
    other.close()
    context.set_offline(False)


def test_nothing_went_wrong_and_no_request_left_the_site(context: BrowserContext, page: Page) -> None:
    """The last test of this file: the context has noted what the others did."""
    refused = page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')")
    assert refused == "refused"
    wrong = [text for text in context.wrong if "example.org" not in text]  # type: ignore[attr-defined]
    assert wrong == []
