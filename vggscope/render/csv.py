"""A result's tables as comma-separated values, one after another with an empty line between them: raw numbers, no
units.
"""

from __future__ import annotations

import csv
from io import StringIO

from vggscope.document import Document, Style
from vggscope.errors import visible

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""How a formula begins, the full-width forms included, which some spreadsheets take for the narrow ones."""


def write(document: Document, style: Style) -> str:
    """The tables, headed by the names that the fields have in JSON."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    meant = [table for table in document.tables if table.data] or document.tables
    for position, table in enumerate(meant):
        if position:
            out.write("\n")
        writer.writerow([column.key for column in table.columns])
        writer.writerows([cell(value) for value in row] for row in table.rows)
    return out.getvalue()


def cell(value: object) -> object:
    """A value for a spreadsheet, which must not take a name for a formula, and for a terminal, which must not obey it.

    What begins as a formula does, blanks before it or not, is told by an apostrophe to be text (OWASP, CSV injection).
    """
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if not isinstance(value, str):
        return value
    text = visible(value)
    return "'" + text if value.lstrip().startswith(_FORMULA) else text
