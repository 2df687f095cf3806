"""Draw four networks with vggscope and with torchview, visualtorch and torchvista, side by side on one local page.

python benchmarks/peer_pictures.py [FOLDER]      (`make gallery-peers`)

A tool that is not installed is named with the command that installs it. The page and its pictures go into FOLDER,
docs/_build/peers if left out. Where playwright and chromium are installed, chromium measures the text of each picture
as it is shown: how high the smallest one is, how many lie outside the picture, and how many pairs overlap.
"""

from __future__ import annotations

import html
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module

FOLDER = Path(__file__).parent.parent / "docs" / "_build" / "peers"

WIDTH, HEIGHT = 1200, 800
"""The size in pixels of the window in which a picture is shown whole."""

OTHERS = """
<p>PlotNeuralNet draws no model: its author writes each solid as Python or TeX by hand, and LaTeX compiles it. Its
published VGG-16 is at <a href="https://github.com/HarisIqbal88/PlotNeuralNet">github.com/HarisIqbal88/PlotNeuralNet</a>.
The nearest picture here is <code>vggscope diagram D --style volumes --theme warm -o vgg16.tex</code>.</p>
<p>netron is a viewer of files in a browser: <code>vggscope build D -o vgg16.onnx</code>, then
<code>netron vgg16.onnx</code>. It draws one column of operators with their attributes, and no modules.</p>
"""

MEASURE = """([width, height]) => {
  const inside = (box) => box.left >= -1 && box.top >= -1 && box.right <= width + 1 && box.bottom <= height + 1;
  const texts = [...document.querySelectorAll('svg text')].filter((text) => text.textContent.trim());
  const boxes = texts.map((text) => text.getBoundingClientRect()).filter((box) => box.width);
  const sizes = texts.map((text) => parseFloat(getComputedStyle(text).fontSize) * Math.abs(text.getScreenCTM().a));
  const deep = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.4 * Math.min(a.height, b.height);
  let overlapping = 0;
  boxes.forEach((box, at) => { for (const other of boxes.slice(at + 1)) overlapping += deep(box, other); });
  return {
    texts: boxes.length, smallest: Math.min(...sizes), outside: boxes.filter((box) => !inside(box)).length, overlapping,
  };
}"""


@dataclass(frozen=True)
class Drawn:
    """One picture: by which tool, in how many seconds, and where it is; or why there is none."""

    tool: str
    seconds: float
    path: Path | None
    problem: str = ""


Draw = Callable[["Module", tuple[int, ...], Path], Path]


def ours(style: str, module: Module, size: tuple[int, ...], stem: Path) -> Path:
    """vggscope's picture in a style."""
    import vggscope

    path = stem.with_suffix(".svg")
    path.write_bytes(vggscope.diagram(module, style=style, input_size=size).render("svg"))
    return path


def torchview(module: Module, size: tuple[int, ...], stem: Path) -> Path:
    """torchview's graph, drawn by `dot` on PATH."""
    from torchview import draw_graph

    graph = draw_graph(module, input_size=size, device="meta").visual_graph
    return Path(graph.render(stem.name, stem.parent, format="svg", cleanup=True))


def visualtorch(style: str, module: Module, size: tuple[int, ...], stem: Path) -> Path:
    """visualtorch's image in a style."""
    from visualtorch import render

    path = stem.with_suffix(".png")
    render(module, size, style=style).save(path)
    return path


def torchvista(module: Module, size: tuple[int, ...], stem: Path) -> Path:
    """torchvista's interactive page."""
    import torch
    from torchvista import trace_model

    path = stem.with_suffix(".html")
    trace_model(module, torch.zeros(size), export_format="html", export_path=str(path))
    return path


TOOLS: Mapping[str, tuple[str, Draw]] = {
    **{f"vggscope, {style}": ("vggscope", partial(ours, style)) for style in ("blocks", "layers", "volumes")},
    "torchview": ("torchview", torchview),
    **{f"visualtorch, {style}": ("visualtorch", partial(visualtorch, style)) for style in ("graph", "flow")},
    "torchvista": ("torchvista", torchvista),
}
"""Each tool with its package."""


INPUT = (1, 3, 224, 224)


def networks() -> dict[str, Callable[[], Module]]:
    """The networks by name. Each tool gets a module of its own, since torchview moves it to the meta device."""
    from torchvision import models

    return {"vgg16": models.vgg16, "resnet18": models.resnet18, "unet": unet, "vit_b_16": models.vit_b_16}


