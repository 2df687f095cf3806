"""The page around a drawing: its title and caption above, its notes and legend below."""

from __future__ import annotations

from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.layer import shape
from vggscope.drawing.look import Heat
from vggscope.drawing.picture import Link, Part, Picture, Shape, Text
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import SMALL, TITLE, Theme
from vggscope.units import UNKNOWN, count_text, short_count

MARGIN = 14.0
"""Around the page, in points."""

TOP = MARGIN + 36.0
"""Where the drawing begins, under the title and the caption."""

LINE = 12.0
"""From one line of notes to the next."""


def caption(subject: Subject) -> str:
    """Parameters, MACs and input size in a line."""
    totals = subject.report.totals
    macs = UNKNOWN if totals.macs is None else short_count(totals.macs, "MACs")
    return f"{count_text(totals.params)} parameters, {macs}, input {shape(subject.network.input_shape)}"


def page(
    title: str,
    said: str,
    theme: Theme,
    size: tuple[float, float],
    frame: tuple[Shape, ...],
    links: tuple[Link, ...],
    parts: tuple[Part, ...],
    notes: tuple[str, ...] = (),
    heat: Heat | None = None,
    labels: tuple[Shape, ...] = (),
    engine: str = "",
) -> Picture:
    """A picture whose drawing ends at `size`, right and bottom, its margin not counted."""
    right, bottom = size
    lines = [Text(MARGIN, bottom + 17 + LINE * i, note, SMALL, theme.muted) for i, note in enumerate(notes)]
    legend = heat.legend(MARGIN, bottom + 18 + LINE * len(lines)) if heat else ()
    width = max(right, *(text.bounds[2] for text in (*lines, *legend) if isinstance(text, Text)), 0.0)
    # A short page grows as wide as its heading, within reason.
    width = max(width, MARGIN + min(max(text_width(said, SMALL), text_width(title, TITLE, bold=True)), 400.0)) + MARGIN
    head = (
        Text(MARGIN, MARGIN + 9, fitted(title, TITLE, width - 2 * MARGIN, bold=True), TITLE, theme.ink, bold=True),
        Text(MARGIN, MARGIN + 23, fitted(said, SMALL, width - 2 * MARGIN), SMALL, theme.muted),
    )
    below = LINE * (len(lines) + (1 if heat else 0))
    return Picture(
        title=title,
        description=". ".join((said, *(note.rstrip(".") for note in notes))) + ".",
        width=width,
        height=bottom + (below + 17 if below else MARGIN),
        background=theme.page,
        frame=(*head, *frame, *lines, *legend),
        links=links,
        parts=parts,
        labels=labels,
        engine=engine,
    )
