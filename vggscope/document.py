"""What a result says, before it is known how it will be shown.

Each kind of result has one function that lays it out as a Document; each text format has one function that writes any
Document. A new result needs no new format, and a new format no new result.
"""

from __future__ import annotations

from collections.abc import Callable

from vggscope.record import record
from vggscope.units import UNKNOWN


def plain(value: object) -> str:
    """A value as it stands; what is not known shows as a question mark."""
    return UNKNOWN if value is None else str(value)


@record
class Column:
    """A column of a table: the field that it holds (`key`, the name in JSON), its heading, and how a value prints.

    `priority` tells which columns stay on a narrow terminal: the highest goes first, 0 stays always. Numbers stand to
    the right.
    """

    key: str
    title: str
    text: Callable[..., str] = plain
    right: bool = False
    priority: int = 0
    wrap: bool = False


@record
class Table:
    """Rows of raw values, one for each column. `quiet` rows matter less, `breaks` are rows with a line above them.

    `data` marks a table that says what the blocks around it say in words: formats for machines take it, the others do
    not.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    quiet: frozenset[int] = frozenset()
    breaks: frozenset[int] = frozenset()
    total: tuple[object, ...] | None = None
    data: bool = False

    def holds(self, key: str) -> bool:
        """Whether any row has something in this column; of no rows each has."""
        place = next(i for i, column in enumerate(self.columns) if column.key == key)
        return not self.rows or any(row[place] != "" for row in self.rows)

    def choose(self, keys: tuple[str, ...]) -> Table:
        """The same rows with these columns, in this order."""
        places = [next(i for i, column in enumerate(self.columns) if column.key == key) for key in keys]

        def pick(row: tuple[object, ...]) -> tuple[object, ...]:
            return tuple(row[place] for place in places)

        return Table(
            tuple(self.columns[place] for place in places),
            tuple(map(pick, self.rows)),
            self.quiet,
            self.breaks,
            pick(self.total) if self.total else None,
            self.data,
        )


@record
class Facts:
    """Names and what is to be said of each."""

    items: tuple[tuple[str, str], ...]


@record
class Lines:
    """Lines of text that stand as they are: a diff, a piece of code."""

    lines: tuple[str, ...]
    language: str = ""


@record
class Item:
    """One finding: a sign that tells its kind without colour, a sentence, and what follows from it."""

    sign: str
    text: str
    details: tuple[str, ...] = ()
    quiet: bool = False


@record
class Items:
    """Findings, one below the other."""

    items: tuple[Item, ...]


@record
class Note:
    """A sentence. `kind` is text, note (which matters less), warning or verdict."""

    text: str
    kind: str = "note"


Block = Table | Facts | Items | Lines | Note


@record
class Document:
    """A heading and blocks, from the top down."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables among the blocks."""
        return tuple(block for block in self.blocks if isinstance(block, Table))


@record
class Style:
    """How a terminal wants its text: `width` in columns, and whether it takes colour and more than ASCII."""

    width: int = 120
    color: bool = False
    ascii: bool = False
