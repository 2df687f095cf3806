"""A Picture's graph as DOT, for Graphviz to lay out: a node for each part with its lines, an edge for each link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from vggscope.drawing.fonts import FAMILIES, plain
from vggscope.drawing.picture import Link, Part, Picture
from vggscope.drawing.theme import Theme

LONGEST = 16_000
"""The most characters within one pair of quotes."""

PIECE = 1_000
"""The characters of a text that are escaped together; each becomes at most five."""


def write(picture: Picture, theme: Theme, direction: str = "LR") -> str:
    """The DOT text."""
    font = quoted(",".join(FAMILIES[:2]))
    words = f"fontname={font} fontcolor="
    lines = [
        f"digraph {quoted(picture.title)} {{",
        f"  graph [rankdir={direction} bgcolor={quoted(theme.page)} {words}{quoted(theme.ink)}]",
        f"  node [shape=box style=filled fontsize=9 {words}{quoted(theme.ink)}]",
        f"  edge [fontsize=8 {words}{quoted(theme.muted)} color={quoted(theme.arrow)} arrowsize=0.6]",
        *_nodes(picture.parts, 0, theme),
        *(f"  {_edge(link)}" for link in picture.links if link.source),
        "}",
        "",
    ]
    return "\n".join(lines)


def _nodes(parts: Sequence[Part], depth: int, theme: Theme) -> Iterator[str]:
    """The nodes, with each group in a cluster; `depth` clusters are open already."""
    indent = "  " * (depth + 1)
    for cluster, run in groupby(parts, key=lambda part: part.cluster[: depth + 1]):
        if len(cluster) <= depth:
            yield from (f"{indent}{_node(part, theme)}" for part in run)
            continue
        name = quoted("cluster " + "/".join(cluster))
        yield f"{indent}subgraph {name} {{"
        yield f"{indent}  label={quoted(cluster[-1])} color={quoted(theme.border)} style=rounded"
        yield from _nodes(list(run), depth + 1, theme)
        yield f"{indent}}}"


def _node(part: Part, theme: Theme) -> str:
    label = _string(part.lines, "\\l", "\\l")
    tooltip = _string(part.tooltip.split("\n"), "\\n")
    colors = f"fillcolor={quoted(theme.fills[part.kind])} color={quoted(theme.accents[part.kind])}"
    return f"{quoted(part.name)} [label={label} tooltip={tooltip} {colors}]"


def _edge(link: Link) -> str:
    label = f" [label={quoted(link.label)}]" if link.label else ""
    return f"{quoted(link.source)} -> {quoted(link.target)}{label}"


def quoted(text: str) -> str:
    """A text as a DOT string."""
    return _string([text], "")


def _string(lines: Sequence[str], between: str, end: str = "") -> str:
    """Lines as a DOT string; a long one as a sum, since Graphviz reads at most LONGEST characters at once."""
    strings = [""]
    for place, line in enumerate(lines, 1):
        for start in range(0, len(line), PIECE):
            piece = escaped(line[start : start + PIECE])
            if len(strings[-1]) + len(piece) > LONGEST:
                strings.append("")
            strings[-1] += piece
        strings[-1] += end if place == len(lines) else between
    return " + ".join(f'"{string}"' for string in strings)


def escaped(text: str) -> str:
    r"""A text with the special characters of DOT strings escaped: quotes, backslashes, and & of HTML entities.

    >>> print(escaped(r'a"b\N&lt;'))
    a\"b\\N&amp;lt;
    """
    return plain(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
