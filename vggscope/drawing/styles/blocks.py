"""`blocks`: a card for each stage, with its layers as rows and its facts below them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, product

from vggscope.drawing.branches import (
    TOP,
    Rail,
    block_rails,
    lanes,
    read_from_elsewhere,
    stage_rails,
    starts_branch,
)
from vggscope.drawing.flow import card_frame, flow, input_part
from vggscope.drawing.fonts import fitted, fitted_list, text_width
from vggscope.drawing.layer import LayerRow
from vggscope.drawing.look import Heat, Look, heat_of
from vggscope.drawing.picture import Cell, Frame, Line, Part, Picture, Point, Rectangle, Shape, Text, arrow
from vggscope.drawing.sheet import page
from vggscope.drawing.stages import LayerBlock, Stage
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.graph import INPUT
from vggscope.record import record

DEFAULT = ("shape", "rf", "params")
"""The default facts in a card."""

RANKDIR = "LR"
"""The default direction of the graph as DOT."""

PADDING, HEAD, ROW, RULE, TITLE, FACT, BAR = 7.0, 21.0, 15.0, 10.0, 14.0, 12.5, 7.0
"""In points: a card's padding; the heights of its heading, a row, a rule below it, a block's title, a line of facts, a
bar below it.
"""

WIDEST = 240.0
"""The largest width of a card; longer names are cut in the middle."""

LANE, HEADROOM, BREAK = 5.0, 5.0, 3.0
"""In points: the distance of the lines beside rows, the room above a first row that such a line leaves from, and that
above a row that does not read the one above it.
"""

SHARED = "params"
"""The fact whose share of the whole is drawn as a bar."""

DENSE = "dense: each repetition also reads the outputs of all those before it."


@record
class _Card:
    """The content of a card. `common` are the layers after every convolution, which a note names once for all;
    `facts` have a title and a text; `share` is the stage's share of all parameters, drawn as a bar below the fact
    `SHARED`; `elsewhere` names other cards' layers that rows read.
    """

    stage: Stage
    common: tuple[str, ...]
    facts: dict[str, tuple[str, str]]
    share: float | None
    rules: bool
    elsewhere: dict[str, tuple[str, ...]]

    def spec(self, row: LayerRow) -> str:
        """A row's text on the right: its layers without the common ones, and which layers of other cards it reads."""
        return ", ".join(filter(None, (self.own_spec(row), self.source(row))))

    def own_spec(self, row: LayerRow) -> str:
        return row.layer.spec if row.minor and row.minor == self.common else row.spec

    def source(self, row: LayerRow) -> str:
        read = self.elsewhere.get(row.layer.node.name, ())
        return f"from {read[0]}" if len(read) == 1 else f"from {len(read)} other layers" if read else ""

    def fitted_spec(self, row: LayerRow, width: float) -> str:
        """The text on the right within a width: without its last layers, for which a mark stands."""
        return fitted_list(self.own_spec(row).split(", "), BODY, width, self.source(row))

    def row_height(self, row: LayerRow) -> float:
        return ROW + (RULE if self.rules and row.layer.report.rule else 0.0)

    def block_height(self, number: int) -> float:
        return self.row_tops(number)[-1] + (3.0 if _has_frame(self.stage.blocks[number]) else 0.0)

    def row_tops(self, number: int) -> tuple[float, ...]:
        """The distances of its rows, and of what follows them, from the top of the block with this number."""
        block = self.stage.blocks[number]
        first = TITLE if _has_frame(block) else 0.0
        above = (*self.rails[number], *(self.outer_rails if number == 0 else ()))
        first += HEADROOM if any(TOP in rail.sources for rail in above) else 0.0
        heights = [self.row_height(row) for row in block.rows]
        breaks = [BREAK if starts_branch(block, number) else 0.0 for number in range(1, len(block.rows))]
        return tuple(accumulate((height + gap for height, gap in zip(heights, [*breaks, 0.0])), initial=first))

    @cached_property
    def rails(self) -> tuple[tuple[Rail, ...], ...]:
        """The lines beside the rows of each block."""
        return tuple(map(block_rails, self.stage.blocks))

    @cached_property
    def outer_rails(self) -> tuple[Rail, ...]:
        """The lines between blocks."""
        return stage_rails(self.stage)

    @property
    def gutter(self) -> float:
        """The width of the lanes between blocks."""
        return _gutter(self.outer_rails)

    @property
    def footer(self) -> float:
        return FACT * len(self.facts) + (BAR if self.share is not None else 0) + 8 if self.facts else 0.0

    @property
    def height(self) -> float:
        return HEAD + sum(map(self.block_height, range(len(self.stage.blocks)))) + 4 + self.footer

    @property
    def width(self) -> float:
        """The width of its widest line, at most WIDEST."""
        lines = [text_width(self.stage.name, HEADING, bold=True)]
        for block, rails in zip(self.stage.blocks, self.rails):
            aside = self.gutter + _gutter(rails)
            lines.append(text_width(block.title, SMALL) + 40 + self.gutter + (28 if block.is_dense else 0))
            lines += [text_width(row.name, BODY) + 22 + text_width(self.spec(row), BODY) + aside for row in block.rows]
            if self.rules:
                lines += [text_width(row.layer.report.rule or "", SMALL) + 14 + aside for row in block.rows]
        lines += [text_width(name, SMALL) + 10 + text_width(value, SMALL) for name, value in self.facts.values()]
        return min(max(lines) + 2 * PADDING, WIDEST)


