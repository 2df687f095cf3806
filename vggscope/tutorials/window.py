"""A window slid over a small picture: the picture, where the window stops, and the rule that says how often."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.errors import OptionError, ShapeError
from vggscope.ops.base import Window
from vggscope.tutorials.tutorial import Grid, Number, Rows, grid
from vggscope.units import rule_text

LARGEST_SIDE = 256
LARGEST_WINDOW = 16
MOST_PRODUCTS = 10**6
"""Up to here everything is worked out number by number."""

MOST_STEPS = 25
"""So many steps are written out."""


PICTURE_FORMULA = "(156 - column - 3 * row + 2 * row * column) % 256"
"""What `picture` holds, as Python has it."""

WRITTEN_OUT = 12
"""Up to this side a tensor is written number by number."""


def picture(size: int) -> Rows:
    """A square channel of a picture, values 0 to 255; its corner is 156 155 / 153 154.

    >>> picture(3)
    ((156, 155, 154), (153, 154, 155), (150, 153, 156))
    """
    return tuple(
        tuple((156 - column - 3 * row + 2 * row * column) % 256 for column in range(size)) for row in range(size)
    )


def padded(rows: Rows, padding: int, value: Number = 0) -> Rows:
    """The picture with `padding` rows and columns of `value` around it."""
    side = (value,) * padding
    wide = (value,) * (len(rows[0]) + 2 * padding)
    return (*(wide,) * padding, *((*side, *row, *side) for row in rows), *(wide,) * padding)


def patch(rows: Rows, top: int, left: int, kernel: int) -> Rows:
    """What the window sees whose first pixel is at this row and column."""
    return tuple(row[left : left + kernel] for row in rows[top : top + kernel])


def stops(side: int) -> Iterator[tuple[int, int]]:
    """The outputs in order: row by row, from the left."""
    return ((row, column) for row in range(side) for column in range(side))


def checked(size: int, kernel: int, stride: int, padding: int, most_padding: int) -> int:
    """The output's side.

    Raises OptionError for a window that makes no sense or that is too much to write out, and ShapeError for one that
    does not fit the picture.
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
    """The rule with its numbers, and what is left over where the last window does not reach the end."""
    left = (size + 2 * padding - kernel) % stride
    rest = ""
    if left:
        what = "row and column" if left == 1 else f"{left} rows and columns"
        rest = f"; rounded down: no window reads the last {what}{' of the padded picture' if padding else ''}"
    return f"{rule_text(size, kernel, padding, stride, 1, side)}{rest}"


def input_grid(rows: Rows, padding: int) -> Grid:
    """The picture as it is read, its padding around it."""
    size = len(rows)
    title = f"input, {size}x{size}" + (f", with {padding} of padding around it" if padding else "")
    return grid(title, padded(rows, padding))


def tensor(rows: Rows, formula: str) -> str:
    """Python that makes the tensor: its rows one below the other or, where they are long, the formula behind them."""
    if len(rows) > WRITTEN_OUT:
        each = f"[{formula} for column in range(side)]"
        return (
            f"torch.tensor([\n    {each}\n    for side in [{len(rows)}] for row in range(side)\n], dtype=torch.float32)"
        )
    body = "\n".join(f"    {list(row)}," for row in rows)
    return f"torch.tensor([\n{body}\n], dtype=torch.float32)"
