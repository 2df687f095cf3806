"""Write a Document as HTML: a page for a file, or a fragment for a notebook.

The fragment has a style that applies to nothing else, no script and no address, so that JupyterLab, VS Code, Colab and
classic notebooks show it alike. Its colours derive from those of the page around it, light or dark. Without the style
it is still tables and lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files

from vggscope.document import Block, Column, Document, Facts, Item, Items, Lines, Style, Table
from vggscope.errors import visible

SIGNS = {"+": "added", "-": "gone", "~": "changed", "!": "wrong", "=": "same"}
"""The CSS class of an item with this sign, and of a line of a diff that begins with it."""


def write(document: Document, style: Style) -> str:
    """Return a page that loads nothing."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(document.title)}</title>\n<style>{_style('page')}</style>\n</head>\n<body>\n"
        f"{fragment(document)}</body>\n</html>\n"
    )


def fragment(document: Document) -> str:
    """Return HTML to be embedded in a page."""
    # Without these classes the MathJax of a notebook would set text between dollar signs as a formula.
    return (
        f'<div class="vggscope tex2jax_ignore mathjax_ignore">\n<style>{_style("fragment")}</style>\n'
        f'<p class="title"><b>{escaped(document.title)}</b></p>\n'
        + "\n".join(map(_block, document.shown))
        + "\n</div>\n"
    )


@cache
def _style(name: str) -> str:
    return (files(__package__) / f"{name}.css").read_text(encoding="utf-8")


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        rows = (f"<tr>{_heading('row', name)}<td>{escaped(text)}</td></tr>" for name, text in block.items)
        return _framed("facts", f"<tbody>\n{_lines(rows)}</tbody>")
    if isinstance(block, Items):
        return f"<ul>\n{_lines(map(_item, block.items))}</ul>"
    if isinstance(block, Lines):
        lines = (_line(line) if block.language == "diff" else escaped(line) for line in block.lines)
        return f'<pre tabindex="0"><code>{chr(10).join(lines)}</code></pre>'
    text = escaped(block.text)
    return f'<p class="{block.kind}">{f"<b>{text}</b>" if block.kind == "verdict" else text}</p>'


def _item(item: Item) -> str:
    details = "".join(f"<br>\n<small>{escaped(detail)}</small>" for detail in item.details)
    look = f' class="{SIGNS.get(item.sign, "same")}{" quiet" if item.quiet else ""}"'
    return f"<li{look}><code>{escaped(item.sign)}</code> {escaped(item.text)}{details}</li>"


def _line(line: str) -> str:
    """A line of a diff. One that begins with no sign is context."""
    look = SIGNS.get(line[:1])
    return f'<span class="{look}">{escaped(line)}</span>' if look else escaped(line)


def _table(table: Table) -> str:
    head = "".join(_heading("col", column.title, _side(column)) for column in table.columns)
    rows = (_row(table, row, _look(table, place)) for place, row in enumerate(table.rows))
    foot = f"\n<tfoot>\n{_row(table, table.total)}\n</tfoot>" if table.total is not None else ""
    return _framed("rows", f"<thead><tr>{head}</tr></thead>\n<tbody>\n{_lines(rows)}</tbody>{foot}")


def _heading(scope: str, text: str, look: str = "") -> str:
    """The heading of a row or a column; an empty cell if the text is empty, so that no screen reader announces it."""
    return f'<th scope="{scope}"{look}>{escaped(text)}</th>' if text else f"<td{look}></td>"


def _framed(kind: str, body: str) -> str:
    """A table that scrolls within a narrower page."""
    return f'<div class="scroll" tabindex="0"><table class="{kind}">\n{body}\n</table></div>'


def _look(table: Table, place: int) -> str:
    looks = [name for name, places in (("quiet", table.quiet), ("break", table.breaks)) if place in places]
    return f' class="{" ".join(looks)}"' if looks else ""


def _row(table: Table, row: tuple[object, ...], look: str = "") -> str:
    cells = (
        f"<td{_side(column)}>{'' if value == '' else escaped(column.text(value))}</td>"
        for column, value in zip(table.columns, row)
    )
    return f"<tr{look}>{''.join(cells)}</tr>"


def _side(column: Column) -> str:
    return ' class="n" align="right"' if column.right else ' class="w"' if column.wrap else ""


def _lines(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts)


def escaped(text: str) -> str:
    """Return a text as HTML, with invisible and control characters made visible."""
    return escape(visible(text))
