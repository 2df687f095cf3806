"""Cards on a page in rows, as the lines of a text run; what skips cards runs in lanes between the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vggscope.drawing.layer import shape
from vggscope.drawing.look import Look
from vggscope.drawing.picture import Box, Frame, Link, Part, Point, Text, arrow
from vggscope.drawing.sheet import MARGIN, TOP
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import HEADING, SMALL, Theme
from vggscope.graph import INPUT
from vggscope.record import record

GAP, ROW_GAP, INPUT_HEIGHT, LANE = 22.0, 26.0, 20.0, 5.0
"""Between cards, between rows of cards, the height of the input's box, and between lanes, in points."""

LEAST_INPUT = 110.0
"""The least width of the input's box."""

WIDTH = 600.0
"""How wide cards in rows grow if nothing else is asked for, in points: 8.3 inch, or 800 pixels of a web page."""

CLOSE = 0.001
"""How exactly the narrowest room is found, in points."""

LONGEST = 1.6
"""How much higher than wide such a page may be; it grows wider instead."""


@record
class Flow:
    """Where the input's box and the cards lie, by name, the arrows between them, and the drawing's right and bottom."""

    frames: dict[str, Frame]
    links: tuple[Link, ...]
    size: tuple[float, float]


def flow(subject: Subject, sizes: dict[str, tuple[float, float]], look: Look) -> Flow:
    """The stages' cards, of these sizes, and the input's box before them."""
    edges = stage_edges(subject)
    names = [INPUT, *sizes]
    rows = _broken(list(sizes.values()), look)
    row_of = {INPUT: -1, **{names[i + 1]: row for row, (start, end) in enumerate(rows) for i in range(start, end)}}
    skips = [edge for edge in edges if edge not in set(pairwise(names))]
    lanes = _Lanes(skips, row_of, len(rows))
    frames = _frames(sizes, rows, lanes)
    right = max(frame.right for frame in frames.values())
    said = {stage.name: shape(stage.layers[-1].report.output_shape) for stage in subject.stages}
    said[INPUT] = shape(subject.network.input_shape)
    links = []
    for source, target in edges:
        if (source, target) in skips:
            points = lanes.points(source, target, frames, right)
        elif row_of[source] == row_of[target]:
            points = _across(frames[source], frames[target])
        else:
            points = _down(frames[source], frames[target])
        links.append(Link(source, target, arrow(points, look.theme.arrow), said[source]))
    bottom = max(frame.bottom for frame in frames.values()) + lanes.height(len(rows))
    return Flow(frames, tuple(links), (right + lanes.width, bottom))


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


class _Lanes:
    """Where the arrows run that skip cards: below the row they leave, above the row they enter, and on the right from
    one to the other. Gap 0 lies above the first row of cards.
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
        """How much higher the lanes make a gap."""
        return LANE * len(self._gaps[gap])

    @property
    def width(self) -> float:
        """How much wider the lanes on the right make the page."""
        return GAP / 2 + LANE * len(self._side) if self._side else 0.0

    def points(self, source: str, target: str, frames: dict[str, Frame], right: float) -> tuple[Point, ...]:
        """The way from one card to another."""
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
    """Where the arrows beside the middle one meet a card: to the right they leave, to the left they enter."""
    room = frame.width / 2 - 8
    return frame.x + frame.width / 2 + max(-room, min(room, place * 9.0))


def _frames(sizes: dict[str, tuple[float, float]], rows: list[tuple[int, int]], lanes: _Lanes) -> dict[str, Frame]:
    names = list(sizes)
    # The input's box is as wide as the first card, and holds its text: then it sticks out on both sides alike.
    width = max(sizes[names[0]][0], LEAST_INPUT)
    shift = (width - sizes[names[0]][0]) / 2
    frames = {INPUT: Frame(MARGIN, TOP, width, INPUT_HEIGHT)}
    y = TOP + INPUT_HEIGHT + ROW_GAP * 0.75 + lanes.height(0)
    for number, (start, end) in enumerate(rows, 1):
        x, height = MARGIN + (shift if number == 1 else 0), max(sizes[name][1] for name in names[start:end])
        for name in names[start:end]:
            frames[name] = Frame(x, y, sizes[name][0], height)
            x += sizes[name][0] + GAP
        y += height + ROW_GAP + lanes.height(number)
    return frames


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
    too_narrow, enough = 0.0, room
    while enough - too_narrow > CLOSE:
        middle = (too_narrow + enough) / 2
        found = _filled(sizes, middle)
        if len(found) == len(rows):
            rows, enough = found, middle
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
