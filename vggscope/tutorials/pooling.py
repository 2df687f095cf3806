"""`explain pool`: the maximum and the mean of each window."""

from __future__ import annotations

from itertools import islice
from math import inf

from vggscope.document import Facts
from vggscope.record import record
from vggscope.tutorials.tutorial import Rows, Sums, Tutorial, code, grid, sums, text, tutorial
from vggscope.tutorials.window import (
    MOST_STEPS,
    PICTURE_FORMULA,
    input_grid,
    output_side,
    padded,
    patch,
    picture,
    positions,
    rule_words,
    tensor_source,
)
from vggscope.units import rule_text


@record
class Pools:
    """Max and average pooling of one channel."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    rule: str
    input: Rows
    maximum: Rows
    average: Rows


def pools(size: int, kernel: int, stride: int, padding: int) -> Pools:
    """Both poolings with all their numbers. Raises as `output_side` does.

    As in torch, padding is never the maximum, and counts as 0 in the mean.
    """
    side = output_side(size, kernel, stride, padding, kernel // 2)
    rows = picture(size)
    for_maximum, for_mean = padded(rows, padding, -inf), padded(rows, padding)

    def values(with_padding: Rows, row: int, column: int) -> list[int | float]:
        return [value for line in patch(with_padding, row * stride, column * stride, kernel) for value in line]

    places = range(side)
    return Pools(
        size,
        kernel,
        stride,
        padding,
        rule_text(size, kernel, padding, stride, 1, side),
        rows,
        tuple(tuple(max(values(for_maximum, row, column)) for column in places) for row in places),
        tuple(tuple(sum(values(for_mean, row, column)) / kernel**2 for column in places) for row in places),
    )


def explain(size: int = 4, kernel: int = 2, stride: int = 2, padding: int = 0) -> Tutorial:
    """Both poolings window by window, the rule for the number of windows, and how the two differ.

    Raises OptionError for numbers out of range, and ShapeError for a window larger than the padded picture.
    """
    data = pools(size, kernel, stride, padding)
    side = len(data.maximum)
    return tutorial(
        "pool",
        f"pooling: a {kernel}x{kernel} window over a {size}x{size} picture, stride {stride}, padding {padding}",
        data,
        input_grid(data.input, padding),
        text("Each window gives one number. Max pooling takes the largest, average pooling the mean:"),
        *_steps(data),
        grid(f"max pooling, {side}x{side}", data.maximum),
        grid(f"average pooling, {side}x{side}", data.average),
        Facts(
            (
                ("(W-K+2P)/S+1", rule_words(size, kernel, padding, stride, side)),
                ("parameters", "none; each channel is pooled on its own, so the number of channels stays the same"),
                ("padding", "never the maximum; in the mean it counts as 0 (torch's count_include_pad)"),
                (
                    "backward",
                    "max pooling sends the gradient to the largest pixel only, average pooling to all in equal parts",
                ),
                ("in the paper", "max pooling 2x2 with stride 2, five times: 224, 112, 56, 28, 14, 7"),
            )
        ),
        code(_source(data), (data.maximum, data.average)),
    )


def _steps(data: Pools) -> tuple[Sums, Sums]:
    with_padding = padded(data.input, data.padding)
    largest, means = [], []
    side, kernel = len(data.maximum), data.kernel_size
    for row, column in islice(positions(side), MOST_STEPS):
        values = _window_values(with_padding, data, row, column)
        pixels = [str(value) for value, inside in values if inside]
        largest.append((f"y[{row},{column}]", f"max({', '.join(pixels)})", data.maximum[row][column]))
        mean = f"({'+'.join(str(value) for value, _ in values)})/{kernel**2}"
        means.append((f"y[{row},{column}]", mean, data.average[row][column]))
    left_out = side**2 - len(largest)
    return sums(tuple(largest), left_out), sums(tuple(means), left_out)


def _window_values(with_padding: Rows, data: Pools, row: int, column: int) -> list[tuple[int | float, bool]]:
    """Each value in the window, and whether it is a pixel and not padding."""
    inside = range(data.padding, data.padding + data.size)
    top, left = row * data.stride, column * data.stride
    places = [(y, x) for y in range(top, top + data.kernel_size) for x in range(left, left + data.kernel_size)]
    return [(with_padding[y][x], y in inside and x in inside) for y, x in places]


def _source(data: Pools) -> str:
    window = f"{data.kernel_size}, stride={data.stride}, padding={data.padding}"
    return f"""\
import torch
import torch.nn.functional as F

x = {tensor_source(data.input, PICTURE_FORMULA)}[None]
y = torch.cat([
    F.max_pool2d(x, {window}),
    F.avg_pool2d(x, {window}),
])
print(y)
"""
