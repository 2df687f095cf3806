"""A comparison as bubbles: MACs and parameters are the place of a model, memory is its area, depth its colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import cos, floor, hypot, log10, pi, sin, sqrt
from typing import TYPE_CHECKING

from vggscope.analysis.compare import Compared, Comparison
from vggscope.drawing.fonts import ASCENT, DESCENT, measured_in, text_width, wrapped
from vggscope.drawing.installed_fonts import FALLBACK, installed_font
from vggscope.drawing.theme import BODY, SMALL, TITLE, Theme
from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.render.matplotlib_figure import literal, round_count
from vggscope.units import bytes_text, count_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (9.0, 6.2)
"""Width and height in inches."""

LEFT, BOTTOM, RIGHT, TOP = 62.0, 46.0, 130.0, 52.0
"""The space around the axes, in points; the legend is on the right."""

LARGEST, SMALLEST = 24.0, 3.5
"""The radius of the largest bubble and the least of any, in points."""

WIDE = 8.0
"""An axis is logarithmic if its largest value is more than this many times the least."""

LONGEST_NAME = 110.0
"""The largest width of a model's name, in points."""

RINGS, DIRECTIONS = 16, 24
"""How many distances from its bubble, and how many directions, are tried for a name."""

BESIDE, APART, SAME = 4.0, 5.0, 2.5
"""In points: the largest distance of a name from its bubble without a line; by how much it is nearer than any other
bubble; by how much the centres and radii of two bubbles differ that a reader cannot tell apart.
"""

TRANSPARENCY = 0.85

