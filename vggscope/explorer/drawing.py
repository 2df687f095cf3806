"""The diagrams of a page: SVG with the colours of the page's theme, and the part of it that shows each layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from vggscope.drawing import diagram
from vggscope.drawing.picture import Part, Picture
from vggscope.drawing.subject import Subject
from vggscope.errors import MissingTool, OptionError
from vggscope.explorer.data import addresses
from vggscope.graph import Network
from vggscope.record import record

STYLES = {"blocks": "stages", "volumes": "volumes", "layers": "graph"}
"""The styles of a page's diagrams, each with its name in the page; the page opens with the first."""

LARGEST = 250_000
"""The most bytes of a picture; a page leaves out a larger one, which nobody could read there."""

_COLOR = re.compile(r"#[0-9a-f]{6}\b")


@record
class PageDiagram:
    """A picture in a page.

    `svg` has a CSS variable for each colour, and `colors` is the CSS that sets them in both themes. `parts` has for
    each layer the address of the part that shows it, or None.
    """

    style: str
    word: str
    svg: str
    colors: str
    parts: list[str | None]


def drawings(network: Network, prefix: str) -> tuple[PageDiagram, ...]:
    """Return the network in each of STYLES that can draw it. Ids and CSS variables begin with `prefix`."""
    pictures = (_drawn(network, style, f"{prefix}-{style}") for style in STYLES)
    return tuple(picture for picture in pictures if picture is not None)


def side_by_side(networks: Sequence[Network]) -> PageDiagram | None:
    """Return several networks side by side, as the paper prints Table 1; None if they cannot be drawn so."""
    drawn = _svg(networks, "table", "together")
    return PageDiagram("table", "side by side", drawn[0], drawn[1], []) if drawn else None


def _drawn(network: Network, style: str, prefix: str) -> PageDiagram | None:
    keys = addresses(network)
    drawn = _svg((network,), style, prefix, lambda name: "#" + quote(keys.get(name, name), safe="", errors="replace"))
    if drawn is None:
        return None
    svg, colors, picture = drawn
    shown = _shown_by(network, {part.name for top in picture.parts for part in _leaves(top)})
    parts = [keys.get(name, name) if (name := shown(node.name)) else None for node in network.nodes]
    return PageDiagram(style, STYLES[style], svg, colors, parts)


def _svg(
    networks: Sequence[Network], style: str, prefix: str, href: Callable[[str], str] | None = None
) -> tuple[str, str, Picture] | None:
    """The SVG for a page, the CSS of its colours and the picture; None if it cannot be drawn or is too large."""
    try:
        light, dark = (diagram(networks, style, theme, href=href) for theme in ("light", "dark"))
        svg, colors = themed(light.render("svg").decode(), dark.render("svg").decode(), prefix)
    except (OptionError, MissingTool):
        return None
    return (_framed(svg, prefix), colors, light.picture) if len(svg) <= LARGEST else None


def themed(light: str, dark: str, prefix: str) -> tuple[str, str]:
    """Return one picture for both themes, and the CSS that sets its colours.

    The two pictures differ in colours alone: each pair of colours becomes a CSS variable.
    """
    pairs: dict[tuple[str, str], str] = {}
    others = iter(_COLOR.findall(dark))

    def variable(match: re.Match[str]) -> str:
        pair = (match[0], next(others, match[0]))
        return f"var({pairs.setdefault(pair, f'--{prefix}-{len(pairs)}')})"

    svg = _COLOR.sub(variable, light)
    first, second = ("".join(f"{name}:{pair[side]};" for pair, name in pairs.items()) for side in (0, 1))
    # A printed page is light, whatever the theme of the screen.
    chosen = f'@media screen{{:root[data-theme="dark"]{{{second}}}}}'
    preferred = f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme]){{{second}}}}}"
    return svg, f":root{{{first}}}{chosen}{preferred}"


def _framed(svg: str, prefix: str) -> str:
    """The SVG for a page: with unique ids, and as a group of links instead of one image."""
    svg = svg.replace('<g id="', f'<g id="{prefix}-').replace(' role="img"', ' role="group"', 1)
    return re.sub(r"<title>", lambda _: f'<title id="{prefix}-title">', svg, count=1).replace(
        "<svg ", f'<svg aria-labelledby="{prefix}-title" ', 1
    )


def _leaves(part: Part) -> Iterator[Part]:
    if not part.parts:
        yield part
    for inner in part.parts:
        yield from _leaves(inner)


def _shown_by(network: Network, names: set[str]) -> Callable[[str], str | None]:
    """Return a function from a layer to the part that shows it: its own, that of the layer that it repeats, that of
    its row, or that of its stage.
    """
    shown_by: dict[str, str | None] = {}
    for stage in Subject(network).stages:
        for block in stage.blocks:
            first = {layer.node.name: place for place, layer in enumerate(block.instances[0])}
            leaders = {layer.node.name: row.layer.node.name for row in block.rows for layer in row.layers}
            order = list(first)
            for instance in block.instances:
                for place, layer in enumerate(instance):
                    repeated = order[min(place, len(order) - 1)]
                    choices = (layer.node.name, repeated, leaders.get(repeated, ""), stage.name)
                    shown_by[layer.node.name] = next((name for name in choices if name in names), None)
    before: str | None = None
    for node in network.nodes:
        # No part shows some layers, such as an activation in `volumes`: the part of the layer before represents them.
        before = shown_by[node.name] = shown_by.get(node.name) or before
    return shown_by.get
