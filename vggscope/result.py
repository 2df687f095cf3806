"""The base classes of everything that a command shows: `Result`, frozen data, and `Drawn`, a picture.

A `TableResult` is a Result with rows, such as one for each layer. `Tabular` is what converts to a dataframe.

This file imports no renderer. `vggscope/__init__.py` sets `presentation`, and a result calls it when it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, get_args

from vggscope.errors import OptionError, UnknownName, printable

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggscope.choices import PictureOptions, SaveOptions
    from vggscope.plain_data import DataFrame


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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of `to_json` as plain dicts, lists, strings and numbers.

        >>> import vggscope
        >>> vggscope.summary("D").to_dict()["layers"][0]["kernel_size"]
        [3, 3]
        """
        from vggscope.plain_data import plain_fields

        return plain_fields(self)

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

        `options` are `theme`, and also `fold` for a diff, `chart` for a comparison, `animate` for a tutorial, or
        `image` and `beside` for receptive fields.

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


class Tabular:
    """The base class of what pandas, polars, pyarrow and DuckDB read as a table: a column for each field of a row.

    A field that is a record becomes a column for each of its fields, such as `receptive_field_size`. A tuple becomes a
    list.
    """

    def to_df(self, *, columns: Sequence[str] | None = None) -> DataFrame:
        """Return the rows as a dataframe of pandas, with these `columns` or all.

        A column of whole numbers of which some are unknown has the dtype Int64, so that the others stay exact.

        Raises OptionError for an unknown column, and MissingTool where pandas is not installed.

        >>> import vggscope
        >>> frame = vggscope.summary("D").to_df(columns=["label", "params"])  # doctest: +SKIP
        >>> frame.set_index("label")["params"]["fc6"]  # doctest: +SKIP
        102764544
        """
        from vggscope.plain_data import pandas_frame

        return pandas_frame(self._columns(), columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as a stream of Arrow's C interface, by which `polars.DataFrame(result)` and
        `pyarrow.table(result)` read them.

        Raises MissingTool unless pyarrow or polars is installed.
        """
        from vggscope.plain_data import arrow_stream

        return arrow_stream(self._columns(), requested_schema)

    def _columns(self) -> dict[str, list[Any]]:
        raise NotImplementedError


Row = TypeVar("Row")


class TableResult(Result, Tabular, Generic[Row]):
    """A result with rows: iterate over it, or name a row by its label or its path.

    >>> import vggscope
    >>> report = vggscope.summary("D")
    >>> report["conv3_2"].params, report["features.12"].label, len(report), [row.op for row in report][:2]
    (590080, 'conv3_2', 40, ['Conv2d', 'ReLU'])
    """

    rows_field: ClassVar[str] = "layers"
    """The field that holds the rows."""

    named_by: ClassVar[tuple[str, ...]] = ("label", "name")
    """The fields of a row by whose values `result[...]` finds it."""

    def __getitem__(self, key: str | int) -> Row:
        """Return the row of this name, or at this position.

        Raises UnknownName, which is a KeyError, unless one row has the name, and IndexError for a position beyond
        the last.
        """
        if not isinstance(key, str):
            return self._rows[key]
        found = [place for place, row in enumerate(self._rows) if key in self._names_of(row)]
        if len(found) == 1:
            return self._rows[found[0]]
        raise self._not_one(key, found)

    def _not_one(self, key: str, found: list[int]) -> UnknownName:
        """The error for a name that no row has, or the rows at several positions."""
        from difflib import get_close_matches

        kind = type(self).__name__
        if found:
            places = ", ".join(f"[{place}]" for place in found[:4]) + (", ..." if len(found) > 4 else "")
            problem = f"{len(found)} {self.rows_field} of {kind} are named {printable(key)!r}"
            return UnknownName(problem, f"take one by its position: {places}")
        problem = f"{kind} has no {self.rows_field.removesuffix('s')} {printable(key)!r}"
        names = list(dict.fromkeys(name for row in self._rows for name in self._names_of(row)))
        if not names:
            return UnknownName(problem, f"it has no {self.rows_field}")
        near = get_close_matches(key, names, n=3, cutoff=0.4)
        shown = ", ".join(map(printable, near or names[:3]))
        return UnknownName(problem, f"near it: {shown}" if near else f"there are {shown}" + ", ..." * (len(names) > 3))

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __bool__(self) -> bool:
        """A result without rows is a result too."""
        return True

    def __contains__(self, key: object) -> bool:
        return any(key == row or (isinstance(key, str) and key in self._names_of(row)) for row in self._rows)

    @property
    def _rows(self) -> tuple[Row, ...]:
        rows: tuple[Row, ...] = getattr(self, self.rows_field)
        return rows

    def _names_of(self, row: Row) -> Iterator[str]:
        return (name for field in self.named_by if (name := getattr(row, field)))

    def _columns(self) -> dict[str, list[Any]]:
        from vggscope.plain_data import columns_of

        generic = next(base for base in type(self).__orig_bases__ if get_args(base))  # type: ignore[attr-defined]
        return columns_of(self._rows, get_args(generic)[0])


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
