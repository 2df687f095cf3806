"""What all plots have in common: matplotlib set up alike on every machine, and a figure as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vggscope.errors import MissingTool, OptionError
from vggscope.quiet import quiet
from vggscope.render.diagram.theme import SMALL, THEMES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("svg", "png", "pdf")
"""What a plot can be written as."""

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart by people with any of the common kinds of colour blindness."""

DASHES = ("-", "--", "-.", ":")
"""How lines are told apart where there is no colour."""


def theme_named(name: str) -> Theme:
    """The theme of this name; raises OptionError where there is none."""
    if name not in THEMES:
        raise OptionError(f"unknown theme {name!r}", f"--theme is one of {', '.join(THEMES)}")
    return THEMES[name]


def drawn(
    paint: Callable[[Figure, Theme], None], title: str, size: tuple[float, float], form: str, theme: str
) -> bytes:
    """The contents of a file with what `paint` draws on a figure of this width and height in inches. The same drawing
    gives the same bytes.

    Raises OptionError for a form or a theme that is not there, MissingTool where matplotlib is not installed.
    """
    if form not in FORMS:
        raise OptionError(f"no plot is written as {form!r}", f"a plot is {', '.join(FORMS)}")
    chosen = theme_named(theme)
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingTool("matplotlib, which draws plots, is not installed", "pip install matplotlib") from None
    with quiet(), mpl.rc_context(), io.BytesIO() as file:
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.hashsalt": "vggscope", "svg.fonttype": "none", "pdf.fonttype": 42})
        mpl.rcParams.update(
            {"font.family": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"], "hatch.linewidth": 0.5}
        )
        figure = Figure(figsize=size, facecolor=chosen.page, layout="constrained")
        paint(figure, chosen)
        stamp = {"svg": "Date", "png": "Software", "pdf": "CreationDate"}[form]
        metadata: dict[str, Any] = {"Title": title, stamp: None}
        # Axes of a fixed aspect leave room over, or have too little.
        cut: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.15}
        figure.savefig(file, format=form, dpi=144, metadata=metadata, facecolor=figure.get_facecolor(), **cut)
        return file.getvalue()


def plain_axes(axes: Axes, theme: Theme) -> None:
    """Axes on the left and below alone, in the theme's colours."""
    axes.set_facecolor(theme.card)
    axes.tick_params(colors=theme.muted, labelsize=SMALL)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.border)


def literal(text: str) -> str:
    """A name as it stands: matplotlib takes what is between dollars for a formula."""
    return text.replace("$", r"\$")
