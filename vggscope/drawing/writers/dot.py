"""A Picture's graph as DOT, for Graphviz to lay out: a node for each part with its lines, an edge for each link.

A card is an HTML-like table in the colours of its layers, a solid one with the front of the solid. Cards and stages in
several rows keep their rows.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from vggscope.drawing.fonts import plain
from vggscope.drawing.picture import Cell, Link, Part, Picture, Polygon, Rectangle, Text, bounds
from vggscope.drawing.theme import Theme
from vggscope.drawing.writers.dot_stages import (
    Edge,
    Entry,
    edges_between,
    edges_of_rows,
    entries,
    heads,
    stage_rows,
    within_stages,
)

LONGEST = 16_000
"""The most characters within one pair of quotes."""

MOST_ROWS, LONGEST_LINE = 10, 100
"""The most rows of a stack, and the most characters of their lines: LONGEST holds for a table too."""

TOUCHING = 0.01
"""How far apart two boxes are that touch, in points."""

SPACE = " " * 12
"""The label of a link to a card with lines beside its rows, which Graphviz would draw over the card on the left."""

FRONT = "front"
"""The port of a solid, where its edges end."""

PIECE = 1_000
"""The characters of a text that are escaped together; each becomes at most five."""


def write(picture: Picture, theme: Theme, direction: str = "LR") -> str:
    """The DOT text."""
    font = quoted(",".join(picture.font.families[:2]))
    words = f"fontname={font} fontcolor="
    first = _first_of_stack(picture)
    rows = _rows(picture.parts)
    stages = stage_rows(picture.parts, first)
    links = list(_between_stacks(picture.links, first))
    read = entries(links, stages)
    top = heads(read, stages)
    cards = {part.name: SPACE if part.reads else "" for part in picture.parts if part.cells}
    solids = {part.name for part in picture.parts if _is_solid(part)}
    looks = f"bgcolor={quoted(theme.page)} {words}{quoted(theme.ink)}"
    lines = [
        f"digraph {quoted(picture.title)} {{",
        f"  graph [{_layout(picture.parts, rows, stages.rows, direction)} {looks}]",
        f"  node [shape=box style=filled fontsize=9 {words}{quoted(theme.ink)}]",
        f"  edge [fontsize=8 {words}{quoted(theme.muted)} color={quoted(theme.arrow)} arrowsize=0.6]",
        *_nodes(picture.parts, 0, theme, first, read),
        *_ranks(rows or [[top[stage] for stage in row] for row in stages.rows]),
        *(_edge_of_rows(*pair) for pair in pairwise(rows)),
        *map(_edge_between, (*edges_of_rows(top, stages), *edges_between(read, stages))),
        *(f"  {_edge(link, rows, cards, solids)}" for link in within_stages(links, stages)),
        *(f"  {_edge_within(part, *pair)}" for part in picture.parts for pair in part.reads),
        *_heading(picture.heading),
        "}",
        "",
    ]
    return "\n".join(lines)


def _layout(
    parts: Sequence[Part], rows: Sequence[Sequence[str]], stages: Sequence[Sequence[str]], direction: str
) -> str:
    """The attributes of the graph that Graphviz lays it out by."""
    if stages:  # A stage is a cluster; newrank lets nodes of several be a rank, compound lets edges end at a cluster.
        return "rankdir=TB newrank=true compound=true nodesep=0.4"
    if rows:  # A row is a rank of a graph that runs from top to bottom.
        return "rankdir=TB"
    if any(map(_is_solid, parts)):
        return f"rankdir={direction} ranksep=0.04 nodesep=0.1"
    return f"rankdir={direction}"


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


def _nodes(
    parts: Sequence[Part], depth: int, theme: Theme, first: Mapping[str, str], read: Sequence[Entry] = ()
) -> Iterator[str]:
    """The nodes, with each group in a cluster; `depth` clusters are open already. What a stage reads is in its own."""
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
        yield from (f"{indent}  {_entry(entry)}" for entry in read if (entry.stage,) == cluster)
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
    if _is_solid(part):
        return (
            f"{quoted(part.name)} [label=<{_solid(part, theme)}> tooltip={tooltip} shape=plain style=solid fontsize=7]"
        )
    label = _string(part.lines, "\\l", "\\l")
    colors = f"fillcolor={quoted(theme.fills[part.kind])} color={quoted(theme.accents[part.kind])}"
    return f"{quoted(part.name)} [label={label} tooltip={tooltip} {colors}]"


def _row(part: Part, theme: Theme) -> str:
    """A part of a stack as a row of a table."""
    lines = "".join(f'{html.escape(plain(_cut(line)))}<br align="left"/>' for line in part.lines)
    return f'<tr><td bgcolor="{theme.fills[part.kind]}" color="{theme.accents[part.kind]}">{lines}</td></tr>'


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def _is_solid(part: Part) -> bool:
    return bool(part.shapes) and all(isinstance(shape, Polygon) for shape in part.shapes)


def _solid(part: Part, theme: Theme) -> str:
    """The front of a solid as it is in the picture, which is its last face, between its name and its sides."""
    left, top, right, bottom = bounds(part.shapes[-1])
    name, shape = part.lines
    for cluster in part.cluster:
        name = name.removeprefix(f"{cluster}.")
    channels, _, sides = shape.partition(" × ")
    size = f'fixedsize="true" width="{max(1, round(right - left))}" height="{max(1, round(bottom - top))}"'
    colors = f'bgcolor="{theme.fills[part.kind]}" color="{theme.accents[part.kind]}"'
    cell = f'<td port="{FRONT}" border="1" {size} {colors}></td>'
    front = f'<table border="0" cellspacing="0" cellpadding="0"><tr>{cell}</tr></table>'
    rows = (html.escape(plain(_cut(name))), front, channels, sides or " ")
    cells = "".join(f"<tr><td>{row}</td></tr>" for row in rows)
    return f'<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{cells}</table>'


def _entry(entry: Entry) -> str:
    return f"{quoted(entry.name)} [label={quoted(entry.label)} shape=plaintext style=solid fontsize=8 height=0.2]"


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
    for row in rows:
        yield f"  {{rank=same; {'; '.join(map(quoted, row))}}}"


def _edge_of_rows(before: Sequence[str], row: Sequence[str]) -> str:
    """An edge that is not drawn, which holds a row of cards below the one before."""
    return f"  {quoted(before[0])} -> {quoted(row[0])} [style=invis weight=100]"


def _edge_between(edge: Edge) -> str:
    attributes = " ".join(f"{name}={quoted(value)}" for name, value in edge.attributes.items())
    return f"  {quoted(edge.link.source)} -> {quoted(edge.link.target)} [{attributes}]"


def _heading(texts: Sequence[Text]) -> Iterator[str]:
    """The title and the caption above the graph, set after all clusters, which would inherit them."""
    if texts:
        size = '<font point-size="{:g}">{}</font><br align="left"/>'.format
        lines = (size(text.size, f"<b>{_shown(text)}</b>" if text.bold else _shown(text)) for text in texts)
        yield f"  label=<{''.join(lines)}<br/>> labelloc=t labeljust=l"


def _shown(text: Text) -> str:
    return html.escape(plain(text.text))


def _edge(link: Link, rows: Sequence[Sequence[str]], cards: Mapping[str, str], solids: Container[str]) -> str:
    if link.source in solids and link.target in solids:
        return f"{quoted(link.source)}:{FRONT}:e -> {quoted(link.target)}:{FRONT}:w"
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
