"""A summary as charts: a panel for each figure, a bar for each layer in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vggscope.analysis.summary import LayerSummary, Summary
from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.subject import without_place
from vggscope.drawing.theme import BODY, SMALL, TITLE, Theme
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError
from vggscope.record import record
from vggscope.render.matplotlib_figure import Plot, annotate, literal, name_ticks, plain_axes, round_count
from vggscope.render.summary import inputs_text
from vggscope.units import UNKNOWN, bytes_text, count_text, percent_text, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

PANEL, HEAD, FOOT = 1.35, 0.5, 0.9
"""In inches: the height of a panel, and the space above and below all of them."""

LABEL = 0.35
"""The height of the label below the names of layers, in inches."""

LONGEST_TICK, WIDER = 180.0, 1.2
"""The most points of a name, and how much wider than Helvetica's matplotlib's letters are."""

NARROWEST, WIDEST, BAR = 7.0, 14.0, 0.17
"""In inches: the least and the largest width of the page, and the width of a layer between them."""

MOST_MARKS = 60
"""How many bars a page has room for that are marked as unknown one by one."""

MIB = 2**20


@record
class LayerPanel:
    """A figure of layers: its title with the unit, its value, that value in the axis's unit, and as text."""

    title: str
    value: Callable[[LayerSummary], int | None]
    shown: Callable[[float], str]
    text: Callable[[int | None], str]
    unit: int = 1
    adds_up: bool = True


def _field(layer: LayerSummary) -> int | None:
    return max(layer.receptive_field.size) if layer.receptive_field else None


PANELS = (
    LayerPanel("parameters", lambda layer: layer.params, round_count, short_count),
    LayerPanel("MACs", lambda layer: layer.macs, round_count, short_count),
    LayerPanel("memory of output, MiB", lambda layer: layer.activation_bytes, lambda v: f"{v:,.4g}", bytes_text, MIB),
    LayerPanel("receptive field, px", _field, lambda value: f"{value:,.0f}", count_text, adds_up=False),
)


def plot(report: Summary, theme: str = "light") -> Plot:
    """The layers of a summary. Raises OptionError for an unknown theme, and for a summary without layers."""
    if not report.layers:
        raise OptionError(f"{report.model} has no layers to plot", "name another model")

    names = [fitted(layer.label or layer.name, SMALL, LONGEST_TICK) for layer in report.layers]

    def paint(figure: Figure, theme: Theme) -> None:
        title = literal(f"{report.title or without_place(report.model)}, input {inputs_text(report)}, {report.dtype}")
        figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, fontweight="bold", color=theme.ink)
        every = figure.subplots(len(PANELS), 1, sharex=True)
        for panel, axes in zip(PANELS, every):
            _draw_panel(axes, panel, report, theme)
        name_ticks(every[-1], names, 0)
        every[-1].set_xlabel("layers in the order in which they run", color=theme.ink, fontsize=BODY)

    width = min(max(BAR * len(report.layers) + 1.2, NARROWEST), WIDEST)
    # Names that need more than a foot for all make the page taller, not its panels flatter.
    below = max(text_width(name, SMALL) for name in names) * WIDER / 72
    size = (width, HEAD + max(FOOT, below + LABEL) + PANEL * len(PANELS))
    return Plot(paint, f"{report.model} by layer", size, theme_named(theme))


def _draw_panel(axes: Axes, panel: LayerPanel, report: Summary, theme: Theme) -> None:
    values = [panel.value(layer) for layer in report.layers]
    top = max((value for value in values if value is not None), default=0)
    places = range(len(values))
    axes.bar(places, [(value or 0) / panel.unit for value in values], width=0.8, color=theme.bar)
    axes.set_ylim(0, (top or 1) / panel.unit * 1.25)
    axes.set_xlim(-0.7, len(values) - 0.3)
    plain_axes(axes, theme)
    axes.set_facecolor(theme.page)
    axes.set_title(panel.title, loc="left", fontsize=BODY, fontweight="bold", color=theme.ink)
    if top:
        axes.yaxis.set_major_locator(_few_ticks())
        axes.yaxis.set_major_formatter(lambda value, _: panel.shown(value))
    else:
        axes.set_yticks([])
    axes.grid(axis="y", color=theme.track, linewidth=0.6)
    axes.set_axisbelow(True)
    unknown = [place for place, value in enumerate(values) if value is None]
    apart = -(-len(values) // MOST_MARKS)  # marks of narrower bars would overlap
    for place in unknown[::apart]:
        axes.text(place, 0, UNKNOWN, ha="center", va="bottom", fontsize=SMALL, color=theme.ink)
    if top:
        _mark_top(axes, panel, report, values.index(top), top, theme)


def _mark_top(axes: Axes, panel: LayerPanel, report: Summary, place: int, top: int, theme: Theme) -> None:
    """The name and the value of the largest bar, with its share."""
    layer = report.layers[place]
    values = [panel.value(layer) for layer in report.layers]
    known = [value for value in values if value is not None]
    share = f" ({percent_text(top, sum(known))})" if panel.adds_up and len(known) == len(values) else ""
    text = f"{literal(layer.label or layer.name, 120)}: {panel.text(top)}{share}"
    side = "left" if place < 0.35 * len(values) else "right" if place > 0.65 * len(values) else "center"
    at = (place + {"left": -0.4, "right": 0.4, "center": 0.0}[side], top / panel.unit)
    annotate(axes, text, at, (0, 4), theme.ink, ha=side, fontsize=SMALL)


def _few_ticks() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 5, 10])
