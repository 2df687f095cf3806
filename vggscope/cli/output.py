"""The only code that prints: results to stdout or to a file, everything else to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from vggscope.document import Style
from vggscope.errors import OutputError, printable
from vggscope.files import open_whole
from vggscope.render.formats import PICTURE, by_name, kind_of, name_for, save, write
from vggscope.result import Result
from vggscope.units import bytes_text

PIPE_WIDTH = 120
"""Columns of text that no terminal takes."""

LINES_AT_ONCE = 500
"""Lines that are written together."""

LONGEST_LINE = 1000
"""Characters of a message; what it quotes may be longer."""


def emit(
    result: Result,
    format: str | None = None,
    output: str | None = None,
    columns: tuple[str, ...] | None = None,
    **look: object,
) -> None:
    """Show a result on stdout, or write it to the file `output`, as a picture if its suffix names one; `look` is how
    that is to look (formats.picture).

    Raises OptionError where format and suffix name no format, and OutputError where the file cannot be written.
    """
    if output is None:
        print_out(write(result, format or "table", terminal_style(), columns))
        return
    name = format or name_for(output, kind_of(result))
    save(result, output, name, columns, **look)
    if name == PICTURE:
        note_written(output)


def emit_lines(lines: Iterable[str], output: str | None = None) -> None:
    """Show text that comes line by line on stdout, or write it to the file `output`, as it comes.

    Raises OutputError where that cannot be.
    """
    rest = iter(lines)
    blocks = iter(lambda: "".join(islice(rest, LINES_AT_ONCE)), "")
    if output is None:
        for block in blocks:
            print_out(block)
    else:
        with open_whole(output) as file:
            for block in blocks:
                file.write(block.encode())


def check_format(name: str | None, output: str | None = None, kind: str = "") -> None:
    """Raise OptionError at once for a format that is not there, or for a file whose suffix names none for this kind of
    result, before any work is done.
    """
    if name is not None:
        by_name(name)
    elif kind and output is not None:
        name_for(output, kind)


def terminal_style() -> Style:
    """What stdout takes: colour by NO_COLOR, FORCE_COLOR and whether it is a terminal; a pipe has a fixed width."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    dumb = os.environ.get("TERM") == "dumb"
    color = terminal and not dumb
    if os.environ.get("FORCE_COLOR"):
        color = True
    if os.environ.get("NO_COLOR"):
        color = False
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if terminal or "COLUMNS" in os.environ else PIPE_WIDTH
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return Style(max(width, 20), color, not encoding.startswith("utf"))


def print_out(text: str) -> None:
    """Text to stdout; what its encoding cannot say shows as a question mark.

    Raises OutputError where stdout is closed or full; a reader that has gone away ends the program quietly, in `app`.
    """
    if sys.stdout is None:
        raise OutputError("cannot write to stdout: it is closed", "name a file with -o")
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror}", "name a file with -o") from None


def note(*lines: str) -> None:
    """Lines to stderr, for the person and not for the pipe; whatever they quote, each stays one line of text."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            encoding = sys.stderr.encoding or "ascii"
            text = "".join(printable(line, LONGEST_LINE) + "\n" for line in lines if line)
            sys.stderr.write(text.encode(encoding, "replace").decode(encoding))


def broke_off(*failures: str | None) -> int:
    """The exit code of a command that has shown what is known of a model: 2, and a word on stderr, where one of them
    breaks off.
    """
    found = [failure for failure in failures if failure is not None]
    for failure in found[:1]:
        note(f"vggscope: {failure}", "what is shown ends there; --input gives another size")
    return 2 if found else 0


def note_written(path: str) -> None:
    """Say which file was written, and how large it is."""
    size = f" ({bytes_text(os.path.getsize(path))})" if os.path.isfile(path) else ""
    note(f"wrote {path}{size}")
