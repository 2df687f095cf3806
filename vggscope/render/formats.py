"""The table of formats: what a result can be shown as, and which code does it.

A text format writes any Document, so it serves every result. What else a result can become (a picture, a page) stands
beside it in PICTURES.
"""

from __future__ import annotations

import os
from importlib import import_module
from inspect import signature
from typing import Any

from vggscope.document import Document, Style
from vggscope.errors import OptionError, printable, unknown
from vggscope.files import is_special, write_file
from vggscope.record import record
from vggscope.result import Drawn, Result

LONGEST_LINE = 200
"""Characters of what Python shows of a result."""

PICTURE = "picture"
"""What is no text format: the suffix of the file tells which picture."""


@record
class Picture:
    """What draws a kind of result: a function of the result and of how it is to look, and the suffixes of the files
    that `render` of what it gives can make.
    """

    function: str
    suffixes: tuple[str, ...]


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
    Format("html", ".html", "vggscope.render.html"),
)

DOCUMENTS = {
    "summary": "vggscope.render.summary:document",
    "diff": "vggscope.render.diff:document",
    "memory": "vggscope.render.memory:document",
    "operations": "vggscope.render.operations:document",
    "measure": "vggscope.render.measure:document",
    "rf": "vggscope.render.rf:document",
    "activations": "vggscope.render.activations:document",
    "verify": "vggscope.render.verify:document",
    "inspect": "vggscope.render.inspect:document",
    "compare": "vggscope.render.compare:document",
    "explain": "vggscope.render.explain:document",
    "list": "vggscope.render.list:document",
}
"""For each kind of result the function that lays it out as a Document."""

PICTURES = {
    "memory": Picture("vggscope.render.memory_plot:plot", (".svg", ".png", ".pdf")),
    "rf": Picture("vggscope.render.rf_plot:plot", (".svg", ".png", ".pdf")),
    "diff": Picture("vggscope.drawing.diff:diagram", (".svg", ".png", ".pdf", ".dot", ".tex")),
    "compare": Picture("vggscope.render.compare_plot:plot", (".svg", ".png", ".pdf")),
    "explain": Picture("vggscope.render.explain.picture:picture", (".svg", ".png", ".pdf")),
}
"""For each kind of result that can be drawn what draws it. Every function takes the result and `theme`."""


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
    make = _function(DOCUMENTS[kind_of(result)])
    made: Document = make(result, columns) if columns else make(result)
    return made


def line(result: Result) -> str:
    """What a result is and its main figures, on one line: what Python shows of it."""
    module = DOCUMENTS[kind_of(result)].partition(":")[0]
    said = printable(import_module(module).line(result), LONGEST_LINE)
    return f"<{type(result).__name__} of {said}>"


def fragment(result: Result) -> str:
    """A result as a piece of HTML, to be shown within a page of somebody else's, as a notebook is."""
    return str(import_module("vggscope.render.html").fragment(document(result)))


def picture(result: Result, **look: object) -> Drawn:
    """A result drawn; `look` is what the function in PICTURES takes.

    Raises OptionError for a result that has no picture, and for a look that is not there.
    """
    kind = kind_of(result)
    if kind not in PICTURES:
        raise OptionError(f"{kind} has no picture", f"these have: {', '.join(PICTURES)}")
    draw = _function(PICTURES[kind].function)
    known = list(signature(draw).parameters)[1:]
    unknown = [name for name in look if name not in known]
    if unknown:
        raise OptionError(f"a picture of {kind} has no {unknown[0]!r}", f"it has {', '.join(known)}")
    drawn: Drawn = draw(result, **look)
    return drawn


def diagram(network: object) -> Drawn:
    """The diagram of a Network in the default style. Raises VggscopeError if it cannot be drawn."""
    drawn: Drawn = import_module("vggscope.drawing").diagram(network)
    return drawn


def draw(result: Result, suffix: str, dpi: int = 144, **look: object) -> bytes:
    """The contents of a picture of a result whose file ends in `suffix`; `dpi` is a PNG's dots per inch.

    Raises OptionError as `picture` does.
    """
    return picture(result, **look).render(suffix.lower().removeprefix("."), dpi)


def save(
    result: Result, path: str, name: str | None = None, columns: tuple[str, ...] | None = None, **look: object
) -> None:
    """Write a result to a file, whole or not at all: in the text format `name`, or as the suffix says; `look` is how a
    picture is to look.

    Raises OptionError where the suffix names nothing, and OutputError where the file cannot be written.
    """
    name = name or name_for(path, kind_of(result))
    if name == PICTURE:
        write_file(path, draw(result, os.path.splitext(path)[1], **look))  # type: ignore[arg-type]
    else:
        write_file(path, write(result, name, Style(), columns).encode())


def name_for(path: str, kind: str) -> str:
    """The text format, or PICTURE, that a file of a kind of result gets by its suffix; a device gets the table.

    Raises OptionError for a suffix that names neither.
    """
    suffix = os.path.splitext(path)[1]
    found = by_suffix(suffix)
    if found is not None:
        return found.name
    if suffix.lower() in suffixes(kind):
        return PICTURE
    if is_special(path):
        return "table"
    raise OptionError(
        f"no format ends in {suffix or os.path.basename(path)!r}", f"-o takes {', '.join(suffixes(kind))}"
    )


def suffixes(kind: str) -> tuple[str, ...]:
    """What the files of a kind of result may end in."""
    texts = (form.suffix for form in FORMATS)
    return (*texts, *(PICTURES[kind].suffixes if kind in PICTURES else ()))


def kind_of(result: Result) -> str:
    """The word of its schema: summary, diff, ..."""
    return result.schema.removeprefix("vggscope/").partition("@")[0]


def _function(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def by_name(name: str) -> Format:
    """The text format of this name."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise unknown("format", name, (form.name for form in FORMATS))


def by_suffix(suffix: str) -> Format | None:
    """The text format whose files end so."""
    return next((form for form in FORMATS if form.suffix == suffix.lower()), None)
