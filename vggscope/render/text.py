"""A result for a terminal, or as plain text for a pipe.

A table drops its least needed columns until it fits the width, and says which; a line never wraps into the next column.
"""

from __future__ import annotations

from io import StringIO

from rich.box import Box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from vggscope.render.document import Block, Document, Facts, Item, Items, Lines, Note, Table
from vggscope.render.formats import Style
from vggscope.render.plain import visible

_GAP = 2
_LEAST_WRAPPED = 20
_LINES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")
_ASCII_LINES = Box("    \n    \n -- \n    \n -- \n -- \n    \n    \n", ascii=True)
_NOTE_STYLE = {"note": "dim", "warning": "yellow", "verdict": "bold"}


def write(document: Document, style: Style) -> str:
    """The heading and the blocks, an empty line between them, no line wider than the style's width."""
    out = StringIO()
    console = Console(
        file=out,
        width=style.width,
        force_terminal=style.color,
        color_system="standard" if style.color else None,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    console.print(Text(visible(document.title), style="bold"))
    for block in document.blocks:
        if not (isinstance(block, Table) and block.data):
            console.print()
            _print(console, block, style)
    lines = out.getvalue().split("\n")
    return "\n".join(line.rstrip() for line in lines)


def _print(console: Console, block: Block, style: Style) -> None:
    if isinstance(block, Table):
        _print_table(console, block, style)
    elif isinstance(block, Facts):
        _print_facts(console, block)
    elif isinstance(block, Items):
        for item in block.items:
            _print_item(console, item)
    elif isinstance(block, Lines):
        for line in block.lines:
            mark = _SIGN_STYLE.get(line[:1], "") if block.language == "diff" else ""
            console.print(Text(visible(line), style=mark), no_wrap=True, overflow="ellipsis")
    elif isinstance(block, Note):
        console.print(Text(visible(block.text), style=_NOTE_STYLE[block.kind]))


_SIGN_STYLE = {"+": "green", "-": "red", "~": "yellow"}


def _print_item(console: Console, item: Item) -> None:
    """The sentence behind its sign, what follows from it set in below; a long line wraps under its own text."""
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    quiet = "dim" if item.quiet else ""
    grid.add_row(Text(item.sign, style=_SIGN_STYLE.get(item.sign, quiet)), Text(visible(item.text), style=quiet))
    for detail in item.details:
        grid.add_row("", Padding(Text(visible(detail), style="dim"), (0, 0, 0, 2)))
    console.print(grid)


def _print_facts(console: Console, facts: Facts) -> None:
    grid = RichTable.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in facts.items:
        grid.add_row(Text(visible(name)), Text(visible(text)))
    console.print(grid)


def _print_table(console: Console, table: Table, style: Style) -> None:
    fitted, dropped = fit(table, style.width)
    drawn = RichTable(
        box=_ASCII_LINES if style.ascii else _LINES,
        padding=(0, _GAP - 1, 0, 0),  # the box puts one more between two columns
        pad_edge=False,
        show_edge=False,
        show_footer=fitted.total is not None,
        header_style="bold",
        footer_style="bold",
    )
    totals = [_text(c.text, v) for c, v in zip(fitted.columns, fitted.total)] if fitted.total else []
    for place, column in enumerate(fitted.columns):
        drawn.add_column(
            Text(column.title),
            footer=Text(totals[place]) if totals else "",
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
        )
    for position, row in enumerate(fitted.rows):
        if position in fitted.breaks and position:
            drawn.add_section()
        cells = [Text(_text(column.text, value)) for column, value in zip(fitted.columns, row)]
        drawn.add_row(*cells, style="dim" if position in fitted.quiet else None)
    console.print(drawn)
    if dropped:
        console.print(Padding(Text(f"not shown for want of width: {', '.join(dropped)}", style="dim"), (1, 0, 0, 0)))


def fit(table: Table, width: int) -> tuple[Table, tuple[str, ...]]:
    """The table with its least needed columns dropped until it fits the width, and the titles of those dropped."""
    widths = {column.key: _width(table, place) for place, column in enumerate(table.columns)}
    kept = list(table.columns)
    while sum(widths[c.key] + _GAP for c in kept) - _GAP > width and max(c.priority for c in kept) > 0:
        kept.remove(max(kept, key=lambda column: column.priority))
    dropped = tuple(column.title for column in table.columns if column not in kept)
    return table.choose(tuple(column.key for column in kept)), dropped


def _width(table: Table, place: int) -> int:
    column = table.columns[place]
    if column.wrap:
        return _LEAST_WRAPPED
    rows = [*table.rows, *([table.total] if table.total else [])]
    return max([len(column.title), *(len(_text(column.text, row[place])) for row in rows)])


def _text(text, value: object) -> str:  # type: ignore[no-untyped-def]
    return "" if value == "" else visible(text(value))
