"""One HTML page to explore networks with: everything is in the file, nothing is asked of the net.

    Exhibits -> facts, fields, timeline, drawing (plain data) -> data as JSON + template, css/, js/ -> the page

Python works out every figure; the page's script shows them, and evaluates two things by itself: a unit's box of a
layer's rule, and memory of the lines that `timeline` gives. Adding a view is one file in js/, named in SCRIPTS.
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
from vggscope.explorer.drawing import Drawn, drawings, side_by_side
from vggscope.explorer.embed import data_block, policy
from vggscope.explorer.facts import facts
from vggscope.explorer.fields import fields_of
from vggscope.explorer.maps import maps
from vggscope.explorer.timeline import timelines
from vggscope.graph import Network
from vggscope.record import record
from vggscope.render.json import plain

if TYPE_CHECKING:
    from jinja2 import Template

STYLES = ("tokens", "layout", "table", "charts", "views", "print")
"""The files of css/, in order."""

SCRIPTS = (
    "dom",
    "text",
    "state",
    "diagram",
    "table",
    "charts",
    "inspector",
    "field",
    "explorer",
    "rule",
    "memory",
    "maps",
    "compare",
    "main",
)
"""The files of js/, in order: one script, whose files see the names of those before them."""


@record
class Exhibit:
    """A network and its results in a page: its comparisons with other networks, and the activations of an image if
    weights were given.
    """

    network: Network
    title: str
    diffs: tuple[Diff, ...] = ()
    activations: Activations | None = None


def page(exhibits: Sequence[Exhibit], image: str | None = None) -> str:
    """The page. `image` is a picture as a data URI, shown in the explorer in place of the drawn sample.

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
        "models": [_model(exhibit, found) for exhibit, found in zip(exhibits, drawn)],
        "image": image,
    }
    style, script = _style(drawn, together), _script()
    return _template().render(
        title=", ".join(visible(exhibit.title) for exhibit in exhibits),
        version=__version__,
        policy=policy(style, script),
        style=style,
        script=script,
        data=data_block(data),
        drawn=drawn,
        together=together,
        compared=len(exhibits) > 1 or any(exhibit.diffs for exhibit in exhibits),
        mapped=any(exhibit.activations for exhibit in exhibits),
    )


def _model(exhibit: Exhibit, drawn: Sequence[Drawn]) -> dict[str, object]:
    network = exhibit.network
    return {
        "title": visible(exhibit.title),
        **facts(network),
        "fields": fields_of(network),
        "memory": timelines(network),
        "parts": {found.style: found.parts for found in drawn},
        "diffs": [plain(diff) for diff in exhibit.diffs],
        "maps": maps(network, exhibit.activations) if exhibit.activations else None,
    }


def _style(drawn: Sequence[Sequence[Drawn]], together: Drawn | None) -> str:
    pictures = [found for several in drawn for found in several] + ([together] if together else [])
    return "\n".join([_read(f"css/{name}.css") for name in STYLES] + [found.colors for found in pictures])


def _script() -> str:
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
