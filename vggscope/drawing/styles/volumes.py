"""`volumes`: a solid for each feature map, left to right, on the scale in the note; a slab for each vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from vggscope.drawing.feature_maps import FeatureMap, MapGroup, map_groups, skips
from vggscope.drawing.flow import WIDTH
from vggscope.drawing.fonts import fitted, fitted_list, text_width
from vggscope.drawing.look import Heat, Look, heat_of, kind_legend
from vggscope.drawing.picture import Line, Link, Part, Picture, Point, Polygon, Shape, Text, arrow
from vggscope.drawing.sheet import LINE, MARGIN, TOP, page
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import SMALL, Theme, mixed
from vggscope.errors import OptionError, option
from vggscope.record import record

DEFAULT = ()
"""The default facts below a group: none besides its name and its layers."""

RANKDIR = "LR"
"""The default direction of the graph as DOT."""

TALLEST, TALLEST_SLAB, THICKEST = 150.0, 100.0, 44.0
"""In points: the largest side of a map, the largest slab of a vector, the largest thickness of a map."""

THICKEST_CHANNEL = 0.06
"""The most points for a channel."""

THINNEST, LEAST_SIDE, SLAB = 1.6, 3.0, 7.0
"""In points: the least thickness and the least side, so that every solid is visible; the thickness of a slab."""

GAP, GROUP_GAP, TEXT_GAP = 2.5, 12.0, 4.0
"""In points: the least space between two solids, between the brackets of two groups, and between two texts."""

FAR = 100.0
"""In points: a solid that ends so far to the left has no text that reaches further."""

DEPTH = 0.34
"""How far the width, drawn away from the reader, extends right and up, as a share of its length."""

BRACKET, ARC = 3.0, 7.0
"""In points: the height of a bracket's ends, and the distance of two connections that run above each other."""

LONGEST = (96.0, 78.0)
"""The longest text below a bracket, in points: the first with which the picture fits the page."""

_Levels = dict[tuple[int, int], int]
"""The level of each connection, by the places of the maps where it starts and ends."""


@record
class _Scale:
    """Points for a pixel of a side, for a channel, and for a unit of a vector."""

    side: float
    channel: float
    unit: float

    def solid(self, shown: FeatureMap) -> tuple[float, float, float]:
        """Thickness, height and depth in points."""
        if shown.is_vector:
            return SLAB, max(LEAST_SIDE, shown.sides[0] * self.unit), SLAB * DEPTH
        channels, height, width = (*shown.sides, 1)[:3]
        thickness = max(THINNEST, channels * self.channel)
        return thickness, max(LEAST_SIDE, height * self.side), max(LEAST_SIDE, width * self.side) * DEPTH


@record
class _Solid:
    """A map in its place: `left` is the left edge of its front, the middle of its height lies on the picture's axis.
    `above` and `below` are the texts there.
    """

    shown: FeatureMap
    left: float
    size: tuple[float, float, float]
    above: str
    below: tuple[str, ...]

    @property
    def right(self) -> float:
        return self.left + self.size[0]

    @property
    def end(self) -> float:
        """The right end of its side, which lies behind what follows."""
        return self.right + self.size[2]

    def top(self, axis: float) -> float:
        """The upper edge of its back."""
        return axis - (self.size[1] + self.size[2]) / 2

    def bottom(self, axis: float) -> float:
        """The lower edge of its front."""
        return axis + (self.size[1] + self.size[2]) / 2

    def end_below(self, y: float) -> float:
        """The right end of what it covers just below a height over the axis: its side ends in a slope."""
        return min(self.end, self.right + self.bottom(0) - y) if self.bottom(0) > y else 0.0

    @property
    def above_end(self) -> float:
        """The right end of the text above, which begins over the back; 0 without one."""
        return self.left + self.size[2] + text_width(self.above, SMALL) if self.above else 0.0

    @property
    def below_width(self) -> float:
        return max((text_width(text, SMALL) for text in self.below), default=0.0)

    @property
    def below_end(self) -> float:
        """The right end of the texts below, which have the middle of the front; 0 without any."""
        return self.left + (self.size[0] + self.below_width) / 2 if self.below else 0.0

    @property
    def text_end(self) -> float:
        return max(self.above_end, self.below_end)

    @property
    def middle(self) -> float:
        """The middle of its upper back edge, where connections start and end."""
        return self.left + self.size[0] / 2 + self.size[2]


