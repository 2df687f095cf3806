"""One HTML page to explore networks with. The file holds everything; it loads nothing from the network.

    Exhibits -> data, drawing (plain data) -> JSON in the template, with css/ and js/ -> the page

Python computes the numbers and the script shows them. The script only evaluates formulas for the reader's choice: the
box of a unit, the position of a window, the bytes of a step at a batch, and the rules of a sequential network that the
reader changes. To add a view, add a file to js/ and its name to SCRIPTS.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from vggscope._version import __version__
from vggscope.diffing.result import Diff
from vggscope.errors import OptionError, visible
from vggscope.execution.activations import Activations
from vggscope.execution.channel_sheets import ImageChannels, ImageKernels, LayerKernels, WeightHistogram
from vggscope.explorer.data import facts, feature_maps, memory, receptive_fields, weights
from vggscope.explorer.drawing import PageDiagram, drawings, side_by_side
from vggscope.explorer.edit import editable
from vggscope.explorer.embed import data_block, packed
from vggscope.graph import Network
from vggscope.plain_data import plain_value
from vggscope.record import record
from vggscope.render.html.policy import policy

if TYPE_CHECKING:
    from jinja2 import Template

STYLES = ("tokens", "layout", "table", "charts", "views", "print")
"""The files of css/, in the order of the cascade."""

SCRIPTS = (
    "dom",
    "text",
    "state",
    "modules",
    "viewport",
    "search",
    "diagram",
    "table",
    "axes",
    "charts",
    "inspector",
    "field",
    "explorer",
    "rule",
    "memory",
    "maps",
    "channels",
    "rules",
    "step",
    "edit",
    "exports",
    "compare",
    "main",
)
"""The files of js/, in order. They form one script: a file uses names of the files before it."""


@record
class Exhibit:
    """A network and its results in a page: its comparisons with other networks and, if weights were given, the
    activations of each image and what the weights are.
    """

    network: Network
    title: str
    diffs: tuple[Diff, ...] = ()
    activations: tuple[Activations, ...] = ()
    channels: tuple[ImageChannels, ...] = ()
    weights: tuple[WeightHistogram, ...] = ()
    first: ImageKernels | None = None
    kernels: tuple[LayerKernels, ...] = ()


@record
class PageImage:
    """An image that the explorer shows in place of its drawn sample, as a data URI."""

    name: str
    uri: str


def page(exhibits: Sequence[Exhibit], images: Sequence[PageImage] = ()) -> str:
    """Return the page's HTML.

    Raises OptionError for a network without layers.
    """
    for exhibit in exhibits:
        if not exhibit.network.nodes:
            raise OptionError(f"{exhibit.network.name} has no layers that could be shown", "name another model")
    drawn = [drawings(exhibit.network, f"m{place}") for place, exhibit in enumerate(exhibits)]
    together = side_by_side([exhibit.network for exhibit in exhibits]) if len(exhibits) > 1 else None
    data = {
        "schema": "vggscope/page@1",
        "version": __version__,
        "models": [_model(exhibit, pictures) for exhibit, pictures in zip(exhibits, drawn)],
        "images": [{"name": visible(image.name), "uri": image.uri} for image in images],
    }
    style, code = _style(drawn, together), script()
    return _template().render(
        title=", ".join(visible(exhibit.title) for exhibit in exhibits),
        version=__version__,
        policy=policy(style, code),
        style=style,
        script=code,
        data=data_block(data),
        drawn=drawn,
        together=together,
        compared=len(exhibits) > 1 or any(exhibit.diffs for exhibit in exhibits),
        several=len(images) > 1,
        mapped=any(exhibit.activations for exhibit in exhibits),
    )


def _model(exhibit: Exhibit, drawn: Sequence[PageDiagram]) -> dict[str, object]:
    network = exhibit.network
    known, fields = facts(network), receptive_fields(network)
    return {
        "title": visible(exhibit.title),
        **known,
        "layers": packed(known["layers"]),
        "fields": {**fields, "layers": packed(fields["layers"])},
        "memory": memory(network),
        "edit": editable(network),
        "parts": {picture.style: picture.parts for picture in drawn},
        "diffs": [plain_value(diff) for diff in exhibit.diffs],
        "maps": feature_maps(network, exhibit.activations, exhibit.channels) if exhibit.activations else None,
        "weights": weights(network, exhibit.weights, exhibit.first, exhibit.kernels),
    }


def _style(drawn: Sequence[Sequence[PageDiagram]], together: PageDiagram | None) -> str:
    pictures = [picture for pictures in drawn for picture in pictures] + ([together] if together else [])
    return "\n".join([_read(f"css/{name}.css") for name in STYLES] + [picture.colors for picture in pictures])


def script() -> str:
    """The script of every page."""
    body = "\n".join(_read(f"js/{name}.js") for name in SCRIPTS)
    return f"(() => {{\n'use strict';\n{body}\n}})();"


@cache
def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8").strip()


def _template() -> Template:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True, loader=FunctionLoader(_read), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
