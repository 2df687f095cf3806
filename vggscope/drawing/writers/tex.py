"""A Picture as TikZ: a standalone document that pdflatex compiles.

The helvet package sets Helvetica, whose metrics the layout of the picture is based on.
"""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.drawing.fonts import plain
from vggscope.drawing.picture import Line, Picture, Point, Polygon, Rectangle, Shape, Text
from vggscope.drawing.writers import number

_PREAMBLE = r"""\documentclass[border=0pt]{standalone}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{helvet}
\renewcommand{\familydefault}{\sfdefault}
\usepackage{tikz}
"""

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


def write(picture: Picture) -> str:
    """The LaTeX source. Lengths are in big points (bp, 1/72 inch)."""
    width, height = number(picture.width), number(picture.height)
    colors = {color: f"c{i}" for i, color in enumerate(dict.fromkeys(_colors(picture)))}
    lines = [
        _PREAMBLE + f"% {_comment(picture.title)}",
        *(rf"\definecolor{{{name}}}{{HTML}}{{{color[1:].upper()}}}" for color, name in colors.items()),
        r"\begin{document}%",
        r"\begin{tikzpicture}[x=1bp, y=-1bp, line cap=butt, every node/.style={inner sep=0pt, outer sep=0pt}]",
        rf"\useasboundingbox (0,0) rectangle ({width},{height});",
        rf"\fill[{colors[picture.background]}] (0,0) rectangle ({width},{height});",
        *(_shape(shape, colors) for shape in picture.shapes()),
        r"\end{tikzpicture}%",
        r"\end{document}",
        "",
    ]
    return "\n".join(lines)


def _colors(picture: Picture) -> Iterator[str]:
    yield picture.background
    for shape in picture.shapes():
        if isinstance(shape, Text):
            yield shape.color
            continue
        yield from (color for color in (getattr(shape, "fill", ""), shape.stroke) if color)


def _shape(shape: Shape, colors: dict[str, str]) -> str:
    if isinstance(shape, Text):
        return _text(shape, colors)
    if isinstance(shape, Rectangle):
        rounded = [f"rounded corners={number(shape.radius)}bp"] if shape.radius else []
        corners = (_point((shape.x, shape.y)), _point((shape.x + shape.width, shape.y + shape.height)))
        return rf"\path[{_style(shape, colors, *rounded)}] {corners[0]} rectangle {corners[1]};"
    if isinstance(shape, Polygon):
        return rf"\path[{_style(shape, colors)}] {' -- '.join(map(_point, shape.points))} -- cycle;"
    return rf"\path[{_style(shape, colors)}] {_path(shape)};"


def _style(shape: Rectangle | Polygon | Line, colors: dict[str, str], *more: str) -> str:
    fill = getattr(shape, "fill", "")
    painted = [f"fill={colors[fill]}"] if fill else []
    drawn = [f"draw={colors[shape.stroke]}", f"line width={number(shape.line_width)}bp"] if shape.stroke else []
    dashes = ["dash pattern=on 3bp off 2bp"] if getattr(shape, "dashed", False) else []
    return ", ".join([*painted, *drawn, *dashes, *more])


def _path(line: Line) -> str:
    points = list(map(_point, line.points))
    if not line.curved:
        return " -- ".join(points)
    curves = (f".. controls {points[i]} and {points[i + 1]} .. {points[i + 2]}" for i in range(1, len(points) - 2, 3))
    return " ".join([points[0], *curves])


def _text(text: Text, colors: dict[str, str]) -> str:
    anchor = {"start": "base west", "middle": "base", "end": "base east"}[text.anchor]
    turn = ", rotate=90" if text.turned else ""
    size = number(text.size)
    weight = r"\bfseries" if text.bold else ""
    font = rf"\fontsize{{{size}bp}}{{{size}bp}}\selectfont{weight}"
    style = f"anchor={anchor}{turn}, text={colors[text.color]}, font={font}"
    return rf"\node[{style}] at {_point((text.x, text.y))} {{{escaped(text.text)}}};"


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
