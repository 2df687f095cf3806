"""The table of formats: the functions that turn a result into text or a picture.

DOCUMENTS has for each kind of result the function that lays it out as a Document, and FORMATS the text formats, which
write any Document. PICTURES has the functions that draw a result.
"""

from __future__ import annotations

import os
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from vggscope.document import Document, Style
from vggscope.errors import OptionError, printable, unknown
from vggscope.files import is_special, write_file
from vggscope.progress import step
from vggscope.record import record, uncollected
from vggscope.result import Drawn, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggscope.choices import PictureOptions, SaveOptions

LONGEST_LINE = 200
"""The most characters of a result's repr."""

PICTURE = "picture"
"""The name of the format of a file whose suffix is that of a picture."""


@record
class PictureFunction:
    """How a kind of result is drawn: the function that returns a Drawn, and the suffixes of the files it can write."""

    function: str
    suffixes: tuple[str, ...]


@record
class Format:
    """A text format: its name, the suffix of its files, and the module with its function `write`."""

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
    "sums": "vggscope.render.sums:document",
    "memory": "vggscope.render.memory:document",
    "operations": "vggscope.render.operations:document",
    "measure": "vggscope.render.measure:document",
    "rf": "vggscope.render.rf:document",
    "activations": "vggscope.render.activations:document",
    "verify": "vggscope.render.verify:document",
    "inspect": "vggscope.render.inspect:document",
    "stats": "vggscope.render.stats:document",
    "values": "vggscope.render.values:document",
    "lock": "vggscope.render.lock:document",
    "compare": "vggscope.render.compare:document",
    "explain": "vggscope.render.explain:document",
    "list": "vggscope.render.list:document",
}
"""The function that lays each kind of result out as a Document."""

PAGES = {"diff": "vggscope.render.diff_page:page"}
"""The function that writes a kind of result as an HTML page; the page of any other kind shows its Document."""

PICTURES = {
    "summary": PictureFunction("vggscope.render.summary_plot:plot", (".svg", ".png", ".pdf")),
    "memory": PictureFunction("vggscope.render.memory_plot:plot", (".svg", ".png", ".pdf")),
    "rf": PictureFunction("vggscope.render.rf_plot:plot", (".svg", ".png", ".pdf")),
    "diff": PictureFunction("vggscope.drawing.diff:diagram", (".svg", ".png", ".pdf", ".dot", ".tex")),
    "stats": PictureFunction("vggscope.render.stats_plot:plot", (".svg", ".png", ".pdf")),
    "compare": PictureFunction("vggscope.render.compare_plot:plot", (".svg", ".png", ".pdf")),
    "explain": PictureFunction("vggscope.render.explain.picture:picture", (".svg", ".png", ".pdf", ".gif")),
}
"""How each kind of result that can be drawn is drawn. Every function takes the result and `theme`."""


@uncollected()
def write(
    result: Result, name: str = "table", style: Style | None = None, columns: tuple[str, ...] | None = None
) -> str:
    """Return a result in one of FORMATS. `columns` are the keys of the table's columns to show.

    Raises OptionError for an unknown format or column.
    """
    form = by_name(name)
    if form.name == "json":
        return str(import_module(form.module).write(result))
    kind = kind_of(result)
    if form.name == "html" and kind in PAGES:
        return str(_function(PAGES[kind])(result))
    return str(import_module(form.module).write(document(result, columns), style or Style()))


def document(result: Result, columns: tuple[str, ...] | None = None) -> Document:
    """Return the Document of a result, with the chosen columns of its table."""
    lay_out = _function(DOCUMENTS[kind_of(result)])
    laid_out: Document = lay_out(result, columns) if columns else lay_out(result)
    return laid_out


def line(result: Result) -> str:
    """Return the repr of a result: its model and main figures on one line."""
    module = DOCUMENTS[kind_of(result)].partition(":")[0]
    text = printable(import_module(module).line(result), LONGEST_LINE)
    return f"<{type(result).__name__} of {text}>"


def fragment(result: Result) -> str:
    """Return a result as HTML to be embedded in another page, such as a notebook."""
    return str(import_module("vggscope.render.html").fragment(document(result)))


def picture(result: Result, **options: Unpack[PictureOptions]) -> Drawn:
    """Return the picture of a result. `options` are keywords of its function in PICTURES.

    Raises OptionError if the kind of result has no picture, or its function no such keyword.
    """
    kind = kind_of(result)
    if kind not in PICTURES:
        raise OptionError(f"{kind} has no picture", f"these have: {', '.join(PICTURES)}")
    draw = _function(PICTURES[kind].function)
    known = list(signature(draw).parameters)[1:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise OptionError(f"a picture of {kind} has no {unknown[0]!r}", f"it has {', '.join(known)}")
    drawn: Drawn = draw(result, **options)
    return drawn


def diagram(network: object) -> Drawn:
    """The diagram of a Network in the default style. Raises VggscopeError if it cannot be drawn."""
    drawn: Drawn = import_module("vggscope.drawing").diagram(network)
    return drawn


def draw(result: Result, suffix: str, dpi: int = 144, **options: Unpack[PictureOptions]) -> bytes:
    """Return the contents of a picture file with this `suffix`. `dpi` is the resolution of a PNG.

    Raises OptionError as `picture` does.
    """
    return picture(result, **options).render(suffix.lower().removeprefix("."), dpi)


def save(
    result: Result,
    path: str,
    name: str | None = None,
    columns: tuple[str, ...] | None = None,
    **options: Unpack[SaveOptions],
) -> None:
    """Write a result to a file, whole or not at all, in the text format `name` or the one that the suffix names.

    `options` are those of a picture. Raises OptionError for an unknown suffix, and OutputError if the file cannot
    be written.
    """
    name = name or name_for(path, kind_of(result))
    with step(f"writing {path}"):
        if name == PICTURE:
            write_file(path, draw(result, os.path.splitext(path)[1], **options))
        else:
            write_file(path, write(result, name, Style(), columns).encode())


def name_for(path: str, kind: str, *others: str) -> str:
    """Return the text format, or PICTURE, that a file's suffix names for a kind of result. A device gets the table.

    Raises OptionError for an unknown suffix, which lists the formats `others` too.
    """
    suffix = os.path.splitext(path)[1]
    form = by_suffix(suffix)
    if form is not None:
        return form.name
    if suffix.lower() in suffixes(kind):
        return PICTURE
    if is_special(path):
        return "table"
    taken = (*suffixes(kind), *(f".{name}" for name in others))
    raise OptionError(f"no format ends in {suffix or os.path.basename(path)!r}", f"-o takes {', '.join(taken)}")


def suffixes(kind: str) -> tuple[str, ...]:
    """Return the suffixes that a file of a kind of result may have."""
    texts = (form.suffix for form in FORMATS)
    return (*texts, *(PICTURES[kind].suffixes if kind in PICTURES else ()))


def kind_of(result: Result) -> str:
    """Return the kind that a result's schema names: summary, diff, ..."""
    return result.schema.removeprefix("vggscope/").partition("@")[0]


def _function(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def by_name(name: str, *others: str) -> Format:
    """Return the text format of this name. Raises OptionError for an unknown one, which lists `others` too."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise unknown("format", name, (*(form.name for form in FORMATS), *others))


def by_suffix(suffix: str) -> Format | None:
    """Return the text format whose files have this suffix, or None."""
    return next((form for form in FORMATS if form.suffix == suffix.lower()), None)
