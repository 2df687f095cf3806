"""The timeline of a memory report as a stacked area plot: the allocated memory at each event, the peak marked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from vggscope.analysis.memory.fit import Fit
from vggscope.analysis.memory.report import MemoryReport, TimelineEntry
from vggscope.drawing.subject import without_place
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.drawing.themes import theme_named
from vggscope.render.matplotlib_figure import HUES, Plot, annotate, literal, name_ticks, plain_axes
from vggscope.render.memory import inputs_text
from vggscope.units import bytes_text, count_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = HUES

PARTS = {
    "parameters": ("weights", BLUE, "#5a5a5a", ""),
    "buffers": ("buffers", SKY, "#8c8c8c", ""),
    "optimizer": ("optimizer's states", ORANGE, "#b4b4b4", ""),
    "input": ("input and labels", "#8a94a0", "#dcdcdc", ""),
    "gradients": ("gradients of weights", VERMILION, "#f2f2f2", "////"),
    "activations": ("activations", GREEN, "#ffffff", "...."),
    "temporary": ("temporaries", PURPLE, "#ffffff", r"\\\\"),
}
"""The parts from the bottom up, the lasting ones first: title, colour, and the grey and hatch of the paper theme."""

MOST_ABOVE = 1.6
"""The GPU's capacity is drawn only below this multiple of the peak, so that the areas stay large."""

MIB = 2**20


def plot(report: MemoryReport, theme: str = "light") -> Plot:
    """The timeline of a report. Raises OptionError for an unknown theme."""

    def paint(figure: Figure, theme: Theme) -> None:
        _draw(figure.add_subplot(), report, theme)

    return Plot(paint, _title(report), (11, 5.5), theme_named(theme))


def _title(report: MemoryReport) -> str:
    optimizer = f", {report.optimizer}" if report.optimizer else ""
    shape = f"{count_text(report.batch)} x {inputs_text(report)}"
    return f"{without_place(report.model)}: {report.mode} on {shape}, {report.dtype}{optimizer}"


def _draw(axes: Axes, report: MemoryReport, theme: Theme) -> None:
    _areas(axes, report, theme)
    _events(axes, report, theme)
    _peak(axes, report, theme)
    if report.fit is not None and report.fit.capacity_bytes < MOST_ABOVE * report.peak_bytes:
        _capacity(axes, report.fit, theme)
    axes.set_ylabel("MiB", color=theme.ink, fontsize=BODY)
    plain_axes(axes, theme, literal(_title(report)), pad=22)
    axes.yaxis.set_major_formatter(lambda value, _: count_text(round(value)))


def _capacity(axes: Axes, fit: Fit, theme: Theme) -> None:
    level = fit.capacity_bytes / MIB
    axes.axhline(level, color=theme.ink, linewidth=1, linestyle="--")
    axes.set_ylim(0, max(axes.get_ylim()[1], level * 1.08))
    text = literal(f"{fit.gpu}: {bytes_text(fit.capacity_bytes)}")
    style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": SMALL, "bbox": _ground(theme)}
    annotate(axes, text, (0.004, level), (0, 5), theme.ink, **style)


def _areas(axes: Axes, report: MemoryReport, theme: Theme) -> None:
    """An area for each part that is ever allocated, with a step for each event."""
    timeline = report.timeline
    places = range(len(timeline) + 1)
    below = [0.0] * len(places)
    for part, (title, color, grey, hatch) in PARTS.items():
        sizes = [getattr(entry, f"{part}_bytes") / MIB for entry in timeline]
        if not any(sizes):
            continue
        above = [low + size for low, size in zip(below, [*sizes, sizes[-1]])]
        fill, edge, hatching = (grey, theme.ink, hatch) if theme.name == "paper" else (color, theme.card, None)
        style: dict[str, Any] = {"facecolor": fill, "edgecolor": edge, "hatch": hatching, "linewidth": 0.4}
        axes.fill_between(places, below, above, step="post", label=title, **style)
        below = above
    axes.set_xlim(0, len(timeline))
    axes.set_ylim(0, max(below) * 1.12)
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=SMALL, labelcolor=theme.ink, **place)


def _events(axes: Axes, report: MemoryReport, theme: Theme) -> None:
    """The names of the phases above the areas, and of the layers below."""
    phases = list(_phases(report))
    for number, (event, start, end) in enumerate(phases):
        if start:
            axes.axvline(start, color=theme.border, linewidth=0.8)
        if end - start > 1 or event == "optimizer step":
            at = ((start + end) / 2 if end - start > 1 else end, 1.0)
            side = "right" if number == len(phases) - 1 and end - start == 1 else "center"
            annotate(axes, event, at, (0, 4), theme.muted, xycoords=("data", "axes fraction"), ha=side)
    name_ticks(axes, [entry.label or entry.layer for entry in report.timeline], 0.5)


def _phases(report: MemoryReport) -> Iterator[tuple[str, int, int]]:
    """Runs of the same event: its name, the index of the first entry and the index after the last. Recomputed stages
    are part of the backward pass.
    """

    def phase(entry: TimelineEntry) -> str:
        return "backward" if entry.event == "recompute" else entry.event

    start = 0
    for event, entries in groupby(report.timeline, key=phase):
        end = start + len(list(entries))
        yield event, start, end
        start = end


def _peak(axes: Axes, report: MemoryReport, theme: Theme) -> None:
    place = max(range(len(report.timeline)), key=lambda i: report.timeline[i].bytes)
    level = report.peak_bytes / MIB
    axes.plot([place + 0.5], [level], marker="v", color=theme.ink, markersize=6, clip_on=False)
    text = f"peak {bytes_text(report.peak_bytes)}, {literal(report.peak_at)}"
    offset, side = (-8, "right") if place > len(report.timeline) * 2 / 3 else (8, "left")
    ground = _ground(theme)
    annotate(axes, text, (place + 0.5, level), (offset, 5), theme.ink, ha=side, fontweight="bold", bbox=ground)


def _ground(theme: Theme) -> dict[str, Any]:
    """The ground of a text, so that no line between phases runs through it."""
    return {"facecolor": theme.card, "edgecolor": "none", "pad": 1.0}