def unet() -> Module:
    """A U-Net of three levels with two 3x3 convolutions each (Ronneberger et al. 2015, figure 1, padded)."""
    import torch
    from torch import nn

    def pair(given: int, made: int) -> nn.Sequential:
        first, second = nn.Conv2d(given, made, 3, padding=1), nn.Conv2d(made, made, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.middle = pair(3, 64), pair(64, 128), pair(128, 256)
            self.pool = nn.MaxPool2d(2)
            self.up2, self.up1 = nn.ConvTranspose2d(256, 128, 2, 2), nn.ConvTranspose2d(128, 64, 2, 2)
            self.join2, self.join1, self.head = pair(256, 128), pair(128, 64), nn.Conv2d(64, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.down1(x)
            second = self.down2(self.pool(first))
            x = self.middle(self.pool(second))
            x = self.join2(torch.cat([self.up2(x), second], 1))
            return self.head(self.join1(torch.cat([self.up1(x), first], 1)))

    return UNet()


def drawn(tool: str, make: Callable[[], Module], stem: Path) -> Drawn:
    """A network's picture by a tool, its package imported before."""
    package, draw = TOOLS[tool]
    if find_spec(package) is None:
        return Drawn(tool, 0, None, f"not installed: pip install {package}")
    __import__(package)
    module = make().eval()
    started = perf_counter()
    try:
        path = draw(module, INPUT, stem)
    except Exception as error:
        # Another tool's failure is a row of the page.
        return Drawn(tool, perf_counter() - started, None, f"{type(error).__name__}: {str(error)[:200]}")
    return Drawn(tool, perf_counter() - started, path)


@contextmanager
def ruler() -> Iterator[Callable[[Path], dict[str, Any]]]:
    """A function that returns what chromium measures of a picture's text; nothing where that is not installed."""
    program = shutil.which("chromium")
    if program is None or find_spec("playwright") is None:
        yield lambda _path: {}
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})

        def measure(path: Path) -> dict[str, Any]:
            if path.suffix == ".svg":
                code = path.read_text(encoding="utf-8")
                page.set_content(
                    f"<style>*{{margin:0}}svg{{width:100vw;height:100vh}}</style>{code[code.index('<svg') :]}"
                )
            elif path.suffix == ".html":
                page.goto(path.resolve().as_uri())
                page.locator("svg text").first.wait_for(timeout=30_000)
                page.wait_for_timeout(1500)  # until it has come to rest
            else:
                return {}
            found: dict[str, Any] = page.evaluate(MEASURE, [WIDTH, HEIGHT])
            return found

        yield measure
        browser.close()


def pixels(path: Path) -> str:
    """The size of an image in pixels."""
    if path.suffix != ".png":
        return ""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as image:
        return f"{image.width:,}x{image.height:,} pixels, "


def shown(picture: Drawn, measured: dict[str, Any]) -> str:
    """A picture with its facts, as HTML."""
    head = f"<h3>{html.escape(picture.tool)}</h3>"
    if picture.path is None:
        return f"{head}<p>No picture. {html.escape(picture.problem)}</p>"
    told = f"{pixels(picture.path)}{picture.path.stat().st_size / 1024:,.0f} KiB, {picture.seconds:.2f} s"
    if measured.get("texts"):
        told += (
            f"; fitted to {WIDTH}x{HEIGHT}: {measured['texts']} texts, the smallest {measured['smallest']:.1f} px, "
            f"{measured['outside']} outside, {measured['overlapping']} pairs overlap"
        )
    name = html.escape(picture.path.name)
    frame = (
        "<iframe src='{0}'></iframe>" if picture.path.suffix == ".html" else "<a href='{0}'><img src='{0}' alt=''></a>"
    )
    return f"{head}<p>{told}</p>{frame.format(name)}"


def main() -> None:
    """Draw the pictures, and write the page that shows them."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    body = []
    with ruler() as measure:
        for name, make in networks().items():
            body.append(f"<h2>{name}</h2>")
            for tool in TOOLS:
                stem = folder / f"{name}-{tool.replace(', ', '-')}"
                picture = drawn(tool, make, stem)
                measured = measure(picture.path) if picture.path else {}
                print(name, tool, picture.problem or f"{picture.seconds:.2f} s", measured, file=sys.stderr)
                body.append(shown(picture, measured))
    style = "body{font:15px sans-serif;margin:2em}img,iframe{max-width:100%;max-height:800px;border:1px solid #ccc}"
    style += "iframe{width:100%;height:800px}"
    start = f"<!doctype html><meta charset=utf-8><title>Pictures of other tools</title><style>{style}</style>"
    page = folder / "index.html"
    page.write_text("\n".join([start, "<h1>The same networks by other tools</h1>", *body, OTHERS]), encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
