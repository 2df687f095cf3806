"""The names of a theme's colours in TikZ: the role of a colour where it is used, as `conv`, `convLine` or `muted`.

Two roles may have one colour, as the page and a card; the place decides then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vggscope.drawing.theme import LIT, SHADED, Theme

_SIGNS = {"+": "added", "-": "missing", "~": "changed", "!": "failing", "?": "unknown", "=": "equal"}
"""The names of the colours of a diff's signs."""

_PLAIN = ("ink", "muted", "page", "card", "border", "arrow", "bar", "track")
"""The attributes of a theme that are colours, and their names."""


class Names:
    """Names colours by their role, and remembers which names were given."""

    def __init__(self, theme: Theme, background: str) -> None:
        self._theme = theme
        self._used: dict[str, str] = {}
        self._others: dict[str, str] = {}
        self._plain: Mapping[str, str] = {name: getattr(theme, name) for name in _PLAIN}
        self._fills: Mapping[str, str] = theme.fills
        self._lines: Mapping[str, str] = {f"{kind}Line": color for kind, color in theme.accents.items()}
        self._signs: Mapping[str, str] = {name: theme.signs[sign] for sign, name in _SIGNS.items()}
        self._before = self._last = ""
        """The name of the area before, and of the last area in the colour of a kind."""
        self.page = self._name(background, "page")

    @property
    def arrow(self) -> str:
        """The name of the colour of arrows."""
        return self._name(self._theme.arrow, "arrow")

    def text(self, color: str) -> str:
        """The name of the colour of a text."""
        return self._name(color, "ink", "muted", *self._signs, *self._lines)

    def fill(self, color: str, stroke: str, kind: str, is_page: bool) -> str:
        """The name of the colour of an area, in a part of this kind or on the page around the parts."""
        ground = ("page", "card") if is_page else ("card", "page")
        if color == self._theme.bar and self._before == "track":
            name = self._name(color, "bar")
        elif stroke == self._theme.border:
            name = self._name(color, *ground, kind, *self._fills)
        elif self._last and color == self._lines[f"{self._last}Line"] and color != self._theme.bar:
            name = self._name(color, f"{self._last}Line")  # the edge of the area before
        else:
            name = self._name(color, kind, f"{kind}Line", *self._fills, "bar", "track", "arrow", *self._lines, *ground)
        self._before = name
        self._last = name if name in self._fills else self._last
        return name

    def line(self, color: str, kind: str) -> str:
        """The name of the colour of a line, in a part of this kind."""
        return self._name(color, f"{kind}Line", "arrow", "border", "muted", "track", "ink", *self._signs, *self._lines)

    def face(self, fill: str, stroke: str, kind: str) -> str:
        """The style of a face of a solid of this kind; empty if it is none."""
        theme = self._theme
        if kind not in theme.fills or stroke != theme.accents[kind]:
            return ""
        shades = {theme.fills[kind]: "front", theme.lit(theme.fills[kind]): "top", theme.shaded(kind): "side"}
        if fill not in shades:
            return ""
        for name, color in ((kind, theme.fills[kind]), (f"{kind}Line", stroke), ("page", theme.page)):
            self._used[name] = color
        return f"{shades[fill]}={kind}"

    def faces(self) -> Iterator[str]:
        """The styles of the faces of solids: mixtures of a kind's two colours and the page's."""
        for name, mixture in (
            ("front", "#1"),
            ("top", f"#1!{100 - 100 * LIT:g}!page"),
            ("side", f"#1!{100 - 100 * SHADED:g}!#1Line"),
        ):
            yield f"{name}/.style={{fill={mixture}, draw=#1Line, line width=0.5bp}}"

    def definitions(self) -> Iterator[str]:
        """The definitions of all names that were given, those of a theme's colours first."""
        order = [*_PLAIN, *(name for kind in self._fills for name in (kind, f"{kind}Line")), *self._signs]
        given = {name: self._used[name] for name in order if name in self._used}
        others = {name: color for color, name in self._others.items()}
        for name, color in {**given, **others}.items():
            yield rf"\definecolor{{{name}}}{{HTML}}{{{color[1:].upper()}}}"

    def _name(self, color: str, *roles: str) -> str:
        """The first of these roles that has the colour, else any role that has it, else a number."""
        known = {**self._plain, **self._fills, **self._lines, **self._signs}
        for role in (*roles, *known):
            if known.get(role) == color:
                self._used[role] = color
                return role
        return self._others.setdefault(color, f"tint{len(self._others) + 1}")
