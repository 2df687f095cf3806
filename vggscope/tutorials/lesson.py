"""What a lesson is: numbers that were worked out, and the words, grids and code that show how."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.record import record
from vggscope.result import Result

Number = int | float
Rows = tuple[tuple[Number, ...], ...]
"""A grid of numbers, row by row."""


@record
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@record
class Figures:
    """Names, and what is to be said of each."""

    items: tuple[tuple[str, str], ...]
    kind: str = "figures"


@record
class Grid:
    """Numbers on a square lattice, as a picture's channel has them."""

    title: str
    rows: Rows
    kind: str = "grid"


@record
class Sums:
    """Results, each with the term that it is the value of: `y[0,0]`, `(0)(-1)+(1)(156)`, 156."""

    lines: tuple[tuple[str, str, Number], ...]
    left_out: int = 0
    kind: str = "sums"


@record
class Listing:
    """A table: headings, and rows of raw values. Rows in `breaks` have a line above them."""

    headings: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    breaks: tuple[int, ...] = ()
    kind: str = "listing"


@record
class Code:
    """Python that runs as it stands with torch installed. `gives` is what its variable `y` holds in the end, as
    Tensor.tolist() has it; it was worked out without torch.
    """

    text: str
    gives: object = None
    kind: str = "code"


Block = Text | Figures | Grid | Sums | Listing | Code


@record
class Agreement:
    """What torch gave for a lesson's code beside what was worked out: the largest difference, and whether it is no
    more than rounding in single precision.
    """

    torch_version: str
    max_abs_error: float
    agrees: bool


@record
class Lesson(Result):
    """A topic worked with its numbers. `data` are the numbers, other fields for each topic; `blocks` are what is read,
    from the top down. `torch` is None where torch was not asked.
    """

    schema: str
    topic: str
    title: str
    data: object
    blocks: tuple[Block, ...]
    torch: Agreement | None = None

    def codes(self) -> Iterator[Code]:
        """The pieces of code whose result is known."""
        yield from (block for block in self.blocks if isinstance(block, Code) and block.gives is not None)


def lesson(topic: str, title: str, data: object, *blocks: Block) -> Lesson:
    """A lesson of this topic."""
    return Lesson("vggscope/explain@1", topic, title, data, blocks)
