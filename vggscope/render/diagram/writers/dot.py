"""A Picture's graph as DOT, for Graphviz to lay out: a node a part with its lines, an edge a link."""

from __future__ import annotations

from vggscope.render.diagram.fonts import FAMILIES, plain
from vggscope.render.diagram.picture import Part, Picture
from vggscope.render.diagram.theme import Theme


def write(picture: Picture, theme: Theme, direction: str = "LR") -> str:
    """The DOT text; every node has its label, written out."""
    font = quoted(",".join(FAMILIES[:2]))
    words = f"fontname={font} fontcolor="
    lines = [
        f"digraph {quoted(picture.title)} {{",
        f"  graph [rankdir={direction} bgcolor={quoted(theme.page)} {words}{quoted(theme.ink)}]",
        f"  node [shape=box style=filled fontsize=9 {words}{quoted(theme.ink)}]",
        f"  edge [fontsize=8 {words}{quoted(theme.muted)} color={quoted(theme.arrow)} arrowsize=0.6]",
        *(f"  {_node(part, theme)}" for part in picture.parts),
        *(f"  {quoted(e.source)} -> {quoted(e.target)} [label={quoted(e.label)}]" for e in picture.links),
        "}",
        "",
    ]
    return "\n".join(lines)


def _node(part: Part, theme: Theme) -> str:
    label = "".join(escaped(line) + "\\l" for line in part.lines)
    tooltip = "\\n".join(map(escaped, part.tooltip.split("\n")))
    colors = f"fillcolor={quoted(theme.fills[part.kind])} color={quoted(theme.accents[part.kind])}"
    return f'{quoted(part.name)} [label="{label}" tooltip="{tooltip}" {colors}]'


def quoted(text: str) -> str:
    """A text as a DOT string."""
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    r"""A text for the inside of a DOT string, where a backslash begins an escape and & an HTML entity.

    >>> print(escaped(r'a"b\N&lt;'))
    a\"b\\N&amp;lt;
    """
    return plain(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
