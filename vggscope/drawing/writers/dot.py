"""A Picture's graph as DOT, for Graphviz to lay out: a node for each part with its lines, an edge for each link.

A card is an HTML-like table in the colours of its layers. Cards in several rows keep their rows.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from vggscope.drawing.fonts import plain
from vggscope.drawing.picture import Cell, Link, Part, Picture, Rectangle, Text
from vggscope.drawing.theme import Theme

LONGEST = 16_000
"""The most characters within one pair of quotes."""

MOST_ROWS, LONGEST_LINE = 10, 100
"""The most rows of a stack, and the most characters of their lines: LONGEST holds for a table too."""

TOUCHING = 0.01
"""How far apart two boxes are that touch, in points."""

SPACE = " " * 12
"""The label of a link to a card with lines beside its rows, which Graphviz would draw over the card on the left."""

PIECE = 1_000
"""The characters of a text that are escaped together; each becomes at most five."""


def write(picture: Picture, theme: Theme, direction: str = "LR") -> str:
    """The DOT text."""
    font = quoted(",".join(picture.font.families[:2]))
    words = f"fontname={font} fontcolor="
    rows = _rows(picture.parts)
    first = _first_of_stack(picture)
    cards = {part.name: SPACE if part.reads else "" for part in picture.parts if part.cells}
    # A row is a rank of a graph that runs from top to bottom.
    rankdir = "TB" if rows else direction
    lines = [
        f"digraph {quoted(picture.title)} {{",
        f"  graph [rankdir={rankdir} bgcolor={quoted(theme.page)} {words}{quoted(theme.ink)}]",
        f"  node [shape=box style=filled fontsize=9 {words}{quoted(theme.ink)}]",
        f"  edge [fontsize=8 {words}{quoted(theme.muted)} color={quoted(theme.arrow)} arrowsize=0.6]",
        *_nodes(picture.parts, 0, theme, first),
        *_ranks(rows),
        *(f"  {_edge(link, rows, cards)}" for link in _between_stacks(picture.links, first)),
        *(f"  {_edge_within(part, *pair)}" for part in picture.parts for pair in part.reads),
        *_heading(picture.heading),
        "}",
        "",
    ]
    return "\n".join(lines)


def _first_of_stack(picture: Picture) -> dict[str, str]:
    """The first part of its stack, for each part but that one: boxes that touch, with no arrow in between."""
    boxes = {
        part.name: box
        for part in picture.parts
        if part.cluster and (box := next((shape for shape in part.shapes if isinstance(shape, Rectangle)), None))
    }
    first: dict[str, str] = {}
    rows: Counter[str] = Counter()
    for link in picture.links:
        above, below = boxes.get(link.source), boxes.get(link.target)
        if link.shapes or link.label or above is None or below is None or above.x != below.x:
            continue
        if abs(above.y + above.height - below.y) < TOUCHING:
            start = first.get(link.source, link.source)
            if rows[start] < MOST_ROWS - 1:
                rows[start] += 1
                first[link.target] = start
    return first


def _between_stacks(links: Sequence[Link], first: Mapping[str, str]) -> Iterator[Link]:
    """The links that are edges, from stack to stack."""
    for link in links:
        source, target = first.get(link.source, link.source), first.get(link.target, link.target)
        if source and source != target:
            yield replace(link, source=source, target=target)


def _nodes(parts: Sequence[Part], depth: int, theme: Theme, first: Mapping[str, str]) -> Iterator[str]:
    """The nodes, with each group in a cluster; `depth` clusters are open already."""
    indent = "  " * (depth + 1)
    for cluster, run in groupby(parts, key=lambda part: part.cluster[: depth + 1]):
        if len(cluster) <= depth:
            for _, stack in groupby(run, key=lambda part: first.get(part.name, part.name)):
                yield f"{indent}{_node(list(stack), theme)}"
            continue
        name = quoted("cluster " + "/".join(cluster))
        yield f"{indent}subgraph {name} {{"
        looks = "style=rounded labeljust=l fontsize=10"
        yield f"{indent}  label={quoted(cluster[-1])} color={quoted(theme.border)} {looks}"
        yield from _nodes(list(run), depth + 1, theme, first)
        yield f"{indent}}}"


def _rows(parts: Sequence[Part]) -> list[list[str]]:
    """The names of the cards in each row of a picture, if it has several rows, or lines on the left of a card, which
    Graphviz would draw over what is before it in a graph that runs from left to right; none for any other picture.
    """
    rows: dict[float, list[str]] = {}
    for part in parts:
        box = next((shape for shape in part.shapes if isinstance(shape, Rectangle)), None)
        if box is not None and part.cells:
            rows.setdefault(round(box.y, 2), []).append(part.name)
    several = len(rows) > 1 and max(map(len, rows.values())) > 1
    return [*rows.values()] if several or any(part.reads for part in parts) else []


def _node(stack: Sequence[Part], theme: Theme) -> str:
    """A part, or several that are stacked, under the name of the first."""
    part = stack[0]
    tooltip = _string([line for part in stack for line in part.tooltip.split("\n")], "\\n")
    if part.cells:
        colors = f'style="rounded,filled" fillcolor={quoted(theme.card)} color={quoted(theme.border)}'
        return f"{quoted(part.name)} [label=<{_table(part, theme)}> tooltip={tooltip} {colors}]"
    if len(stack) > 1:
        rows = "".join(_row(part, theme) for part in stack)
        table = f'<table border="0" cellborder="1" cellspacing="0" cellpadding="5">{rows}</table>'
        return f"{quoted(part.name)} [label=<{table}> tooltip={tooltip} shape=plain style=solid]"
    label = _string(part.lines, "\\l", "\\l")
    colors = f"fillcolor={quoted(theme.fills[part.kind])} color={quoted(theme.accents[part.kind])}"
    return f"{quoted(part.name)} [label={label} tooltip={tooltip} {colors}]"


def _row(part: Part, theme: Theme) -> str:
    """A part of a stack as a row of a table."""
    shown = (line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…" for line in part.lines)
    lines = "".join(f'{html.escape(plain(line))}<br align="left"/>' for line in shown)
    return f'<tr><td bgcolor="{theme.fills[part.kind]}" color="{theme.accents[part.kind]}">{lines}</td></tr>'


def _table(part: Part, theme: Theme) -> str:
    """An HTML-like table, as Graphviz reads it. A line that another one reads, or that reads one, has a port."""
    ports = {number for pair in part.reads for number in pair}
    rows = (
        f"<tr>{_cell(cell, cell.left, 'left', theme, f'r{number}' if number in ports else '')}"
        f"{_cell(cell, cell.right, 'right', theme)}</tr>"
        for number, cell in enumerate(part.cells)
    )
    return f'<table border="0" cellborder="0" cellspacing="2" cellpadding="3">{"".join(rows)}</table>'


def _cell(cell: Cell, text: str, side: str, theme: Theme, port: str = "") -> str:
    name = f' port="{port}"' if port else ""
    fill = f' bgcolor="{theme.fills[cell.kind]}"' if cell.kind else ""
    shown = html.escape(plain(text))
    words = f"<b>{shown}</b>" if cell.bold and shown else shown
    return f'<td{name} align="{side}"{fill}>{words}</td>'


def _ranks(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows, each beginning below the one before: an edge that is not drawn holds it there."""
    for row in rows:
        yield f"  {{rank=same; {'; '.join(map(quoted, row))}}}"
    for before, row in pairwise(rows):
        yield f"  {quoted(before[0])} -> {quoted(row[0])} [style=invis weight=100]"


