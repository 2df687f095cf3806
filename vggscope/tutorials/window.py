"""A window that slides over a small picture, for convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from vggscope.errors import OptionError, ShapeError, option
from vggscope.ops.base import Window
from vggscope.record import record
from vggscope.tutorials.tutorial import Number, NumberGrid, Rows, grid
from vggscope.units import rule_text

LARGEST_SIDE = 256
LARGEST_WINDOW = 16
MOST_PRODUCTS = 10**6
"""The most products that are computed one by one."""

MOST_STEPS = 25
"""How many steps are written out."""

PICTURE_FORMULA = "(156 - column - 3 * row + 2 * row * column) % 256"
"""The values of `picture` as a Python expression."""

WRITTEN_OUT = 12
"""The largest side of a tensor that code writes out number by number."""


def picture(size: int) -> Rows:
    """One channel of a square picture, with values from 0 to 255. Its corner is 156 155 / 153 154.

    >>> picture(3)
    ((156, 155, 154), (153, 154, 155), (150, 153, 156))
    """
    return tuple(
        tuple((156 - column - 3 * row + 2 * row * column) % 256 for column in range(size)) for row in range(size)
    )


@record
class SlidingWindow:
    """A square window that slides over a square picture. `rule` computes the side of the output."""

    size: int
    kernel_size: int
    stride: int
    padding: int
    rule: str
    input: Rows

    @property
    def side(self) -> int:
        """The side of the output."""
        return (self.size + 2 * self.padding - self.kernel_size) // self.stride + 1

    def first_steps(self) -> Iterator[tuple[int, int]]:
        """The row and column of the first outputs, row by row: as many as are written out."""
        return islice(((row, column) for row in range(self.side) for column in range(self.side)), MOST_STEPS)

    def padded(self, value: Number = 0) -> Rows:
        """The picture with `padding` rows and columns of `value` on each side."""
        side = (value,) * self.padding
        wide = (value,) * (self.size + 2 * self.padding)
        return (*(wide,) * self.padding, *((*side, *row, *side) for row in self.input), *(wide,) * self.padding)

    def patch(self, padded: Rows, row: int, column: int) -> Rows:
        """The values in the window for the output at this row and column."""
        top, left = row * self.stride, column * self.stride
        return tuple(line[left : left + self.kernel_size] for line in padded[top : top + self.kernel_size])

    def output_of(self, value: Callable[[int, int], Number]) -> Rows:
        """The output, with the value for each row and column."""
        return tuple(tuple(value(row, column) for column in range(self.side)) for row in range(self.side))

    def rule_words(self) -> str:
        """The rule with its numbers, and the rows and columns that no window reads."""
        left_over = (self.size + 2 * self.padding - self.kernel_size) % self.stride
        if not left_over:
            return self.rule
        what = "row and column" if left_over == 1 else f"{left_over} rows and columns"
        of = " of the padded picture" if self.padding else ""
        return f"{self.rule}; rounded down: no window reads the last {what}{of}"

    def input_grid(self) -> NumberGrid:
        """The picture with its padding."""
        padding = f", with {self.padding} of padding around it" if self.padding else ""
        return grid(f"input, {self.size}x{self.size}{padding}", self.padded())


def sliding_window(size: int, kernel: int, stride: int, padding: int, most_padding: int) -> SlidingWindow:
    """The window over `picture(size)`.

    Raises OptionError for a number out of range and for too many windows to write out. Raises ShapeError for a window
    larger than the padded picture.
    """
    _check("size", size, 1, LARGEST_SIDE)
    _check("kernel", kernel, 1, LARGEST_WINDOW)
    _check("stride", stride, 1, LARGEST_WINDOW)
    _check("padding", padding, 0, most_padding)
    try:
        side = Window((kernel,), (stride,), (padding,), (1,)).output_size((size,))[0]
    except ShapeError as error:
        most, least = size + 2 * padding, kernel - 2 * padding
        fits = f"a {option('kernel')} of up to {most} fits, or a {option('size')} from {least} on"
        raise ShapeError(error.problem, fits) from None
    if (side * kernel) ** 2 > MOST_PRODUCTS:
        raise OptionError(
            f"{side}x{side} windows of {kernel}x{kernel} are too many to write out",
            f"take a smaller {option('size')} or {option('kernel')}",
        )
    rule = rule_text(size, kernel, padding, stride, 1, side)
    return SlidingWindow(size, kernel, stride, padding, rule, picture(size))


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise OptionError(f"a {name} of {value} makes no sense here", f"{option(name)} is {least} to {most}")


def tensor_source(rows: Rows, formula: str) -> str:
    """Python that makes a tensor of these rows: number by number or, if they are many, from the formula."""
    if len(rows) > WRITTEN_OUT:
        each = f"[{formula} for column in range(side)]"
        return (
            f"torch.tensor([\n    {each}\n    for side in [{len(rows)}] for row in range(side)\n], dtype=torch.float32)"
        )
    body = "\n".join(f"    {list(row)}," for row in rows)
    return f"torch.tensor([\n{body}\n], dtype=torch.float32)"