def draw(subject: Subject, look: Look) -> Picture:
    """The picture of one network.

    Raises OptionError where it has nothing with a height and a width, or more dimensions than a solid can show.
    """
    if look.direction != "LR":
        raise OptionError("style volumes runs from left to right", f"leave {option('direction')} out")
    groups = map_groups(subject)
    maps = [shown for group in groups for shown in group.maps]
    arcs = _levels(skips(subject, maps))
    contents, scale = _fitted(groups, subject, look, arcs)
    rows = contents.placed(scale)
    solids = [solid for row in rows for solid in row]
    tallest = max(solid.size[1] + solid.size[2] for solid in solids)
    axis = TOP + (10 + ARC * max(arcs.values()) if arcs else 10) + tallest / 2
    base = axis + tallest / 2 + 8 + LINE * max(len(solid.below) for solid in solids)
    bottom = base + 4 + LINE * max(map(len, contents.words))
    heat = heat_of(look, [shown.layers for shown in maps])
    shows_kinds = heat is None and look.framing.legend
    kinds = kind_legend(MARGIN, bottom + 16, [shown.kind for shown in maps], look.theme) if shows_kinds else ()
    texts = [text for solid in solids for text in _labels(solid, axis, look.theme)]
    brackets = [shape for row, words in zip(rows, contents.words) for shape in _bracket(row, words, base, look.theme)]
    ends = [shape.bounds[2] for shape in (*texts, *brackets, *kinds) if isinstance(shape, Text)]
    return page(
        title=subject.title,
        caption=subject.caption,
        theme=look.theme,
        size=(max(*ends, *(solid.end for solid in solids)), bottom + (16 if kinds else 0)),
        frame=(*brackets, *texts, *kinds),
        links=(*_edges(maps), *_arcs(solids, arcs, axis, look.theme)),
        parts=tuple(
            _part(solid, group.name, axis, look.theme, heat) for group, row in zip(groups, rows) for solid in row
        ),
        notes=(*_notes(maps, scale, bool(arcs)), *subject.notes),
        heat=heat,
        framing=look.framing,
    )


def _fitted(groups: Sequence[MapGroup], subject: Subject, look: Look, arcs: _Levels) -> tuple[_Contents, _Scale]:
    """What to place, and the scale: texts are cut and channels thin enough for the width of a page, as far as they stay
    readable.
    """
    room = (look.width or WIDTH) - 2 * MARGIN
    ends = frozenset(place for pair in arcs for place in pair)
    for longest in LONGEST:
        words = [_words(group, subject, look, longest) for group in groups]
        contents = _Contents(groups, words, ends)
        scale = _scale(contents, room)
        if contents.width(scale) <= room:
            break
    return contents, scale


def _words(group: MapGroup, subject: Subject, look: Look, longest: float) -> list[str]:
    """The lines below a group: its name, the names of its maps, its facts; longer ones are cut in the middle."""
    facts = [fact for key, fact in look.facts.items() if key != "shape"] if group.layers else []
    fits = text_width(group.name, SMALL, bold=True) <= longest
    name = group.name if fits else group.name.rpartition(".")[2]
    members = [fitted_list(group.members.split(", "), SMALL, longest)] if group.members != group.name else []
    texts = [fitted(fact.text(group.layers, subject.report), SMALL, longest) for fact in facts]
    return [fitted(name, SMALL, longest, bold=True), *members, *texts]


@record
class _Contents:
    """Groups with the lines below each. `ends` are the places of the maps where connections start or end; if there are
    any, heights and widths stand below the solids.
    """

    groups: Sequence[MapGroup]
    words: Sequence[list[str]]
    ends: frozenset[int]

    def placed(self, scale: _Scale) -> list[list[_Solid]]:
        """The solids of each group from left to right, so that no text covers another one or a solid."""
        rows: list[list[_Solid]] = []
        start, place = MARGIN, _Placed(bool(self.ends))
        for group, lines in zip(self.groups, self.words):
            row: list[_Solid] = []
            for shown in group.maps:
                left = row[-1].right + (3 * GAP if shown.is_vector else GAP) if row else start
                row.append(place.next(shown, scale.solid(shown), left, place.count in self.ends, not row))
            rows.append(row)
            wide = max(text_width(line, SMALL, bold=not number) for number, line in enumerate(lines))
            start = max(row[0].left + wide, row[-1].right) + GROUP_GAP
        return rows

    def width(self, scale: _Scale) -> float:
        """The width of the drawing."""
        rows = self.placed(scale)
        last = max(text_width(line, SMALL, bold=not place) for place, line in enumerate(self.words[-1]))
        return max(rows[-1][0].left + last, *(solid.end for row in rows for solid in row)) - MARGIN


