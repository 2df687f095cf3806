"""What a theme is, contrast, and type sizes. Every text has a contrast of at least 4.5:1 to its background (WCAG 2.2,
1.4.3).
"""

from __future__ import annotations

from vggscope.record import record

TITLE, HEADING, BODY, SMALL = 12.0, 9.5, 8.5, 8.0
"""The four type sizes, in points."""

LIT, SHADED = 0.45, 0.28
"""How much of the page a solid's upper face has in its colour, and how much of the outline its side has."""

READABLE = 4.5
"""The lowest contrast of a text."""

KINDS = {
    "input": "input",
    "conv": "convolution",
    "pool": "pooling",
    "norm": "normalization",
    "activation": "activation",
    "fc": "fully connected",
    "other": "other",
}
"""The kinds of layer that have a colour, each with its name in a legend."""

SIGNS = ("+", "-", "~", "!", "?", "=")
"""The signs of a diff that have a colour."""


@record
class Theme:
    """Colours as #rrggbb. `fills` and `accents` are by kind of layer (KINDS), `signs` by sign of a diff (SIGNS).

    `outline` is the colour around a fill, or empty; `heat` is a scale's first and last colour.
    """

    name: str
    page: str
    card: str
    border: str
    ink: str
    muted: str
    arrow: str
    bar: str
    track: str
    fills: dict[str, str]
    accents: dict[str, str]
    signs: dict[str, str]
    outline: str
    heat: tuple[str, str]

    def heat_at(self, share: float) -> str:
        """The colour on the scale `heat` for a share from 0 to 1."""
        return mixed(*self.heat, share)

    def lit(self, fill: str) -> str:
        """The colour of a solid's upper face, whose front has this fill."""
        return mixed(fill, self.page, LIT)

    def shaded(self, kind: str) -> str:
        """The colour of the side of a solid of this kind."""
        return mixed(self.fills[kind], self.accents[kind], SHADED)

    def ink_on(self, fill: str) -> str:
        """The theme's text colour or, if that is not readable on this fill, black or white."""
        if contrast(self.ink, fill) >= READABLE:
            return self.ink
        return max(("#000000", "#ffffff"), key=lambda color: contrast(color, fill))


def by_kind(rest: str, **colors: str) -> dict[str, str]:
    """A colour for each of KINDS: `rest` for those that are not named."""
    return {kind: colors.get(kind, rest) for kind in KINDS}


def mixed(first: str, second: str, share: float) -> str:
    """A mix of two colours, with `share` of the second.

    >>> mixed("#000000", "#ffffff", 0.5)
    '#808080'
    """
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_rgb(first), _rgb(second)))


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2, relative luminance).

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    low, high = sorted((_luminance(first), _luminance(second)))
    return round((high + 0.05) / (low + 0.05), 2)


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
