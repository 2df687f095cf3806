"""A lesson laid out: its blocks in order, and what torch says of it. Its picture, if it has one, is in `picture`."""

from __future__ import annotations

from vggscope import document as doc
from vggscope.document import Column, Document, Facts, Lines, Note, Table
from vggscope.tutorials.lesson import Agreement, Block, Code, Figures, Grid, Lesson, Listing, Number, Sums, Text
from vggscope.units import count_text

MOST_COLUMNS = 16
"""So many columns of a grid are shown, and as many rows."""

LONGEST = 40
"""A table's text that is longer than this wraps."""


def document(lesson: Lesson) -> Document:
    """The lesson's blocks from the top down."""
    blocks = [made for block in lesson.blocks for made in laid_out(block)]
    if lesson.torch is not None:
        blocks.append(_agreement(lesson.torch))
    if not any(isinstance(block, Table) for block in blocks):
        blocks.append(_facts_data([block for block in blocks if isinstance(block, Facts)]))
    return Document(lesson.title, tuple(blocks))


def line(lesson: Lesson) -> str:
    """The topic and its title."""
    return f"{lesson.topic}: {lesson.title}"


def laid_out(block: Block) -> list[doc.Block]:
    """A lesson's block as the document has it."""
    if isinstance(block, Text):
        return [Note(block.text, "text")]
    if isinstance(block, Figures):
        return [Facts(block.items)]
    if isinstance(block, Grid):
        return [Lines((block.title, *_grid(block))), _grid_data(block)]
    if isinstance(block, Sums):
        return [_sums(block)]
    if isinstance(block, Code):
        return [Lines(tuple(block.text.rstrip("\n").split("\n")), "python")]
    return [listing(block)]


def number(value: Number) -> str:
    """A whole number with its thousands apart, another with four digits behind the point, or as a power of ten.

    >>> number(25088), number(154.5), number(0.0), number(0.5), number(3.7e-44)
    ('25,088', '154.5', '0', '0.5', '3.7e-44')
    """
    if value == int(value):
        return count_text(int(value))
    return f"{value:.2g}" if abs(value) < 0.0001 else f"{value:.4f}".rstrip("0")


def listing(block: Listing) -> Table:
    """A table whose columns of numbers stand to the right; a narrow terminal loses the last ones first."""
    columns = []
    for place, heading in enumerate(block.headings):
        cells = [row[place] for row in block.rows]
        right = bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)
        wrap = any(isinstance(cell, str) and len(cell) > LONGEST for cell in cells)
        columns.append(Column(_key(heading, place), heading, _cell, right=right, priority=place, wrap=wrap))
    return Table(tuple(columns), block.rows, breaks=frozenset(block.breaks))


def _key(heading: str, place: int) -> str:
    return heading or f"column{place}"


def _cell(value: object) -> str:
    return number(value) if isinstance(value, (int, float)) else doc.plain(value)


def _grid(grid: Grid) -> list[str]:
    """The rows, numbers under each other."""
    shown = [row[:MOST_COLUMNS] for row in grid.rows[:MOST_COLUMNS]]
    texts = [[number(value).replace(",", "") for value in row] for row in shown]
    width = max(len(text) for row in texts for text in row)
    more = "  ..." if len(grid.rows[0]) > MOST_COLUMNS else ""
    lines = ["  " + " ".join(text.rjust(width) for text in row) + more for row in texts]
    return lines if len(grid.rows) <= MOST_COLUMNS else [*lines, "  " + "...".rjust(width)]


def _grid_data(grid: Grid) -> Table:
    """The grid for a spreadsheet: a row for each number."""
    rows = tuple((grid.title, y, x, value) for y, row in enumerate(grid.rows) for x, value in enumerate(row))
    return Table(tuple(Column(key, key) for key in ("grid", "row", "column", "value")), rows, data=True)


def _facts_data(facts: list[Facts]) -> Table:
    """Names and what is said of them, for a spreadsheet, where there is no other table."""
    return Table(
        (Column("name", "name"), Column("text", "text")), tuple(i for block in facts for i in block.items), data=True
    )


def _sums(sums: Sums) -> Facts:
    items = [(name, f"{term} = {number(value)}") for name, term, value in sums.lines]
    if sums.left_out:
        items.append(("...", f"and {count_text(sums.left_out)} more"))
    return Facts(tuple(items))


def _agreement(found: Agreement) -> Note:
    if found.agrees:
        return Note(
            f"torch {found.torch_version} gives the same; largest difference {found.max_abs_error:.3g}", "verdict"
        )
    return Note(f"torch {found.torch_version} differs by {found.max_abs_error:.3g}", "warning")
