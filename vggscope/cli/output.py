"""The only code that prints: results to stdout or to a file, everything else to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, get_args

from vggscope.choices import Theme
from vggscope.document import Style
from vggscope.errors import OutputError, printable, unknown
from vggscope.files import is_special, open_whole
from vggscope.graph import failure_remedy
from vggscope.progress import step
from vggscope.render.formats import by_name, kind_of, name_for, save, write
from vggscope.result import Result
from vggscope.units import bytes_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggscope.choices import SaveOptions

PIPE_WIDTH = 120
"""Columns of text in a pipe."""

LINES_AT_ONCE = 500
"""Lines of a stream that are written together, where each takes no time to compute."""

LONGEST_LINE = 1000
"""Characters of a message's line, which is cut there."""


def emit(
    result: Result,
    format: str | None = None,
    output: str | None = None,
    columns: tuple[str, ...] | None = None,
    **options: Unpack[SaveOptions],
) -> None:
    """Print a result to stdout, or write it to the file `output`: in `format`, or in the format of its suffix. A
    note on stderr names the written file.

    `columns` selects those of the table, and `options` are those of a picture. Raises OptionError for an unknown
    format, and OutputError where the file cannot be written.
    """
    if output is None:
        with step(f"writing {format or 'table'}"):
            text = write(result, format or "table", terminal_style(), columns)
        print_out(text)
        return
    name = format or name_for(output, kind_of(result))
    save(result, output, name, columns, **options)
    note_written(output)


def emit_lines(lines: Iterable[str], output: str | None = None, at_once: int = LINES_AT_ONCE) -> None:
    """Print lines to stdout, or write them to the file `output`, while they are computed, `at_once` of them together. A
    note on stderr names the written file.

    Raises OutputError where they cannot be written.
    """
    remaining = iter(lines)
    blocks = iter(lambda: "".join(islice(remaining, at_once)), "")
    if output is None:
        for block in blocks:
            print_out(block)
    else:
        with open_whole(output) as file:
            for block in blocks:
                file.write(block.encode())
        note_written(output)


def check_format(name: str | None, output: str | None = None, kind: str = "", lines: str = "") -> None:
    """Raise OptionError for an unknown format, or a file whose suffix is none of this kind of result.

    Commands call it before they compute anything. `lines` is a format that the command writes itself, line by line.
    """
    if name is not None:
        by_name(name, *filter(None, [lines]))
    elif kind and output is not None:
        name_for(output, kind, *filter(None, [lines]))


def check_theme(name: str) -> None:
    """Raise OptionError for an unknown theme. Commands call it before they compute anything, and draw nothing yet."""
    if name not in get_args(Theme):
        raise unknown("theme", name, get_args(Theme))


def terminal_style() -> Style:
    """The style of stdout: its width, whether it shows colour, and whether its encoding is ASCII."""
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
    """Print text to stdout, with a question mark for each character that its encoding lacks.

    Raises OutputError where stdout is closed or full, and BrokenPipeError where the reader of a pipe has closed it.
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
    """Print lines to stderr, each on one line whatever it quotes."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            encoding = sys.stderr.encoding or "ascii"
            text = "".join(printable(line, LONGEST_LINE) + "\n" for line in lines if line)
            sys.stderr.write(text.encode(encoding, "replace").decode(encoding))


def is_read(format: str | None, output: str | None) -> bool:
    """Whether `emit` prints a text with its notes to stdout."""
    return output is None and format in (None, "table", "markdown")


def note_failures(*failures: str | None, told: bool = False, model: str = "") -> int:
    """Print the first failure of models that do not run to their end, and return the exit code: 2 if there is one.

    Print only the layer that fails if stdout has already `told` why. `model` is named if the command has several.
    """
    failure = next((failure for failure in failures if failure is not None), None)
    if failure is None:
        return 0
    where = f"the forward pass fails in {failure.partition(': ')[0]}, as noted" if told else failure
    ends = "it has no figures but its parameters" if model else "what is shown ends there"
    note(f"vggscope: {f'{model}: ' if model else ''}{where}", f"{ends}; {failure_remedy(failure)}")
    return 2


def note_written(path: str) -> None:
    """Print which file was written, and its size; that of a device, a pipe or stdout is not known."""
    is_file = not is_special(path) and os.path.isfile(path)
    note(f"wrote {path} ({bytes_text(os.path.getsize(path))})" if is_file else f"wrote {path}")
