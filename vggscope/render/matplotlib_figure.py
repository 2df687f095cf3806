"""What all plots have in common: matplotlib set up alike on every machine, and a figure as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vggscope.drawing.fonts import fitted, plain
from vggscope.drawing.theme import SMALL, Theme
from vggscope.errors import MissingTool, OptionError, visible
from vggscope.record import record
from vggscope.result import Drawn
from vggscope.suppress import suppress_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("svg", "png", "pdf")
"""What a plot can be written as."""

LONGEST_NAME = 400.0
"""Points that a name takes at the most; the middle of a longer one is left out."""

FONTS = ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"]
"""The first is in matplotlib's package; a reader of an SVG may have one of the others."""

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart by people with any of the common kinds of colour blindness."""

DASHES = ("-", "--", "-.", ":")
"""How lines are told apart where there is no colour."""


@record
class Plot(Drawn):
    """What `paint` draws on a figure of `size`, width and height in inches."""

    paint: Callable[[Figure, Theme], None]
    title: str
    size: tuple[float, float]
    theme: Theme

    forms = FORMS

    def __repr__(self) -> str:
        return f"<Plot of {visible(self.title)}>"

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """The contents of a file of one of FORMS; `dpi` is a PNG's dots per inch. The same drawing gives the same
        bytes.

        Raises OptionError for a form that is not there, and MissingTool where matplotlib is not installed.
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
            # Axes of a fixed aspect leave room over, or have too little: the page is cut to what is drawn.
            cut: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.15}
            figure.savefig(file, format=form, dpi=dpi, metadata=metadata, facecolor=figure.get_facecolor(), **cut)
            return file.getvalue()


def plain_axes(axes: Axes, theme: Theme) -> None:
    """Axes on the left and below alone, in the theme's colours."""
    axes.set_facecolor(theme.card)
    axes.tick_params(colors=theme.muted, labelsize=SMALL)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.border)


def literal(text: str, room: float = LONGEST_NAME) -> str:
    """A name as a plot can show it within `room` points: matplotlib takes what is between dollars for a formula, and
    no surrogates.
    """
    return fitted(plain(text), SMALL, room).replace("$", r"\$")
