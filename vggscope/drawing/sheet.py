"""The page around a drawing: its title and caption above, its notes and legend below."""

from __future__ import annotations

from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.look import Heat
from vggscope.drawing.picture import Link, Part, Picture, Shape, Text
from vggscope.drawing.theme import HEADING, SMALL, TITLE, Theme

MARGIN = 14.0
"""The margin of the page, in points."""

TOP = MARGIN + 36.0
"""Where the drawing begins, below the title and the caption."""

LINE = 12.0
"""The distance between two lines of notes."""


def page(
    title: str,
    caption: str,
    theme: Theme,
    size: tuple[float, float],
    frame: tuple[Shape, ...] = (),
    links: tuple[Link, ...] = (),
    parts: tuple[Part, ...] = (),
    notes: tuple[str, ...] = (),
    heat: Heat | None = None,
    labels: tuple[Shape, ...] = (),
    engine: str = "",
    caption_color: str = "",
) -> Picture:
    """The picture of a drawing that ends at `size`, its right and bottom without the margin. A caption with a colour
    of its own is bold and larger.
    """
    right, bottom = size
    lines = [Text(MARGIN, bottom + 17 + LINE * i, note, SMALL, theme.muted) for i, note in enumerate(notes)]
    legend = heat.legend(MARGIN, bottom + 18 + LINE * len(lines)) if heat else ()
    width = max(right, *(text.bounds[2] for text in (*lines, *legend) if isinstance(text, Text)), 0.0)
    # A narrow page grows with its heading, up to 400 points.
    size_of, bold = (HEADING, True) if caption_color else (SMALL, False)
    heading = max(text_width(caption, size_of, bold), text_width(title, TITLE, bold=True))
    width = max(width, MARGIN + min(heading, 400.0)) + MARGIN
    head = (
        Text(MARGIN, MARGIN + 9, fitted(title, TITLE, width - 2 * MARGIN, bold=True), TITLE, theme.ink, bold=True),
        Text(
            *(MARGIN, MARGIN + 24 if bold else MARGIN + 23),
            fitted(caption, size_of, width - 2 * MARGIN, bold),
            size_of,
            caption_color or theme.muted,
            bold,
        ),
    )
    below = LINE * (len(lines) + (1 if heat else 0))
    return Picture(
        title=title,
        description=". ".join((caption, *(note.rstrip(".") for note in notes))) + ".",
        width=width,
        height=bottom + (below + 17 if below else MARGIN),
        background=theme.page,
        frame=(*head, *frame, *lines, *legend),
        links=links,
        parts=parts,
        labels=labels,
        engine=engine,
    )