Point = tuple[float, float]
Segment = tuple[Point, Point]

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points from the lower left of the axes."""


@record
class Bubble:
    """A model on the page: its name, its centre and radius in points from the lower left of the axes, its colour."""

    name: str
    x: float
    y: float
    radius: float
    color: str

    def distance(self, box: Box) -> float:
        """From its edge to a box, negative if they overlap."""
        return hypot(self.x - _clamped(self.x, box[0], box[2]), self.y - _clamped(self.y, box[1], box[3])) - self.radius

    def covers(self, other: Bubble) -> bool:
        """Whether a reader cannot tell the two apart."""
        return hypot(self.x - other.x, self.y - other.y) < SAME and abs(self.radius - other.radius) < SAME

    def line_to(self, box: Box) -> Segment:
        """The shortest line from its edge to a box outside it."""
        end = (_clamped(self.x, box[0], box[2]), _clamped(self.y, box[1], box[3]))
        share = self.radius / hypot(end[0] - self.x, end[1] - self.y)
        return (self.x + (end[0] - self.x) * share, self.y + (end[1] - self.y) * share), end

    def meets(self, line: Segment) -> bool:
        """Whether a line runs through it."""
        (x, y), (dx, dy) = line[0], (line[1][0] - line[0][0], line[1][1] - line[0][1])
        along = ((self.x - x) * dx + (self.y - y) * dy) / ((dx * dx + dy * dy) or 1.0)
        share = _clamped(along, 0.0, 1.0)
        return hypot(x + dx * share - self.x, y + dy * share - self.y) < self.radius + 0.5


@record
class Name:
    """The place of a name, with the line to its bubble if it needs one."""

    box: Box
    line: Segment | None


@record
class Scale:
    """One axis: the values at its ends, whether it is logarithmic, and its length in points."""

    low: float
    high: float
    is_log: bool
    length: float

    def place(self, value: float) -> float:
        """Where a value is, in points from the start."""
        if self.is_log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low)) * self.length
        return (value - self.low) / (self.high - self.low) * self.length

    @property
    def ticks(self) -> list[float]:
        """Round values: 1, 2 and 5 times powers of ten."""
        if self.is_log:
            powers = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
            every = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        else:
            step = _step((self.high - self.low) / 5)
            every = [step * number for number in range(int(self.high / step) + 1)]
        return [value for value in every if self.low <= value <= self.high]


def drawn_models(comparison: Comparison) -> list[Compared]:
    """The models that have all figures of the chart.

    Raises OptionError if there is none.
    """
    drawn = [model for model in comparison.models if model.macs and model.params and model.inference_peak_bytes]
    if not drawn:
        remedy = f"{option('chart', 'bars')} shows what is known"
        raise OptionError("no model has parameters, MACs and memory, which a chart of bubbles needs", remedy)
    return drawn


def paint(figure: Figure, models: Sequence[Compared], head: str, caption: str, theme: Theme) -> None:
    """Draw the chart on a figure of SIZE. `head` says how many models it has, `caption` of what inputs."""
    figure.set_layout_engine("none")
    width, height = SIZE[0] * 72, SIZE[1] * 72
    across = _scale([float(model.macs or 0) for model in models], width - LEFT - RIGHT)
    up = _scale([float(model.params or 0) for model in models], height - BOTTOM - TOP)
    frame = (LEFT / width, BOTTOM / height, across.length / width, up.length / height)
    axes = figure.add_axes(frame, facecolor=theme.card)
    axes.set_xlim(0, across.length)
    axes.set_ylim(0, up.length)
    _ticks(axes, across, up, theme)
    axes.set_xlabel("MACs of the batch", color=theme.ink, fontsize=BODY)
    axes.set_ylabel("parameters", color=theme.ink, fontsize=BODY)
    title = f"{head} by MACs, parameters, memory and depth"
    figure.text(LEFT / width, 1 - 20 / height, title, fontsize=TITLE, fontweight="bold", color=theme.ink)
    text = literal(caption, width - LEFT - 10)
    figure.text(LEFT / width, 1 - 36 / height, text, fontsize=SMALL, color=theme.muted)
    largest = max(model.inference_peak_bytes or 0 for model in models)
    depths = [model.depth for model in models if model.depth is not None]
    bubbles = [_bubble(model, across, up, largest, depths, theme) for model in models]
    _draw_bubbles(axes, bubbles, theme)
    with measured_in(installed_font(FALLBACK)):
        placed = place_names(bubbles, across.length, up.length)
    for bubble, name in zip(bubbles, placed):
        if name is not None:
            _draw_name(axes, bubble, name, theme)
    unnamed = [bubble.name for bubble, name in zip(bubbles, placed) if name is None]
    if unnamed:
        text = f"no room for the names of {', '.join(unnamed)}"
        lines = "\n".join(wrapped(text, SMALL, width - LEFT))
        figure.text(LEFT / width, 0, lines, fontsize=SMALL, color=theme.muted, va="top", linespacing=1.3)
    _legend(axes, across.length, up.length, largest, depths, theme)


def place_names(bubbles: Sequence[Bubble], width: float, height: float) -> list[Name | None]:
    """A place for each name, that covers neither bubbles nor other names. Its bubble is the nearest, or a line leads to
    it that crosses no other bubble, name or line. None for a name that has no such place.

    The names with the most neighbours are placed first or last, whichever finds a place for more.
    """
    crowded = sorted(range(len(bubbles)), key=lambda number: -_neighbours(bubbles, number))
    first = _placed_in(crowded, bubbles, width, height)
    if None not in first:
        return first
    last = _placed_in(crowded[::-1], bubbles, width, height)
    return min(first, last, key=lambda names: names.count(None))


def _placed_in(order: Sequence[int], bubbles: Sequence[Bubble], width: float, height: float) -> list[Name | None]:
    placed: dict[int, Name] = {}
    for number in order:
        own = bubbles[number]
        others = [bubble for bubble in bubbles if not own.covers(bubble)]
        for box in _candidates(own):
            is_inside = box[0] >= 2 and box[1] >= 2 and box[2] <= width - 2 and box[3] <= height - 2
            if is_inside and (name := _name_at(box, own, others, list(placed.values()))) is not None:
                placed[number] = name
                break
    return [placed.get(number) for number in range(len(bubbles))]


def _name_at(box: Box, own: Bubble, others: Sequence[Bubble], placed: Sequence[Name]) -> Name | None:
    """The name of a bubble at this place, None if it cannot be there."""
    if any(_overlap(box, name.box) or (name.line and _crosses(name.line, box)) for name in placed):
        return None
    distance = own.distance(box)
    nearest = min((bubble.distance(box) for bubble in others), default=float("inf"))
    if distance < 1 or nearest < 2:
        return None
    if distance <= BESIDE and nearest >= distance + APART:
        return Name(box, None)
    line = own.line_to(box)
    is_crossed = any(bubble.meets(line) for bubble in others) or any(_crosses(line, name.box) for name in placed)
    return None if is_crossed or any(name.line and _meet(line, name.line) for name in placed) else Name(box, line)


def _neighbours(bubbles: Sequence[Bubble], number: int) -> int:
    own = bubbles[number]
    return sum(abs(other.x - own.x) < 90 and abs(other.y - own.y) < 40 for other in bubbles)


def _candidates(bubble: Bubble) -> Iterator[Box]:
    """Places for a name, the nearest first: to the right, the left, above and below, then in all directions."""
    width, height = text_width(bubble.name, SMALL), (ASCENT + DESCENT) * SMALL
    for ring in range(RINGS):
        distance = bubble.radius + 3 + 9 * ring
        directions = DIRECTIONS if ring else 8
        for turn in range(directions):
            angle = 2 * pi * turn / directions
            x, y = bubble.x + distance * cos(angle), bubble.y + distance * sin(angle)
            bottom = y - height * (1 - sin(angle)) / 2
            # The side of the name that faces the bubble lies on the ring, or one of its ends does.
            for share in ((1 - cos(angle)) / 2, 0.0, 1.0):
                left = x - width * share
                yield (left, bottom, left + width, bottom + height)


def _overlap(one: Box, other: Box) -> bool:
    """Whether two names overlap or touch."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    return across > -2 and min(one[3], other[3]) - max(one[1], other[1]) > -1


