r"""A Picture as TikZ: a standalone document that pdflatex compiles, made to be edited.

Colours have the names of their roles, lines and texts have styles, and each part ends with a node of its size, to which
an author's own arrows may lead. All are defined within the picture, where `\input` finds them. The helvet package sets
Helvetica, whose metrics the layout of the picture is based on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vggscope.drawing.fonts import Font, plain
from vggscope.drawing.picture import Line, Part, Picture, Point, Polygon, Rectangle, Shape, Text, bounds, is_arrow
from vggscope.drawing.theme import BODY, HEADING, SMALL, TITLE, Theme
from vggscope.drawing.writers import number
from vggscope.drawing.writers.svg import identifier
from vggscope.drawing.writers.tex_names import Names

_PREAMBLE = r"""\documentclass[border=0pt]{standalone}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{helvet}
\renewcommand{\familydefault}{\sfdefault}
\usepackage{tikz}
"""

_FONT_PREAMBLE = r"""\documentclass[border=0pt]{standalone}
% The font needs lualatex or xelatex; pdflatex sets Helvetica.
\usepackage{iftex}
\iftutex
  \usepackage{fontspec}
  \IfFontExistsTF{NAME}{\setmainfont{NAME}}{}
\else
  \usepackage[T1]{fontenc}
  \usepackage[utf8]{inputenc}
  \usepackage{textcomp}
  \usepackage{helvet}
  \renewcommand{\familydefault}{\sfdefault}
\fi
\usepackage{tikz}
"""

_SIZES = {TITLE: "title", HEADING: "heading", BODY: "body", SMALL: "small"}
"""The names of the styles of text, by type size."""

_LETTERS = "abcdefghij"
"""What stands for the digits of a number in a name of TeX's."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "{-}",
    "×": r"\texttimes{}",
    "–": r"\textendash{}",
    "…": r"\ldots{}",
    "·": r"\textperiodcentered{}",
    "→": r"$\rightarrow$",
    "−": "$-$",
}


def write(picture: Picture, theme: Theme) -> str:
    """The LaTeX source. Lengths are in big points (bp, 1/72 inch)."""
    width, height = number(picture.width), number(picture.height)
    writer = _Writer(picture, theme)
    body = list(writer.body(picture))
    lines = [
        _preamble(picture.font) + f"% {_comment(picture.title)}",
        r"\begin{document}%",
        r"\begin{tikzpicture}[x=1bp, y=-1bp, line cap=butt, every node/.style={inner sep=0pt, outer sep=0pt}]",
        f"% The colours of the theme {theme.name}: a change here changes all that has the colour.",
        *writer.names.definitions(),
        "% Styles",
        *writer.styles(),
        rf"\useasboundingbox (0,0) rectangle ({width},{height});",
        rf"\fill[{writer.names.page}] (0,0) rectangle ({width},{height}); % without this line the page shows through",
        *body,
        r"\end{tikzpicture}%",
        r"\end{document}",
        "",
    ]
    return "\n".join(lines)


def _preamble(font: Font) -> str:
    if not font.name:
        return _PREAMBLE
    return _FONT_PREAMBLE.replace("NAME", "".join(char for char in font.name if char not in "\\\\{}%#~^$&_"))