def draw(subject: Subject, look: Look) -> Picture:
    """Draw a network, its cards in rows."""
    common = _common(subject)
    names = {layer.node.name: layer.name for layer in subject.layers}
    cards = {stage.name: _card(stage, subject, look, common, names) for stage in subject.stages}
    width = max(card.width for card in cards.values())
    placed = flow(subject, {name: (width, card.height) for name, card in cards.items()}, look)
    heat = heat_of(look, [row.layers for stage in subject.stages for row in stage.rows])
    parts = [input_part(subject, placed.frames[INPUT], look.theme)]
    parts += [_part(card, placed.frames[name], look.theme, heat) for name, card in cards.items()]
    dense = [DENSE] if any(block.is_dense for stage in subject.stages for block in stage.blocks) else []
    return page(
        title=subject.title,
        caption=subject.caption,
        theme=look.theme,
        size=placed.size,
        links=placed.links,
        parts=tuple(parts),
        notes=(*([f"After each convolution: {', '.join(common)}."] if common else []), *dense, *subject.notes),
        heat=heat,
        framing=look.framing,
    )


def _common(subject: Subject) -> tuple[str, ...]:
    """The norm and activation after each convolution, if they are the same after all."""
    convolutions = [row for stage in subject.stages for row in stage.rows if row.layer.kind == "conv"]
    followers = {row.minor for row in convolutions}
    are_usual = all(layer.kind in ("norm", "activation") for row in convolutions for layer in row.layers[1:])
    return followers.pop() if len(followers) == 1 and are_usual and len(convolutions) > 1 else ()


def _card(stage: Stage, subject: Subject, look: Look, common: tuple[str, ...], names: dict[str, str]) -> _Card:
    facts = {
        name: (fact.title, fact.text(stage.layers, subject.report))
        for name, fact in look.facts.items()
        if name != "rule"
    }
    params = sum(layer.report.params or 0 for layer in stage.layers)
    whole = subject.report.totals.params
    share = params / max(1, whole) if SHARED in facts and whole is not None else None
    return _Card(stage, common, facts, share, "rule" in look.annotate, read_from_elsewhere(stage, names))


