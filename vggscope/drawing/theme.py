"""Colours and type sizes. Every text has a contrast of at least 4.5:1 to its background (WCAG 2.2, 1.4.3).

The hues are Okabe and Ito's, which people with any common kind of colour blindness can distinguish. Words name every
kind of layer too, and the paper theme prints in grey.
"""

from __future__ import annotations

from vggscope.errors import unknown
from vggscope.record import record

TITLE, HEADING, BODY, SMALL = 12.0, 9.5, 8.5, 8.0
"""The four type sizes, in points."""

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

    def ink_on(self, fill: str) -> str:
        """The theme's text colour or, if that is not readable on this fill, black or white."""
        if contrast(self.ink, fill) >= READABLE:
            return self.ink
        return max(("#000000", "#ffffff"), key=lambda color: contrast(color, fill))


def _by_kind(rest: str, **colors: str) -> dict[str, str]:
    """A colour for each of KINDS: `rest` for those that are not named."""
    return {kind: colors.get(kind, rest) for kind in KINDS}


LIGHT = Theme(
    name="light",
    page="#ffffff",
    card="#ffffff",
    border="#b6c0cc",
    ink="#1b2430",
    muted="#52606d",
    arrow="#6b7785",
    bar="#0072b2",
    track="#e6eaef",
    fills=_by_kind("#eef1f4", conv="#dcebf6", pool="#fde6d2", norm="#f4e1ee", fc="#d6f0e6"),
    accents=_by_kind("#6b7785", conv="#0072b2", pool="#d55e00", norm="#b0578d", fc="#009e73"),
    signs={"+": "#00714f", "-": "#b23c00", "~": "#6a3fa0", "!": "#a8121f", "?": "#52606d", "=": "#52606d"},
    outline="",
    heat=("#f2f6fa", "#0a5c93"),
)

DARK = Theme(
    name="dark",
    page="#12171e",
    card="#1a212b",
    border="#465364",
    ink="#eef2f6",
    muted="#aeb9c5",
    arrow="#8896a5",
    bar="#56b4e9",
    track="#303a47",
    fills=_by_kind("#2a3440", conv="#173f5c", pool="#5a3413", norm="#52304a", fc="#0f4a3a"),
    accents=_by_kind("#8896a5", conv="#56b4e9", pool="#e69f00", norm="#cc79a7", fc="#2bc297"),
    signs={"+": "#3ad6a4", "-": "#ff9a5c", "~": "#c8a6ff", "!": "#ff7b85", "?": "#aeb9c5", "=": "#aeb9c5"},
    outline="",
    heat=("#202a35", "#56b4e9"),
)

PAPER = Theme(
    name="paper",
    page="#ffffff",
    card="#ffffff",
    border="#000000",
    ink="#000000",
    muted="#3d3d3d",
    arrow="#000000",
    bar="#000000",
    track="#e2e2e2",
    fills=_by_kind("#ffffff", conv="#ececec", pool="#c9c9c9", fc="#dadada"),
    accents=dict.fromkeys(KINDS, "#000000"),
    signs=dict.fromkeys(SIGNS, "#000000"),
    outline="#000000",
    heat=("#ffffff", "#4a4a4a"),
)

THEMES = {theme.name: theme for theme in (LIGHT, DARK, PAPER)}


def theme_named(name: str) -> Theme:
    """The theme of this name. Raises OptionError for an unknown name."""
    if name not in THEMES:
        raise unknown("theme", name, THEMES)
    return THEMES[name]


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
