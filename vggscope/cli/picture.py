"""Pictures that a command writes where `-o` names one, beside the text formats that every command has."""

from __future__ import annotations

from pathlib import Path

from vggscope.cli.output import note
from vggscope.errors import OptionError
from vggscope.files import write_file
from vggscope.render.diagram.theme import THEMES
from vggscope.render.formats import FORMATS, by_suffix
from vggscope.units import bytes_text

PICTURES = ("svg", "png", "pdf")


def picture_form(output: str | None, format: str | None, theme: str) -> str | None:
    """Which of PICTURES is to be written, or None where it is text.

    Raises OptionError for a suffix that is neither, and for a theme that is not there.
    """
    if theme not in THEMES:
        raise OptionError(f"unknown theme {theme!r}", f"--theme is one of {', '.join(THEMES)}")
    if output is None or format is not None:
        return None
    suffix = Path(output).suffix.lower()
    if suffix.removeprefix(".") in PICTURES:
        return suffix.removeprefix(".")
    if by_suffix(suffix) is None and not _takes_any_name(output):
        known = (*(form.suffix for form in FORMATS), *(f".{form}" for form in PICTURES))
        raise OptionError(f"no format ends in {suffix or Path(output).name!r}", f"-o takes {', '.join(known)}")
    return None


def write_picture(path: str, data: bytes) -> None:
    """Write it, and say so."""
    write_file(path, data)
    note(f"wrote {path} ({bytes_text(len(data))})")


def _takes_any_name(path: str) -> bool:
    """Whether a path is a device, a pipe or a folder, of which `emit` knows what to say."""
    return Path(path).exists() and not Path(path).is_file()
