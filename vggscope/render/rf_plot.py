"""Plots of receptive fields: their growth over depth, regions on an image, and the energy within one field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vggscope.analysis.receptive_field.result import Box, ReceptiveFields, UnitField
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError, option
from vggscope.execution.effective_field import EffectiveMap
from vggscope.photo import crop, open_photo
from vggscope.record import record
from vggscope.render.matplotlib_figure import DASHES, HUES, Plot, annotate, literal, name_ticks, plain_axes
from vggscope.units import count_text, index_text, kernel_text, percent_text, positions_word, shape_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MOST_MODELS = 12
"""How many models a plot of growth can have."""


@record
class GrowthCurve:
    """The side of the receptive field, in pixels, at each layer that widens it. `names` are all models with this
    curve.
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
    """The plot of the chosen data: the effective field if it was measured; else the regions of the chosen units, on
    the `image` (a path or a pillow image) if given; else the growth over depth, with other models `beside`. The
    effective field lies over the image too.

    Raises OptionError for data that cannot be drawn and for an unknown theme.
    """
    photo = open_photo(image) if isinstance(image, str) else image
    if fields.effective is not None and fields.heat is not None:
        measured = EffectiveMap(fields.model, fields.input_shape, fields.axes, fields.effective, fields.heat)
        return heat_map(measured, photo, theme)
    if fields.units:
        return regions(fields, photo, theme)
    return growth((fields, *beside), theme)


def growth(fields: Sequence[ReceptiveFields], theme: str = "light") -> Plot:
    """The growth of the receptive field over depth, for one model or several.

    Raises OptionError for too many models, and for a model without a known field.
    """
    if len(fields) > MOST_MODELS:
        raise OptionError(f"{len(fields)} models are too many for one plot", f"name up to {MOST_MODELS}")
    curves, inputs = _curves(fields), _inputs(fields)
    unit = positions_word(2 if _are_images(fields) else 1)

    def paint(figure: Figure, chosen: Theme) -> None:
        _draw_growth(figure.add_subplot(), curves, inputs, unit, chosen)

    return Plot(paint, "receptive fields", (9, 5), theme_named(theme))


def _inputs(fields: Sequence[ReceptiveFields]) -> dict[int, str]:
    """The words for each length that the longest side of an input has; with the models, if the inputs differ."""
    models: dict[int, list[str]] = {}
    for model in fields:
        models.setdefault(max(model.sides, default=1), []).append(model.model)
    word = "image" if _are_images(fields) else "input"
    if len(models) == 1:
        return {side: f"the {word}: {side}" for side in models}
    return {side: f"the {word} of {literal(', '.join(names))}: {side}" for side, names in models.items()}


def _are_images(fields: Sequence[ReceptiveFields]) -> bool:
    return all(len(model.sides) == 2 for model in fields)


def _curves(fields: Sequence[ReceptiveFields]) -> list[GrowthCurve]:
    curves: dict[tuple[int, ...], GrowthCurve] = {}
    for model in fields:
        steps = list(_steps(model))
        if not steps:
            raise OptionError(f"{model.model} has no known receptive field", "leave it out")
        layers, sides = zip(*steps)
        names = (*(curves[sides].names if sides in curves else ()), model.model)
        curves[sides] = GrowthCurve(names, layers, sides)
    return list(curves.values())


def _steps(model: ReceptiveFields) -> Iterator[tuple[str, int]]:
    """The layers with a larger field than every layer before, with the longer side of that field."""
    widest = 0
    for layer in model.layers:
        side = max(layer.size) if layer.size else 0
        if side > widest:
            widest = side
            yield layer.title, side


_MOST_OF_THE_CURVES = 4
"""A line at an input's side is left out if it is this many times above the curves: it would flatten them."""