class _Placed:
    """The solids that are placed so far. With `areas_below`, heights and widths are among the texts below them."""

    def __init__(self, areas_below: bool) -> None:
        self.areas_below = areas_below
        self.count = 0
        self._before: FeatureMap | None = None
        self._near: list[_Solid] = []

    def next(
        self, shown: FeatureMap, size: tuple[float, float, float], left: float, is_end: bool, is_first: bool
    ) -> _Solid:
        """Place a map, maybe the first of its group, as a solid of this size, at `left` or further right. A connection
        that ends there is in front of all solids before.
        """
        above, below = self._texts(shown, is_first)
        solid = _Solid(shown, left, size, above, below)
        least = [left]
        least += [other.text_end + GAP for other in self._near if solid.bottom(0) > other.bottom(0) + 1]
        covered = max((other.end for other in self._near), default=0.0) + TEXT_GAP
        if is_end:
            least.append(covered - (solid.middle - left))
        if above:
            least += [covered - size[2], *(other.above_end + TEXT_GAP - size[2] for other in self._near)]
        if below:
            start = solid.below_end - left - solid.below_width
            least.append(MARGIN - start)
            least += [max(other.below_end, other.end_below(solid.bottom(0))) + TEXT_GAP - start for other in self._near]
        placed = replace(solid, left=max(least))
        self._near = [other for other in self._near if other.end + FAR > placed.left] + [placed]
        self._before, self.count = shown, self.count + 1
        return placed

    def _texts(self, shown: FeatureMap, is_first: bool) -> tuple[str, tuple[str, ...]]:
        """The text above a map and those below it, without what the map before has too. Where both stand below, the
        first map of a group and one of another size have their channels in any case.
        """
        before = self._before
        area = "" if before is not None and before.area == shown.area else shown.area
        same = before is not None and not shown.is_vector and shown.sides[0] == before.sides[0]
        channels = "" if same else f"{shown.sides[0]:,}"
        if self.areas_below:
            own = "" if shown.is_vector or not (area or is_first) else f"{shown.sides[0]:,}"
            return "", tuple(filter(None, (channels or own, area)))
        return area, (channels,) if channels else ()


def _scale(contents: _Contents, room: float) -> _Scale:
    """A scale that makes the largest side TALLEST, and channels as thick as the page allows."""
    sides = [shown.sides for group in contents.groups for shown in group.maps]
    solid = [own for own in sides if len(own) > 1]
    side = min(4.0, TALLEST / max((max(own[1:]) for own in solid), default=1))
    unit = min(4.0, TALLEST_SLAB / max((own[0] for own in sides if len(own) == 1), default=1))
    most = min(THICKEST_CHANNEL, THICKEST / max((own[0] for own in solid), default=1))
    low, high = most / 4, most
    for _ in range(20):
        middle = (low + high) / 2
        fits = contents.width(_Scale(side, middle, unit)) <= room
        low, high = (middle, high) if fits else (low, middle)
    return _Scale(side, low, unit)


def _part(solid: _Solid, group: str, axis: float, theme: Theme, heat: Heat | None) -> Part:
    shown = solid.shown
    cluster = (group,) if shown.layers else ()
    tooltip = "\n".join(layer.details for layer in shown.layers) or f"input {shown.shape}"
    return Part(shown.key, _faces(solid, axis, theme, heat), (shown.name, shown.shape), tooltip, shown.kind, cluster)


