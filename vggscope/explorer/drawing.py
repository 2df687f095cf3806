"""The diagrams of a page: SVG whose colours follow the page's theme, and which part of it shows each layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from vggscope.drawing import diagram
from vggscope.drawing.picture import Part
from vggscope.drawing.subject import Subject, as_printed
from vggscope.errors import MissingTool, OptionError
from vggscope.explorer.facts import addresses
from vggscope.graph import Network
from vggscope.record import record

STYLES = {"blocks": "stages", "volumes": "volumes", "layers": "graph"}
"""The styles that a page shows, each with the word for it; the first is shown at first."""

LARGEST = 250_000
"""A picture of more bytes than this is left out of a page: nobody could read it there."""

_COLOR = re.compile(r"#[0-9a-f]{6}\b")


@record
class Drawn:
    """A picture: `svg` with a variable for each colour, `colors` the CSS that sets them in either theme, `parts` for
    each layer the address of what shows it, None for one that nothing shows.
    """

    style: str
    word: str
    svg: str
    colors: str
    parts: list[str | None]


def drawings(network: Network, prefix: str) -> tuple[Drawn, ...]:
    """The network in each of STYLES that can draw it; ids and variables begin with `prefix`."""
    return tuple(found for style in STYLES if (found := _drawn(network, style, f"{prefix}-{style}")) is not None)


def side_by_side(networks: Sequence[Network]) -> Drawn | None:
    """Several networks as the paper prints Table 1, None where they cannot be drawn so."""
    try:
        light, dark = (diagram(networks, "table", theme).render("svg").decode() for theme in ("light", "dark"))
    except (OptionError, MissingTool):
        return None
    svg, colors = themed(light, dark, "together")
    return Drawn("table", "side by side", _framed(svg, "together"), colors, []) if len(svg) <= LARGEST else None


def _drawn(network: Network, style: str, prefix: str) -> Drawn | None:
    keys = addresses(network)

    def href(name: str) -> str:
        return "#" + quote(keys.get(name, name), safe="", errors="replace")

    try:
        picture = diagram(network, style, "light", href=href)
        light = picture.render("svg").decode()
        dark = diagram(network, style, "dark", href=href).render("svg").decode()
    except (OptionError, MissingTool):
        return None
    svg, colors = themed(light, dark, prefix)
    if len(svg) > LARGEST:
        return None
    names = {part.name for top in picture.picture.parts for part in _leaves(top)}
    shown = _shown_by(network, names)
    parts = [keys.get(name, name) if (name := shown(node.name)) else None for node in network.nodes]
    return Drawn(style, STYLES[style], _framed(svg, prefix), colors, parts)


def themed(light: str, dark: str, prefix: str) -> tuple[str, str]:
    """A picture drawn in two themes as one that follows the page's, and the CSS for it.

    The two say the same in other colours: each pair of colours becomes a variable.
    """
    pairs: dict[tuple[str, str], str] = {}
    others = iter(_COLOR.findall(dark))

    def variable(match: re.Match[str]) -> str:
        pair = (match[0], next(others, match[0]))
        return f"var({pairs.setdefault(pair, f'--{prefix}-{len(pairs)}')})"

    svg = _COLOR.sub(variable, light)
    first, second = ("".join(f"{name}:{pair[side]};" for pair, name in pairs.items()) for side in (0, 1))
    # Paper is light, whatever the screen is.
    chosen = f'@media screen{{:root[data-theme="dark"]{{{second}}}}}'
    preferred = f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme]){{{second}}}}}"
    return svg, f":root{{{first}}}{chosen}{preferred}"


def _framed(svg: str, prefix: str) -> str:
    """The SVG as it stands within a page: its ids its own, and a group of links instead of one image."""
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
    """Which part shows a layer: its own, that of the one it repeats, that of the row it stands in, or its stage's."""
    found: dict[str, str | None] = {}
    for stage in Subject(as_printed(network)).stages:
        for block in stage.blocks:
            first = {layer.node.name: place for place, layer in enumerate(block.instances[0])}
            leaders = {layer.node.name: row.layer.node.name for row in block.rows for layer in row.layers}
            order = list(first)
            for instance in block.instances:
                for place, layer in enumerate(instance):
                    alike = order[min(place, len(order) - 1)]
                    choices = (layer.node.name, alike, leaders.get(alike, ""), stage.name)
                    found[layer.node.name] = next((name for name in choices if name in names), None)
    before: str | None = None
    for node in network.nodes:
        # What no part shows, as an activation in `volumes`, is seen with what stands before it.
        before = found[node.name] = found.get(node.name) or before
    return found.get
