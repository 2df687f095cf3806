"""Documents as Markdown, for pull requests and READMEs."""

from __future__ import annotations

import re

from vggscope.document import Block, Document, Facts, Item, Items, Lines, Style, Table
from vggscope.errors import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def write(document: Document, style: Style) -> str:
    """The title and the blocks, separated by empty lines."""
    return "\n\n".join([f"## {_escape(document.title)}", *map(_block, document.shown)]) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        return "\n".join(_fact(name, text) for name, text in block.items)
    if isinstance(block, Items):
        return "\n".join(_item(item) for item in block.items)
    if isinstance(block, Lines):
        fence = "`" * max(3, 1 + max((len(run) for line in block.lines for run in re.findall("`+", line)), default=0))
        return "\n".join([fence + block.language, *map(visible, block.lines), fence])
    return _escape(block.text)


def _fact(name: str, text: str) -> str:
    """A fact without a name continues the one above."""
    return f"- {_escape(name)}: {_escape(text)}" if name else f"  - {_escape(text)}"


def _item(item: Item) -> str:
    return "\n".join([f"- `{item.sign}` {_escape(item.text)}", *(f"  - {_escape(detail)}" for detail in item.details)])


def _table(table: Table) -> str:
    rows = [*table.rows, *([table.total] if table.total else [])]
    texts = [[_escape(c.text(v)) if v != "" else "" for c, v in zip(table.columns, row)] for row in rows]
    rule = [" ---: " if column.right else " --- " for column in table.columns]
    head = "| " + " | ".join(_escape(column.title) for column in table.columns) + " |"
    return "\n".join([head, "|" + "|".join(rule) + "|", *("| " + " | ".join(row) + " |" for row in texts)])


def _escape(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split())))
