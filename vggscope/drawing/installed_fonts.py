"""The fonts that are installed on this machine, and their widths, as matplotlib finds and reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from vggscope.drawing.fonts import FAMILIES, HELVETICA, LIKE_HELVETICA, Font, Widths
from vggscope.errors import MissingTool, OptionError, nearest, option, printable
from vggscope.suppress import suppress_output

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

FALLBACK = "DejaVu Sans"
"""The font that comes with matplotlib; it draws the characters that another one lacks."""

SERIF = ("Times New Roman", "Liberation Serif", "Nimbus Roman", "serif")
MONOSPACE = ("Courier New", "Liberation Mono", "Nimbus Mono PS", "monospace")
"""The families that replace a font which the viewer of a picture does not have."""

MOST_NAMED = 12
"""How many fonts an error names."""


class _FileWidths(Widths):
    """The widths in a font file; of a character that it lacks, the width in FALLBACK."""

    def __init__(self, path: str, fallback: str) -> None:
        super().__init__()
        self.paths = (path, fallback)

    def measure(self, char: str) -> float:
        from matplotlib.ft2font import LoadFlags

        for font in map(_opened, self.paths):
            if font.get_char_index(ord(char)):
                advance = font.load_char(ord(char), flags=LoadFlags.NO_SCALE).horiAdvance
                return advance * 1000 / font.units_per_EM
        return super().measure(char)


def installed_font(name: str) -> Font:
    """The font of a family that is installed here, or one with Helvetica's widths. Letters may be of either case.

    Raises OptionError if there is none, and MissingTool if matplotlib is not installed.

    >>> installed_font("dejavu serif").families[0]
    'DejaVu Serif'
    """
    known = {family.lower(): family for family in families()}
    family = known.get(name.strip().lower())
    like = next((font for font in LIKE_HELVETICA if font.lower() == name.strip().lower()), None)
    if family is None and like is not None:
        return Font((like, *(other for other in FAMILIES if other != like)), HELVETICA.regular, HELVETICA.bold)
    if family is None:
        raise _unknown(name, known.values())
    regular, bold = (_path(family, weight) for weight in ("normal", "bold"))
    widths = (_FileWidths(regular, _path(FALLBACK, "normal")), _FileWidths(bold, _path(FALLBACK, "bold")))
    return Font((family, *(other for other in _alike(regular) if other != family)), *widths, family)


@cache
def families() -> tuple[str, ...]:
    """The families that are installed here, in the order of the alphabet.

    Raises MissingTool if matplotlib is not installed.
    """
    with suppress_output():
        try:
            from matplotlib.font_manager import findSystemFonts, fontManager
        except ImportError:
            raise MissingTool("matplotlib, which reads fonts, is not installed", "pip install matplotlib") from None
        listed = {entry.fname for entry in fontManager.ttflist}
        # matplotlib remembers the fonts of its first run: add those that were installed since.
        for path in sorted(path for path in findSystemFonts() if path not in listed):
            _add(path)
    names = {entry.name for entry in fontManager.ttflist}
    return tuple(sorted((name for name in names if name.isprintable() and name[:1] != "."), key=str.lower))


def _add(path: str) -> None:
    """Add a font to matplotlib's list, unless it cannot read the file."""
    from matplotlib.font_manager import fontManager

    with suppress(OSError, RuntimeError, ValueError):
        fontManager.addfont(path)


def _unknown(name: str, known: Iterable[str]) -> OptionError:
    names = sorted(known, key=str.lower)
    listed = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")
    problem = f"the font {printable(name)!r} is not installed here{nearest(name, names)}"
    return OptionError(problem, f"{option('font')} is one of {listed}")


def _path(family: str, weight: str) -> str:
    """The file of a family that is nearest to a weight."""
    from matplotlib.font_manager import FontProperties, findfont

    with suppress_output():
        return str(findfont(FontProperties(family=[family], weight=weight), fallback_to_default=False))


def _opened(path: str) -> FT2Font:
    from matplotlib.font_manager import get_font

    return get_font(path)


def _alike(path: str) -> tuple[str, ...]:
    """The families that look most like a font: by its fixed width, or by the serifs that its file states (PANOSE)."""
    from matplotlib.ft2font import FaceFlags

    font = _opened(path)
    if FaceFlags.FIXED_WIDTH in font.face_flags:
        return MONOSPACE
    table: Mapping[str, Any] = font.get_sfnt_table("OS/2") or {}
    latin_text, serifs = tuple(table.get("panose") or b"\0\0")[:2]
    return SERIF if latin_text == 2 and 2 <= serifs <= 10 else FAMILIES