def _crosses(line: Segment, box: Box) -> bool:
    """Whether a line runs through a box or along its edge, by Liang and Barsky's clipping."""
    (x, y), (dx, dy) = line[0], (line[1][0] - line[0][0], line[1][1] - line[0][1])
    enters, leaves = 0.0, 1.0
    for rate, room in (
        *((-dx, x - box[0] + 2), (dx, box[2] + 2 - x)),
        *((-dy, y - box[1] + 1), (dy, box[3] + 1 - y)),
    ):
        if rate == 0 and room < 0:
            return False
        if rate < 0:
            enters = max(enters, room / rate)
        elif rate > 0:
            leaves = min(leaves, room / rate)
    return enters <= leaves


def _meet(one: Segment, other: Segment) -> bool:
    """Whether two lines cross: the ends of each lie on different sides of the other."""

    def side(line: Segment, point: Point) -> float:
        (x, y), (end_x, end_y) = line
        return (end_x - x) * (point[1] - y) - (end_y - y) * (point[0] - x)

    def parts(line: Segment, ends: Segment) -> bool:
        return side(line, ends[0]) * side(line, ends[1]) <= 0

    return parts(one, other) and parts(other, one)


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _scale(values: Sequence[float], length: float) -> Scale:
    """An axis on which all values lie, with room for the largest bubble at both ends."""
    low, high = min(values), max(values)
    margin = (LARGEST + 10) / (length - 2 * (LARGEST + 10))
    if high > WIDE * low:
        factor = (high / low) ** margin
        return Scale(low / factor, high * factor, True, length)
    high = high or 1.0
    return Scale(0.0, high * (1 + margin), False, length)


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is no less."""
    power = float(10 ** floor(log10(least)))
    return min(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= least)


def _radius(size: int, largest: int) -> float:
    """The radius of a bubble whose area is proportional to a size."""
    return max(LARGEST * sqrt(size / largest), SMALLEST)


def _bubble(model: Compared, across: Scale, up: Scale, largest: int, depths: Sequence[int], theme: Theme) -> Bubble:
    color = theme.card if model.depth is None else _depth_color(model.depth, depths, theme)
    x, y = across.place(model.macs or 0), up.place(model.params or 0)
    return Bubble(literal(model.model, LONGEST_NAME), x, y, _radius(model.inference_peak_bytes or 0, largest), color)


def _depth_color(depth: int, depths: Sequence[int], theme: Theme) -> str:
    low, high = min(depths), max(depths)
    return theme.heat_at(0.15 + 0.75 * ((depth - low) / (high - low) if high > low else 0.5))


def _draw_bubbles(axes: Axes, bubbles: Sequence[Bubble], theme: Theme) -> None:
    from matplotlib.patches import Circle

    for order, bubble in enumerate(sorted(bubbles, key=lambda bubble: -bubble.radius)):
        style = {"facecolor": bubble.color, "edgecolor": theme.ink, "linewidth": 0.6, "alpha": TRANSPARENCY}
        axes.add_patch(Circle((bubble.x, bubble.y), bubble.radius, zorder=2 + order / 100, **style))


def _draw_name(axes: Axes, bubble: Bubble, name: Name, theme: Theme) -> None:
    """The name of a bubble, with its line."""
    if name.line is not None:
        (x, y), (end_x, end_y) = name.line
        axes.plot([x, end_x], [y, end_y], color=theme.muted, linewidth=0.5, zorder=4)
    left, bottom = name.box[:2]
    axes.text(left, bottom + DESCENT * SMALL, bubble.name, fontsize=SMALL, color=theme.ink, zorder=5)


def _ticks(axes: Axes, across: Scale, up: Scale, theme: Theme) -> None:
    axes.set_xticks([across.place(value) for value in across.ticks], [round_count(value) for value in across.ticks])
    axes.set_yticks([up.place(value) for value in up.ticks], [round_count(value) for value in up.ticks])
    axes.tick_params(colors=theme.muted, labelsize=SMALL)
    axes.grid(color=theme.track, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.border)


def _legend(axes: Axes, width: float, height: float, largest: int, depths: Sequence[int], theme: Theme) -> None:
    """On the right of the axes: what an area stands for, and what a colour."""
    x, y = width + 18, height - 4
    y = _heading(axes, x, y, "area: peak memory,\ninference", theme)
    for size in _round_sizes(largest):
        radius = _radius(size, largest)
        y -= radius
        _swatch(axes, x + LARGEST, y, radius, theme)
        _note(axes, x + 2 * LARGEST + 8, y, bytes_text(size), theme)
        y -= radius + 6
    y = _heading(axes, x, y - 14, "colour: depth,\nlayers with weights", theme)
    for depth in _some_of(depths):
        y -= 6
        _swatch(axes, x + 6, y, 5.5, theme, _depth_color(depth, depths, theme))
        _note(axes, x + 18, y, count_text(depth), theme)
        y -= 9


def _heading(axes: Axes, x: float, y: float, text: str, theme: Theme) -> float:
    axes.text(x, y, text, fontsize=SMALL, color=theme.ink, va="top", linespacing=1.2)
    return y - 28


def _note(axes: Axes, x: float, y: float, text: str, theme: Theme) -> None:
    axes.text(x, y, text, fontsize=SMALL, color=theme.muted, va="center")


def _swatch(axes: Axes, x: float, y: float, radius: float, theme: Theme, color: str = "none") -> None:
    from matplotlib.patches import Circle

    circle = Circle((x, y), radius, facecolor=color, edgecolor=theme.ink, linewidth=0.6, clip_on=False)
    axes.add_patch(circle)


def _round_sizes(largest: int) -> list[int]:
    """Up to three sizes of memory: powers of two, the largest of them no larger than the largest bubble's."""
    top = 1 << (largest.bit_length() - 1)
    return [size for size in (top, top // 4, top // 16) if size]


def _some_of(depths: Sequence[int]) -> list[int]:
    """The least, the largest and a middle one of the depths."""
    known = sorted(set(depths))
    return list(dict.fromkeys([known[0], known[len(known) // 2], known[-1]])) if known else []
