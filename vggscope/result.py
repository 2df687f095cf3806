"""What every result can do, frozen data that shows itself, and what every picture of one can.

How something is drawn is render's business, which stands above. This file alone looks up to it, by name and only when
it is asked to: the one exception to the floors.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from vggscope.errors import OptionError
from vggscope.files import write_file


class Result:
    """The root of everything that a command shows.

    `print(result)` is the table that the command prints, `repr(result)` one line.
    """

    schema: str

    def __str__(self) -> str:
        return str(_formats().write(self)).rstrip("\n")

    def __repr__(self) -> str:
        return str(_formats().line(self))

    def to_json(self) -> str:
        """The result as the JSON that `--format json` gives (docs/json.md).

        >>> import json, vggscope
        >>> json.loads(vggscope.summary("D").to_json())["totals"]["params"]
        138357544
        """
        return str(import_module("vggscope.render.json").write(self))

    def save(self, path: str | os.PathLike[str], **look: object) -> None:
        """Write a file as `-o` does, whole or not at all: .txt, .json, .csv, .md, .html, or a picture where the result
        has one; `look` is how that is to look (theme, dpi).

        Raises OptionError for another suffix, and OutputError where the file cannot be written.

        >>> import tempfile, pathlib, vggscope
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "vgg16.csv"
        >>> vggscope.summary("D").save(path)
        >>> path.read_text().splitlines()[0]
        'name,label,op,output_shape,rule,params,macs,activation_bytes,receptive_field'
        """
        _formats().save(self, os.fspath(path), **look)

    def picture(self, **look: object) -> Drawn:
        """The result drawn, as `-o x.svg` draws it; a notebook shows it. `look` is `theme` and, for a diff `fold`, for
        receptive fields `image` and `beside`.

        Raises OptionError for a kind of result that has no picture, and for a look that is not there.

        >>> import vggscope
        >>> vggscope.diff("C", ref="D").picture(theme="dark")  # doctest: +ELLIPSIS
        <Diagram of C against D, ...x... pt>
        """
        drawn: Drawn = _formats().picture(self, **look)
        return drawn

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(_formats().fragment(self))

    def _repr_markdown_(self) -> str:
        """What a notebook is converted to where HTML is not read."""
        return str(_formats().write(self, "markdown"))


def _formats() -> Any:
    return import_module("vggscope.render.formats")


def diagram_of(network: object) -> Drawn:
    """A Network's picture, as a notebook shows it. Raises VggscopeError where it has none."""
    drawn: Drawn = import_module("vggscope.drawing").diagram(network)
    return drawn


class Drawn:
    """A picture that is not yet written as anything; a notebook shows it by itself."""

    forms: tuple[str, ...] = ("svg", "png", "pdf")
    """What it can be written as: the suffixes of its files."""

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """The contents of a file of one of `forms`; `dpi` is a PNG's dots per inch. Raises OptionError for another.

        >>> import vggscope
        >>> vggscope.memory("D").picture().render("png")[1:4]
        b'PNG'
        """
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], dpi: int = 144) -> None:
        """Write a file, whole or not at all; its suffix names the format.

        Raises OptionError for a suffix that is no format, and OutputError where the file cannot be written.

        >>> import vggscope
        >>> vggscope.diagram("D").save("vgg16.docx")
        Traceback (most recent call last):
        vggscope.errors.OptionError: no picture ends in '.docx'
        write one of .svg, .png, .pdf, .dot, .tex
        """
        write_file(os.fspath(path), self.render(self._form_of(os.fspath(path)), dpi))

    def _form_of(self, path: str) -> str:
        suffix = os.path.splitext(path)[1].lower()
        if suffix.removeprefix(".") not in self.forms:
            kinds = ", ".join(f".{name}" for name in self.forms)
            raise OptionError(f"no picture ends in {suffix or os.path.basename(path)!r}", f"write one of {kinds}")
        return suffix.removeprefix(".")

    def _repr_svg_(self) -> str:
        """The SVG, no wider than the page; a photo in it has the pixels of a screen."""
        return self.render("svg", 72).decode().replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)