class _Writer:
    """The lines of a picture, and the names and styles that they use."""

    def __init__(self, picture: Picture, theme: Theme) -> None:
        self.names = Names(theme, picture.background)
        self._scale = _scale_of(picture)
        self._fonts: dict[str, str] = {}
        self._arrow = 0.0
        self._faces = False
        self._ids: dict[str, int] = {}

    def body(self, picture: Picture) -> Iterator[str]:
        """The lines that draw the picture, from the bottom up."""
        yield "% Around the drawing"
        yield from self._shapes(picture.frame, "", is_page=True)
        if picture.links:
            yield "% Arrows"
        for link in picture.links:
            yield from self._shapes(link.shapes, "", is_page=True)
        yield from self._shapes(picture.labels, "", is_page=True)
        for part in picture.parts:
            yield from self._part(part)

    def styles(self) -> Iterator[str]:
        """The definitions of the styles that `body` uses."""
        styles = [f"{name}/.style={{font={font}}}" for name, font in self._fonts.items()]
        styles += [f"{name}/.style={{anchor=base{side}}}" for name, side in _ANCHORS.values()]
        if self._arrow:
            styles.append(f"arrow/.style={{draw={self.names.arrow}, line width={number(self._arrow)}bp, -latex}}")
        if self._faces:
            styles += self.names.faces()
        yield r"\tikzset{"
        yield from (f"  {style}," for style in styles)
        yield "}"

    def _part(self, part: Part) -> Iterator[str]:
        if part.shapes:
            yield f"% {_comment(part.name)}"
        yield from self._shapes(part.shapes, part.kind)
        for inner in part.parts:
            yield from self._part(inner)
        drawn = [bounds(shape) for shape in part.shapes if not isinstance(shape, Text)]
        if not drawn:
            return
        left, top = min(box[0] for box in drawn), min(box[1] for box in drawn)
        right, bottom = max(box[2] for box in drawn), max(box[3] for box in drawn)
        size = f"minimum width={number(right - left)}bp, minimum height={number(bottom - top)}bp"
        yield rf"\node[{size}] ({self._id(part.name)}) at {_point(((left + right) / 2, (top + bottom) / 2))} {{}};"

    def _id(self, name: str) -> str:
        base = identifier(name)
        self._ids[base] = self._ids.get(base, 0) + 1
        return base if self._ids[base] == 1 else f"{base}--{self._ids[base]}"

    def _shapes(self, shapes: Sequence[Shape], kind: str, is_page: bool = False) -> Iterator[str]:
        """Lines for shapes of a part of this kind, or of the page around the parts."""
        place = 0
        while place < len(shapes):
            shape, after = shapes[place], shapes[place + 1] if place + 1 < len(shapes) else None
            if isinstance(shape, Line) and isinstance(after, Polygon) and is_arrow(shape, after):
                yield self._arrow_line(shape, after)
                place += 2
                continue
            yield self._text(shape) if isinstance(shape, Text) else self._path(shape, kind, is_page)
            place += 1

    def _arrow_line(self, line: Line, tip: Polygon) -> str:
        self._arrow = self._arrow or line.line_width
        color = self.names.line(line.stroke, "")
        own = "" if color == self.names.arrow else f", draw={color}"
        own += ", dashed" if line.dashed else ""
        # A straight last stretch goes on to the tip; a curve is continued by a line of the tip's length.
        points = line.points if line.curved else line.points[:-1]
        return rf"\path[arrow{own}] {_line(replace(line, points=points))} -- {_point(tip.points[0])};"

    def _path(self, shape: Rectangle | Polygon | Line, kind: str, is_page: bool) -> str:
        if isinstance(shape, Rectangle):
            rounded = [f"rounded corners={number(shape.radius)}bp"] if shape.radius else []
            corners = (_point((shape.x, shape.y)), _point((shape.x + shape.width, shape.y + shape.height)))
            return rf"\path[{self._style(shape, kind, is_page, *rounded)}] {corners[0]} rectangle {corners[1]};"
        if isinstance(shape, Polygon):
            outline = f"{' -- '.join(map(_point, shape.points))} -- cycle;"
            face = self.names.face(shape.fill, shape.stroke, kind)
            if face:
                self._faces = True
                return rf"\path[{face}] {outline}"
            return rf"\path[{self._style(shape, kind, is_page)}] {outline}"
        return rf"\path[{self._style(shape, kind, is_page)}] {_line(shape)};"

    def _style(self, shape: Rectangle | Polygon | Line, kind: str, is_page: bool, *more: str) -> str:
        fill = "" if isinstance(shape, Line) else shape.fill
        area = self.names.fill(fill, shape.stroke, kind, is_page) if fill else ""
        painted = [f"fill={area}"] if area else []
        drawn = []
        if shape.stroke:
            drawn = [f"draw={self.names.line(shape.stroke, area or kind)}", f"line width={number(shape.line_width)}bp"]
        dashes = ["dash pattern=on 3bp off 2bp"] if getattr(shape, "dashed", False) else []
        return ", ".join([*painted, *drawn, *dashes, *more])

    def _text(self, text: Text) -> str:
        turn = ", rotate=90" if text.turned else ""
        style = f"{self._font(text)}, {_ANCHORS[text.anchor][0]}{turn}, text={self.names.text(text.color)}"
        return rf"\node[{style}] at {_point((text.x, text.y))} {{{escaped(text.text)}}};"

    def _font(self, text: Text) -> str:
        """The name of the style of a text's size and weight."""
        size = next((name for size, name in _SIZES.items() if abs(size * self._scale - text.size) < 0.005), "")
        shown = number(text.size)
        size = size or "size " + "".join(_LETTERS[int(digit)] if digit.isdigit() else " " for digit in shown)
        name = f"{size} bold" if text.bold and size not in ("title", "heading") else size
        weight = r"\bfseries" if text.bold else ""
        self._fonts[name] = rf"\fontsize{{{shown}bp}}{{{shown}bp}}\selectfont{weight}"
        return name


_ANCHORS = {"start": ("from here", " west"), "middle": ("centred", ""), "end": ("up to here", " east")}
"""For each anchor of a text the name of its style, and the side of TikZ's base."""


def _scale_of(picture: Picture) -> float:
    """How much larger the texts of a picture are than the four type sizes; 1 if they are no multiples of these."""
    sizes = {shape.size for shape in picture.shapes() if isinstance(shape, Text)}
    for usual in _SIZES:
        scale = max(sizes, default=usual) / usual
        if all(any(abs(size * scale - own) < 0.005 for size in _SIZES) for own in sizes):
            return scale
    return 1.0


def _line(line: Line) -> str:
    points = list(map(_point, line.points))
    if not line.curved:
        return " -- ".join(points)
    curves = (f".. controls {points[i]} and {points[i + 1]} .. {points[i + 2]}" for i in range(1, len(points) - 2, 3))
    return " ".join([points[0], *curves])


def escaped(text: str) -> str:
    r"""A text with TeX's special characters escaped. Characters that the font lacks become question marks.

    >>> print(escaped("conv1_1 3×3 \\input{x}"))
    conv1\_1 3\texttimes{}3 \textbackslash{}input\{x\}
    """
    return "".join(map(_sign, plain(text)))


def _sign(char: str) -> str:
    known = char.isascii() or "À" <= char <= "ÿ"
    return _SPECIAL.get(char) or (char if known else "?")


def _comment(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _point(point: Point) -> str:
    return f"({number(point[0])},{number(point[1])})"
