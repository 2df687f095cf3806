"""`blocks`: a stage a card. Its layers are listed in it as rows; under them what comes out of it and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vggscope.errors import OptionError
from vggscope.network import INPUT
from vggscope.render.diagram.fonts import fitted, text_width
from vggscope.render.diagram.picture import Box, Line, Link, Part, Picture, Point, Shape, Text, arrow
from vggscope.render.diagram.stages import Layer, Stage, Subject
from vggscope.render.diagram.theme import BODY, HEADING, SMALL, TITLE, Theme
from vggscope.units import UNKNOWN, count_text, percent_text, short_count

MARGIN, GAP, ROW_GAP, CAPTION, INPUT_HEIGHT = 14.0, 22.0, 26.0, 36.0, 20.0
"""Around the page, between cards, between rows of cards, for the title, and for the input's box, in points."""

PADDING, HEAD, ROW, FACT = 7.0, 21.0, 15.0, 12.5
"""Within a card: at its sides, and the height of its heading, of a layer's row, and of a line of facts."""

WIDEST = 190.0
"""No card is wider than this; a longer name is cut in its middle."""


@dataclass(frozen=True)
class _Row:
    """A layer, and the minor ones behind it in words."""

    layer: Layer
    minor: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        return ", ".join((self.layer.spec, *self.minor))


@dataclass(frozen=True)
class _Card:
    """What a card says: its rows, and facts as name and value; `share` is drawn as a bar under them."""

    name: str
    title: str
    kind: str
    rows: tuple[_Row, ...]
    facts: tuple[tuple[str, str], ...]
    share: float

    @property
    def height(self) -> float:
        return HEAD + ROW * len(self.rows) + 4 + self.footer

    @property
    def footer(self) -> float:
        return FACT * len(self.facts) + 15

    @property
    def width(self) -> float:
        """The narrowest that holds every line."""
        between = 10.0
        lines = [text_width(self.title, HEADING, bold=True)]
        lines += [text_width(r.layer.name, BODY) + between + text_width(r.spec, BODY) + 10 for r in self.rows]
        lines += [text_width(name, SMALL) + between + text_width(value, SMALL) for name, value in self.facts]
        return min(max(lines) + 2 * PADDING, WIDEST)


@dataclass(frozen=True)
class _Place:
    """Where a card lies, and in which row of cards."""

    x: float
    y: float
    width: float
    height: float
    row: int

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def draw(subjects: tuple[Subject, ...], theme: Theme, width: float) -> Picture:
    """The picture of one network, its cards in rows of at most `width` points.

    Raises OptionError for more than one network.
    """
    if len(subjects) != 1:
        raise OptionError("style blocks draws one model at a time", "--style table draws several side by side")
    (subject,) = subjects
    cards, note = _cards(subject)
    places = _places(cards, width)
    said = max(text_width(line, SMALL) for line in (_caption(subject), note))
    page_width = 2 * MARGIN + max(said, *(place.x + place.width - MARGIN for place in places))
    bottom = max(place.y + place.height for place in places)
    title = fitted(subject.title, TITLE, page_width - 2 * MARGIN, bold=True)
    frame: list[Shape] = [
        Text(MARGIN, MARGIN + 9, title, TITLE, theme.ink, bold=True),
        Text(MARGIN, MARGIN + 23, _caption(subject), SMALL, theme.muted),
    ]
    if note:
        frame.append(Text(MARGIN, bottom + 17, note, SMALL, theme.muted))
    return Picture(
        title=subject.title,
        description=_caption(subject),
        width=page_width,
        height=bottom + (24 if note else MARGIN),
        background=theme.page,
        frame=tuple(frame),
        links=tuple(_links(cards, places, theme)),
        parts=(_input(subject, places[0], theme), *(_part(card, place, theme) for card, place in zip(cards, places))),
    )


def _caption(subject: Subject) -> str:
    totals = subject.report.totals
    macs = UNKNOWN if totals.macs is None else short_count(totals.macs, "MACs")
    return f"{count_text(totals.params)} parameters, {macs}, input {_sides(subject.network.input_shape)}"


