"""Documents for a terminal, or as plain text for a pipe.

A document becomes lines of styled pieces that fit the terminal's width. A table that is too wide drops its least
important columns and names them below; sentences wrap. rich is only loaded if the lines are coloured.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from vggscope.document import Block, Column, Document, Facts, Item, Items, Lines, Note, Style, Table
from vggscope.errors import visible

StyledLine = list[tuple[str, str]]
"""The pieces of a line, each with the name of its style."""

GAP = 2
"""The number of spaces between two columns of a table."""

LEAST_WRAPPED = 20
"""The least width of a column of sentences."""

LONGEST_NAME = 72
"""The largest width of a table's first column, so that an absurdly long name leaves room for the other columns."""

_LONGEST_CODE = 400
"""The largest width of a line of code that is not cut: nobody types longer ones."""

_NOTES = {"text": "", "note": "dim", "warning": "yellow", "verdict": "bold"}
_SIGNS = {"+": "green", "-": "red", "~": "yellow", "!": "red", "?": "dim"}


def write(document: Document, style: Style) -> str:
    """The title and the blocks, separated by empty lines."""
    title = visible(document.title)
    parts = [title] if display_width(title) <= style.width else _wrapped(title, style.width)
    lines: list[StyledLine] = [[(part, "bold")] for part in parts]
    previous: Block | None = None
    for block in document.shown:
        apart = not (isinstance(block, Note) and isinstance(previous, Note) and block.kind == previous.kind)
        lines += [*([[]] if apart else []), *_block(block, style)]
        previous = block
    if style.color:
        return _painted(lines)
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def _painted(lines: list[StyledLine]) -> str:
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    out = StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", legacy_windows=False, highlight=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)
    return out.getvalue()


def _block(block: Block, style: Style) -> Iterator[StyledLine]:
    if isinstance(block, Table):
        yield from _table(block, style)
    elif isinstance(block, Facts):
        yield from _facts(block, style)
    elif isinstance(block, Items):
        for item in block.items:
            yield from _item(item, style)
    elif isinstance(block, Lines):
        for text in map(visible, block.lines):
            sign = _SIGNS.get(text[:1], "") if block.language == "diff" else ""
            yield [(text if _is_code(text, block) else _cut(text, style), sign)]
    elif isinstance(block, Note):
        for part in _wrapped(block.text, style.width):
            yield [(part, _NOTES[block.kind])]


def _is_code(text: str, block: Lines) -> bool:
    """Whether to keep a line whole for copying: a terminal wraps it, and a cut line would not run."""
    return block.language == "python" and display_width(text) <= _LONGEST_CODE


