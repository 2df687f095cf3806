"""`explain pool`: the maximum and the mean of each window."""

from __future__ import annotations

from math import inf

from vggscope.record import record
from vggscope.tutorials.tutorial import Number, Rows, Sums, Tutorial, code, facts, grid, sums, text, tutorial
from vggscope.tutorials.window import PICTURE_FORMULA, SlidingWindow, sliding_window, tensor_source


@record
class Pools(SlidingWindow):
    """Max and average pooling of one channel."""

    maximum: Rows
    average: Rows


def pools(size: int, kernel: int, stride: int, padding: int) -> Pools:
    """Both poolings with all their numbers. Raises as `sliding_window` does.

    As in torch, padding is never the maximum, and counts as 0 in the mean.
    """
    window = sliding_window(size, kernel, stride, padding, kernel // 2)
    for_maximum, for_mean = window.padded(-inf), window.padded()
    return Pools(
        **vars(window),
        maximum=window.output_of(lambda row, column: max(_values(window, for_maximum, row, column))),
        average=window.output_of(lambda row, column: sum(_values(window, for_mean, row, column)) / kernel**2),
    )


def _values(window: SlidingWindow, padded: Rows, row: int, column: int) -> list[Number]:
    return [value for line in window.patch(padded, row, column) for value in line]


def explain(size: int = 4, kernel: int = 2, stride: int = 2, padding: int = 0) -> Tutorial:
    """Both poolings window by window, the rule for the number of windows, and how the two differ.

    Raises OptionError for numbers out of range, and ShapeError for a window larger than the padded picture.
    """
    data = pools(size, kernel, stride, padding)
    side = data.side
    return tutorial(
        "pool",
        f"pooling: a {kernel}x{kernel} window over a {size}x{size} picture, stride {stride}, padding {padding}",
        data,
        data.input_grid(),
        text("Each window gives one number. Max pooling takes the largest, average pooling the mean:"),
        *_steps(data),
        grid(f"max pooling, {side}x{side}", data.maximum),
        grid(f"average pooling, {side}x{side}", data.average),
        facts(
            {
                "(W-K+2P)/S+1": data.rule_words(),
                "parameters": "none; each channel is pooled on its own, so the number of channels stays the same",
                "padding": "never the maximum; in the mean it counts as 0 (torch's count_include_pad)",
                "backward": "max pooling sends the gradient to the largest pixel only, average pooling to all in equal"
                " parts",
                "in the paper": "max pooling 2x2 with stride 2, five times: 224, 112, 56, 28, 14, 7",
            }
        ),
        code(_source(data), (data.maximum, data.average)),
    )


def _steps(data: Pools) -> tuple[Sums, Sums]:
    largest, means = [], []
    for row, column in data.first_steps():
        pixels = [str(v) for v in _values(data, data.padded(-inf), row, column) if v != -inf]
        values = map(str, _values(data, data.padded(), row, column))
        largest.append((f"y[{row},{column}]", f"max({', '.join(pixels)})", data.maximum[row][column]))
        mean = f"({'+'.join(values)})/{data.kernel_size**2}"
        means.append((f"y[{row},{column}]", mean, data.average[row][column]))
    left_out = data.side**2 - len(largest)
    return sums(tuple(largest), left_out), sums(tuple(means), left_out)


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
