"""Cards in rows, like words in lines of text. Arrows that skip cards run in lanes between the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.layer import input_shape
from vggscope.drawing.look import Look
from vggscope.drawing.picture import Frame, Link, Part, Point, Rectangle, Shape, Text, arrow
from vggscope.drawing.sheet import MARGIN, TOP
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import HEADING, SMALL, Theme
from vggscope.graph import INPUT
from vggscope.record import record

GAP, ROW_GAP, INPUT_HEIGHT, LANE = 22.0, 26.0, 20.0, 5.0
"""In points: the spaces between cards and between rows of cards, the height of the input's box, the lanes' distance."""

NARROWEST_INPUT = 110.0
INPUT_LINE = 13.0
MOST_INPUTS = 8
"""The least width of the input's box."""

WIDTH = 600.0
"""The default width of the page, in points: 8.3 inch, or 800 pixels of a web page."""

TOLERANCE = 0.001
"""How exactly the narrowest width is determined, in points."""

TALLEST = 1.6
"""The largest ratio of height to width of such a page, which grows wider instead."""


@record
class Flow:
    """The frames of the input's box and the cards by name, the arrows between them, the drawing's right and bottom."""

    frames: dict[str, Frame]
    links: tuple[Link, ...]
    size: tuple[float, float]


def flow(subject: Subject, sizes: dict[str, tuple[float, float]], look: Look) -> Flow:
    """Place the input's box and the stages' cards, which have these sizes."""
    edges = stage_edges(subject)
    names = [INPUT, *sizes]
    rows = _rows(list(sizes.values()), look)
    row_of = {INPUT: -1, **{names[i + 1]: row for row, (start, end) in enumerate(rows) for i in range(start, end)}}
    skips = [edge for edge in edges if edge not in set(pairwise(names))]
    lanes = _Lanes(skips, row_of, len(rows))
    frames = _frames(sizes, rows, lanes, INPUT_HEIGHT + INPUT_LINE * (len(_input_lines(subject)) - 1))
    right = max(frame.right for frame in frames.values())
    outputs = {stage.name: stage.layers[-1].output for stage in subject.stages}
    outputs[INPUT] = ", ".join(size for _, size in _input_lines(subject))
    links = []
    for source, target in edges:
        if (source, target) in skips:
            points = lanes.points(source, target, frames, right)
        elif row_of[source] == row_of[target]:
            points = _across(frames[source], frames[target])
        else:
            points = _down(frames[source], frames[target])
        links.append(Link(source, target, arrow(points, look.theme.arrow), outputs[source]))
    bottom = max(frame.bottom for frame in frames.values()) + lanes.height(len(rows))
    return Flow(frames, tuple(links), (right + lanes.width, bottom))


def stage_edges(subject: Subject) -> list[tuple[str, str]]:
    """Which stage reads which stage, or the input: each pair once, in execution order."""
    stage_of = {layer.node.name: stage.name for stage in subject.stages for layer in stage.layers}
    stage_of.update(dict.fromkeys(subject.given_names, INPUT))
    edges: dict[tuple[str, str], None] = {}
    for layer in subject.layers:
        target = stage_of[layer.node.name]
        for name in layer.node.inputs:
            if stage_of[name] != target:
                edges[stage_of[name], target] = None
    return list(edges)


class _Lanes:
    """The lanes of arrows that skip cards: below the row that they leave, above the row that they enter, and to the
    right of all cards in between. Gap 0 is above the first row of cards.
    """

    def __init__(self, skips: Sequence[tuple[str, str]], row_of: dict[str, int], rows: int) -> None:
        self._row_of = row_of
        self._gaps: list[list[tuple[str, str]]] = [[] for _ in range(rows + 1)]
        self._side: list[tuple[str, str]] = []
        self._leaving: dict[str, list[tuple[str, str]]] = {}
        self._entering: dict[str, list[tuple[str, str]]] = {}
        for edge in skips:
            source, target = edge
            self._leaving.setdefault(source, []).append(edge)
            self._entering.setdefault(target, []).append(edge)
            self._gaps[row_of[source] + 1].append(edge)
            if row_of[target] > row_of[source] + 1:
                self._gaps[row_of[target]].append(edge)
                self._side.append(edge)

    def height(self, gap: int) -> float:
        """The height that the lanes add to a gap."""
        return LANE * len(self._gaps[gap])

    @property
    def width(self) -> float:
        """The width that the lanes on the right add to the page."""
        return GAP / 2 + LANE * len(self._side) if self._side else 0.0

    def points(self, source: str, target: str, frames: dict[str, Frame], right: float) -> tuple[Point, ...]:
        """The line from one card to another."""
        edge = (source, target)
        start, end = frames[source], frames[target]
        leave = _spread(start, 1 + self._leaving[source].index(edge))
        enter = _spread(end, -1 - self._entering[target].index(edge))
        below = self._row_bottom(source, frames) + 8 + LANE * self._gaps[self._row_of[source] + 1].index(edge)
        if self._row_of[source] == self._row_of[target]:
            return ((leave, start.bottom), (leave, below), (enter, below), (enter, end.bottom))
        if edge not in self._side:
            return ((leave, start.bottom), (leave, below), (enter, below), (enter, end.y))
        side = right + GAP / 2 + LANE * self._side.index(edge)
        gap = self._row_of[target]
        above = end.y - ROW_GAP + 8 - self.height(gap) + LANE * self._gaps[gap].index(edge)
        return (
            *((leave, start.bottom), (leave, below), (side, below)),
            *((side, above), (enter, above), (enter, end.y)),
        )

    def _row_bottom(self, name: str, frames: dict[str, Frame]) -> float:
        return max(frame.bottom for other, frame in frames.items() if self._row_of[other] == self._row_of[name])