def _draw_growth(axes: Axes, curves: list[GrowthCurve], inputs: dict[int, str], unit: str, theme: Theme) -> None:
    """Draw the curves in a `unit`, and a line at the longest side of each of the `inputs`, with the words for it."""
    from matplotlib.ticker import MaxNLocator

    model = f" of {_names(curves[0])}" if len(curves) == 1 else ""
    plain_axes(axes, theme, f"How the receptive field{model} grows")
    longest = max(len(curve.sides) for curve in curves)
    highest = max(max(curve.sides) for curve in curves)
    lines = {side: words for side, words in inputs.items() if side <= _MOST_OF_THE_CURVES * highest}
    for side, words in lines.items():
        axes.axhline(side, color=theme.muted, linewidth=0.8, linestyle="--")
        # Above several lines, the names of curves are often in the way.
        offset = 3 if len(lines) == 1 else -3 - SMALL
        annotate(axes, words, (1, side), (0, offset), theme.muted, fontsize=SMALL)
    for number, curve in enumerate(curves):
        style: dict[str, Any] = {"color": _hue(number, theme), "linestyle": _dash(number, theme), "linewidth": 1.6}
        axes.plot(range(1, len(curve.sides) + 1), curve.sides, marker="o", markersize=3, **style)
    _name_ends(axes, curves, theme)
    axes.set_xlim(0.5, longest + 0.8)
    axes.set_ylim(0, 1.1 * max([highest, *lines]))
    hidden = "" if lines or len(inputs) > 1 else f" of {next(iter(inputs))}"
    axes.set_ylabel(f"receptive field, {unit}{hidden}", color=theme.ink, fontsize=BODY)
    if len(curves) == 1:
        name_ticks(axes, curves[0].layers, 1)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layers that widen it", color=theme.ink, fontsize=BODY)


def _name_ends(axes: Axes, curves: list[GrowthCurve], theme: Theme) -> None:
    """Write each curve's name above its end, or higher where another name is in the way."""
    high = 0.055 * max(max(curve.sides) for curve in curves)
    wide = 0.2 * max(len(curve.sides) for curve in curves)
    taken: list[tuple[float, float]] = []
    for curve in sorted(curves, key=lambda curve: curve.sides[-1]):
        place, level = float(len(curve.sides)), curve.sides[-1] + 0.3 * high
        while any(abs(place - x) < wide and abs(level - y) < high for x, y in taken):
            level += high
        taken.append((place, level))
        text = f"{_names(curve)}  {count_text(curve.sides[-1])}"
        axes.annotate(text, (place, level), ha="center", annotation_clip=False, color=theme.ink, fontsize=BODY)


def _names(curve: GrowthCurve) -> str:
    return literal(", ".join(curve.names))


def _hue(number: int, theme: Theme) -> str:
    return theme.ink if theme.name == "paper" else HUES[number % len(HUES)]


def _dash(number: int, theme: Theme) -> str:
    return DASHES[number % len(DASHES)] if theme.name == "paper" else "-"


def regions(fields: ReceptiveFields, photo: Image | None = None, theme: str = "light") -> Plot:
    """The regions of the chosen units, on the centre of a photo scaled to the network's input. Parts of a region in the
    padding around the image are hatched.

    Raises OptionError if no unit is chosen, or the input is not an image.
    """
    if not fields.units:
        known = [layer.label or layer.name for layer in fields.layers if layer.size]
        example = f"{option('at', known[-1] if known else None)} names one"
        raise OptionError("no layer is named whose region is to be drawn", example)
    height, width = _sides(fields.input_shape, fields.axes)

    def paint(figure: Figure, chosen: Theme) -> None:
        axes = figure.add_subplot()
        _draw_image(axes, photo, height, width, chosen)
        for number, unit in enumerate(sorted(fields.units, key=lambda unit: -unit.pixels)):
            _draw_region(axes, unit, (height, width), _hue(number, chosen), number, chosen)
        _frame(axes, [unit.box for unit in fields.units] + [Box((0, 0), (height - 1, width - 1))])
        title = f"{literal(fields.model)}: what one unit sees of {fields.input_text}"
        _finish(figure, axes, title, chosen)

    return Plot(paint, f"{fields.model}, receptive fields", (9, 6), theme_named(theme))


def _sides(input_shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int]:
    """Height and width. Raises OptionError for an input that has not two sides."""
    if len(axes) != 2:
        raise OptionError(
            f"an input of {shape_text(input_shape)} is not an image",
            f"its regions can be listed, not drawn: leave out {option('at')} to draw how the field grows",
        )
    return input_shape[axes[0]], input_shape[axes[1]]


def _draw_image(axes: Axes, photo: Image | None, height: int, width: int, theme: Theme) -> None:
    """Draw the photo in pixels of the input, row 0 on top, or an empty image without one."""
    from matplotlib.patches import Rectangle

    if photo is not None:
        import numpy as np

        axes.imshow(np.asarray(crop(photo, height, width)), extent=(0, width, height, 0), interpolation="bilinear")
    frame = Rectangle((0, 0), width, height, fill=photo is None, facecolor=theme.track, edgecolor=theme.muted)
    axes.add_patch(frame)


