"""The table of formats: what a result can be shown as, and which code does it.

A text format writes any Document, so it serves every result. What else a result can become (a picture, a page) stands
beside it in PICTURES.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from vggscope.errors import OptionError
from vggscope.record import record

if TYPE_CHECKING:
    from vggscope.render.document import Document


@record
class Style:
    """How a terminal wants its text: `width` in columns, and whether it takes colour and more than ASCII."""

    width: int = 120
    color: bool = False
    ascii: bool = False


class Result(Protocol):
    """Whatever an analysis or a diff gives: frozen data that names its schema, as `vggscope/summary@1`."""

    @property
    def schema(self) -> str: ...


@record
class Format:
    """A text format: its name, the suffix of its files, and the module whose `write` does it."""

    name: str
    suffix: str
    module: str


FORMATS = (
    Format("table", ".txt", "vggscope.render.text"),
    Format("json", ".json", "vggscope.render.json"),
    Format("csv", ".csv", "vggscope.render.csv"),
    Format("markdown", ".md", "vggscope.render.markdown"),
)

DOCUMENTS = {
    "summary": "vggscope.render.summary:document",
    "diff": "vggscope.render.diff:document",
    "memory": "vggscope.render.memory:document",
    "verify": "vggscope.render.verify:document",
    "inspect": "vggscope.render.inspect:document",
    "list": "vggscope.render.list:document",
}
"""For each kind of result the function that lays it out as a Document."""


def write(
    result: Result, name: str = "table", style: Style | None = None, columns: tuple[str, ...] | None = None
) -> str:
    """A result in one of FORMATS. `columns` are the keys of the table's columns to keep.

    Raises OptionError for a format or a column that is not there.
    """
    form = by_name(name)
    if form.name == "json":
        return str(import_module(form.module).write(result))
    laid_out = document(result, columns)
    return str(import_module(form.module).write(laid_out, style or Style()))


def document(result: Result, columns: tuple[str, ...] | None = None) -> Document:
    """The Document of a result, its table reduced to `columns`."""
    kind = result.schema.removeprefix("vggscope/").partition("@")[0]
    module, _, function = DOCUMENTS[kind].partition(":")
    make: Any = getattr(import_module(module), function)
    made: Document = make(result, columns) if columns else make(result)
    return made


def by_name(name: str) -> Format:
    """The text format of this name."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise OptionError(f"unknown format {name!r}", f"--format is one of {', '.join(form.name for form in FORMATS)}")


def by_suffix(suffix: str) -> Format | None:
    """The text format whose files end so."""
    return next((form for form in FORMATS if form.suffix == suffix.lower()), None)
