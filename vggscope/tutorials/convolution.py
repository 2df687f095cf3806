"""`explain conv`: a kernel slid over a small picture."""

from __future__ import annotations

from vggscope.ops.base import numel
from vggscope.ops.convolution import conv2d
from vggscope.record import record
from vggscope.tutorials.tutorial import Rows, Tutorial, code, facts, grid, sums, text, tutorial
from vggscope.tutorials.window import LARGEST_WINDOW, PICTURE_FORMULA, SlidingWindow, sliding_window, tensor_source
from vggscope.units import count_text

KERNEL: Rows = ((-1, -1, 1), (0, 1, -1), (0, 1, 1))

KERNEL_FORMULA = "(2 * row + column + row * column) % 3 - 1"
"""The weights of a kernel that is not 3x3, as a Python expression."""


@record
class Step:
    """One position of the kernel: the index of the output, the pixels in the window, and their inner product."""

    output: tuple[int, int]
    window: Rows
    products: str
    sum: int


@record
class Slide(SlidingWindow):
    """A convolution of one channel with one kernel. `steps` are the first positions, `output` holds all results."""

    kernel: Rows
    steps: tuple[Step, ...]
    output: Rows


def kernel_of(side: int) -> Rows:
    """A square kernel with weights of -1, 0 and 1."""
    if side == len(KERNEL):
        return KERNEL
    return tuple(tuple((2 * row + column + row * column) % 3 - 1 for column in range(side)) for row in range(side))


def inner_product(window: Rows, kernel: Rows) -> int:
    """The sum of each pixel times its weight."""
    return int(sum(x * w for xs, ws in zip(window, kernel) for x, w in zip(xs, ws)))


def products(window: Rows, kernel: Rows) -> str:
    """The inner product written out as pixel times weight, with spaces between the kernel's rows.

    >>> products(((1, 2), (3, 4)), ((0, 1), (-1, 0)))
    '(1)(0)+(2)(1) + (3)(-1)+(4)(0)'
    """
    return " + ".join("+".join(f"({x})({w})" for x, w in zip(xs, ws)) for xs, ws in zip(window, kernel))


def slide(size: int, kernel: int, stride: int, padding: int) -> Slide:
    """The convolution with all its numbers. Raises as `sliding_window` does."""
    window = sliding_window(size, kernel, stride, padding, LARGEST_WINDOW)
    weights, padded = kernel_of(kernel), window.padded()
    output = window.output_of(lambda row, column: inner_product(window.patch(padded, row, column), weights))
    steps = tuple(step_at(window, padded, weights, row, column) for row, column in window.first_steps())
    return Slide(**vars(window), kernel=weights, steps=steps, output=output)


def step_at(window: SlidingWindow, padded: Rows, kernel: Rows, row: int, column: int) -> Step:
    """The step that computes the output at this row and column."""
    patch = window.patch(padded, row, column)
    return Step((row, column), patch, products(patch, kernel), inner_product(patch, kernel))


def explain(size: int = 5, kernel: int = 3, stride: int = 1, padding: int = 1) -> Tutorial:
    """The kernel at each position, the rule for the number of positions, and the same in torch.

    Raises OptionError for numbers out of range, and ShapeError for a kernel larger than the padded picture.
    """
    data = slide(size, kernel, stride, padding)
    side = data.side
    lines = tuple((f"y[{step.output[0]},{step.output[1]}]", step.products, step.sum) for step in data.steps)
    return tutorial(
        "conv",
        f"convolution: a {kernel}x{kernel} kernel over a {size}x{size} picture, stride {stride}, padding {padding}",
        data,
        data.input_grid(),
        grid(f"kernel, {kernel}x{kernel} weights (learned; here fixed)", data.kernel),
        text(
            "At each position, multiply each pixel in the window by the weight on top of it, and add up the products:"
        ),
        sums(lines, side**2 - len(lines)),
        grid(f"output, {side}x{side}", data.output),
        facts(
            {
                "(W-K+2P)/S+1": data.rule_words(),
                "products": f"{count_text((side * kernel) ** 2)}, {kernel * kernel} for each of {side * side} outputs",
                "flipped?": "no: like all deep learning libraries, torch does not flip the kernel first",
            }
        ),
        text(_channels()),
        code(_source(data), data.output),
    )


def _channels() -> str:
    first = conv2d(3, 64, 3, padding=1)
    weight, bias = first.parameters()["weight"], first.parameters()["bias"]
    total = numel(weight) + numel(bias)
    return (
        "For a colour picture there is a kernel for each input channel; one output is the sum over all of them plus"
        " one bias. A layer has such a set of kernels for each output channel: conv1_1 of the paper turns 3 channels"
        f" into 64 with {' x '.join(map(str, weight))} weights and {bias[0]} biases, {count_text(total)} parameters."
    )


def _source(data: Slide) -> str:
    return f"""\
import torch
import torch.nn.functional as F

x = {tensor_source(data.input, PICTURE_FORMULA)}
w = {tensor_source(data.kernel, KERNEL_FORMULA)}
# conv2d wants N,C,H,W for the input and out,in,H,W for the kernel
y = F.conv2d(x[None, None], w[None, None], stride={data.stride}, padding={data.padding})[0, 0]
print(y.shape, y)
"""