def _draw_region(axes: Axes, unit: UnitField, image: tuple[int, int], hue: str, number: int, theme: Theme) -> None:
    share = percent_text(unit.padding_pixels, unit.pixels)
    padding = f", {share} padding" if unit.padding_pixels else ""
    label = f"{literal(unit.title)}, unit {index_text(unit.unit)}: {kernel_text(unit.box.size)}{padding}"
    dash = _dash(number, theme)
    for edge, line, text in ((theme.page, 4.0, None), (hue, 2.0, label)):
        _outline(axes, unit.box, edge, linewidth=line, linestyle=dash, label=text)
    for part in _outside(unit.box, image):
        _outline(axes, part, hue, hatch="////", linewidth=0, alpha=0.6)


def _outside(box: Box, image: tuple[int, int]) -> Iterator[Box]:
    """The parts of a region above, below, left and right of the image."""
    (top, left), (bottom, right) = box.first, box.last
    height, width = image
    middle = (max(top, 0), min(bottom, height - 1))
    parts = (
        Box((top, left), (min(bottom, -1), right)),
        Box((max(top, height), left), (bottom, right)),
        Box((middle[0], left), (middle[1], min(right, -1))),
        Box((middle[0], max(left, width)), (middle[1], right)),
    )
    yield from (part for part in parts if min(part.size) > 0)


def _outline(axes: Axes, box: Box, color: str, **options: Any) -> None:
    """Draw the edge of a region; `options` are those of matplotlib's Rectangle."""
    from matplotlib.patches import Rectangle

    (top, left), (high, wide) = box.first, box.size
    axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=color, **options))


def heat_map(effective: EffectiveMap, photo: Image | None = None, theme: str = "light") -> Plot:
    """The energy of the gradients within a unit's field, with the boxes that hold most of it. It lies over the centre
    of a photo if there is one, which is hidden where most of the energy is.
    """
    height, width = _sides(effective.input_shape, effective.axes)
    field = effective.field

    def paint(figure: Figure, chosen: Theme) -> None:
        axes = figure.add_subplot()
        if photo is not None:
            _draw_image(axes, photo, height, width, chosen)
        _draw_heat(axes, effective, (height, width), chosen, over=photo is not None)
        boxes = [(f"by the rule: {kernel_text(field.box.size)}", field.box, ":")]
        boxes += [
            (f"{100 * part.share:.0f}% of the energy: {kernel_text(part.box.size)}", part.box, dash)
            for part, dash in zip(field.boxes, DASHES)
        ]
        for text, box, dash in boxes:
            _outline(axes, box, chosen.ink, linewidth=1.4, linestyle=dash, label=text)
        _frame(axes, [field.box, *([_around(field.box, (height, width))] if photo is not None else [])])
        title = f"{literal(effective.model)}: where unit {index_text(field.unit)} of {literal(field.title)} looks"
        _finish(figure, axes, title, chosen)
        samples = "1 image" if field.samples == 1 else f"{field.samples} images"
        axes.set_xlabel(f"energy of the gradients, {samples} of noise", color=chosen.muted, fontsize=SMALL)

    return Plot(paint, f"{effective.model}, effective receptive field", (9, 6), theme_named(theme))


def _around(box: Box, image: tuple[int, int]) -> Box:
    """The part of an image three times as high and wide as a box in its middle, so that one sees where it lies."""
    first = tuple(max(start - side, 0) for start, side in zip(box.first, box.size))
    last = tuple(min(end + side, most - 1) for end, side, most in zip(box.last, box.size, image))
    return Box(first, last)


def _draw_heat(axes: Axes, effective: EffectiveMap, sides: tuple[int, int], theme: Theme, *, over: bool) -> None:
    """Draw the energy in colour; `over` a photo, as strong as the energy."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    height, width = sides
    heat = np.asarray(effective.heat)
    # On a linear scale only the very centre would be visible.
    shares = (heat / heat.max()) ** 0.4
    colors = LinearSegmentedColormap.from_list("heat", theme.heat)
    alpha = 0.85 * shares if over else None
    axes.imshow(shares, cmap=colors, alpha=alpha, extent=(0, width, height, 0), interpolation="nearest")


def _frame(axes: Axes, boxes: Sequence[Box]) -> None:
    """Limit the axes to these boxes and a margin."""
    top, left = (min(box.first[axis] for box in boxes) for axis in (0, 1))
    bottom, right = (max(box.last[axis] + 1 for box in boxes) for axis in (0, 1))
    margin = 0.03 * max(bottom - top, right - left)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(bottom + margin, top - margin)
    axes.set_aspect("equal")


def _finish(figure: Figure, axes: Axes, title: str, theme: Theme) -> None:
    plain_axes(axes, theme, title)
    axes.set_anchor("E")  # free space goes to the left, away from the legend
    figure.legend(loc="outside right upper", frameon=False, fontsize=BODY, labelcolor=theme.ink)