def _facts(facts: Facts, style: Style) -> Iterator[StyledLine]:
    """Names in one column, texts in the other."""
    names = [visible(name) for name, _ in facts.items]
    width = min(max(map(display_width, names), default=0), style.width // 3) + GAP
    for name, (_, text) in zip(names, facts.items):
        for place, part in enumerate(_wrapped(text, style.width - width)):
            yield [(_padded("" if place else _cut(name, style, width - GAP), width), "dim"), (part, "")]


def _item(item: Item, style: Style) -> Iterator[StyledLine]:
    """The sign and the sentence, with the details indented below."""
    quiet = "dim" if item.quiet else ""
    for place, part in enumerate(_wrapped(item.text, style.width - 2)):
        yield [("  " if place else f"{item.sign} ", _SIGNS.get(item.sign, quiet)), (part, quiet)]
    for detail in item.details:
        for part in _wrapped(detail, style.width - 4):
            yield [("    ", ""), (part, "dim")]


def _table(table: Table, style: Style) -> Iterator[StyledLine]:
    """The headings, a rule, the rows, another rule and the total."""
    rows = (*table.rows, *([table.total] if table.total is not None else []))
    values = zip(*rows) if rows else [()] * len(table.columns)
    texts = [_texts(column, own) for column, own in zip(table.columns, values)]
    shown, widths, dropped = _fit(table.columns, texts, style.width)
    rule: StyledLine = [(("-" if style.ascii else "─") * _total_width(widths), "dim")]
    columns = tuple(table.columns[place] for place in shown)
    (headings,) = _rows(columns, [[column.title] for column in columns], widths, style)
    yield from _styled(headings, "bold")
    yield rule
    for place, lines in enumerate(_rows(columns, [texts[place] for place in shown], widths, style)):
        is_total = place == len(table.rows)
        if is_total or (place in table.breaks and place):
            yield rule
        yield from _styled(lines, "bold" if is_total else "dim" if place in table.quiet else "")
    if dropped:
        yield []
        for part in _wrapped(f"columns that do not fit: {', '.join(dropped)}", style.width):
            yield [(part, "dim")]


def _styled(lines: Iterable[str], look: str) -> Iterator[StyledLine]:
    return ([(line, look)] for line in lines)


def _rows(
    columns: Sequence[Column], texts: Sequence[list[str]], widths: Sequence[int], style: Style
) -> Iterator[list[str]]:
    """The lines of each row: one, or several where a sentence wraps. `texts` are those of each column."""
    gap, blanks = " " * GAP, [" " * width for width in widths]
    for cells in zip(*map(_cells, columns, texts, widths, repeat(style))):
        height = max(map(len, cells))
        if height == 1:
            yield [gap.join([cell for (cell,) in cells])]
            continue
        whole = [(*cell, *[blank] * (height - len(cell))) for cell, blank in zip(cells, blanks)]
        yield [gap.join(parts) for parts in zip(*whole)]


def _cells(column: Column, texts: list[str], width: int, style: Style) -> list[list[str]]:
    """The lines of each text of a column, all as wide as it is. Equal texts are fitted once."""
    fitted = {
        text: [
            _padded(part, width, column.right)
            for part in (_wrapped(text, width) if column.wrap else [_cut(text, style, width)])
        ]
        for text in dict.fromkeys(texts)
    }
    return [fitted[text] for text in texts]


def _fit(
    columns: Sequence[Column], texts: Sequence[list[str]], width: int
) -> tuple[list[int], list[int], tuple[str, ...]]:
    """The places of the columns that fit the width, the width of each, and the titles of the columns that do not fit.

    The least important columns are left out first. `texts` are those of each column.
    """
    widths = [_width(column, not place, own) for place, (column, own) in enumerate(zip(columns, texts))]
    shown = list(range(len(columns)))
    while _total_width([widths[place] for place in shown]) > width and any(columns[p].priority for p in shown):
        shown.remove(max(shown, key=lambda place: columns[place].priority))
    dropped = tuple(column.title for place, column in enumerate(columns) if place not in shown)
    fitted = _shared_out([widths[place] for place in shown], [columns[place] for place in shown], width)
    return shown, fitted, dropped


def _total_width(widths: list[int]) -> int:
    """The width of a table with columns of these widths."""
    return sum(widths) + GAP * (len(widths) - 1)


def _width(column: Column, is_first: bool, texts: list[str]) -> int:
    """The width that a column needs: that of its longest text, or less for sentences and for the first column."""
    longest = max(map(display_width, dict.fromkeys((column.title, *texts))))
    return min(longest, LEAST_WRAPPED if column.wrap else LONGEST_NAME) if column.wrap or is_first else longest


def _shared_out(widths: list[int], columns: Sequence[Column], width: int) -> list[int]:
    """The widths of the columns: those of sentences share the free space; if there is none, the first shrinks."""
    left = width - _total_width(widths)
    sentences = [place for place, column in enumerate(columns) if column.wrap]
    for place in sentences:
        widths[place] += max(left, 0) // len(sentences)
    if left < 0:
        widths[0] = max(widths[0] + left, 1)
    return widths


def _texts(column: Column, values: Iterable[object]) -> list[str]:
    """The values of a column as text. Equal numbers and words, and a value in several rows, are formatted once."""
    texts: list[str] = []
    known: dict[object, str] = {}
    for value in values:
        key = value if type(value) in (str, int) else id(value)
        if key not in known:
            known[key] = _text(column, value)
        texts.append(known[key])
    return texts


def _text(column: Column, value: object) -> str:
    return "" if value == "" else visible(column.text(value))


def _wrapped(text: str, width: int) -> list[str]:
    """A sentence in lines of that width. A longer word is broken."""
    shown, width = visible(text), max(width, 1)
    if shown.isascii():
        return textwrap.wrap(shown, width, break_on_hyphens=False) or [""]
    lines = [""]
    for piece in (piece for word in shown.split() for piece in _pieces(word, width)):
        longer = f"{lines[-1]} {piece}" if lines[-1] else piece
        if display_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines


def _pieces(word: str, width: int) -> Iterator[str]:
    """A word in pieces that fit the width."""
    start = taken = 0
    for place, letter in enumerate(word):
        needed = display_width(letter)
        if taken + needed > width and place > start:
            yield word[start:place]
            start, taken = place, 0
        taken += needed
    yield word[start:]


def _cut(text: str, style: Style, width: int | None = None) -> str:
    """A text cut to the width, with an ellipsis at the end."""
    width = style.width if width is None else width
    if display_width(text) <= width:
        return text
    sign = "..." if style.ascii else "…"
    while text and display_width(text) + len(sign) > width:
        text = text[: min(len(text) - 1, width)]
    return (text + sign)[:width]


def _padded(text: str, width: int, right: bool = False) -> str:
    if text.isascii():
        return text.rjust(width) if right else text.ljust(width)
    space = " " * max(width - display_width(text), 0)
    return space + text if right else text + space


def display_width(text: str) -> int:
    """The width of a text in columns of a terminal: a wide East Asian letter takes two, a combining mark none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(bool(unicodedata.combining(letter)) for letter in text)
