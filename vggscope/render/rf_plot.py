"""Pictures of receptive fields: growth over depth, regions on an image, and where in one the energy lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vggscope.analysis.receptive_field.result import Box, ReceptiveFields, UnitField
from vggscope.drawing.theme import BODY, SMALL, TITLE, Theme, theme_named
from vggscope.errors import OptionError
from vggscope.execution.effective_field import EffectiveMap
from vggscope.photo import crop, open_photo
from vggscope.record import record
from vggscope.render.matplotlib_figure import DASHES, HUES, Plot, literal, plain_axes
from vggscope.units import count_text, kernel_text, percent_text, shape_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MOST_TICKS = 40
"""How many layers are named along the axis."""

MOST_LINES = 12
"""More models than these nobody tells apart."""


@record
class Line:
    """How a model's field grows: the side in pixels at each layer that widens it. `names` are all models that grow
    alike.
    """

    names: tuple[str, ...]
    layers: tuple[str, ...]
    sides: tuple[int, ...]


def plot(
    fields: ReceptiveFields,
    theme: str = "light",
    *,
    beside: Sequence[ReceptiveFields] = (),
    image: str | Image | None = None,
) -> Plot:
    """The picture of what was asked for: a unit's effective field where that was measured, the regions of units where
    some were named, on a photo (a file, or an image of pillow's) if there is one; else growth over depth, with that of
    other models `beside`.

    Raises OptionError for what cannot be drawn and for a theme that is not there.
    """
    if fields.effective is not None and fields.heat is not None:
        return heat_map(EffectiveMap(fields.model, fields.input_shape, fields.effective, fields.heat), theme)
    if fields.units:
        return regions(fields, open_photo(image) if isinstance(image, str) else image, theme)
    return growth((fields, *beside), theme)


def growth(fields: Sequence[ReceptiveFields], theme: str = "light") -> Plot:
    """The fields of one model or of several over depth.

    Raises OptionError for too many models and for one without a known field.
    """
    if len(fields) > MOST_LINES:
        raise OptionError(f"{len(fields)} models are too many for one plot", f"name up to {MOST_LINES}")
    lines = _lines(fields)
    image = max(fields[0].input_shape[2:])

    def paint(figure: Figure, chosen: Theme) -> None:
        _draw_growth(figure.add_subplot(), lines, image, chosen)

    return Plot(paint, "receptive fields", (9, 5), theme_named(theme))


def _lines(fields: Sequence[ReceptiveFields]) -> list[Line]:
    found: dict[tuple[int, ...], Line] = {}
    for model in fields:
        steps = list(_steps(model))
        if not steps:
            raise OptionError(f"{model.model} has no known receptive field", "leave it out")
        layers, sides = zip(*steps)
        names = (*(found[sides].names if sides in found else ()), model.model)
        found[sides] = Line(names, layers, sides)
    return list(found.values())


def _steps(model: ReceptiveFields) -> Iterator[tuple[str, int]]:
    """The layers that see more than any before, with the longer side of what they see."""
    widest = 0
    for layer in model.layers:
        side = max(layer.size) if layer.size else 0
        if side > widest:
            widest = side
            yield layer.title, side


def _draw_growth(axes: Axes, lines: list[Line], image: int, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    plain_axes(axes, theme)
    longest = max(len(line.sides) for line in lines)
    highest = max(max(line.sides) for line in lines)
    axes.axhline(image, color=theme.muted, linewidth=0.8, linestyle="--")
    axes.annotate(
        f"the image: {image}", (1, image), xytext=(0, 3), textcoords="offset points", color=theme.muted, fontsize=SMALL
    )
    for number, line in enumerate(lines):
        axes.plot(
            range(1, len(line.sides) + 1),
            line.sides,
            marker="o",
            markersize=3,
            linewidth=1.6,
            color=_hue(number, theme),
            linestyle=DASHES[number % len(DASHES)] if theme.name == "paper" else "-",
        )
    _name_ends(axes, lines, theme)
    axes.set_xlim(0.5, longest + 0.8)
    axes.set_ylim(0, 1.1 * max(highest, image))
    axes.set_ylabel("receptive field, pixels", color=theme.ink, fontsize=BODY)
    if len(lines) == 1:
        _name_layers(axes, lines[0])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layers that widen it", color=theme.ink, fontsize=BODY)
    title = (
        "How the receptive field grows" if len(lines) > 1 else f"How the receptive field of {_names(lines[0])} grows"
    )
    axes.set_title(title, color=theme.ink, fontsize=TITLE, loc="left")


def _name_layers(axes: Axes, line: Line) -> None:
    stride = -(-len(line.layers) // MOST_TICKS)
    places = range(0, len(line.layers), stride)
    axes.set_xticks([place + 1 for place in places], [literal(line.layers[place]) for place in places], rotation=90)


def _name_ends(axes: Axes, lines: list[Line], theme: Theme) -> None:
    """Each line's name above its end, moved up as far as another name is in the way."""
    high = 0.055 * max(max(line.sides) for line in lines)
    wide = 0.2 * max(len(line.sides) for line in lines)
    taken: list[tuple[float, float]] = []
    for line in sorted(lines, key=lambda line: line.sides[-1]):
        place, level = float(len(line.sides)), line.sides[-1] + 0.3 * high
        while any(abs(place - x) < wide and abs(level - y) < high for x, y in taken):
            level += high
        taken.append((place, level))
        axes.annotate(
            f"{_names(line)}  {count_text(line.sides[-1])}",
            (place, level),
            ha="center",
            annotation_clip=False,
            color=theme.ink,
            fontsize=BODY,
        )


def _names(line: Line) -> str:
    return literal(", ".join(line.names))


def _hue(number: int, theme: Theme) -> str:
    return theme.ink if theme.name == "paper" else HUES[number % len(HUES)]


def regions(fields: ReceptiveFields, photo: Image | None = None, theme: str = "light") -> Plot:
    """The units' regions, of several layers in one picture, on the middle of a photo scaled to the network's input.
    What lies in the padding around the image is hatched.

    Raises OptionError where no unit was asked for, or the input is no image of height and width.
    """
    if not fields.units:
        raise OptionError("no layer is named whose region is to be drawn", "--at conv5_3 names one")
    height, width = _sides(fields.input_shape)

    def paint(figure: Figure, chosen: Theme) -> None:
        axes = figure.add_subplot()
        _draw_image(axes, photo, height, width, chosen)
        for number, unit in enumerate(sorted(fields.units, key=lambda unit: -unit.pixels)):
            _draw_region(axes, unit, (height, width), _hue(number, chosen), number, chosen)
        _frame(axes, [unit.box for unit in fields.units] + [Box((0, 0), (height - 1, width - 1))])
        title = f"{literal(fields.model)}: what one unit sees of {shape_text(fields.input_shape)}"
        _finish(figure, axes, title, chosen)

    return Plot(paint, f"{fields.model}, receptive fields", (9, 6), theme_named(theme))


def _sides(input_shape: tuple[int, ...]) -> tuple[int, int]:
    if len(input_shape) != 4:
        raise OptionError(f"an input of {shape_text(input_shape)} is no image", "its fields can be listed, not drawn")
    return input_shape[2], input_shape[3]


def _draw_image(axes: Axes, photo: Image | None, height: int, width: int, theme: Theme) -> None:
    """The photo in pixels of the input, row 0 on top; without one an empty image."""
    from matplotlib.patches import Rectangle

    if photo is not None:
        import numpy as np

        axes.imshow(np.asarray(crop(photo, height, width)), extent=(0, width, height, 0), interpolation="bilinear")
    frame = Rectangle((0, 0), width, height, fill=photo is None, facecolor=theme.track, edgecolor=theme.muted)
    axes.add_patch(frame)


def _draw_region(axes: Axes, unit: UnitField, image: tuple[int, int], hue: str, number: int, theme: Theme) -> None:
    from matplotlib.patches import Rectangle

    (top, left), (high, wide) = unit.box.first, unit.box.size
    share = percent_text(unit.padding_pixels, unit.pixels)
    padding = f", {share} padding" if unit.padding_pixels else ""
    label = f"{literal(unit.title)}, unit {','.join(map(str, unit.unit))}: {kernel_text(unit.box.size)}{padding}"
    style = DASHES[number % len(DASHES)] if theme.name == "paper" else "-"
    for edge, line in ((theme.page, 4.0), (hue, 2.0)):
        shown = label if edge == hue else None
        axes.add_patch(
            Rectangle((left, top), wide, high, fill=False, edgecolor=edge, linewidth=line, linestyle=style, label=shown)
        )
    for first, last in _outside(unit.box, image):
        axes.add_patch(
            Rectangle(
                (first[1], first[0]),
                last[1] - first[1],
                last[0] - first[0],
                fill=False,
                edgecolor=hue,
                hatch="////",
                linewidth=0,
                alpha=0.6,
            )
        )


def _outside(box: Box, image: tuple[int, int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """A region's parts above, below, left and right of the image, from corner to corner."""
    (top, left), (bottom, right) = box.first, (box.last[0] + 1, box.last[1] + 1)
    height, width = image
    middle = (max(top, 0), min(bottom, height))
    parts = (
        ((top, left), (min(bottom, 0), right)),
        ((max(top, height), left), (bottom, right)),
        ((middle[0], left), (middle[1], min(right, 0))),
        ((middle[0], max(left, width)), (middle[1], right)),
    )
    yield from ((first, last) for first, last in parts if first[0] < last[0] and first[1] < last[1])


def heat_map(found: EffectiveMap, theme: str = "light") -> Plot:
    """Where in a unit's field the energy of its gradients lies, with the boxes that hold half of it and 95%."""
    height, width = _sides(found.input_shape)
    field = found.field

    def paint(figure: Figure, chosen: Theme) -> None:
        axes = figure.add_subplot()
        _draw_heat(axes, found, height, width, chosen)
        boxes = [(f"by the rule: {kernel_text(field.box.size)}", field.box, ":")]
        boxes += [
            (f"{100 * box.share:.0f}% of the energy: {kernel_text(box.box.size)}", box.box, DASHES[number])
            for number, box in enumerate(field.boxes)
        ]
        for text, box, dash in boxes:
            _draw_box(axes, box, text, dash, chosen)
        _frame(axes, [field.box])
        unit = ",".join(map(str, field.unit))
        title = f"{literal(found.model)}: where unit {unit} of {literal(field.title)} looks"
        _finish(figure, axes, title, chosen)
        samples = "1 image" if field.samples == 1 else f"{field.samples} images"
        axes.set_xlabel(f"energy of the gradients, {samples} of noise", color=chosen.muted, fontsize=SMALL)

    return Plot(paint, f"{found.model}, effective receptive field", (9, 6), theme_named(theme))


def _draw_heat(axes: Axes, found: EffectiveMap, height: int, width: int, theme: Theme) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colors = LinearSegmentedColormap.from_list("heat", theme.heat)
    # A root, or nothing but the very middle would be seen.
    axes.imshow(found.heat, cmap=colors, norm=PowerNorm(0.4), extent=(0, width, height, 0), interpolation="nearest")


def _draw_box(axes: Axes, box: Box, label: str, dash: str, theme: Theme) -> None:
    from matplotlib.patches import Rectangle

    (top, left), (high, wide) = box.first, box.size
    axes.add_patch(
        Rectangle((left, top), wide, high, fill=False, edgecolor=theme.ink, linewidth=1.4, linestyle=dash, label=label)
    )


def _frame(axes: Axes, boxes: Sequence[Box]) -> None:
    """As much as holds these boxes, and a little more."""
    top, left = (min(box.first[axis] for box in boxes) for axis in (0, 1))
    bottom, right = (max(box.last[axis] + 1 for box in boxes) for axis in (0, 1))
    margin = 0.03 * max(bottom - top, right - left)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(bottom + margin, top - margin)
    axes.set_aspect("equal")


def _finish(figure: Figure, axes: Axes, title: str, theme: Theme) -> None:
    plain_axes(axes, theme)
    axes.set_title(title, color=theme.ink, fontsize=TITLE, loc="left")
    axes.set_anchor("E")  # where the shape of an image leaves room, it is left on the far side of the legend
    figure.legend(loc="outside right upper", frameon=False, fontsize=BODY, labelcolor=theme.ink)
