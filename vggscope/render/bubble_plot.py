"""A comparison as bubbles: MACs and parameters are the place of a model, memory is its area, depth its colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import cos, floor, log10, pi, sin, sqrt
from typing import TYPE_CHECKING

from vggscope.analysis.compare import Compared, Comparison
from vggscope.drawing.fonts import ASCENT, DESCENT, measured_in, text_width
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

RINGS, DIRECTIONS = 14, 16
"""How many distances from its bubble, and how many directions, are tried for a name."""

TRANSPARENCY = 0.85

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

    @property
    def box(self) -> Box:
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


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


def paint(
    figure: Figure, models: Sequence[Compared], left_out: Iterable[str], source: str, caption: str, theme: Theme
) -> None:
    """Draw the chart on a figure of SIZE. `source` says of which library all models are."""
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
    missing = ", ".join(literal(name, 60) for name in left_out)
    note = f"; not drawn, since a figure is not known: {missing}" if missing else ""
    head = f"{len(models)} models{source} by MACs, parameters, memory and depth"
    figure.text(LEFT / width, 1 - 20 / height, head, fontsize=TITLE, fontweight="bold", color=theme.ink)
    text = literal(f"{caption}{note}", width - LEFT - 10)
    figure.text(LEFT / width, 1 - 36 / height, text, fontsize=SMALL, color=theme.muted)
    largest = max(model.inference_peak_bytes or 0 for model in models)
    depths = [model.depth for model in models if model.depth is not None]
    bubbles = [_bubble(model, across, up, largest, depths, theme) for model in models]
    _draw_bubbles(axes, bubbles, theme)
    with measured_in(installed_font(FALLBACK)):
        placed = place_names(bubbles, across.length, up.length)
    for bubble, box in zip(bubbles, placed):
        _draw_name(axes, bubble, box, theme)
    _legend(axes, across.length, up.length, largest, depths, theme)


def place_names(bubbles: Sequence[Bubble], width: float, height: float) -> list[Box]:
    """A place for each name, near its bubble, that covers neither bubbles nor other names. Those with the most
    neighbours come first. A name for which there is no free place gets the one that covers least.
    """
    taken = [bubble.box for bubble in bubbles]
    order = sorted(range(len(bubbles)), key=lambda number: -_neighbours(bubbles, number))
    placed: dict[int, Box] = {}
    for number in order:
        best, least = (0.0, 0.0, 0.0, 0.0), float("inf")
        for box in _candidates(bubbles[number]):
            inside = box[0] >= 2 and box[1] >= 2 and box[2] <= width - 2 and box[3] <= height - 2
            covered = sum(_overlap(box, other) for other in taken) + (0.0 if inside else 1e6)
            if covered < least:
                best, least = box, covered
            if not covered:
                break
        placed[number] = best
        taken.append(best)
    return [placed[number] for number in range(len(bubbles))]


def _neighbours(bubbles: Sequence[Bubble], number: int) -> int:
    own = bubbles[number]
    return sum(abs(other.x - own.x) < 90 and abs(other.y - own.y) < 40 for other in bubbles)


def _candidates(bubble: Bubble) -> Iterator[Box]:
    """Places for a name, the nearest first: to the right, the left, above and below, then in all directions."""
    width, up, down = text_width(bubble.name, SMALL), ASCENT * SMALL, DESCENT * SMALL
    height = up + down
    for ring in range(RINGS):
        distance = bubble.radius + 3 + 9 * ring
        for turn in range(DIRECTIONS if ring else 8):
            angle = 2 * pi * turn / (DIRECTIONS if ring else 8)
            x, y = bubble.x + distance * cos(angle), bubble.y + distance * sin(angle)
            # The side of the name that faces the bubble lies on the ring.
            left, bottom = x - width * (1 - cos(angle)) / 2, y - height * (1 - sin(angle)) / 2
            yield (left, bottom, left + width, bottom + height)


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0]) + 2
    up = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(across, 0.0) * max(up, 0.0)


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


def _draw_name(axes: Axes, bubble: Bubble, box: Box, theme: Theme) -> None:
    """The name of a bubble, with a line to it if it is not beside it."""
    left, bottom, right, top = box
    near = (min(max(bubble.x, left), right), min(max(bubble.y, bottom), top))
    distance = ((near[0] - bubble.x) ** 2 + (near[1] - bubble.y) ** 2) ** 0.5
    if distance > bubble.radius + 6:
        share = bubble.radius / distance
        edge = [bubble.x + (near[0] - bubble.x) * share, bubble.y + (near[1] - bubble.y) * share]
        axes.plot([edge[0], near[0]], [edge[1], near[1]], color=theme.muted, linewidth=0.5, zorder=4)
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
