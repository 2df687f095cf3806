"""Charts: the layers of a summary, and models as bubbles."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import combinations, pairwise
from math import hypot, log10, pi
from typing import Any

import pytest
from matplotlib.figure import Figure

import vggscope
from vggscope.drawing.fonts import measured_in, text_width
from vggscope.drawing.installed_fonts import installed_font
from vggscope.drawing.theme import SMALL
from vggscope.errors import OptionError
from vggscope.render import bubble_plot
from vggscope.render.bubble_plot import Bubble, Point, place_names
from vggscope.render.compare_plot import plot as compared
from vggscope.render.summary_plot import plot as by_layer


def painted(plot: Any) -> Figure:
    figure = Figure(figsize=plot.size)
    plot.paint(figure, plot.theme)
    return figure


def test_bars_have_the_figures_of_the_layers() -> None:
    report = vggscope.summary("A")
    params, macs, memory, field = painted(by_layer(report)).axes
    assert [bar.get_height() for bar in params.patches] == [row.params for row in report]
    assert [bar.get_height() for bar in macs.patches] == [row.macs for row in report]
    assert [bar.get_height() * 2**20 for bar in memory.patches] == [row.activation_bytes for row in report]
    assert [bar.get_height() for bar in field.patches] == [row.receptive_field.size[0] for row in report]  # type: ignore[union-attr]
    assert [axes.get_title("left") for axes in (params, macs, memory, field)] == [
        *("parameters", "MACs", "memory of output, MiB", "receptive field, px")
    ]
    # 25,088 inputs of fc6, 4,096 units with a bias each, of 132,863,336 parameters
    assert [text.get_text() for text in params.texts] == ["fc6: 102.76 M (77.3%)"]
    labels = [label.get_text() for label in field.get_xticklabels()]
    assert labels == [row.label or row.name for row in report]


def test_an_unknown_figure_of_a_layer_is_a_question_mark() -> None:
    report = vggscope.summary("conv3-8 FC-10", input_size=(3, 8, 8))
    unknown = replace(report, layers=(replace(report.layers[0], macs=None), *report.layers[1:]))
    macs = painted(by_layer(unknown)).axes[1]
    assert sorted(text.get_text() for text in macs.texts) == ["?", "fc2: 3.92 k"]


def test_a_bubble_stands_at_its_figures() -> None:
    comparison = vggscope.compare("A", "E", "conv3-256 maxpool conv3-512 FC-100")
    axes = painted(compared(comparison, chart="bubbles")).axes[0]
    circles = {round(circle.center[1], 3): circle for circle in axes.patches[:3]}
    spans = {
        axis: (axis.get_ticklocs(), [text.get_text() for text in axis.get_ticklabels()])
        for axis in (axes.xaxis, axes.yaxis)
    }
    places, texts = spans[axes.yaxis]
    units = {"M": 1e6, "G": 1e9}
    values = [float(text.split()[0]) * units[text.split()[1]] for text in texts]
    slope = (places[-1] - places[0]) / (log10(values[-1]) - log10(values[0]))
    for model in comparison.models:
        at = places[0] + slope * (log10(model.params or 1) - log10(values[0]))
        circle = circles[min(circles, key=lambda y: abs(y - at))]
        assert circle.center[1] == pytest.approx(at)
        largest = max(other.inference_peak_bytes or 0 for other in comparison.models)
        area = pi * bubble_plot.LARGEST**2 * (model.inference_peak_bytes or 0) / largest
        assert pi * circle.radius**2 == pytest.approx(area)


@pytest.mark.parametrize("chart", ["bars", "bubbles"])
def test_what_all_words_begin_with_is_said_once(chart: str) -> None:
    def texts(*words: str) -> str:
        return compared(vggscope.compare(*words), chart=chart).render().decode()

    library = texts("torchvision:vgg11", "torchvision:vgg13")
    assert "2 models of torchvision" in library
    assert re.search(r"\bvgg11\b", library)
    assert "torchvision:vgg11" not in library
    for mixed in (texts("torchvision:vgg11", "A"), texts("torchvision:vgg11")):
        assert "torchvision:vgg11" in mixed
        assert "of torchvision" not in mixed


@pytest.mark.parametrize("seed", range(6))
def test_names_cover_neither_bubbles_nor_names(seed: int) -> None:
    drawn = random.Random(seed)
    bubbles = [
        Bubble(
            f"torchvision:model{number}", drawn.gauss(230, 90), drawn.gauss(170, 60), drawn.uniform(3.5, 20), "#ffffff"
        )
        for number in range(25)
    ]
    with measured_in(installed_font("DejaVu Sans")):
        placed = place_names(bubbles, 456, 348)
        widths = [text_width(bubble.name, SMALL) for bubble in bubbles]
    named = [(bubble, width, name) for bubble, width, name in zip(bubbles, widths, placed) if name is not None]
    assert len(named) > 12
    for bubble, width, name in named:
        left, bottom, right, top = name.box
        assert right - left == pytest.approx(width)
        assert (left >= 0, bottom >= 0, right <= 456, top <= 348) == (True,) * 4
        corners = ((left, bottom), (right, bottom), (right, top), (left, top))
        edges = [point for ends in pairwise((*corners, corners[0])) for point in along(*ends)]
        others = [other for other in bubbles if not bubble.covers(other)]
        own, nearest = gap(edges, bubble), min(gap(edges, other) for other in others)
        assert min(own, nearest) > 0
        if name.line is None:
            assert own < nearest - 1
            continue
        line = along(*name.line)
        assert (gap(line[:1], bubble), gap(line[-1:], bubble)) == (pytest.approx(0), pytest.approx(own, abs=0.1))
        assert min(gap(line, other) for other in others) > 0
        assert not any(overlap((x, y, x, y), other.box) for _, _, other in named for x, y in line[:-1])
    assert not any(overlap(one.box, other.box) for (_, _, one), (_, _, other) in combinations(named, 2))


def along(start: Point, end: Point) -> list[Point]:
    """Points on a line, its ends among them."""
    shares = [step / 100 for step in range(101)]
    return [(start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share) for share in shares]


def gap(points: list[Point], bubble: Bubble) -> float:
    """The least distance of points from the edge of a bubble, negative if one is inside."""
    return min(hypot(x - bubble.x, y - bubble.y) for x, y in points) - bubble.radius


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_name_without_a_place_is_listed_below_the_chart() -> None:
    comparison = vggscope.compare("A")
    (model,) = comparison.models
    models = [replace(model, model=f"model-of-vggscope-{number}", macs=10**9 + number * 10**7) for number in range(40)]
    figure = painted(compared(replace(comparison, models=tuple(models)), chart="bubbles"))
    (listed,) = (text.get_text() for text in figure.texts if text.get_text().startswith("no room for the names of "))
    beside = {text.get_text() for text in figure.axes[0].texts}
    below = set(re.findall(r"model-of-vggscope-\d+", listed))
    assert 0 < len(below) < 40
    assert {model.model for model in models} == below | (beside & {model.model for model in models})
    assert not below & beside


def test_charts_are_the_same_bytes_on_every_run() -> None:
    comparison, report = vggscope.compare("A", "B"), vggscope.summary("A", depth=2)
    for theme in ("light", "paper"):
        assert compared(comparison, theme, "bubbles").render() == compared(comparison, theme, "bubbles").render()
        assert by_layer(report, theme).render() == by_layer(report, theme).render()


def test_models_without_a_figure_are_named_or_refused() -> None:
    comparison = vggscope.compare("A", "B")
    known, unknown = comparison.models[0], replace(comparison.models[1], macs=None)
    some = compared(replace(comparison, models=(known, unknown)), chart="bubbles").render().decode()
    assert "not drawn, as a figure is unknown: B" in some
    with pytest.raises(OptionError, match="chart='bars' shows what is known"):
        compared(replace(comparison, models=(unknown,)), chart="bubbles")
    with pytest.raises(OptionError, match="chart is one of bars, bubbles"):
        comparison.picture(chart="pie")  # type: ignore[typeddict-item]
