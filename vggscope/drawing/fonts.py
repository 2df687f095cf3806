"""The width of a text, computed without drawing it.

The widths are Helvetica's, in thousandths of the type size, from Adobe's font metrics for the 14 standard fonts. Arial,
Liberation Sans and Nimbus Sans share them. For readers with another font the picture states the width of each text, so
that it stays in its box. A picture in another font is drawn within `measured_in`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from vggscope.record import record

LIKE_HELVETICA = ("Helvetica", "Arial", "Liberation Sans", "Nimbus Sans")
"""The families that share Helvetica's widths."""

FAMILIES = (*LIKE_HELVETICA, "DejaVu Sans", "sans-serif")

ASCENT = 0.72
"""The height of capitals and digits above the baseline, as a share of the type size."""

DESCENT = 0.21
"""The depth of g and y below the baseline, as a share of the type size."""

SHORTEST_LINE = 3
"""A last line of at most this many letters takes over the word before it."""

_REGULAR = """278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556
    278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 611 722 667
    944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 556 556 333 500
    278 556 500 722 500 500 500 334 260 334 584"""
_BOLD = """278 333 474 556 556 889 722 238 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556
    333 333 584 584 584 611 975 722 722 722 722 667 611 778 722 278 556 722 611 833 722 778 667 778 722 667 611 722 667
    944 667 667 611 333 278 333 584 556 333 556 611 556 611 556 333 611 611 278 278 556 278 889 611 611 611 611 389 556
    333 611 556 778 556 556 500 389 280 389 584"""
_BEYOND_ASCII = {"×": 584, "–": 556, "·": 278, "−": 584, "…": 1000, "→": 1000}


_UNSHOWN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Unicode categories of characters without a glyph, or that change the direction of text."""


class Widths(dict[str, float]):
    """The width of each character in thousandths of the type size; one that is not listed is measured and added."""

    def __missing__(self, char: str) -> float:
        self[char] = width = self.measure(char)
        return width

    def measure(self, char: str) -> float:
        """An estimate: an em for wide characters of Chinese, Japanese and Korean, 0 for marks on other characters."""
        if unicodedata.combining(char):
            return 0
        return 1000 if unicodedata.east_asian_width(char) in "WF" else 700


def _table(widths: str) -> Widths:
    return Widths({chr(code): int(width) for code, width in enumerate(widths.split(), 32)} | _BEYOND_ASCII)


@record
class Font:
    """The font of a picture: the widths of its characters, and the families that a viewer is asked for, in order.

    `name` is empty for Helvetica's metrics, else the family of a font on this machine.
    """

    families: tuple[str, ...]
    regular: Widths
    bold: Widths
    name: str = ""


HELVETICA = Font(FAMILIES, _table(_REGULAR), _table(_BOLD))

_font: ContextVar[Font] = ContextVar("font", default=HELVETICA)


def current_font() -> Font:
    """The font in which texts are measured now."""
    return _font.get()


@contextmanager
def measured_in(font: Font) -> Iterator[None]:
    """Measure texts in this font meanwhile."""
    token = _font.set(font)
    try:
        yield
    finally:
        _font.reset(token)


_ROUNDED = 0.005
"""The tolerance for sums of widths that were rounded to hundredths."""


def text_width(text: str, size: float, bold: bool = False) -> float:
    """The width of a text in points, for a type size in points.

    >>> text_width("224", 10)
    16.68
    """
    font = _font.get()
    widths = font.bold if bold else font.regular
    return round(sum(widths[char] for char in text) * size / 1000, 2)


def fitted(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text; if it is wider than `width` points, an ellipsis replaces its middle.

    >>> fitted("features.denseblock1.denselayer1", 8, 60)
    'feature…elayer1'
    """
    if text_width(text, size, bold) <= width + _ROUNDED:
        return text

    def shortened(letters: int) -> str:
        return text[: (letters + 1) // 2] + "…" + text[len(text) - letters // 2 :]

    fits, too_many = 1, len(text)
    while too_many - fits > 1:
        letters = (fits + too_many) // 2
        if text_width(shortened(letters), size, bold) <= width:
            fits = letters
        else:
            too_many = letters
    return shortened(fits) if fits > 1 else "…"


def fitted_list(items: Sequence[str], size: float, width: float, last: str = "") -> str:
    """The items, and `last` after them, in a line; if it is wider than `width` points, an ellipsis replaces the end of
    the items.

    >>> fitted_list(["3×3", "64", "BN", "ReLU"], 8, 60), fitted_list(["3×3", "64", "BN", "ReLU"], 8, 90, "from conv1")
    ('3×3, 64, BN, …', '3×3, 64, …, from conv1')
    """
    kept, text = list(items), ", ".join(filter(None, (*items, last)))
    while text_width(text, size) > width and len(kept) > 1:
        kept.pop()
        text = ", ".join(filter(None, (*kept, "…", last)))
    return fitted(text, size, width)


def wrapped(text: str, size: float, width: float) -> list[str]:
    """The text in lines of at most `width` points. Words that are wider are broken, and no short word is left alone on
    the last line.

    >>> wrapped("padding 0, the reference has 1", 8, 60)
    ['padding 0, the', 'reference has 1']
    >>> wrapped("4.00 MiB less to train at batch 1", 8, 112)
    ['4.00 MiB less to train at', 'batch 1']
    """
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if text_width(longer, size) <= width:
            line = longer
            continue
        lines += [line] if line else []
        *whole, line = _pieces(word, size, width)
        lines += whole
    before, blank, last = lines[-1].rpartition(" ") if lines else ("", "", "")
    if blank and len(line) <= SHORTEST_LINE and text_width(f"{last} {line}", size) <= width:
        return [*lines[:-1], before, f"{last} {line}"]
    return [*lines, line]


def _pieces(word: str, size: float, width: float) -> list[str]:
    """A word in pieces of at most this width, each of at least one letter."""
    pieces = [""]
    for char in word:
        if pieces[-1] and text_width(pieces[-1] + char, size) > width:
            pieces.append("")
        pieces[-1] += char
    return pieces


def plain(text: str) -> str:
    r"""The text with every character replaced that cannot be shown: control characters, surrogates, and marks that
    change the direction of text.

    >>> plain("a\x1b[31m\u202eb")
    'a�[31m�b'
    """
    return "".join("\ufffd" if unicodedata.category(char) in _UNSHOWN else char for char in text)
