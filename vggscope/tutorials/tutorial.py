"""A tutorial: numbers that are worked out, and the blocks that show how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

from vggscope.document import Block, Column, Facts, Lines, Note, Table, data_table, value_text
from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.result import Result
from vggscope.suppress import suppress_output
from vggscope.units import count_text

Number = int | float
Rows = tuple[tuple[Number, ...], ...]
"""A grid of numbers, row by row."""

MOST_COLUMNS = 16
"""How many rows and columns of a grid are shown."""

LONGEST = 40
"""Longer text in a table wraps."""

TOLERANCE = 1e-5
"""The largest relative difference from torch's result that counts as rounding: float32 has seven digits."""


def text(paragraph: str) -> Note:
    """A paragraph."""
    return Note(paragraph, "text")


def facts(items: Mapping[str, str]) -> Facts:
    """Pairs of a name and a text."""
    return Facts(tuple(items.items()))


@record
class NumberGrid(Lines):
    """Numbers in rows and columns, such as one channel of an image."""

    title: str = ""
    rows: Rows = ()

    kind: ClassVar = "grid"
    json_names: ClassVar = ("title", "rows", "kind")

    @property
    def table(self) -> Table:
        """The numbers for a spreadsheet, one in each row."""
        rows = ((self.title, y, x, value) for y, row in enumerate(self.rows) for x, value in enumerate(row))
        return data_table(("grid", "row", "column", "value"), rows)


def grid(title: str, rows: Rows) -> NumberGrid:
    """The numbers as right-aligned lines below their title; a large grid is cut off."""
    texts = [[number_text(value).replace(",", "") for value in row[:MOST_COLUMNS]] for row in rows[:MOST_COLUMNS]]
    width = max(len(text) for row in texts for text in row)
    more = "  ..." if len(rows[0]) > MOST_COLUMNS else ""
    lines = ["  " + " ".join(text.rjust(width) for text in row) + more for row in texts]
    rest = ["  " + "...".rjust(width)] if len(rows) > MOST_COLUMNS else []
    return NumberGrid((title, *lines, *rest), "", title, rows)


@record
class Sums(Facts):
    """Results with the term that gives each: `y[0,0]`, `(0)(-1)+(1)(156)`, 156. `left_out` counts those not shown."""

    lines: tuple[tuple[str, str, Number], ...] = ()
    left_out: int = 0

    kind: ClassVar = "sums"
    json_names: ClassVar = ("lines", "left_out", "kind")


def sums(lines: tuple[tuple[str, str, Number], ...], left_out: int = 0) -> Sums:
    """Each line as `name  term = value`."""
    items = tuple((name, f"{term} = {number_text(value)}") for name, term, value in lines)
    more = (("...", f"and {count_text(left_out)} more"),) if left_out else ()
    return Sums((*items, *more), lines, left_out)


@record
class Code(Lines):
    """Python that runs unchanged where torch is installed. `gives` is the value of its variable `y` at the end, as
    Tensor.tolist() returns it; it was computed without torch.
    """

    gives: object = None

    kind: ClassVar = "code"
    json_names: ClassVar = ("text", "gives", "kind")

    @property
    def text(self) -> str:
        """The lines as one string."""
        return "\n".join(self.lines) + "\n"


def code(source: str, gives: object) -> Code:
    """Python source and the value of its variable `y` at the end."""
    return Code(tuple(source.rstrip("\n").split("\n")), "python", gives)


def listing(headings: Sequence[str], rows: tuple[tuple[object, ...], ...], breaks: Sequence[int] = ()) -> Table:
    """A table in which columns of numbers align to the right. A narrow terminal drops the last columns first."""
    columns = []
    for place, heading in enumerate(headings):
        cells = [row[place] for row in rows]
        right = bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)
        wrap = any(isinstance(cell, str) and len(cell) > LONGEST for cell in cells)
        columns.append(Column(heading or f"column{place}", heading, _cell, right=right, priority=place, wrap=wrap))
    return Table(tuple(columns), rows, breaks=tuple(breaks))


def _cell(value: object) -> str:
    return number_text(value) if isinstance(value, (int, float)) else value_text(value)


def number_text(value: Number) -> str:
    """A whole number with thousands separators; another number with up to four decimals, or as a power of ten.

    >>> number_text(25088), number_text(154.5), number_text(0.0), number_text(0.5), number_text(3.7e-44)
    ('25,088', '154.5', '0', '0.5', '3.7e-44')
    """
    if value == int(value):
        return count_text(int(value))
    return f"{value:.2g}" if abs(value) < 0.0001 else f"{value:.4f}".rstrip("0")


@record
class Agreement:
    """How torch's results compare with ours: the largest difference, and whether all are within rounding."""

    torch_version: str
    max_abs_error: float
    agrees: bool


@record
class Tutorial(Result):
    """A topic worked with its numbers.

    `data` holds the numbers; its fields depend on the topic. `blocks` are what is shown, in reading order. `torch` is
    None unless the code was run with torch.
    """

    schema: str
    topic: str
    title: str
    data: object
    blocks: tuple[Block, ...]
    torch: Agreement | None = None

    def codes(self) -> Iterator[Code]:
        """The code blocks."""
        return (block for block in self.blocks if isinstance(block, Code))


def tutorial(topic: str, title: str, data: object, *blocks: Block) -> Tutorial:
    """A tutorial on this topic."""
    return Tutorial("vggscope/explain@1", topic, title, data, blocks)


def with_torch(tutorial: Tutorial) -> Tutorial:
    """The tutorial with its Agreement: runs its code with torch and compares the results.

    Raises OptionError for a tutorial without code.
    """
    codes = list(tutorial.codes())
    if not codes:
        raise OptionError(f"topic {tutorial.topic} has no code for torch to run", f"leave {option('torch')} out")
    import torch

    errors = [error for code in codes for error in _errors(code)]
    agreement = Agreement(torch.__version__, max(error for error, _ in errors), all(fits for _, fits in errors))
    return replace(tutorial, torch=agreement)


def run(code: Code) -> object:
    """The value of the code's variable `y` after it ran."""
    names: dict[str, object] = {}
    with suppress_output():  # the code prints its result, which would corrupt the JSON output
        exec(compile(code.text, "<tutorial>", "exec"), names)  # noqa: S102  # our own text, the very one that is shown
    y = names["y"]
    return y.tolist() if hasattr(y, "tolist") else y


def _errors(code: Code) -> list[tuple[float, bool]]:
    """For each number, its distance from ours, and whether that is rounding."""
    theirs, ours = _flat(run(code)), _flat(code.gives)
    if len(theirs) != len(ours):
        return [(float("inf"), False)]
    return [(abs(a - b), abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))) for a, b in zip(theirs, ours)]


def _flat(value: object) -> list[float]:
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in _flat(item)]
    return [float(cast("float", value))]