def _spread(frame: Frame, place: int) -> float:
    """The x of an arrow beside a card's middle: arrows leave to the right of it and enter to the left."""
    room = frame.width / 2 - 8
    return frame.x + frame.width / 2 + max(-room, min(room, place * 9.0))


def _frames(
    sizes: dict[str, tuple[float, float]], rows: list[tuple[int, int]], lanes: _Lanes, input_height: float
) -> dict[str, Frame]:
    names = list(sizes)
    # A box that is wider than the first card extends beyond it equally on both sides.
    width = max(sizes[names[0]][0], NARROWEST_INPUT)
    shift = (width - sizes[names[0]][0]) / 2
    frames = {INPUT: Frame(MARGIN, TOP, width, input_height)}
    y = TOP + input_height + ROW_GAP * 0.75 + lanes.height(0)
    for number, (start, end) in enumerate(rows, 1):
        x, height = MARGIN + (shift if number == 1 else 0), max(sizes[name][1] for name in names[start:end])
        for name in names[start:end]:
            frames[name] = Frame(x, y, sizes[name][0], height)
            x += sizes[name][0] + GAP
        y += height + ROW_GAP + lanes.height(number)
    return frames


def _rows(sizes: Sequence[tuple[float, float]], look: Look) -> list[tuple[int, int]]:
    """The start and end of each row: as few and as even rows as fit into the width, which is at least WIDTH if the user
    sets none, and grows until the page is not too tall.
    """
    if look.direction == "TB":
        return [(i, i + 1) for i in range(len(sizes))]
    if look.width is not None:
        return _even(sizes, look.width - 2 * MARGIN)
    room = WIDTH - 2 * MARGIN
    while True:
        rows = _even(sizes, room)
        height = sum(max(size[1] for size in sizes[a:b]) + ROW_GAP for a, b in rows)
        if len(rows) == 1 or height <= TALLEST * max(_length(sizes[a:b]) for a, b in rows):
            return rows
        room *= 1.1


def _even(sizes: Sequence[tuple[float, float]], room: float) -> list[tuple[int, int]]:
    """As few rows as fit into the width, and as even as possible: the narrowest width with no more rows."""
    rows = _filled(sizes, room)
    too_narrow, enough = 0.0, room
    while enough - too_narrow > TOLERANCE:
        middle = (too_narrow + enough) / 2
        narrower = _filled(sizes, middle)
        if len(narrower) == len(rows):
            rows, enough = narrower, middle
        else:
            too_narrow = middle
    return rows


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


def card_frame(title: str, frame: Frame, padding: float, theme: Theme) -> list[Shape]:
    """A card with its heading."""
    heading = fitted(title, HEADING, frame.width - 2 * padding, bold=True)
    return [
        Rectangle(frame.x, frame.y, frame.width, frame.height, theme.card, theme.border, radius=4),
        Text(frame.x + padding, frame.y + 14.5, heading, HEADING, theme.ink, bold=True),
    ]


def input_part(subject: Subject, frame: Frame, theme: Theme) -> Part:
    """The box with a line for each input."""
    box = Rectangle(frame.x, frame.y, frame.width, frame.height, theme.fills["input"], theme.border, radius=4)
    lines = _input_lines(subject)
    texts: list[Text] = []
    for number, (name, size) in enumerate(lines):
        base = frame.y + 13.2 + number * INPUT_LINE
        label = fitted(name, HEADING, frame.width - 20 - text_width(size, SMALL), bold=True)
        texts.append(Text(frame.x + 7, base, label, HEADING, theme.ink, bold=True))
        texts.append(Text(frame.right - 7, base, size, SMALL, theme.ink, anchor="end"))
    described = tuple(f"{name} {size}".strip() for name, size in lines)
    return Part(INPUT, (box, *texts), described, "; ".join(described), "input")


def _input_lines(subject: Subject) -> list[tuple[str, str]]:
    """The name and the size of each input; of many, the first ones and how many more there are."""
    inputs = subject.inputs
    lines = [(tensor.label, f"{input_shape(tensor)} {tensor.dtype}".rstrip()) for tensor in inputs]
    if len(lines) <= MOST_INPUTS:
        return lines
    return [*lines[: MOST_INPUTS - 1], (f"{len(lines) - MOST_INPUTS + 1} more inputs", "")]
