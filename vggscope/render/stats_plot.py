"""The statistics of checkpoints as a plot: the range of each weight, and the filters of the first convolution."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

from vggscope.checkpoint.statistics import FileStatistics, Filter, Statistics, TensorStatistics
from vggscope.drawing.theme import BODY, SMALL, TITLE, Theme, theme_named
from vggscope.errors import OptionError
from vggscope.render.matplotlib_figure import Plot, literal, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FILES, MOST_TENSORS = 6, 120
"""How many files, and tensors of a file, a plot can have."""

ROW, HEAD, WIDTH = 0.19, 0.9, 11.0
"""In inches: the height of a tensor's row, the room of a title and an axis, the width of the plot."""

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

    def paint(figure: Figure, theme: Theme) -> None:
        parts = figure.subfigures(len(files), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, file, tensors in zip(parts, files, rows):
            part.set_facecolor(theme.page)
            part.suptitle(literal(file.path), x=0.01, ha="left", fontsize=TITLE, color=theme.ink)
            if file.filters:
                left, right = part.subplots(1, 2, width_ratios=(3, 2))
                _draw_filters(right, file, theme)
            else:
                left = part.subplots()
            _draw_ranges(left, tensors, theme)

    return Plot(
        paint, "statistics of " + ", ".join(file.path for file in files), (WIDTH, sum(heights)), theme_named(theme)
    )


def _weights(file: FileStatistics) -> list[TensorStatistics]:
    """The tensors with a range: all if they are few, else the weights alone, else the first of these."""
    tensors = [tensor for tensor in file.tensors if tensor.std is not None]
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
    axes.set_xscale("symlog", linthresh=_threshold(tensors))
    axes.set_xlabel("line: minimum to maximum; bar: mean and one standard deviation", color=theme.muted, fontsize=SMALL)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(0, color=theme.border, linewidth=0.8, zorder=0)
    plain_axes(axes, theme)


def _threshold(tensors: list[TensorStatistics]) -> float:
    """The value up to which the axis is linear: the largest standard deviation, beyond which outliers would hide it."""
    return max((tensor.std or 0.0 for tensor in tensors), default=0.0) or 1.0


def _draw_filters(axes: Axes, file: FileStatistics, theme: Theme) -> None:
    """Each filter as a small picture, scaled to its own range: RGB of three input channels, grey of one."""
    import numpy as np

    filters = file.filters
    height, width = len(filters[0][0]), len(filters[0][0][0])
    columns = ceil(sqrt(len(filters)))
    rows = -(-len(filters) // columns)
    colors = (int(theme.page[place : place + 2], 16) / 255 for place in (1, 3, 5))
    sheet = np.empty((rows * (height + 1) - 1, columns * (width + 1) - 1, 3))
    sheet[:] = tuple(colors)
    for place, kept in enumerate(filters):
        row, column = divmod(place, columns)
        top, left = row * (height + 1), column * (width + 1)
        sheet[top : top + height, left : left + width] = np.array(_pixels(kept))
    axes.imshow(sheet, interpolation="nearest")
    axes.set_axis_off()
    axes.set_anchor("N")
    order = "RGB" if len(filters[0]) == len("RGB") else "grey"
    title = f"{len(filters)} filters of {literal(file.filters_of)} as {order}, each in its own range"
    axes.set_title(title, color=theme.ink, fontsize=BODY, loc="left")


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
