"""What all plots share: a reproducible matplotlib figure as bytes, and its axes, ticks, names and colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vggscope.drawing.fonts import fitted, plain
from vggscope.drawing.theme import BODY, SMALL, TITLE, Theme
from vggscope.errors import MissingTool, OptionError, visible
from vggscope.record import record
from vggscope.result import Drawn
from vggscope.suppress import suppress_output
from vggscope.units import short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("svg", "png", "pdf")
"""The formats of a plot's file."""

LONGEST_NAME = 400.0
"""The largest width of a name, in points. A longer name loses its middle."""

FONTS = ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"]
"""The first comes with matplotlib; the viewer of an SVG may have one of the others."""

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The palette of Okabe and Ito, distinct to people with any common kind of colour blindness."""

DASHES = ("-", "--", "-.", ":")
"""The line styles that replace the colours in print."""

MOST_TICKS = 40
"""How many names are shown along an axis."""


@record
class Plot(Drawn):
    """A plot: `paint` draws it on a figure of `size`, width and height in inches."""

    paint: Callable[[Figure, Theme], None]
    title: str
    size: tuple[float, float]
    theme: Theme

    forms = FORMS

    def __repr__(self) -> str:
        return f"<Plot of {visible(self.title)}>"

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """The bytes of a file in one of FORMS; `dpi` is the resolution of a PNG. The same plot gives the same bytes.

        Raises OptionError for another form, and MissingTool if matplotlib is not installed.
        """
        if form not in FORMS:
            raise OptionError(f"no plot is written as {form!r}", f"a plot is {', '.join(FORMS)}")
        try:
            import matplotlib as mpl
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingTool("matplotlib, which draws plots, is not installed", "pip install matplotlib") from None
        with suppress_output(), mpl.rc_context(), io.BytesIO() as file:
            mpl.rcdefaults()
            mpl.rcParams.update({"svg.hashsalt": "vggscope", "svg.fonttype": "none", "pdf.fonttype": 42})
            mpl.rcParams.update({"font.family": FONTS, "hatch.linewidth": 0.5})
            figure = Figure(figsize=self.size, facecolor=self.theme.page, layout="constrained")
            self.paint(figure, self.theme)
            stamp = {"svg": "Date", "png": "Software", "pdf": "CreationDate"}[form]
            metadata: dict[str, Any] = {"Title": plain(self.title), stamp: None}
            # Axes of a fixed aspect need more or less room than the figure has: crop the page to the drawing.
            cut: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.15}
            figure.savefig(file, format=form, dpi=dpi, metadata=metadata, facecolor=figure.get_facecolor(), **cut)
            return file.getvalue()


def plain_axes(axes: Axes, theme: Theme, title: str = "", pad: float | None = None) -> None:
    """Give the axes the theme's colours, spines on the left and at the bottom only, and a title `pad` points above."""
    if title:
        axes.set_title(title, color=theme.ink, fontsize=TITLE, loc="left", pad=pad)
    axes.set_facecolor(theme.card)
    axes.tick_params(colors=theme.muted, labelsize=SMALL)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.border)


def annotate(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], color: str, **options: Any
) -> None:
    """Write a text at `offset` points from a position; `options` are matplotlib's."""
    axes.annotate(text, at, xytext=offset, textcoords="offset points", color=color, **{"fontsize": BODY, **options})


def name_ticks(axes: Axes, names: Sequence[str], first: float) -> None:
    """Write the names along the x axis, from position `first` on. Leaves out names that are empty or too many."""
    step = -(-len(names) // MOST_TICKS)
    shown = {first + place: literal(name) for place, name in enumerate(names) if name and place % step == 0}
    axes.set_xticks(list(shown), list(shown.values()), rotation=90)


def literal(text: str, room: float = LONGEST_NAME) -> str:
    """A name as matplotlib can draw it, at most `room` points wide: without surrogates, and with escaped dollars,
    which would start a formula.
    """
    return fitted(plain(text), SMALL, room).replace("$", r"\$")


def round_count(value: float) -> str:
    """A round count in short.

    >>> round_count(5e6), round_count(250), round_count(1.5e9)
    ('5 M', '250', '1.5 G')
    """
    number, _, unit = short_count(round(value)).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}".strip()