def _heading(texts: Sequence[Text]) -> Iterator[str]:
    """The title and the caption above the graph, set after all clusters, which would inherit them."""
    if texts:
        size = '<font point-size="{:g}">{}</font><br align="left"/>'.format
        lines = (size(text.size, f"<b>{_shown(text)}</b>" if text.bold else _shown(text)) for text in texts)
        yield f"  label=<{''.join(lines)}<br/>> labelloc=t labeljust=l"


def _shown(text: Text) -> str:
    return html.escape(plain(text.text))


def _edge(link: Link, rows: Sequence[Sequence[str]], cards: Mapping[str, str]) -> str:
    # A card says what leaves it. The link from the end of a row to the next one does not move the cards.
    starts_row = any(link.target == row[0] for row in rows[1:])
    label = cards.get(link.target, link.label)
    attributes = [f"label={quoted(label)}"] if label else []
    attributes += ["weight=0"] if starts_row else []
    listed = f" [{' '.join(attributes)}]" if attributes else ""
    return f"{quoted(link.source)} -> {quoted(link.target)}{listed}"


def _edge_within(part: Part, source: int, target: int) -> str:
    """A line of a table to one that reads it, on the left of the table."""
    name = quoted(part.name)
    return f"{name}:r{source}:w -> {name}:r{target}:w"


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
