"""A comparison as bars, a panel for each figure, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vggscope.analysis.compare import Compared, Comparison
from vggscope.drawing.theme import TITLE, Theme, theme_named
from vggscope.errors import OptionError
from vggscope.record import record
from vggscope.render.matplotlib_figure import Plot, literal, plain_axes
from vggscope.units import UNKNOWN, bytes_text, count_text, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_MODELS = 40
"""More bars than these nobody compares."""

CONFIGS = 3
"""Panels in a row."""

BAR, PANEL, HEAD, FOOT, NAME = 0.26, 2.5, 0.75, 0.2, 110.0
"""In inches: a bar's room, a panel's width, what stands above and below the bars; in points: the longest name."""


@record
class Panel:
    """One figure of every model: its title, its value, and how that is written."""

    title: str
    value: Callable[[Compared], int | None]
    text: Callable[[int | None], str]


def _field(found: Compared) -> int | None:
    field = found.last_convolution.receptive_field if found.last_convolution else None
    return max(field.size) if field else None


PANELS = (
    Panel("parameters", lambda found: found.params, short_count),
    Panel("MACs", lambda found: found.macs, short_count),
    Panel("memory, inference", lambda found: found.inference_peak_bytes, bytes_text),
    Panel("memory, training", lambda found: found.training_peak_bytes, bytes_text),
    Panel("depth, layers with weights", lambda found: found.depth, count_text),
    Panel("receptive field, pixels", _field, count_text),
)


def plot(comparison: Comparison, theme: str = "light") -> Plot:
    """The models side by side; raises OptionError for a theme that is not there, and for too many models."""
    models = comparison.models
    if len(models) > MOST_MODELS:
        raise OptionError(f"{len(models)} models are too many to plot", f"name up to {MOST_MODELS}")
    rows = -(-len(PANELS) // CONFIGS)

    def paint(figure: Figure, theme: Theme) -> None:
        figure.suptitle(_title(comparison), x=0.01, ha="left", fontsize=TITLE, fontweight="bold", color=theme.ink)
        names = [literal(found.model, NAME) for found in models]
        for place, (panel, axes) in enumerate(zip(PANELS, figure.subplots(rows, CONFIGS).flat)):
            _draw(axes, panel, models, names if place % CONFIGS == 0 else None, theme)

    size = (CONFIGS * PANEL + 1.6, rows * (HEAD + FOOT + BAR * len(models)) + 0.35)
    return Plot(paint, f"{len(models)} models", size, theme_named(theme))


def _title(comparison: Comparison) -> str:
    sizes = {found.input_shape[1:] for found in comparison.models}
    text = "each at its own input size"
    if len(sizes) == 1:
        text = "input " + "\N{MULTIPLICATION SIGN}".join(map(str, sizes.pop()))
    return f"{text}, batch {count_text(comparison.batch)}, {comparison.dtype}"


def _draw(axes: Axes, panel: Panel, models: Sequence[Compared], names: list[str] | None, theme: Theme) -> None:
    values = [panel.value(found) for found in models]
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
