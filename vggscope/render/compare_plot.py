"""A comparison as bar charts: a panel for each figure, a bar for each model. Or as bubbles, a bubble for each model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.compare import Compared, Comparison
from vggscope.analysis.tensors import sizes_text
from vggscope.drawing.theme import TITLE, Theme
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError, unknown
from vggscope.record import record
from vggscope.render import bubble_plot
from vggscope.render.matplotlib_figure import Plot, literal, plain_axes
from vggscope.units import UNKNOWN, bytes_text, count_text, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_MODELS = 40
"""How many models a plot can have."""

COLUMNS = 3
"""How many panels are side by side."""

BAR, PANEL, HEAD, FOOT = 0.26, 2.5, 0.75, 0.2
"""In inches: the height of a bar, the width of a panel, the space above and below the bars."""

LONGEST_NAME = 110.0
"""The largest width of a model's name, in points."""


@record
class Panel:
    """A figure that is compared: its title, its value for a model, and that value as text."""

    title: str
    value: Callable[[Compared], int | None]
    text: Callable[[int | None], str]


def _field(model: Compared) -> int | None:
    return max(model.field_size) if model.field_size else None


PANELS = (
    Panel("parameters", lambda model: model.params, short_count),
    Panel("MACs", lambda model: model.macs, short_count),
    Panel("memory, inference", lambda model: model.inference_peak_bytes, bytes_text),
    Panel("memory, training", lambda model: model.training_peak_bytes, bytes_text),
    Panel("depth, layers with weights", lambda model: model.depth, count_text),
    Panel("receptive field, pixels", _field, count_text),
)


CHARTS = {
    "bars": "a panel for each figure, a bar for each model",
    "bubbles": "MACs and parameters as place, memory as area, depth as colour",
}
"""What `--chart` takes, with a description of each chart."""


def plot(comparison: Comparison, theme: str = "light", chart: str = "bars") -> Plot:
    """The models side by side, as one of CHARTS. Raises OptionError for an unknown theme or chart, for too many models,
    and if no model has the figures.
    """
    models, source = _without_source(comparison.models)
    if chart not in CHARTS:
        raise unknown("chart", chart, CHARTS)
    check_count(len(models))
    if not models:
        raise OptionError("no model has figures to plot", "the table shows why")
    if chart == "bubbles":
        return _bubbles(replace(comparison, models=models), source, theme)
    rows = -(-len(PANELS) // COLUMNS)

    def paint(figure: Figure, theme: Theme) -> None:
        head = "one model" if len(models) == 1 else f"{len(models)} models"
        figure.suptitle(
            f"{head}{source}: {_title(comparison)}",
            x=0.01,
            ha="left",
            fontsize=TITLE,
            fontweight="bold",
            color=theme.ink,
        )
        names = [literal(model.model, LONGEST_NAME) for model in models]
        for place, (panel, axes) in enumerate(zip(PANELS, figure.subplots(rows, COLUMNS).flat)):
            _draw_panel(axes, panel, models, names if place % COLUMNS == 0 else None, theme)

    size = (COLUMNS * PANEL + 1.6, rows * (HEAD + FOOT + BAR * len(models)) + 0.35)
    return Plot(paint, f"{len(models)} models", size, theme_named(theme))


def check_count(models: int) -> None:
    """Raise OptionError for more models than a plot can have."""
    if models > MOST_MODELS:
        raise OptionError(f"{models} models are too many to plot", f"name up to {MOST_MODELS}")


def _without_source(models: tuple[Compared, ...]) -> tuple[tuple[Compared, ...], str]:
    """The models without the library or file that all their words begin with, and that in words, empty if they differ.

    A name would be cut for what is the same in all.
    """
    sources = {model.model.rpartition(":")[0] for model in models}
    if len(models) < 2 or len(sources) > 1 or not all(sources):
        return models, ""
    short = (replace(model, model=model.model.rpartition(":")[2]) for model in models)
    return tuple(short), f" of {literal(sources.pop())}"


def _bubbles(comparison: Comparison, source: str, theme: str) -> Plot:
    drawn = bubble_plot.drawn_models(comparison)
    others = [model.model for model in comparison.models if model not in drawn]

    def paint(figure: Figure, theme: Theme) -> None:
        bubble_plot.paint(figure, drawn, others, source, _title(comparison), theme)

    return Plot(paint, f"{len(drawn)} models", bubble_plot.SIZE, theme_named(theme))


def _title(comparison: Comparison) -> str:
    inputs = {model.inputs for model in comparison.models}
    text = "each at its own input size"
    if len(inputs) == 1:
        text = "input " + re.sub(
            r"(?<=\d)x(?=\d)", "\N{MULTIPLICATION SIGN}", sizes_text(inputs.pop(), comparison.dtype)
        )
    return f"{text}, batch {count_text(comparison.batch)}, {comparison.dtype}"


def _draw_panel(axes: Axes, panel: Panel, models: Sequence[Compared], names: list[str] | None, theme: Theme) -> None:
    values = [panel.value(model) for model in models]
    places = range(len(values))
    top = max((value for value in values if value is not None), default=0) or 1
    axes.barh(places, [value or 0 for value in values], height=0.66, color=theme.bar)
    for place, value in zip(places, values):
        text = UNKNOWN if value is None else panel.text(value)
        axes.text((value or 0) + top * 0.02, place, text, va="center", fontsize=8, color=theme.ink)
    axes.set_title(panel.title, loc="left", fontsize=9, fontweight="bold", color=theme.ink)
    axes.set_xlim(0, top * 1.42)  # room for the longest bar's number
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_yticks(list(places), names or [""] * len(values), color=theme.ink)
    axes.set_xticks([])
    plain_axes(axes, theme)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_facecolor(theme.page)
