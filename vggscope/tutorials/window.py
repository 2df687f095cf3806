"""A window slid over a small picture: the picture, the window's positions, and the rule that counts them."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.errors import OptionError, ShapeError
from vggscope.ops.base import Window
from vggscope.tutorials.tutorial import Grid, Number, Rows, grid
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


def padded(rows: Rows, padding: int, value: Number = 0) -> Rows:
    """The rows with `padding` rows and columns of `value` on each side."""
    side = (value,) * padding
    wide = (value,) * (len(rows[0]) + 2 * padding)
    return (*(wide,) * padding, *((*side, *row, *side) for row in rows), *(wide,) * padding)


def patch(rows: Rows, top: int, left: int, kernel: int) -> Rows:
    """The values in the window whose top left corner is at this row and column."""
    return tuple(row[left : left + kernel] for row in rows[top : top + kernel])


def positions(side: int) -> Iterator[tuple[int, int]]:
    """The row and column of each output, row by row."""
    return ((row, column) for row in range(side) for column in range(side))


def output_side(size: int, kernel: int, stride: int, padding: int, most_padding: int) -> int:
    """The side of the output.

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
        fits = f"a --kernel of up to {size + 2 * padding} fits, or a --size from {kernel - 2 * padding} on"
        raise ShapeError(error.problem, fits) from None
    if (side * kernel) ** 2 > MOST_PRODUCTS:
        raise OptionError(
            f"{side}x{side} windows of {kernel}x{kernel} are too many to write out", "take a smaller --size or --kernel"
        )
    return side


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise OptionError(f"a {name} of {value} makes no sense here", f"--{name} is {least} to {most}")


def rule_words(size: int, kernel: int, padding: int, stride: int, side: int) -> str:
    """The rule with its numbers, and the rows and columns that no window reads."""
    left = (size + 2 * padding - kernel) % stride
    rest = ""
    if left:
        what = "row and column" if left == 1 else f"{left} rows and columns"
        rest = f"; rounded down: no window reads the last {what}{' of the padded picture' if padding else ''}"
    return f"{rule_text(size, kernel, padding, stride, 1, side)}{rest}"


def input_grid(rows: Rows, padding: int) -> Grid:
    """The picture with its padding."""
    size = len(rows)
    title = f"input, {size}x{size}" + (f", with {padding} of padding around it" if padding else "")
    return grid(title, padded(rows, padding))


def tensor_source(rows: Rows, formula: str) -> str:
    """Python that makes a tensor of these rows: number by number or, if they are many, from the formula."""
    if len(rows) > WRITTEN_OUT:
        each = f"[{formula} for column in range(side)]"
        return (
            f"torch.tensor([\n    {each}\n    for side in [{len(rows)}] for row in range(side)\n], dtype=torch.float32)"
        )
    body = "\n".join(f"    {list(row)}," for row in rows)
    return f"torch.tensor([\n{body}\n], dtype=torch.float32)"
