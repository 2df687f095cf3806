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
    checked,
    input_grid,
    padded,
    patch,
    picture,
    rule_words,
    stops,
    tensor,
)
from vggscope.units import rule_text


@record
class Pools:
    """Both pools of one channel."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    rule: str
    input: Rows
    maximum: Rows
    average: Rows


def pools(size: int, kernel: int, stride: int, padding: int) -> Pools:
    """Both pools worked out; raises as `checked` does. Padding is no candidate for the maximum, and counts as 0 in the
    mean, as torch has it.
    """
    side = checked(size, kernel, stride, padding, kernel // 2)
    rows = picture(size)
    for_maximum, for_mean = padded(rows, padding, -inf), padded(rows, padding)

    def values(around: Rows, row: int, column: int) -> list[int | float]:
        return [value for line in patch(around, row * stride, column * stride, kernel) for value in line]

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
    """Both pools window by window, the rule, and what is the same and what differs.

    Raises OptionError for numbers that make no sense, ShapeError for a window that does not fit.
    """
    found = pools(size, kernel, stride, padding)
    side = len(found.maximum)
    return tutorial(
        "pool",
        f"pooling: a {kernel}x{kernel} window over a {size}x{size} picture, stride {stride}, padding {padding}",
        found,
        input_grid(found.input, padding),
        text("Each window gives one number. Max pooling takes the largest, average pooling the mean:"),
        *_steps(found),
        grid(f"max pooling, {side}x{side}", found.maximum),
        grid(f"average pooling, {side}x{side}", found.average),
        Facts(
            (
                ("(W-K+2P)/S+1", rule_words(size, kernel, padding, stride, side)),
                ("parameters", "none; each channel is pooled by itself, so that their number stays"),
                ("padding", "never the maximum; in the mean it counts as 0 (torch's count_include_pad)"),
                (
                    "backward",
                    "the maximum's gradient goes to the largest pixel alone, the mean's to all in equal parts",
                ),
                ("in the paper", "max pooling 2x2 with stride 2, five times: 224, 112, 56, 28, 14, 7"),
            )
        ),
        code(_code(found), (found.maximum, found.average)),
    )


def _steps(found: Pools) -> tuple[Sums, Sums]:
    around = padded(found.input, found.padding)
    largest, means = [], []
    side, kernel = len(found.maximum), found.kernel_size
    for row, column in islice(stops(side), MOST_STEPS):
        values = _window_values(around, found, row, column)
        real = [str(value) for value, inside in values if inside]
        largest.append((f"y[{row},{column}]", f"max({', '.join(real)})", found.maximum[row][column]))
        mean = f"({'+'.join(str(value) for value, _ in values)})/{kernel**2}"
        means.append((f"y[{row},{column}]", mean, found.average[row][column]))
    left = side**2 - len(largest)
    return sums(tuple(largest), left), sums(tuple(means), left)


def _window_values(around: Rows, found: Pools, row: int, column: int) -> list[tuple[int | float, bool]]:
    """What the window sees, each value with whether it is one of the picture's."""
    inside = range(found.padding, found.padding + found.size)
    top, left = row * found.stride, column * found.stride
    places = [(y, x) for y in range(top, top + found.kernel_size) for x in range(left, left + found.kernel_size)]
    return [(around[y][x], y in inside and x in inside) for y, x in places]


def _code(found: Pools) -> str:
    window = f"{found.kernel_size}, stride={found.stride}, padding={found.padding}"
    return f"""\
import torch
import torch.nn.functional as F

x = {tensor(found.input, PICTURE_FORMULA)}[None]
y = torch.cat([
    F.max_pool2d(x, {window}),
    F.avg_pool2d(x, {window}),
])
print(y)
"""
