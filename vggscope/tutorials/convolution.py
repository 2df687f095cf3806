"""`explain conv`: a kernel slid over a small picture."""

from __future__ import annotations

from itertools import islice

from vggscope.document import Facts
from vggscope.ops.base import numel
from vggscope.ops.convolution import conv2d
from vggscope.record import record
from vggscope.tutorials.tutorial import Rows, Sums, Tutorial, code, grid, sums, text, tutorial
from vggscope.tutorials.window import (
    LARGEST_WINDOW,
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
from vggscope.units import count_text, rule_text

KERNEL: Rows = ((-1, -1, 1), (0, 1, -1), (0, 1, 1))

KERNEL_FORMULA = "(2 * row + column + row * column) % 3 - 1"
"""The weights of a kernel that is not 3x3, as Python has it."""


@record
class Step:
    """One position of the kernel: the output that it makes, what it sees, and the inner product."""

    output: tuple[int, int]
    window: Rows
    products: str
    sum: int


@record
class Slide:
    """A convolution of one channel by one kernel. `steps` are the first ones, `output` is all of them."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    rule: str
    input: Rows
    kernel: Rows
    steps: tuple[Step, ...]
    output: Rows


def kernel_of(side: int) -> Rows:
    """Weights of -1, 0 and 1."""
    if side == len(KERNEL):
        return KERNEL
    return tuple(tuple((2 * row + column + row * column) % 3 - 1 for column in range(side)) for row in range(side))


def inner_product(window: Rows, kernel: Rows) -> int:
    """Each pixel times the weight above it, added up."""
    return int(sum(x * w for xs, ws in zip(window, kernel) for x, w in zip(xs, ws)))


def products(window: Rows, kernel: Rows) -> str:
    """The inner product written out, pixel by weight; the kernel's rows stand a little apart.

    >>> products(((1, 2), (3, 4)), ((0, 1), (-1, 0)))
    '(1)(0)+(2)(1) + (3)(-1)+(4)(0)'
    """
    return " + ".join("+".join(f"({x})({w})" for x, w in zip(xs, ws)) for xs, ws in zip(window, kernel))


def slide(size: int, kernel: int, stride: int, padding: int) -> Slide:
    """The convolution worked out; raises as `checked` does."""
    side = checked(size, kernel, stride, padding, LARGEST_WINDOW)
    weights, rows = kernel_of(kernel), picture(size)
    around = padded(rows, padding)

    def at(row: int, column: int) -> Rows:
        return patch(around, row * stride, column * stride, kernel)

    output = tuple(tuple(inner_product(at(row, column), weights) for column in range(side)) for row in range(side))
    steps = tuple(
        Step((row, column), at(row, column), products(at(row, column), weights), int(output[row][column]))
        for row, column in islice(stops(side), MOST_STEPS)
    )
    rule = rule_text(size, kernel, padding, stride, 1, side)
    return Slide(size, kernel, stride, padding, rule, rows, weights, steps, output)


def explain(size: int = 5, kernel: int = 3, stride: int = 1, padding: int = 1) -> Tutorial:
    """The kernel at each position, the rule for how many there are, and torch's way to say the same.

    Raises OptionError for numbers that make no sense, ShapeError for a kernel that does not fit.
    """
    found = slide(size, kernel, stride, padding)
    side = len(found.output)
    return tutorial(
        "conv",
        f"convolution: a {kernel}x{kernel} kernel over a {size}x{size} picture, stride {stride}, padding {padding}",
        found,
        input_grid(found.input, padding),
        grid(f"kernel, {kernel}x{kernel} weights (learned; here fixed)", found.kernel),
        text("At each position pixel and weight that lie on each other are multiplied, and the products added up:"),
        _steps(found),
        grid(f"output, {side}x{side}", found.output),
        Facts(
            (
                ("(W-K+2P)/S+1", rule_words(size, kernel, padding, stride, side)),
                (
                    "products",
                    f"{count_text((side * kernel) ** 2)}, {kernel * kernel} for each of {side * side} outputs",
                ),
                ("flipped?", "no: like every deep learning library, torch does not turn the kernel round first"),
            )
        ),
        text(_channels()),
        code(_code(found), found.output),
    )


def _steps(found: Slide) -> Sums:
    lines = tuple((f"y[{step.output[0]},{step.output[1]}]", step.products, step.sum) for step in found.steps)
    return sums(lines, len(found.output) ** 2 - len(lines))


def _channels() -> str:
    first = conv2d(3, 64, 3, padding=1)
    weight, bias = first.parameters()["weight"], first.parameters()["bias"]
    total = numel(weight) + numel(bias)
    return (
        "A colour picture has a kernel for each channel; the sums of all channels and one bias make one output. "
        "A layer has such a set for each channel that it gives: conv1_1 of the paper turns 3 channels into 64 with "
        f"{' x '.join(map(str, weight))} weights and {bias[0]} biases, {count_text(total)} parameters."
    )


def _code(found: Slide) -> str:
    return f"""\
import torch
import torch.nn.functional as F

x = {tensor(found.input, PICTURE_FORMULA)}
w = {tensor(found.kernel, KERNEL_FORMULA)}
# conv2d wants N,C,H,W for the input and out,in,H,W for the kernel
y = F.conv2d(x[None, None], w[None, None], stride={found.stride}, padding={found.padding})[0, 0]
print(y.shape, y)
"""
