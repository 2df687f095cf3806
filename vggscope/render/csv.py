"""A result's tables as comma-separated values, separated by empty lines. Numbers are raw, without units."""

from __future__ import annotations

import csv
from io import StringIO

from vggscope.document import Document, Style
from vggscope.errors import visible

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""The characters that start a formula, with the full-width forms that some spreadsheets accept."""


def write(document: Document, style: Style) -> str:
    """The document's tables, each with its fields' names as the header. Tables marked `data` replace the others."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    tables = [table for table in document.tables if table.data] or document.tables
    for position, table in enumerate(tables):
        if position:
            out.write("\n")
        writer.writerow([column.key for column in table.columns])
        writer.writerows([cell(value) for value in row] for row in table.rows)
    return out.getvalue()


def cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula and no terminal takes for a control sequence.

    Text that starts like a formula, even after blanks, gets an apostrophe in front (OWASP, CSV injection).
    """
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if not isinstance(value, str):
        return value
    text = visible(value)
    return "'" + text if value.lstrip().startswith(_FORMULA) else text