def _sides(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{side:,}" for side in shape[1:] or shape)


def _cards(subject: Subject) -> tuple[list[_Card], str]:
    """A card a stage; and what is said once for all convolutions instead of in each row."""
    rows = {stage.name: tuple(_rows(stage)) for stage in subject.stages}
    behind = {row.minor for found in rows.values() for row in found if row.layer.kind == "conv"}
    common = behind.pop() if len(behind) == 1 else ()
    cards = []
    for stage in subject.stages:
        shown = tuple(_Row(row.layer) if row.minor == common else row for row in rows[stage.name])
        share = stage.params / max(1, subject.report.totals.params)
        cards.append(_Card(stage.name, stage.title, stage.kind, shown, tuple(_facts(stage, subject)), share))
    return cards, f"Behind each convolution: {', '.join(common)}." if common else ""


def _rows(stage: Stage) -> Iterator[_Row]:
    row: _Row | None = None
    for layer in stage.layers:
        if layer.is_minor and row is not None:
            row = _Row(row.layer, (*row.minor, layer.word))
            continue
        if row is not None:
            yield row
        row = _Row(layer)
    if row is not None:
        yield row


def _facts(stage: Stage, subject: Subject) -> Iterator[tuple[str, str]]:
    yield "output", _sides(stage.output_shape)
    field = stage.layers[-1].report.receptive_field
    yield "receptive field", UNKNOWN if field is None else "×".join(map(str, field.size)) + " px"
    yield "parameters", f"{short_count(stage.params)} ({_share(stage.params, subject.report.totals.params)})"


def _share(part: int, whole: int) -> str:
    return "<0.1%" if 0 < part * 1000 < whole else percent_text(part, whole)


def _places(cards: list[_Card], width: float) -> list[_Place]:
    """Cards in rows of even length, as many in a row as fit, all in a row as high as the highest."""
    card_width = max(card.width for card in cards)
    fitting = max(1, int((width - 2 * MARGIN + GAP) // (card_width + GAP)))
    rows = -(-len(cards) // fitting)
    per_row = -(-len(cards) // rows)
    places, y = [], MARGIN + CAPTION + INPUT_HEIGHT + ROW_GAP * 0.75
    for row in range(rows):
        found = cards[row * per_row : (row + 1) * per_row]
        height = max(card.height for card in found)
        places += [_Place(MARGIN + i * (card_width + GAP), y, card_width, height, row) for i in range(len(found))]
        y += height + ROW_GAP
    return places


def _links(cards: list[_Card], places: list[_Place], theme: Theme) -> Iterator[Link]:
    first = places[0]
    middle = first.x + first.width / 2
    entering = ((middle, MARGIN + CAPTION + INPUT_HEIGHT), (middle, first.y))
    yield Link(INPUT, cards[0].name, arrow(entering, theme.arrow))
    for (source, start), (target, end) in zip(zip(cards, places), zip(cards[1:], places[1:])):
        label = dict(source.facts)["output"]
        if start.row == end.row:
            points: tuple[Point, ...] = ((start.x + start.width, start.middle), (end.x, end.middle))
        else:
            between = end.y - ROW_GAP / 2
            points = (
                (start.x + start.width / 2, start.y + start.height),
                (start.x + start.width / 2, between),
                (end.x + end.width / 2, between),
                (end.x + end.width / 2, end.y),
            )
        yield Link(source.name, target.name, arrow(points, theme.arrow), label)


def _input(subject: Subject, first: _Place, theme: Theme) -> Part:
    size = _sides(subject.network.input_shape)
    top = MARGIN + CAPTION
    base = top + 13.2
    return Part(
        INPUT,
        (
            Box(first.x, top, first.width, INPUT_HEIGHT, theme.fills["input"], theme.border, radius=4),
            Text(first.x + PADDING, base, "input", HEADING, theme.ink, bold=True),
            Text(first.x + first.width - PADDING, base, size, SMALL, theme.ink, anchor="end"),
        ),
        (f"input {size}",),
        f"input {size}",
        "input",
    )


def _part(card: _Card, place: _Place, theme: Theme) -> Part:
    x, y, width = place.x, place.y, place.width
    right = x + width - PADDING
    title = fitted(card.title, HEADING, width - 2 * PADDING, bold=True)
    shapes: list[Shape] = [
        Box(x, y, width, place.height, theme.card, theme.border, radius=4),
        Text(x + PADDING, y + 14.5, title, HEADING, theme.ink, bold=True),
    ]
    for index, row in enumerate(card.rows):
        shapes += _row_shapes(row, x + PADDING - 2, y + HEAD + index * ROW, width - 2 * PADDING + 4, theme)
    top = y + place.height - card.footer
    shapes.append(Line(((x, top), (x + width, top)), theme.border))
    for index, (name, value) in enumerate(card.facts):
        base = top + 13 + FACT * index
        room = width - 2 * PADDING - text_width(name, SMALL) - 6
        shapes += [
            Text(x + PADDING, base, name, SMALL, theme.muted),
            Text(right, base, fitted(value, SMALL, room), SMALL, theme.ink, anchor="end"),
        ]
    shapes += _bar(card.share, x + PADDING, y + place.height - 9, width - 2 * PADDING, theme)
    lines = (card.title, *(f"{row.layer.name}: {row.spec}" for row in card.rows), *(f"{n} {v}" for n, v in card.facts))
    return Part(card.name, tuple(shapes), lines, "\n".join(lines), card.kind)


def _row_shapes(row: _Row, x: float, y: float, width: float, theme: Theme) -> list[Shape]:
    fill, accent = theme.fills[row.layer.kind], theme.accents[row.layer.kind]
    spec = fitted(row.spec, BODY, width * 0.75)
    name = fitted(row.layer.name, BODY, width - text_width(spec, BODY) - 14)
    return [
        Box(x, y, width, ROW - 2, fill, accent if theme.name == "paper" else "", 0.5),
        Box(x, y, 2, ROW - 2, accent),
        Text(x + 6, y + 9.6, name, BODY, theme.ink),
        Text(x + width - 4, y + 9.6, spec, BODY, theme.ink, anchor="end"),
    ]


def _bar(share: float, x: float, y: float, width: float, theme: Theme) -> list[Shape]:
    """The stage's share of all parameters, as a bar."""
    shapes: list[Shape] = [Box(x, y, width, 2.5, theme.track)]
    return [*shapes, Box(x, y, max(0.75, width * share), 2.5, theme.bar)] if share else shapes
