"""The page around a drawing: its title and caption above, its notes and legend below."""

from __future__ import annotations

from vggscope.drawing.fonts import current_font, fitted, text_width
from vggscope.drawing.look import NONE, Framing, Heat
from vggscope.drawing.picture import Link, Part, Picture, Shape, Text, cropped, moved_up
from vggscope.drawing.theme import HEADING, SMALL, TITLE, Theme

MARGIN = 14.0
"""The margin of the page, in points."""

TOP = MARGIN + 36.0
"""Where the drawing begins, below the title and the caption."""

TITLE_LINE, CAPTION_LINE = 15.0, 13.0
"""What the page needs less without a title, and without a caption, in points."""

LINE = 12.0
"""The distance between two lines of notes."""

_USUAL = Framing()


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
    framing: Framing = _USUAL,
) -> Picture:
    """The picture of a drawing that ends at `size`, its right and bottom without the margin. A caption with a colour
    of its own is bold and larger.
    """
    right, bottom = size
    shown, heat = (notes, heat) if framing.legend else ((), None)
    lines = [Text(MARGIN, bottom + 17 + LINE * i, note, SMALL, theme.muted) for i, note in enumerate(shown)]
    legend = heat.legend(MARGIN, bottom + 18 + LINE * len(lines)) if heat else ()
    width = max(right, *(text.bounds[2] for text in (*lines, *legend) if isinstance(text, Text)), 0.0)
    head = _heading(title, caption, width, theme, caption_color, framing)
    width = max(width, *(text.bounds[2] for text in head), 0.0)
    below = LINE * (len(lines) + (1 if heat else 0))
    picture = Picture(
        title=title,
        description=". ".join((caption, *(note.rstrip(".") for note in notes))) + ".",
        width=width + MARGIN,
        height=bottom + (below + 17 if below else MARGIN),
        background=theme.page,
        frame=(*head, *frame, *lines, *legend),
        links=links,
        parts=parts,
        labels=labels,
        engine=engine,
        font=current_font(),
        heading=head,
    )
    return cropped(picture) if framing.crop else moved_up(picture, _free(framing))


def _heading(
    title: str, caption: str, width: float, theme: Theme, caption_color: str, framing: Framing
) -> tuple[Text, ...]:
    """The title and the caption. A narrow page grows with them, up to 400 points. What a missing one leaves free is
    above them.
    """
    title = title if framing.title is None else "" if framing.title == NONE else framing.title
    caption = caption if framing.caption is None else "" if framing.caption == NONE else framing.caption
    size, bold = (HEADING, True) if caption_color else (SMALL, False)
    needed = max(text_width(caption, size, bold), text_width(title, TITLE, bold=True))
    room = max(width - MARGIN, min(needed, 400.0))
    lines, top = [], MARGIN + _free(framing)
    if title:
        lines.append(Text(MARGIN, top + 9, fitted(title, TITLE, room, bold=True), TITLE, theme.ink, bold=True))
    if caption:
        y = top + (24 if bold else 23) - (0 if title else TITLE_LINE)
        lines.append(Text(MARGIN, y, fitted(caption, size, room, bold), size, caption_color or theme.muted, bold))
    return tuple(lines)


def _free(framing: Framing) -> float:
    """The height that a title and a caption leave free."""
    without_title, without_caption = framing.title == NONE, framing.caption == NONE
    if without_title and without_caption:
        return TOP - MARGIN
    return TITLE_LINE * without_title + CAPTION_LINE * without_caption
