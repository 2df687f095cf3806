"""The statistics of checkpoints as a plot: the range of each weight, and the filters of the first convolution."""

from __future__ import annotations

import os
from math import ceil, sqrt
from typing import TYPE_CHECKING

from vggscope.checkpoint.statistics import FileStatistics, Filter, Statistics, TensorStatistics
from vggscope.drawing.theme import SMALL, TITLE, Theme
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError
from vggscope.render.matplotlib_figure import Plot, literal, plain_axes
from vggscope.units import count_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FILES, MOST_TENSORS = 6, 120
"""How many files, and tensors of a file, a plot can have."""

ROW, HEAD, WIDTH = 0.19, 1.1, 11.0
"""In inches: the height of a tensor's row, the room of a title and an axis, the width of the plot."""

LINEAR = 8.0
"""The largest value in standard deviations of the widest tensor up to which the axis is linear."""

SIDE, GAP = 24, 4
"""In pixels: the side that the picture of a filter has at least, and the space between two filters."""

NAME_ROOM = 180.0
"""The largest width of a tensor's name, in points."""


def plot(statistics: Statistics, theme: str = "light") -> Plot:
    """The range, mean and standard deviation of each weight, and the filters of conv1_1 as pictures.

    Raises OptionError for an unknown theme, for too many files or tensors, and for a file without numbers.
    """
    files = statistics.files
    if len(files) > MOST_FILES:
        raise OptionError(f"{len(files)} files are too many to plot", f"name up to {MOST_FILES}")
    rows = [_weights(file) for file in files]
    heights = [HEAD + max(ROW * len(tensors), 3.0 if file.filters else 0) for file, tensors in zip(files, rows)]

    names = _short_names([file.path for file in files])

    def paint(figure: Figure, theme: Theme) -> None:
        parts = figure.subfigures(len(files), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, file, tensors, height in zip(parts, files, rows, heights):
            part.set_facecolor(theme.page)
            title = f"{literal(names[file.path])}\n"
            part.suptitle(title, x=0.01, ha="left", fontsize=TITLE, fontweight="bold", color=theme.ink)
            part.text(0.01, 1 - 0.42 / height, _caption(file), ha="left", va="top", fontsize=SMALL, color=theme.muted)
            if file.filters:
                left, right = part.subplots(1, 2, width_ratios=(3, 2))
                _draw_filters(right, file, theme)
            else:
                left = part.subplots()
            _draw_ranges(left, tensors, theme)

    return Plot(
        paint, "statistics of " + ", ".join(file.path for file in files), (WIDTH, sum(heights)), theme_named(theme)
    )


def _short_names(paths: list[str]) -> dict[str, str]:
    """The name of each file, without its folder unless two files have the same name."""
    names = [os.path.basename(path.rstrip("/")) or path for path in paths]
    return {path: name if names.count(name) == 1 else path for path, name in zip(paths, names)}


def _caption(file: FileStatistics) -> str:
    """The size of a file and what it is, in a line."""
    weights = [literal(f"weights {file.weights.name}")] if file.weights else []
    return ", ".join([f"{count_text(file.params)} parameters", f"{len(file.tensors):,} tensors", *weights])


def _weights(file: FileStatistics) -> list[TensorStatistics]:
    """The tensors with a range: all if they are few, else the weights alone, else the first of these. Whole numbers,
    such as counts of batches, are left out if there are others.
    """
    ranged = [tensor for tensor in file.tensors if tensor.std is not None]
    tensors = [tensor for tensor in ranged if not tensor.dtype.startswith(("int", "uint", "bool"))] or ranged
    if not tensors:
        raise OptionError(f"{file.path} has no numbers to plot", "the table shows why")
    if len(tensors) > MOST_TENSORS:
        tensors = [tensor for tensor in tensors if tensor.channels is not None] or tensors
    return tensors[:MOST_TENSORS]


def _draw_ranges(axes: Axes, tensors: list[TensorStatistics], theme: Theme) -> None:
    """A line from minimum to maximum, a bar of one standard deviation either side of the mean."""
    for place, tensor in enumerate(tensors):
        assert tensor.minimum is not None
        assert tensor.maximum is not None
        assert tensor.mean is not None
        assert tensor.std is not None
        axes.plot([tensor.minimum, tensor.maximum], [place, place], color=theme.arrow, linewidth=0.8, zorder=1)
        axes.barh(place, 2 * tensor.std, left=tensor.mean - tensor.std, height=0.6, color=theme.bar)
        axes.plot([tensor.mean], [place], marker="|", color=theme.ink, markersize=6)
    names = (f"{tensor.label}  {tensor.name}" if tensor.label else tensor.name for tensor in tensors)
    axes.set_yticks(range(len(tensors)), [literal(name, NAME_ROOM) for name in names])
    axes.set_ylim(len(tensors) - 0.4, -0.6)
    threshold = _threshold(tensors)
    if max(abs(value or 0.0) for tensor in tensors for value in (tensor.minimum, tensor.maximum)) > LINEAR * threshold:
        axes.set_xscale("symlog", linthresh=threshold)
    axes.set_xlabel("line: minimum to maximum; bar: mean and one standard deviation", color=theme.muted, fontsize=SMALL)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(0, color=theme.border, linewidth=0.8, zorder=0)
    plain_axes(axes, theme)
    for place, tensor in enumerate(tensors):
        if text := _findings(tensor):
            # At the right edge, whatever the scale.
            at = axes.get_yaxis_transform()
            color = theme.signs["!"]
            axes.text(1.01, place, text, transform=at, va="center", fontsize=SMALL, fontweight="bold", color=color)


def _findings(tensor: TensorStatistics) -> str:
    """What is wrong with a tensor's values: `2 dead, 1 NaN`."""
    counts = ((len(tensor.zero_channels), "dead"), (tensor.nans or 0, "NaN"), (tensor.infs or 0, "inf"))
    return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def _threshold(tensors: list[TensorStatistics]) -> float:
    """The largest standard deviation. An axis is linear up to it if outliers beyond would hide the rest."""
    return max((tensor.std or 0.0 for tensor in tensors), default=0.0) or 1.0


def _draw_filters(axes: Axes, file: FileStatistics, theme: Theme) -> None:
    """Each filter as a small picture, scaled to its own range: RGB of three input channels, grey of one."""
    import numpy as np

    filters = file.filters
    height, width = len(filters[0][0]), len(filters[0][0][0])
    scale = -(-SIDE // max(height, width))
    height, width = scale * height, scale * width
    columns = ceil(sqrt(len(filters)))
    rows = -(-len(filters) // columns)
    colors = (int(theme.page[place : place + 2], 16) / 255 for place in (1, 3, 5))
    sheet = np.empty((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3))
    sheet[:] = tuple(colors)
    dead = []
    for place, kept in enumerate(filters):
        row, column = divmod(place, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        pixels = np.array(_pixels(kept))
        sheet[top : top + height, left : left + width] = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
        if not np.any(np.array(kept)):
            dead.append((left, top))
    axes.imshow(sheet, interpolation="nearest")
    for left, top in dead:
        _cross_out(axes, left, top, width, height, theme.signs["!"])
    axes.set_axis_off()
    axes.set_anchor("N")
    order = "RGB" if len(filters[0]) == len("RGB") else "grey"
    crossed = f"; crossed out: {len(dead):,} all zero" if dead else ""
    title = f"{len(filters)} filters of {literal(file.filters_of)} as {order}, each in its own range{crossed}"
    axes.set_title(title, color=theme.ink, fontsize=SMALL, loc="left")


def _cross_out(axes: Axes, left: int, top: int, width: int, height: int, color: str) -> None:
    """A frame and a diagonal over the picture with its first pixel at `left` and `top`."""
    right, bottom = left + width, top + height
    frame = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top), (right, bottom))
    # A pixel's centre has whole coordinates.
    axes.plot(*zip(*((x - 0.5, y - 0.5) for x, y in frame)), color=color, linewidth=1.0, clip_on=False)


def _pixels(kept: Filter) -> list[list[list[float]]]:
    """A filter as rows of pixels of three values from 0 to 1; 0.5 for a constant filter and for values not finite."""
    import numpy as np

    values = np.array(kept, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scaled = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    shown = np.where(np.isfinite(scaled), scaled, 0.5)
    channels = shown if len(shown) == len("RGB") else np.repeat(shown[:1], len("RGB"), axis=0)
    pixels: list[list[list[float]]] = channels.transpose(1, 2, 0).tolist()
    return pixels
