"""Cards on a page, one after another: in rows as lines of a text run, or laid out by Graphviz where they branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vggscope.graph import INPUT
from vggscope.render.diagram.engine import Frame, lay_out
from vggscope.render.diagram.layer import shape
from vggscope.render.diagram.look import Look
from vggscope.render.diagram.page import MARGIN, TOP
from vggscope.render.diagram.picture import Box, Line, Link, Part, Point, Text, arrow
from vggscope.render.diagram.stages import Subject
from vggscope.render.diagram.theme import HEADING, SMALL, Theme

GAP, ROW_GAP, INPUT_HEIGHT = 22.0, 26.0, 20.0
"""Between cards, between rows of cards, and the height of the input's box, in points."""

WIDTH = 600.0
"""How wide cards in rows grow if nothing else is asked for, in points: 8.3 inch, or 800 pixels of a web page."""

LONGEST = 1.6
"""How much higher than wide such a page may be; it grows wider instead."""


@dataclass(frozen=True)
class Flow:
    """Where the input's box and the cards lie, by name, and the arrows between them."""

    frames: dict[str, Frame]
    links: tuple[Link, ...]

    @property
    def size(self) -> tuple[float, float]:
        """The right and the bottom end of it all."""
        frames = self.frames.values()
        bounds = [p for link in self.links for s in link.shapes if isinstance(s, Line) for p in s.points]
        right = max((frame.right for frame in frames), default=0.0)
        return max([right, *(x for x, _ in bounds)]), max(frame.bottom for frame in frames)


def flow(subject: Subject, sizes: dict[str, tuple[float, float]], look: Look) -> Flow:
    """The stages' cards, of these sizes, and the input's box before them."""
    edges = stage_edges(subject)
    names = [INPUT, *sizes]
    said = {stage.name: shape(stage.layers[-1].report.output_shape) for stage in subject.stages}
    said[INPUT] = shape(subject.network.input_shape)
    if edges == list(pairwise(names)):
        return _rows(sizes, look, said)
    return _branched(sizes, edges, look, said)


def stage_edges(subject: Subject) -> list[tuple[str, str]]:
    """Which stage, or the input, is read by which, each pair once, in the order of execution."""
    stage_of = {layer.node.name: stage.name for stage in subject.stages for layer in stage.layers}
    stage_of[INPUT] = INPUT
    found: dict[tuple[str, str], None] = {}
    for layer in subject.layers:
        target = stage_of[layer.node.name]
        for name in layer.node.inputs:
            if stage_of[name] != target:
                found[stage_of[name], target] = None
    return list(found)


def _rows(sizes: dict[str, tuple[float, float]], look: Look, said: dict[str, str]) -> Flow:
    names = list(sizes)
    frames = {INPUT: Frame(MARGIN, TOP, max(sizes[names[0]][0], 90.0), INPUT_HEIGHT)}
    y, row_of = TOP + INPUT_HEIGHT + ROW_GAP * 0.75, {}
    for number, (start, end) in enumerate(_broken(list(sizes.values()), look)):
        x, height = MARGIN, max(sizes[name][1] for name in names[start:end])
        for name in names[start:end]:
            frames[name] = Frame(x, y, sizes[name][0], height)
            row_of[name] = number
            x += sizes[name][0] + GAP
        y += height + ROW_GAP
    links = [_link(INPUT, names[0], _down(frames[INPUT], frames[names[0]]), look.theme, said[INPUT])]
    for source, target in pairwise(names):
        run = _across if row_of[source] == row_of[target] else _down
        points = run(frames[source], frames[target])
        links.append(_link(source, target, points, look.theme, said[source]))
    return Flow(frames, tuple(links))


def _broken(sizes: Sequence[tuple[float, float]], look: Look) -> list[tuple[int, int]]:
    """Where rows begin and end: as few as fit into the width and as even as that allows. Where no width was asked for,
    WIDTH, and more where the page would grow too long.
    """
    if look.direction == "TB":
        return [(i, i + 1) for i in range(len(sizes))]
    if look.width is not None:
        return _even(sizes, look.width - 2 * MARGIN)
    room = WIDTH - 2 * MARGIN
    while True:
        rows = _even(sizes, room)
        height = sum(max(size[1] for size in sizes[a:b]) + ROW_GAP for a, b in rows)
        if len(rows) == 1 or height <= LONGEST * max(_length(sizes[a:b]) for a, b in rows):
            return rows
        room *= 1.1


def _even(sizes: Sequence[tuple[float, float]], room: float) -> list[tuple[int, int]]:
    """As few rows as fit into the room, and the narrowest room that takes no more rows."""
    rows = _filled(sizes, room)
    lengths = sorted(_length(sizes[a:b]) for a in range(len(sizes)) for b in range(a + 1, len(sizes) + 1))
    narrower = (_filled(sizes, length) for length in lengths if length <= room)
    return next((found for found in narrower if len(found) == len(rows)), rows)


def _length(sizes: Sequence[tuple[float, float]]) -> float:
    return sum(width for width, _ in sizes) + GAP * (len(sizes) - 1)


def _filled(sizes: Sequence[tuple[float, float]], room: float) -> list[tuple[int, int]]:
    rows, start, used = [], 0, 0.0
    for i, (width, _) in enumerate(sizes):
        if i > start and used + GAP + width > room:
            rows.append((start, i))
            start, used = i, width
        else:
            used += width + (GAP if i > start else 0)
    return [*rows, (start, len(sizes))]


def _across(start: Frame, end: Frame) -> tuple[Point, ...]:
    middle = start.y + start.height / 2
    return ((start.right, middle), (end.x, middle))


def _down(start: Frame, end: Frame) -> tuple[Point, ...]:
    x, target = start.x + start.width / 2, end.x + end.width / 2
    if abs(x - target) < 0.01:
        return ((x, start.bottom), (x, end.y))
    between = end.y - ROW_GAP / 2
    return ((x, start.bottom), (x, between), (target, between), (target, end.y))


def _branched(
    sizes: dict[str, tuple[float, float]], edges: list[tuple[str, str]], look: Look, said: dict[str, str]
) -> Flow:
    layout = lay_out({INPUT: (110.0, INPUT_HEIGHT), **sizes}, edges, {}, look.direction, look.engine)
    frames = {name: frame.moved(MARGIN, TOP) for name, frame in layout.boxes.items()}
    links = []
    for source, target in edges:
        points = tuple((x + MARGIN, y + TOP) for x, y in layout.curves[source, target])
        links.append(_link(source, target, points, look.theme, said[source], curved=True))
    return Flow(frames, tuple(links))


def _link(source: str, target: str, points: tuple[Point, ...], theme: Theme, label: str, curved: bool = False) -> Link:
    return Link(source, target, arrow(points, theme.arrow, curved), label)


def input_part(subject: Subject, frame: Frame, theme: Theme) -> Part:
    """The input's box."""
    size, base = shape(subject.network.input_shape), frame.y + 13.2
    return Part(
        INPUT,
        (
            Box(frame.x, frame.y, frame.width, frame.height, theme.fills["input"], theme.border, radius=4),
            Text(frame.x + 7, base, "input", HEADING, theme.ink, bold=True),
            Text(frame.right - 7, base, size, SMALL, theme.ink, anchor="end"),
        ),
        (f"input {size}",),
        f"input {size}",
        "input",
    )
