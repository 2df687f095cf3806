"""The pictures of tutorials that compare numbers: groups of bars, each group with a heading and its own scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.picture import Line, Picture, Rectangle, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import BODY, HEADING, SMALL, TITLE, Theme
from vggscope.record import record
from vggscope.tutorials.backward import Backward
from vggscope.tutorials.batch_norm import NormalisedChannel
from vggscope.tutorials.counting_tools import Counts
from vggscope.tutorials.flops import CountedNetwork
from vggscope.tutorials.image import InputTutorial
from vggscope.tutorials.init import Initialisation
from vggscope.tutorials.lrn import Normalised
from vggscope.tutorials.memory import MemoryParts
from vggscope.tutorials.parameters import ParameterCount
from vggscope.tutorials.softmax import Probabilities
from vggscope.tutorials.tutorial import number_text
from vggscope.units import bytes_text, count_text

LENGTH, ROW, HEIGHT, HEAD, GAP = 220.0, 14.0, 8.0, 16.0, 10.0
"""In points: the longest bar, the distance of two bars, a bar's height, a heading's height, the space below a group."""

MOST_BARS = 40
"""How many layers are drawn; of more layers, the largest."""

LONGEST_LABEL, LONGEST_TEXT = 150.0, 300.0
"""The largest widths of the texts before and after a bar."""


@record
class Bar:
    """A bar: the label before it, its value, None if unknown, the text after it, and the kind that has its colour."""

    label: str
    value: float | None
    text: str
    kind: str = "conv"


@record
class BarGroup:
    """Bars on one scale, below a heading. `top` is the value of the longest bar, if it is not one of these."""

    heading: str
    bars: tuple[Bar, ...]
    top: float = 0.0

    @property
    def ends(self) -> tuple[float, float]:
        """The values at both ends of the scale, which has 0 on it."""
        values = [bar.value for bar in self.bars if bar.value is not None]
        low, high = min([0.0, *values]), max([0.0, self.top, *values])
        return low, high if high > low else low + 1


def draw_groups(
    title: str, caption: str, groups: Sequence[BarGroup], theme: Theme, notes: tuple[str, ...] = ()
) -> Picture:
    """Groups of bars below each other."""
    every = [bar for group in groups for bar in group.bars]
    before = min(max((text_width(bar.label, BODY) for bar in every), default=0.0), LONGEST_LABEL)
    left = MARGIN + before + 8
    frame: list[Shape] = []
    y = TOP
    for group in groups:
        if group.heading:
            frame.append(Text(MARGIN, y + 8, group.heading, HEADING, theme.ink, bold=True))
            y += HEAD
        frame += _bars(group, left, y, theme)
        y += ROW * len(group.bars) + GAP
    right = max(text.bounds[2] for text in frame if isinstance(text, Text))
    right = max(right, left + LENGTH, MARGIN + text_width(title, TITLE, bold=True))
    return page(title, caption, theme, (right, y - GAP), tuple(frame), notes=notes)


def _bars(group: BarGroup, left: float, y: float, theme: Theme) -> Iterator[Shape]:
    low, high = group.ends
    zero = left - low / (high - low) * LENGTH
    for bar in group.bars:
        yield Text(left - 8, y + 9, fitted(bar.label, BODY, LONGEST_LABEL), BODY, theme.ink, anchor="end")
        width = (bar.value or 0) / (high - low) * LENGTH
        if bar.value:
            start = zero + min(width, 0)
            yield Rectangle(start, y + 2, abs(width), HEIGHT, theme.fills[bar.kind], theme.accents[bar.kind], 0.6)
        # The text of a negative bar stands right of the zero, where that bar is not.
        yield Text(zero + max(width, 0) + 6, y + 9, fitted(bar.text, SMALL, LONGEST_TEXT), SMALL, theme.muted)
        y += ROW
    yield Line(((zero, y - ROW * len(group.bars)), (zero, y)), theme.muted)


def _largest(bars: Sequence[Bar]) -> tuple[tuple[Bar, ...], tuple[str, ...]]:
    """At most MOST_BARS of the bars, the largest in their order, and a note if some are left out."""
    if len(bars) <= MOST_BARS:
        return tuple(bars), ()
    order = sorted(range(len(bars)), key=lambda place: -(bars[place].value or 0))[:MOST_BARS]
    return tuple(bars[place] for place in sorted(order)), (f"The {MOST_BARS} largest of {len(bars)} layers.",)


def draw_parameters(title: str, data: ParameterCount, theme: Theme) -> Picture:
    """A bar for each layer with parameters, and the products that they are."""
    bars, notes = _largest(
        [Bar(layer.label, layer.params, f"{count_text(layer.params)} = {layer.terms}", "fc") for layer in data.layers]
    )
    caption = f"{count_text(data.params)} parameters: weights and biases, as products of each layer's sizes"
    return draw_groups(title, caption, (BarGroup("", bars),), theme, notes)


def draw_flops(title: str, data: CountedNetwork, theme: Theme) -> Picture:
    """A bar for each layer with multiply-accumulates, and the products that they are."""
    bars, notes = _largest(
        [Bar(layer.label, layer.macs, f"{count_text(layer.macs)} = {layer.product}") for layer in data.layers]
    )
    caption = f"{count_text(data.macs)} MACs: the positions of each output times the weights that it reads"
    return draw_groups(title, caption, (BarGroup("", bars),), theme, notes)


def draw_memory(title: str, data: MemoryParts, theme: Theme) -> Picture:
    """What is allocated at the peak of each step, all on one scale."""
    top = max(step.peak_bytes for step in data.steps)
    kinds = {"parameters": "fc", "gradients": "pool", "optimizer": "norm", "activations": "conv", "other": "other"}
    groups = []
    for step in data.steps:
        parts = [Bar(name, size, bytes_text(size), kind) for name, kind in kinds.items() if (size := _size(step, name))]
        heading = f"{step.mode}, batch {count_text(step.batch)}: {bytes_text(step.peak_bytes)}"
        groups.append(BarGroup(heading, tuple(parts), top))
    return draw_groups(title, "at the peak of a step, float32, SGD with momentum; all on one scale", groups, theme)


def _size(step: object, part: str) -> int:
    return int(getattr(step, f"{part}_bytes"))


def draw_backward(title: str, data: Backward, theme: Theme) -> Picture:
    """What autograd keeps of each layer."""
    bars = [
        Bar(f"{layer.label}", layer.kept_bytes, f"{bytes_text(layer.kept_bytes)}: {layer.keeps}")
        for layer in data.layers
    ]
    return draw_groups(title, data.model, (BarGroup("", tuple(bars)),), theme)


def draw_tools(title: str, data: Counts, theme: Theme) -> Picture:
    """The number that each tool prints."""
    bars = [Bar(count.tool, count.value, f"{count_text(count.value)} {count.called}") for count in data.counts]
    caption = "none of them is wrong: each counts something else"
    return draw_groups(title, caption, (BarGroup("", tuple(bars)),), theme)


def draw_softmax(title: str, data: Probabilities, theme: Theme) -> Picture:
    """The logits, their exponentials and the probabilities of each class."""
    total = sum(data.exponentials)
    names = [f"class {number}" for number in range(len(data.logits))]
    groups = (
        _numbers("logit x", names, data.logits, "input"),
        _numbers("exp(x)", names, data.exponentials, "conv"),
        _numbers(f"exp(x) / {number_text(total)}: the probability", names, data.probabilities, "fc"),
    )
    loss = f"-log of the probability of class {data.target}, the true one, is the loss: {number_text(data.loss)}"
    return draw_groups(title, loss, groups, theme)


def _numbers(heading: str, names: Sequence[str], values: Sequence[float], kind: str) -> BarGroup:
    return BarGroup(heading, tuple(Bar(name, value, number_text(value), kind) for name, value in zip(names, values)))


def draw_lrn(title: str, data: Normalised, theme: Theme) -> Picture:
    """The values of one pixel in each channel, before and after."""
    c, channels = data.constants, [f"channel {number}" for number in range(len(data.input))]
    caption = f"one pixel: each value is divided by ({c.k:g} + {c.alpha:g} * sum of {c.n} squares)^{c.beta:g}"
    groups = (
        _numbers("input x", channels, data.input, "input"),
        _numbers("output y, on a scale of its own", channels, data.output, "norm"),
    )
    return draw_groups(title, caption, groups, theme)


def draw_batch_norm(title: str, data: NormalisedChannel, theme: Theme) -> Picture:
    """The values of a channel, normalised in training and at evaluation."""
    images = [f"image {number}" for number in range(len(data.input))]
    mean, running = number_text(data.mean), number_text(data.running_mean)
    groups = (
        _numbers("input x", images, data.input, "input"),
        _numbers(
            f"in training, with the batch's mean {mean} and variance {number_text(data.variance)}",
            images,
            data.training,
            "norm",
        ),
        _numbers(
            f"at evaluation, with the running mean {running} and variance {number_text(data.running_variance)}",
            images,
            data.evaluation,
            "fc",
        ),
    )
    caption = (
        f"one channel of a batch of {len(images)}, weight {number_text(data.weight)}, bias {number_text(data.bias)}"
    )
    return draw_groups(title, caption, groups, theme)


def draw_init(title: str, data: Initialisation, theme: Theme) -> Picture:
    """By which factor each layer changes the mean square of the signal, and He's standard deviation."""
    factors = [Bar(layer.label, layer.factor, number_text(layer.factor)) for layer in data.layers]
    stds = [Bar(layer.label, layer.he_std, number_text(layer.he_std), "fc") for layer in data.layers]
    groups = (
        BarGroup("factor on the mean square of the signal, with weights of standard deviation 0.01", tuple(factors)),
        BarGroup("He's standard deviation, sqrt(2 / fan_in), with which each factor is 1", tuple(stds)),
    )
    caption = f"the factors multiply to {number_text(data.product)}: with 0.01 everywhere the signal all but vanishes"
    return draw_groups(title, caption, groups, theme)


def draw_input(title: str, data: InputTutorial, theme: Theme) -> Picture:
    """A pixel as it is in a file, and as the paper and torchvision preprocess it."""
    names = [channel.channel for channel in data.pixel]
    groups = (
        _numbers("in the file, 0 to 255", names, [channel.raw[0] for channel in data.pixel], "input"),
        _numbers("the paper: minus the mean", names, [channel.paper[0] for channel in data.pixel], "conv"),
        _numbers(
            "torchvision: to 0..1, minus the mean, over the deviation",
            names,
            [channel.torchvision[0] for channel in data.pixel],
            "fc",
        ),
    )
    return draw_groups(title, "one pixel, each group on a scale of its own", groups, theme)
