"""A Picture as PNG or PDF, drawn by matplotlib with its bundled font, so that it is the same on every machine; or with
the installed font that the picture names.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from vggscope.drawing.fonts import plain
from vggscope.drawing.installed_fonts import FALLBACK
from vggscope.drawing.picture import Line, Picture, Polygon, Rectangle, Shape, Text
from vggscope.errors import MissingTool
from vggscope.suppress import suppress_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEJAVU = 0.87
"""The size of DejaVu Sans, as a share of Helvetica's, at which both look equally large and are about equally wide."""

TOLERANCE = 1.02
"""How much wider than its place a text may be before it is drawn smaller."""


def write(picture: Picture, form: str, dpi: int = 144) -> bytes:
    """The picture's bytes; `form` is png or pdf, `dpi` a PNG's dots per inch.

    Raises MissingTool if matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingTool("matplotlib, which draws PNG and PDF, is not installed", "pip install matplotlib") from None

    with suppress_output(), matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["pdf.fonttype"] = 42
        # Hinted letters are whole pixels wide, which makes long lines too wide for their boxes.
        matplotlib.rcParams["text.hinting"] = "none"
        figure = Figure(figsize=(picture.width / 72, picture.height / 72), dpi=72, facecolor=picture.background)
        for order, shape in enumerate(picture.shapes()):
            _add(figure, shape, picture, order)
        return _saved(figure, picture, form, dpi)


def _saved(figure: Figure, picture: Picture, form: str, dpi: int) -> bytes:
    metadata: dict[str, Any] = {"Title": plain(picture.title), "Software" if form == "png" else "CreationDate": None}
    with io.BytesIO() as file:
        figure.savefig(file, format=form, dpi=dpi, metadata=metadata)
        return file.getvalue()


def _add(figure: Figure, shape: Shape, picture: Picture, order: int) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.transforms import Affine2D

    if isinstance(shape, Text):
        _add_text(figure, shape, picture, order)
        return
    place = Affine2D().scale(1, -1).translate(0, picture.height).scale(1 / 72) + figure.dpi_scale_trans
    path = _path(shape)
    fill = "" if isinstance(shape, Line) else shape.fill
    dashes = (0, (3 / shape.line_width, 2 / shape.line_width)) if getattr(shape, "dashed", False) else "solid"
    patch = PathPatch(
        path,
        facecolor=fill or "none",
        edgecolor=shape.stroke or "none",
        linewidth=shape.line_width if shape.stroke else 0,
        linestyle=dashes,
        zorder=order,
        transform=place,
        capstyle="butt",
        joinstyle="miter",
    )
    figure.add_artist(patch)


def _path(shape: Rectangle | Polygon | Line) -> Any:
    from matplotlib.path import Path

    if isinstance(shape, Rectangle):
        return _box(shape)
    if isinstance(shape, Polygon):
        return Path([*shape.points, shape.points[0]], closed=True)
    if shape.curved:
        return Path(shape.points, [Path.MOVETO] + [Path.CURVE4] * (len(shape.points) - 1))
    return Path(shape.points)


def _box(box: Rectangle) -> Any:
    from matplotlib.path import Path

    left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
    r = box.radius
    if not r:
        return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)
    points = [(left + r, top)]
    codes = [Path.MOVETO]
    for before, corner, after in (
        ((right - r, top), (right, top), (right, top + r)),
        ((right, bottom - r), (right, bottom), (right - r, bottom)),
        ((left + r, bottom), (left, bottom), (left, bottom - r)),
        ((left, top + r), (left, top), (left + r, top)),
    ):
        points += [before, corner, after]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*points, points[0]], [*codes, Path.CLOSEPOLY])


def _add_text(figure: Figure, text: Text, picture: Picture, order: int) -> None:
    figure.text(
        text.x / picture.width,
        1 - text.y / picture.height,
        plain(text.text).replace("$", r"\$"),
        fontsize=text.size if picture.font.name else _size(text),
        fontfamily=[picture.font.name, FALLBACK] if picture.font.name else FALLBACK,
        fontweight="bold" if text.bold else "normal",
        color=text.color,
        horizontalalignment={"start": "left", "middle": "center", "end": "right"}[text.anchor],
        verticalalignment="baseline",
        rotation=90 if text.turned else 0,
        rotation_mode="anchor",
        zorder=order,
    )


def _size(text: Text) -> float:
    """The size at which the text in DejaVu Sans looks as large as intended and is at most TOLERANCE times as wide."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if text.bold else ''}.ttf")
    font.set_size(100, 72)
    font.set_text(plain(text.text), 0.0, flags=LoadFlags.NO_HINTING)
    drawn = font.get_width_height()[0] / 64 / 100
    return min(text.size * DEJAVU, text.width * TOLERANCE / drawn) if drawn else text.size * DEJAVU