def _part(card: _Card, frame: Frame, theme: Theme, heat: Heat | None) -> Part:
    shapes = card_frame(card.stage.name, frame, PADDING, theme)
    rows: list[Part] = []
    places: list[Frame] = []
    y = frame.y + HEAD
    for number, block in enumerate(card.stage.blocks):
        inside = Frame(frame.x + 5 + card.gutter, y, frame.width - 10 - card.gutter, card.block_height(number))
        shapes += _block_frame(block, inside, theme)
        own = _row_frames(card, number, inside)
        shapes += _rail_shapes(card.rails[number], own, own[0].x, theme)
        rows += [_row(card, row, place, theme, heat) for row, place in zip(block.rows, own)]
        places += own
        y = inside.bottom
    shapes += _rail_shapes(card.outer_rails, places, frame.x + 5 + card.gutter, theme)
    shapes += _footer(card, frame, theme)
    cells = tuple(_cells(card))
    lines = tuple(f"{cell.left}: {cell.right}" if cell.right else cell.left for cell in cells)
    kind = _kind(card.stage)
    return Part(
        card.stage.name,
        tuple(shapes),
        lines,
        "\n".join(lines),
        kind,
        parts=tuple(rows),
        cells=cells,
        reads=_reads(card),
    )


def _cells(card: _Card) -> Iterator[Cell]:
    yield Cell(card.stage.name, bold=True)
    for block in card.stage.blocks:
        if _has_frame(block):
            dense = " dense" if block.is_dense else ""
            yield Cell(f"{block.title} × {block.count}{dense}" if block.count > 1 else block.title)
        for row in block.rows:
            yield Cell(row.name, card.spec(row), row.layer.kind)
    for name, value in card.facts.values():
        yield Cell(name, value)


def _reads(card: _Card) -> tuple[tuple[int, int], ...]:
    """The rails as numbers of cells. What enters a block leaves the cell above its first row."""
    reads: list[tuple[int, int]] = []
    places: list[int] = []
    for block, rails in zip(card.stage.blocks, card.rails):
        first = 1 + (places[-1] if places else 0) + (1 if _has_frame(block) else 0)
        own = range(first, first + len(block.rows))
        reads += _pairs(rails, own, first - 1)
        places += own
    return (*reads, *_pairs(card.outer_rails, places, 0))


def _pairs(rails: tuple[Rail, ...], places: Sequence[int], top: int) -> Iterator[tuple[int, int]]:
    for rail in rails:
        for source, target in product(rail.sources, rail.targets):
            yield top if source == TOP else places[source], places[target]


def _kind(stage: Stage) -> str:
    """The most frequent kind of its layers with weights, for its colour."""
    kinds = [layer.kind for layer in stage.layers if layer.report.params] or ["other"]
    return max(dict.fromkeys(kinds), key=kinds.count)


def _block_frame(block: LayerBlock, frame: Frame, theme: Theme) -> list[Shape]:
    """The frame around a module's rows, with its name and its number of repetitions."""
    if not _has_frame(block):
        return []
    title = Text(frame.x + 6, frame.y + 10.5, fitted(block.title, SMALL, frame.width - 40), SMALL, theme.muted)
    times = Text(frame.right - 6, frame.y + 10.5, f"×{block.count}", BODY, theme.ink, bold=True, anchor="end")
    dense = Text(times.x - times.width - 4, times.y, "dense", SMALL, theme.muted, anchor="end")
    return [
        Rectangle(frame.x, frame.y, frame.width, frame.height - 2, "", theme.border, radius=3),
        *([title] if block.title else []),
        *([times] if block.count > 1 else []),
        *([dense] if block.is_dense else []),
    ]


def _has_frame(block: LayerBlock) -> bool:
    """Whether a block is drawn in a frame of its own, with its title."""
    return bool(block.title) or block.count > 1


def _row_frames(card: _Card, number: int, frame: Frame) -> list[Frame]:
    """Where the rows of the block with this number are."""
    block = card.stage.blocks[number]
    inset = 2.0 if _has_frame(block) else 0.0
    aside = inset + _gutter(card.rails[number])
    width = frame.width - aside - inset
    tops = card.row_tops(number)
    return [
        Frame(frame.x + aside, frame.y + top, width, card.row_height(row) - 2) for row, top in zip(block.rows, tops)
    ]