def _faces(solid: _Solid, axis: float, theme: Theme, heat: Heat | None) -> tuple[Shape, ...]:
    """The top, side and front of a solid."""
    thickness, height, depth = solid.size
    shown = solid.shown
    fill = heat.fill(shown.layers) if heat and shown.layers else theme.fills[shown.kind]
    edge = mixed(fill, theme.ink_on(fill), 0.6) if heat else theme.accents[shown.kind]
    left, bottom = solid.left, solid.bottom(axis)
    right, top = left + thickness, bottom - height
    away = ((left + depth, top - depth), (right + depth, top - depth), (right + depth, bottom - depth))
    # The side is the largest face: it shows the heat if there is one, else it is shaded.
    side, front = (fill, mixed(fill, theme.page, 0.2)) if heat else (theme.shaded(shown.kind), fill)
    return (
        Polygon(((left, top), away[0], away[1], (right, top)), theme.lit(fill), edge, 0.5),
        Polygon(((right, top), away[1], away[2], (right, bottom)), side, edge, 0.5),
        Polygon(((left, top), (right, top), (right, bottom), (left, bottom)), front, edge, 0.5),
    )


def _labels(solid: _Solid, axis: float, theme: Theme) -> Iterator[Text]:
    """The texts above and below a solid."""
    if solid.above:
        yield Text(solid.left + solid.size[2], solid.top(axis) - 3, solid.above, SMALL, theme.muted)
    for place, text in enumerate(solid.below):
        color = theme.muted if text == solid.shown.area else theme.ink
        x, y = solid.left + solid.size[0] / 2, solid.bottom(axis) + 9 + 10 * place
        yield Text(x, y, text, SMALL, color, anchor="middle")


def _bracket(row: list[_Solid], words: list[str], base: float, theme: Theme) -> Iterator[Shape]:
    """The bracket under a group, and its texts."""
    left, right = row[0].left, max(row[-1].right, row[0].left + 2 * BRACKET)
    yield Line(((left, base - BRACKET), (left, base), (right, base), (right, base - BRACKET)), theme.muted)
    for place, word in enumerate(words):
        color = theme.muted if place else theme.ink
        yield Text(left, base + LINE * (place + 1), word, SMALL, color, bold=not place)


def _levels(connections: Sequence[tuple[int, int]]) -> _Levels:
    """The height of each connection over the solids, 0 for the lowest: a longer one runs over those that it spans."""
    levels: _Levels = {}
    for source, target in sorted(connections, key=lambda ends: ends[1] - ends[0]):
        met = [level for (a, b), level in levels.items() if a < target and source < b]
        levels[source, target] = max(met, default=-1) + 1
    return levels


def _arcs(solids: Sequence[_Solid], levels: _Levels, axis: float, theme: Theme) -> Iterator[Link]:
    """The connections that skip solids, drawn above them."""
    for (source, target), level in levels.items():
        start, end = solids[source], solids[target]
        top = min(solid.top(axis) for solid in solids[source : target + 1])
        over = top - 14 - ARC * level
        points: tuple[Point, ...] = (
            (start.middle, start.top(axis) - 1),
            (start.middle, over),
            (end.middle - 1.5, over),
            (end.middle - 1.5, end.top(axis) - 1),
        )
        yield Link(start.shown.key, end.shown.key, arrow(points, theme.arrow, head=4.0))


def _edges(maps: Sequence[FeatureMap]) -> Iterator[Link]:
    """The edges of the graph as DOT. The solids stand in order, so that no arrows are drawn."""
    for one, other in pairwise(maps):
        yield Link(one.key, other.key, ())


def _notes(maps: Sequence[FeatureMap], scale: _Scale, has_arcs: bool) -> tuple[str, ...]:
    solid = [shown.sides for shown in maps if not shown.is_vector]
    parts = []
    if solid:
        side, channels = max(max(sides[1:]) for sides in solid), max(sides[0] for sides in solid)
        parts += [f"{side:,} px of a side are {_points(side * scale.side)} pt"]
        parts += [f"{channels:,} channels are {_points(channels * scale.channel)} pt of thickness"]
    if units := max((shown.sides[0] for shown in maps if shown.is_vector), default=0):
        parts += [f"{units:,} units are {_points(units * scale.unit)} pt of height"]
    smallest = [min(sides[1:]) * scale.side for sides in solid]
    smallest += [shown.sides[0] * scale.unit for shown in maps if shown.is_vector]
    least = f" No side is drawn with less than {LEAST_SIDE:g} pt." if min(smallest) < LEAST_SIDE else ""
    arrows = ("Arrows skip layers: a map that is added, or read again, later.",) if has_arcs else ()
    return (f"Scale: {', '.join(parts)}.{least}", *arrows)


def _points(length: float) -> str:
    """A length in points: whole ones, and two digits of less than ten."""
    return f"{length:.2g}" if length < 10 else f"{length:.0f}"
