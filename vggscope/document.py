"""The block model: the content of a result, independent of the format that shows it.

Each kind of result has one function that returns a Document. Each text format has one function that writes any
Document. So a new kind of result works in every format, and a new format works for every kind of result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from vggscope.errors import OptionError, nearest, option, printable
from vggscope.record import record
from vggscope.units import UNKNOWN


def value_text(value: object) -> str:
    """A value as text; None is a question mark."""
    return UNKNOWN if value is None else str(value)


@record
class Column:
    """A column of a table.

    `key` is the field's name in CSV, `title` the heading, `text` the function that formats a value. `right` aligns to
    the right, as numbers are. `wrap` breaks long text into lines. On a narrow terminal the column with the highest
    `priority` is dropped first; columns of priority 0 always stay.
    """

    key: str
    title: str
    text: Callable[..., str] = value_text
    right: bool = False
    priority: int = 0
    wrap: bool = False


@record
class Table:
    """Rows of raw values, one value for each column.

    `quiet` are the indices of less important rows, `breaks` those of rows with a line above them. A table with `data`
    repeats as numbers what the other blocks say in words: only CSV shows it.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    quiet: frozenset[int] = frozenset()
    breaks: tuple[int, ...] = ()
    total: tuple[object, ...] | None = None
    data: bool = False

    kind: ClassVar = "listing"
    json_names: ClassVar = ("headings", "rows", "breaks", "kind")

    @property
    def headings(self) -> tuple[str, ...]:
        """The titles of the columns."""
        return tuple(column.title for column in self.columns)

    def holds(self, key: str) -> bool:
        """Whether any row has a value in this column. True for a table without rows."""
        place = [column.key for column in self.columns].index(key)
        return not self.rows or any(row[place] != "" for row in self.rows)

    def choose(self, keys: tuple[str, ...]) -> Table:
        """The same rows with only these columns, in this order."""
        known = [column.key for column in self.columns]
        places = [known.index(key) for key in keys]
        columns = tuple(self.columns[place] for place in places)
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        total = tuple(self.total[place] for place in places) if self.total else None
        return replace(self, columns=columns, rows=rows, total=total)


def keys_of(
    columns: Sequence[Column], names: Iterable[str], aliases: Mapping[str, str], example: Sequence[str]
) -> tuple[str, ...]:
    """The keys of the columns of these names: keys, headings in any case, or `aliases` of keys.

    Raises OptionError for an unknown name, and where there is none: `example` is what would work.
    """
    by_name = {name.lower(): column.key for column in columns for name in (column.key, column.title)} | {**aliases}
    keys = []
    for name in filter(None, (part.strip().lower() for part in names)):
        if name not in by_name:
            raise OptionError(
                f"no column is named {printable(name)!r}{nearest(name, by_name)}",
                f"{option('columns')} takes {', '.join(map(typed, columns))}",
            )
        keys.append(by_name[name])
    if not keys:
        raise OptionError(f"{option('columns')} names no column", f"for example {option('columns', ','.join(example))}")
    return tuple(dict.fromkeys(keys))


def typed(column: Column) -> str:
    """The name by which a message lists a column: its heading, or its key where the heading is awkward to type.

    >>> typed(Column("macs", "MACs")), typed(Column("weight_layers", "weight layers"))
    ('macs', 'weight_layers')
    """
    return column.title.lower() if column.title.isalpha() else column.key


def data_table(keys: Sequence[str], rows: Iterable[tuple[object, ...]]) -> Table:
    """A table that only CSV shows, with these keys as its header."""
    return Table(tuple(Column(key, key) for key in keys), tuple(rows), data=True)


@record
class Facts:
    """Pairs of a name and a text. A pair without a name continues the one above."""

    items: tuple[tuple[str, str], ...]

    kind: ClassVar = "figures"
    json_names: ClassVar[tuple[str, ...]] = ("items", "kind")


@record
class Lines:
    """Preformatted lines, such as a diff or code. `language` is `diff`, `python` or empty."""

    lines: tuple[str, ...]
    language: str = ""


@record
class Item:
    """One finding: a sign that shows its kind without colour, a sentence, and its consequences."""

    sign: str
    text: str
    details: tuple[str, ...] = ()
    quiet: bool = False


@record
class Items:
    """A list of findings."""

    items: tuple[Item, ...]


@record
class Note:
    """A paragraph. `kind` is text, note (less important), warning or verdict."""

    text: str
    kind: str = "note"


Block = Table | Facts | Items | Lines | Note


@record
class Document:
    """A title and blocks, in reading order."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def shown(self) -> tuple[Block, ...]:
        """The blocks for a reader: all but the tables that only CSV shows, and those without rows."""
        return tuple(block for block in self.blocks if not isinstance(block, Table) or (block.rows and not block.data))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables among the blocks."""
        return tuple(block for block in self.blocks if isinstance(block, Table))


@record
class Style:
    """What a terminal supports: `width` in columns, colour, and characters beyond ASCII."""

    width: int = 120
    color: bool = False
    ascii: bool = False