def _gutter(rails: tuple[Rail, ...]) -> float:
    """The width of the lanes beside rows, with the room of an arrowhead."""
    return LANE * lanes(rails) + 3.0 if rails else 0.0


def _rail_shapes(rails: tuple[Rail, ...], rows: list[Frame], left: float, theme: Theme) -> list[Shape]:
    """Lines from the rows that are read to those that read them, in the lanes to the left of `left`."""
    shapes: list[Shape] = []
    for rail in rails:
        x = left - 6.0 - LANE * rail.lane
        starts = [_leaving(rows, source) for source in rail.sources]
        ends = [(rows[target].x, rows[target].y + rows[target].height * 0.3) for target in rail.targets]
        farthest = max(ends, key=lambda end: end[1])
        first = min(starts, key=lambda points: points[-1][1])
        shapes += arrow((*first, (x, first[-1][1]), (x, farthest[1]), farthest), theme.arrow, head=4.0)
        shapes += [Line((*points, (x, points[-1][1])), theme.arrow, 1.0) for points in starts if points != first]
        for end in ends:
            if end != farthest:
                shapes += arrow(((x, end[1]), end), theme.arrow, head=4.0)
    return shapes


def _leaving(rows: list[Frame], source: int) -> tuple[Point, ...]:
    """Where a line leaves a row, or what enters the first row."""
    if source == TOP:
        row = rows[0]
        return ((row.x + 9, row.y), (row.x + 9, row.y - HEADROOM + 1))
    row = rows[source]
    return ((row.x, row.y + row.height * 0.7),)


def _row(card: _Card, row: LayerRow, frame: Frame, theme: Theme, heat: Heat | None) -> Part:
    kind, text = row.layer.kind, card.spec(row)
    fill = heat.fill(row.layers) if heat else theme.fills[kind]
    ink = theme.ink_on(fill)
    spec = card.fitted_spec(row, frame.width - 16 - min(text_width(row.name, BODY), frame.width * 0.4))
    name = fitted(row.name, BODY, frame.width - text_width(spec, BODY) - 16)
    shapes: list[Shape] = [
        Rectangle(frame.x, frame.y, frame.width, frame.height, fill, theme.border if heat else theme.outline, 0.5),
        Rectangle(frame.x, frame.y, 2, frame.height, theme.accents[kind]),
        Text(frame.x + 6, frame.y + 9.6, name, BODY, ink),
    ]
    if spec:
        shapes.append(Text(frame.right - 4, frame.y + 9.6, spec, BODY, ink, anchor="end"))
    if card.rules and row.layer.report.rule:
        rule = fitted(row.layer.report.rule, SMALL, frame.width - 10)
        shapes.append(Text(frame.right - 4, frame.y + 19.6, rule, SMALL, ink, anchor="end"))
    tooltip = "\n\n".join(layer.details for layer in row.layers)
    return Part(row.layer.node.name, tuple(shapes), (f"{row.name} {text}".rstrip(),), tooltip, kind)


def _footer(card: _Card, frame: Frame, theme: Theme) -> list[Shape]:
    """The facts below a line, and the share of all parameters as a bar below its fact."""
    if not card.facts:
        return []
    top, left, right = frame.bottom - card.footer, frame.x + PADDING, frame.right - PADDING
    shapes: list[Shape] = [Line(((frame.x, top), (frame.right, top)), theme.border)]
    base = top + 13
    for key, (name, value) in card.facts.items():
        room = right - left - text_width(name, SMALL) - 6
        shapes.append(Text(left, base, name, SMALL, theme.muted))
        shapes.append(Text(right, base, fitted(value, SMALL, room), SMALL, theme.ink, anchor="end"))
        if key == SHARED and card.share is not None:
            shapes.append(Rectangle(left, base + 5.5, right - left, 2.5, theme.track))
            if card.share:
                shapes.append(Rectangle(left, base + 5.5, max(0.75, (right - left) * card.share), 2.5, theme.bar))
            base += BAR
        base += FACT
    return shapes
