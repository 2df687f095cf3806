"""The themes. Words name every kind of layer too, so that no picture depends on its colours.

The hues of `light` and `dark` are Okabe and Ito's, which people with any common kind of colour blindness can
distinguish. `paper` prints in grey. `warm` has yellow convolutions, red pools and violet layers, as many papers do.
`slides` is strong enough for a projector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from vggscope.drawing.theme import KINDS, SIGNS, Theme, by_kind
from vggscope.errors import unknown

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
    fills=by_kind("#eef1f4", conv="#dcebf6", pool="#fde6d2", norm="#f4e1ee", fc="#d6f0e6"),
    accents=by_kind("#6b7785", conv="#0072b2", pool="#d55e00", norm="#b0578d", fc="#009e73"),
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
    fills=by_kind("#2a3440", conv="#173f5c", pool="#5a3413", norm="#52304a", fc="#0f4a3a"),
    accents=by_kind("#8896a5", conv="#56b4e9", pool="#e69f00", norm="#cc79a7", fc="#2bc297"),
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
    fills=by_kind("#ffffff", conv="#ececec", pool="#c9c9c9", fc="#dadada"),
    accents=dict.fromkeys(KINDS, "#000000"),
    signs=dict.fromkeys(SIGNS, "#000000"),
    outline="#000000",
    heat=("#ffffff", "#4a4a4a"),
)

WARM = replace(
    LIGHT,
    name="warm",
    border="#cbbfb2",
    ink="#2a211c",
    muted="#5f5148",
    arrow="#7d6e62",
    bar="#c77700",
    track="#efe6da",
    fills=by_kind("#f2ede7", conv="#ffe6b3", pool="#f6c1b1", norm="#d9ecd2", fc="#dcc9ee"),
    accents=by_kind("#8a7766", conv="#c77700", pool="#b5311a", norm="#3e8a3a", fc="#6d3fa0"),
    heat=("#fff6e8", "#a34700"),
)

PASTEL = replace(
    LIGHT,
    name="pastel",
    border="#cfcbdc",
    ink="#2d2a3a",
    muted="#5b5670",
    arrow="#847d9c",
    bar="#5b8bd0",
    track="#eceaf2",
    fills=by_kind("#f4f2f7", conv="#d8e8ff", pool="#ffdfe4", norm="#f3e3ff", fc="#dff5e1"),
    accents=by_kind("#9a94ab", conv="#5b8bd0", pool="#d97a8c", norm="#a77bcf", fc="#5fae74"),
    heat=("#f6f4fb", "#4f6fb8"),
)

SLIDES = replace(
    LIGHT,
    name="slides",
    border="#5a6675",
    ink="#000000",
    muted="#333333",
    arrow="#1f2933",
    bar="#004c80",
    track="#d3dae2",
    fills=by_kind("#dfe4ea", conv="#9fd0f5", pool="#ffc48a", norm="#efb6dc", fc="#8fe3bf"),
    accents=by_kind("#3d4854", conv="#004c80", pool="#a34100", norm="#8a2f6b", fc="#00614a"),
    heat=("#e8f1f9", "#003a66"),
)

BLUEPRINT = replace(
    DARK,
    name="blueprint",
    page="#0b2a4a",
    card="#0e3358",
    border="#5f8fbd",
    ink="#eaf4ff",
    muted="#b9d2ea",
    arrow="#9cc3e6",
    bar="#8cc4ff",
    track="#1d4a78",
    fills=by_kind("#143c63", conv="#16477a", pool="#1f5f6e", norm="#3b3f84", fc="#2b4f8f"),
    accents=by_kind("#8fb3d6", conv="#8cc4ff", pool="#7fe0e6", norm="#c9b8ff", fc="#b3c6ff"),
    heat=("#123a63", "#8cc4ff"),
)

SEPIA = replace(
    LIGHT,
    name="sepia",
    page="#fbf5e6",
    card="#fffaf0",
    border="#c9b896",
    ink="#33271a",
    muted="#5f4f3d",
    arrow="#7d6c55",
    bar="#8a6118",
    track="#e9dfc6",
    fills=by_kind("#f1e8d3", conv="#ecd9b4", pool="#e8c3a6", norm="#e6cfcf", fc="#d5d9b0"),
    accents=by_kind("#7d6c55", conv="#8a6118", pool="#8f3f1a", norm="#8a4a4a", fc="#5d6a1e"),
    heat=("#f6ecd5", "#7a3f12"),
)

THEMES: Mapping[str, Theme] = MappingProxyType(
    {theme.name: theme for theme in (LIGHT, DARK, PAPER, WARM, PASTEL, SLIDES, BLUEPRINT, SEPIA)}
)
"""What `--theme` takes."""


def theme_named(name: str) -> Theme:
    """The theme of this name. Raises OptionError for an unknown name."""
    if name not in THEMES:
        raise unknown("theme", name, THEMES)
    return THEMES[name]
