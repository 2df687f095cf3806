"""The base classes of everything that a command shows: `Result`, frozen data, and `Drawn`, a picture.

This file imports no renderer. `vggscope/__init__.py` sets `presentation`, and a result calls it when it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from vggscope.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggscope.choices import PictureOptions, SaveOptions


class Result:
    """The base class of every result.

    `print(result)` prints the table that the command prints. `repr(result)` is one line.
    """

    schema: str

    def __str__(self) -> str:
        return presentation().write(self).rstrip("\n")

    def __repr__(self) -> str:
        return presentation().line(self)

    def to_json(self) -> str:
        """Return the result as JSON, as `--format json` prints it (docs/json.md).

        >>> import json, vggscope
        >>> json.loads(vggscope.summary("D").to_json())["totals"]["params"]
        138357544
        """
        return presentation().write(self, "json")

    def save(self, path: str | os.PathLike[str], **options: Unpack[SaveOptions]) -> None:
        """Write the result to a file, whole or not at all, in the format that the suffix names.

        The suffix is .txt, .json, .csv, .md, .html, or that of a picture (.svg, .png, .pdf) if the result has one.
        `options` are those of the picture, as `picture` takes them, and its `dpi`.

        Raises OptionError for another suffix, and OutputError if the file cannot be written.

        >>> import tempfile, pathlib, vggscope
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     vggscope.summary("D").save(path := pathlib.Path(folder, "vgg16.csv"))
        ...     path.read_text().splitlines()[0]
        'name,label,op,output_shape,rule,params,macs,activation_bytes,receptive_field'
        """
        presentation().save(self, os.fspath(path), **options)

    def picture(self, **options: Unpack[PictureOptions]) -> Drawn:
        """Return the picture that `-o x.svg` writes; a notebook displays it.

        `options` are `theme`, and also `fold` for a diff, or `image` and `beside` for receptive fields.

        Raises OptionError if results of this kind have no picture, or the picture has no such option.

        >>> import vggscope
        >>> vggscope.diff("C", ref="D").picture(theme="dark")  # doctest: +ELLIPSIS
        <Diagram of C against D, ...x... pt>
        """
        return presentation().picture(self, **options)

    def _repr_html_(self) -> str:
        """Return what a notebook displays."""
        return presentation().fragment(self)

    def _repr_markdown_(self) -> str:
        """Return what a notebook's export shows where it takes no HTML."""
        return presentation().write(self, "markdown")


class Presentation(Protocol):
    """The functions that show results and networks; the module `vggscope.render.formats` has them."""

    def write(self, result: Result, name: str = "table") -> str: ...

    def line(self, result: Result) -> str: ...

    def fragment(self, result: Result) -> str: ...

    def save(self, result: Result, path: str, **options: Unpack[SaveOptions]) -> None: ...

    def picture(self, result: Result, **options: Unpack[PictureOptions]) -> Drawn: ...

    def diagram(self, network: object) -> Drawn: ...


def _no_presentation() -> Presentation:
    raise RuntimeError("vggscope/__init__.py sets vggscope.result.presentation")


presentation: Callable[[], Presentation] = _no_presentation
"""Returns what shows results. The package sets it when it is imported; the renderers are imported at the first call."""


class Drawn:
    """A picture that can be written in each of `forms`; a notebook displays it."""

    forms: tuple[str, ...] = ("svg", "png", "pdf")
    """The formats, named by the suffixes of their files."""

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """Return the contents of a file in one of `forms`. `dpi` is the resolution of a PNG.

        Raises OptionError for another form.

        >>> import vggscope
        >>> vggscope.memory("D").picture().render("png")[1:4]
        b'PNG'
        """
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], dpi: int = 144) -> None:
        """Write a file, whole or not at all, in the format that the suffix names.

        Raises OptionError for a suffix that names no format, and OutputError if the file cannot be written.

        >>> import vggscope
        >>> vggscope.diagram("D").save("vgg16.docx")
        Traceback (most recent call last):
        vggscope.errors.OptionError: no picture ends in '.docx'
        write one of .svg, .png, .pdf, .dot, .tex
        """
        from vggscope.files import write_file

        write_file(os.fspath(path), self.render(self._form_of(os.fspath(path)), dpi))

    def _form_of(self, path: str) -> str:
        suffix = os.path.splitext(path)[1].lower()
        if suffix.removeprefix(".") not in self.forms:
            kinds = ", ".join(f".{name}" for name in self.forms)
            raise OptionError(f"no picture ends in {suffix or os.path.basename(path)!r}", f"write one of {kinds}")
        return suffix.removeprefix(".")

    def _repr_svg_(self) -> str:
        """Return the SVG, no wider than the page. Its dots per inch are a screen's, to keep an embedded photo small."""
        return self.render("svg", 72).decode().replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)
