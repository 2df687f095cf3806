"""A comparison as bar charts: a panel for each figure, a bar for each model. Or as bubbles, a bubble for each model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.compare import Compared, Comparison
from vggscope.analysis.tensors import sizes_text
from vggscope.document import typed
from vggscope.drawing.theme import SMALL, TITLE, Theme
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError, option, unknown
from vggscope.record import record
from vggscope.render import bubble_plot
from vggscope.render.compare import COLUMNS as TABLE_COLUMNS
from vggscope.render.compare import models_text, names_text, order_text
from vggscope.render.matplotlib_figure import Plot, literal, plain_axes
from vggscope.units import UNKNOWN, bytes_text, count_text, short_count, whole_text

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
    """A figure that is compared: its column, its title, its value for a model, and that value as text."""

    column: str
    title: str
    value: Callable[[Compared], int | None]
    text: Callable[[int | None], str]


def _field(model: Compared) -> int | None:
    return max(model.field_size) if model.field_size else None


PANELS = (
    Panel("params", "parameters", lambda model: model.params, short_count),
    Panel("macs", "MACs", lambda model: model.macs, short_count),
    Panel("inference_peak_bytes", "memory, inference", lambda model: model.inference_peak_bytes, bytes_text),
    Panel("training_peak_bytes", "memory, training", lambda model: model.training_peak_bytes, bytes_text),
    Panel("depth", "depth, layers with weights", lambda model: model.depth, count_text),
    Panel("receptive_field", "receptive field, pixels", _field, count_text),
    Panel("activation_bytes", "activations", lambda model: model.activation_bytes, bytes_text),
    Panel("weight_layers", "layers with weights", lambda model: model.weight_layers, count_text),
)

USUAL = 6
"""How many of PANELS, the first ones, are drawn if no column is named."""


CHARTS = {
    "bars": "a panel for each figure, a bar for each model",
    "bubbles": "MACs and parameters as place, memory as area, depth as colour",
}
"""What `--chart` takes, with a description of each chart."""


def plot(comparison: Comparison, theme: str = "light", chart: str = "bars") -> Plot:
    """The models side by side, as one of CHARTS. Raises OptionError for an unknown theme or chart, for too many models,
    for columns that are not drawn, and if no model has the figures.
    """
    models, source = _without_source(comparison.models)
    check(len(models), chart, comparison.columns)
    if not models:
        raise OptionError("no model has figures to plot", "the table shows why")
    if chart == "bubbles":
        return _bubbles(replace(comparison, models=models), source, theme)
    panels = _panels(comparison.columns)
    footnote = _footnote(replace(comparison, models=models), panels)
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)

    def paint(figure: Figure, theme: Theme) -> None:
        figure.suptitle(
            f"{models_text(comparison)}{source}{_order(comparison)}: {_title(comparison)}",
            x=0.01,
            ha="left",
            fontsize=TITLE,
            fontweight="bold",
            color=theme.ink,
        )
        names = [literal(model.model, LONGEST_NAME) for model in models]
        places = figure.subplots(rows, columns, squeeze=False).flat
        for place, (panel, axes) in enumerate(zip(panels, places)):
            _draw_panel(axes, panel, models, names if place % columns == 0 else None, theme)
        for axes in places[len(panels) :]:
            axes.set_visible(False)
        if footnote:
            figure.supxlabel(footnote, x=0.01, ha="left", fontsize=SMALL, color=theme.muted)

    size = (COLUMNS * PANEL + 1.6, rows * (HEAD + FOOT + BAR * len(models)) + 0.35 + (0.25 if footnote else 0.0))
    return Plot(paint, f"{len(models)} models", size, theme_named(theme))


def check(models: int, chart: str, columns: Sequence[str]) -> None:
    """Raise OptionError for an unknown chart, more models than a plot can have, and columns that are not drawn."""
    if chart not in CHARTS:
        raise unknown("chart", chart, CHARTS)
    if models > MOST_MODELS:
        raise OptionError(f"{models} models are too many to plot", f"name up to {MOST_MODELS}")
    if chart == "bubbles" and columns:
        raise OptionError(
            "a chart of bubbles has no columns to choose",
            f"leave out {option('columns')}, or {option('chart', 'bars')}",
        )
    if not _panels(columns):
        drawn = ", ".join(typed(column) for column in TABLE_COLUMNS if column.key in {panel.column for panel in PANELS})
        raise OptionError(f"a plot has no panel for {', '.join(columns)}", f"it draws {drawn}")


def _panels(columns: Sequence[str]) -> list[Panel]:
    """The panels of the named columns in their order; the usual ones if none is named."""
    by_column = {panel.column: panel for panel in PANELS}
    return [by_column[key] for key in columns if key in by_column] if columns else list(PANELS[:USUAL])


def _order(comparison: Comparison) -> str:
    return f", sorted {order_text(comparison)}" if comparison.sort else ""


def _named(what: str, names: Sequence[str]) -> str:
    """What holds for some models, with their names; empty if it holds for none."""
    return f"{what}: {names_text([literal(name, LONGEST_NAME) for name in names])}" if names else ""


def _without_figures(comparison: Comparison) -> Iterator[str]:
    """The models that are not in a plot, and why."""
    yield _named("cannot be built", [failure.model for failure in comparison.failures])
    yield _named("interrupted before", comparison.missing)


def _footnote(comparison: Comparison, panels: Sequence[Panel]) -> str:
    """What bars alone do not tell: which models fail, have unknown figures, or are not drawn."""
    failing = [model.model for model in comparison.models if model.failure is not None]
    running = [model for model in comparison.models if model.failure is None]
    not_known = [model.model for model in running if any(panel.value(model) is None for panel in panels)]
    parts = (_named("forward pass fails", failing), _named("figure unknown (?)", not_known))
    return "; ".join(filter(None, (*parts, *_without_figures(comparison))))


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

    missing = (_named("not drawn, as a figure is unknown", others), *_without_figures(comparison))
    caption = "; ".join(filter(None, (f"{_title(comparison)}{_order(comparison)}", *missing)))
    head = f"{models_text(comparison, len(others))}{source}"

    def paint(figure: Figure, theme: Theme) -> None:
        bubble_plot.paint(figure, drawn, head, caption, theme)

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
    for place, (model, value) in enumerate(zip(models, values)):
        text = UNKNOWN if value is None else panel.text(value)
        if panel.column == "receptive_field" and model.sees_all:
            text = whole_text(len(model.field_size or ()))
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
