"""The pictures of `explain conv` and `explain pool`: a window slid over a grid of numbers."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.drawing.fonts import text_width
from vggscope.drawing.picture import Picture, Rectangle, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.tutorials.convolution import Slide, Step, step_at
from vggscope.tutorials.pooling import Pools
from vggscope.tutorials.tutorial import Rows, number_text

CELL = 27.0
"""The side of a cell, in points."""

GAP = 30.0
"""The space between two grids, with room for a sign."""

LARGEST = 14
"""The largest side of a grid with readable numbers."""

MOST_STEPS = 64
"""The most positions of a window that a moving picture shows."""


@record
class _GridLook:
    """How a grid is drawn.

    The cells in `window` (top, left, side) are filled with `fill` and outlined in `accent`. The outer `border` rows and
    columns are padding. Cells after the one at `until` are empty.
    """

    theme: Theme
    fill: str
    accent: str
    window: tuple[int, int, int] | None = None
    border: int = 0
    until: tuple[int, int] | None = None


def draw_convolution(title: str, data: Slide, theme: Theme) -> Picture:
    """The input, the kernel and the output at the first, the second and the last position."""
    padded = data.padded()
    _check(padded)
    side = data.side
    frame: list[Shape] = []
    y, right = TOP, 0.0
    for place in (0, 1, side**2 - 1) if side > 1 else (0,):
        step = step_at(data, padded, data.kernel, *divmod(place, side))
        shapes, end, bottom = _position(data, padded, step, y, theme)
        frame += shapes
        y, right = bottom + 22, max(right, end)
    which = f"of {side}x{side} positions the first, the second and the last" if side > 1 else "the only position"
    caption = f"{data.rule}: {which}; each gives the sum of pixel times weight"
    return page(title, caption, theme, (right, y - 22), tuple(frame))


def _position(data: Slide, padded: Rows, step: Step, y: float, theme: Theme) -> tuple[list[Shape], float, float]:
    """One position of the kernel; then the right and the bottom edge of the drawing."""
    row, column = step.output
    fill, accent = theme.fills["conv"], theme.accents["conv"]
    at = (row * data.stride, column * data.stride, data.kernel_size)
    height = max(len(padded), len(data.output), data.kernel_size) * CELL
    grids = (
        (padded, _GridLook(theme, fill, accent, at, data.padding), "\N{MULTIPLICATION SIGN}"),
        (data.kernel, _GridLook(theme, fill, accent, (0, 0, data.kernel_size)), "="),
        (data.output, _GridLook(theme, theme.fills["fc"], theme.accents["fc"], (row, column, 1), 0, (row, column)), ""),
    )
    shapes: list[Shape] = []
    x = MARGIN
    for rows, look, sign in grids:
        top = y + (height - len(rows) * CELL) / 2
        shapes += _grid(rows, x, top, look)
        x += len(rows[0]) * CELL
        if sign:
            shapes.append(Text(x + GAP / 2, y + height / 2 + 4, sign, 12, theme.ink, bold=True, anchor="middle"))
            x += GAP
    bottom = y + height
    for line in _lines(f"y[{row},{column}] = {step.products} = {number_text(step.sum)}", x - MARGIN):
        bottom += 13
        shapes.append(Text(MARGIN, bottom, line, BODY, theme.ink))
    return shapes, x, bottom


def convolution_steps(title: str, data: Slide, theme: Theme) -> tuple[Picture, ...]:
    """A picture for each position of the kernel, row by row.

    Raises OptionError for too many numbers to read, and for too many positions to watch.
    """
    padded, side = data.padded(), data.side
    _check(padded)
    _check_steps(side)
    steps = [step_at(data, padded, data.kernel, row, column) for row in range(side) for column in range(side)]
    drawn = [_position(data, padded, step, TOP, theme) for step in steps]
    size = (max(right for _, right, _ in drawn), max(bottom for _, _, bottom in drawn))
    caption = f"{data.rule}: each position gives the sum of pixel times weight"
    return tuple(page(title, caption, theme, size, tuple(shapes)) for shapes, _, _ in drawn)


def _check_steps(side: int) -> None:
    if side**2 > MOST_STEPS:
        remedy = f"a smaller {option('size')}, or a larger {option('stride')}"
        raise OptionError(f"{side}x{side} positions take too long to watch", f"{remedy}, for up to {MOST_STEPS}")


def _lines(text: str, width: float) -> list[str]:
    """The sum in lines, broken between the rows of the kernel."""
    lines = [""]
    for part in text.split(" + "):
        longer = f"{lines[-1]} + {part}" if lines[-1] else part
        if lines[-1] and text_width(longer, BODY) > width:
            lines.append(f"    + {part}")
        else:
            lines[-1] = longer
    return lines


def draw_pooling(title: str, data: Pools, theme: Theme) -> Picture:
    """The input with its first window, and the outputs of max and average pooling."""
    _check(data.padded())
    frame, size = _pools(data, (0, 0), False, theme)
    return page(title, f"{data.rule} windows along each side, the first one outlined", theme, size, frame)


def pooling_steps(title: str, data: Pools, theme: Theme) -> tuple[Picture, ...]:
    """A picture for each position of the window, row by row. Raises OptionError as `convolution_steps` does."""
    _check(data.padded())
    _check_steps(data.side)
    places = [(row, column) for row in range(data.side) for column in range(data.side)]
    caption = f"{data.rule} windows along each side: each gives its largest number, or its mean"
    drawn = [_pools(data, place, True, theme) for place in places]
    return tuple(page(title, caption, theme, size, frame) for frame, size in drawn)


def _pools(
    data: Pools, place: tuple[int, int], is_step: bool, theme: Theme
) -> tuple[tuple[Shape, ...], tuple[float, float]]:
    """The window for the output at this place, and both outputs, in a step only until that place; then the right and
    the bottom edge of the drawing.
    """
    padded = data.padded()
    pool, mean = (theme.fills["pool"], theme.accents["pool"]), (theme.fills["fc"], theme.accents["fc"])
    window = (place[0] * data.stride, place[1] * data.stride, data.kernel_size)
    until = place if is_step else None
    grids = (
        ("input", padded, _GridLook(theme, *pool, window, data.padding)),
        ("largest of each window", data.maximum, _GridLook(theme, *pool, (*place, 1), 0, until)),
        ("mean of each window", data.average, _GridLook(theme, *mean, (*place, 1), 0, until)),
    )
    frame: list[Shape] = []
    x, height = MARGIN, len(padded) * CELL
    for heading, rows, look in grids:
        top = TOP + 14 + (height - len(rows) * CELL) / 2
        frame.append(Text(x, top - 6, heading, HEADING, theme.ink, bold=True))
        cell = max(CELL, *(text_width(number_text(v), SMALL) + 6 for row in rows for v in row))
        frame += _grid(rows, x, top, look, cell)
        x += max(len(rows[0]) * cell, text_width(heading, HEADING, bold=True)) + GAP
    return tuple(frame), (x - GAP, TOP + 14 + height)


def _check(rows: Rows) -> None:
    if len(rows) > LARGEST:
        raise OptionError(
            f"a picture of {len(rows)}x{len(rows)} numbers cannot be read",
            f"{option('size')} and {option('padding')} up to {LARGEST} in all",
        )


def _grid(rows: Rows, x: float, y: float, look: _GridLook, cell: float = CELL) -> Iterator[Shape]:
    theme = look.theme
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            left, top = x + column * cell, y + row * CELL
            edge = look.border and not (
                look.border <= row < len(rows) - look.border and look.border <= column < len(values) - look.border
            )
            inside = _within(look.window, row, column)
            fill = look.fill if inside else theme.track if edge else theme.card
            yield Rectangle(left, top, cell, CELL, fill, theme.border, 0.5, dashed=bool(edge))
            if look.until is None or (row, column) <= look.until:
                ink = theme.ink if inside or not edge else theme.muted
                middle = (left + cell / 2, top + CELL / 2 + 3)
                yield Text(*middle, number_text(value), SMALL, ink, bold=inside, anchor="middle")
    if look.window is not None:
        top_row, left_column, side = look.window
        yield Rectangle(x + left_column * cell, y + top_row * CELL, side * cell, side * CELL, "", look.accent, 1.8)


def _within(window: tuple[int, int, int] | None, row: int, column: int) -> bool:
    if window is None:
        return False
    top, left, side = window
    return top <= row < top + side and left <= column < left + side
