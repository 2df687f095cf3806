"""A result's tables as comma-separated values, one after another with an empty line between them: raw numbers, no
units.
"""

from __future__ import annotations

import csv
from io import StringIO

from vggscope.render.document import Document
from vggscope.render.formats import Style


def write(document: Document, style: Style) -> str:
    """The tables, headed by the names that the fields have in JSON."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    meant = [table for table in document.tables if table.data] or document.tables
    for position, table in enumerate(meant):
        if position:
            out.write("\n")
        writer.writerow([column.key for column in table.columns])
        writer.writerows([_cell(value) for value in row] for row in table.rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """A value for a spreadsheet, which must not take a name for a formula."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value
