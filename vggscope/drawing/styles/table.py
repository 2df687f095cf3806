"""`table`: networks side by side as in the paper's Table 1, with changes from the column before in bold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise, zip_longest

from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.layer import Layer, LayerRow, input_shape
from vggscope.drawing.look import Heat, Layers, Look, heat_of
from vggscope.drawing.picture import Line, Link, Part, Picture, Rectangle, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.stages import HEAD
from vggscope.drawing.subject import Subject, without_place
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.units import sample_sides
from vggscope.vgg.notation import Word, write

DEFAULT = ("params",)
"""The default facts below the columns, as in the paper's Table 2."""

RANKDIR = "TB"
"""The default direction of the graph as DOT."""

ROW, PADDING, RULE_GAP, LEAST, WIDEST = 14.0, 9.0, 3.0, 62.0, 150.0
"""In points: a row's height, a column's padding, the space at a rule, and a column's least and largest width."""


@record
class _Cell:
    """A layer in a column or, without layers, a heading or figure. `differs` is true if the column before has another
    layer there.
    """

    text: str
    layers: Layers = ()
    differs: bool = False


ABSENT = _Cell("–", differs=True)
"""Where a column lacks a layer that the column before has."""


@record
class _TableRow:
    """A row of the table with a cell for each column, None for an empty one. A row that `spans` prints its first cell
    across all columns. `title` is to its left, `rule` the weight of the line above it (0 for none, 2 for a strong one).
    """

    cells: tuple[_Cell | None, ...]
    title: str = ""
    spans: bool = False
    rule: int = 0
    strong: bool = False


def draw(subjects: tuple[Subject, ...], look: Look) -> Picture:
    """Draw several networks as a table.

    Raises OptionError for a network without the paper's stages.
    """
    for subject in subjects:
        if not subject.has_paper_stages:
            raise OptionError(
                f"style table sets columns of the paper's Table 1 side by side, {subject.title} has no such stages",
                f"{option('style', 'blocks')} draws it",
            )
    rows = list(_table_rows(subjects, look))
    edges = _column_edges(rows, len(subjects))
    heat = heat_of(look, [cell.layers for row in rows for cell in row.cells if cell and cell.layers])
    frame: list[Shape] = []
    parts: list[Part] = []
    y = TOP
    for number, row in enumerate(rows):
        y += RULE_GAP * 2 if row.rule else 0.0
        frame += _frame(row, y, edges, look.theme)
        parts += _parts(row, number, y, edges, subjects, look.theme, heat)
        y += ROW
    frame.append(Line(((MARGIN, y + RULE_GAP), (edges[-1], y + RULE_GAP)), look.theme.ink, 1.2))
    one = subjects[0] if len(subjects) == 1 else None
    return page(
        title=one.title if one else "ConvNet configurations",
        caption=one.caption if one else ", ".join(_names(subjects)),
        theme=look.theme,
        size=(edges[-1], y + RULE_GAP),
        frame=tuple(frame),
        links=tuple(_links(parts)),
        parts=tuple(parts),
        notes=tuple(_notes(subjects, any(ABSENT in row.cells for row in rows))),
        heat=heat,
        framing=look.framing,
    )


def _table_rows(subjects: tuple[Subject, ...], look: Look) -> Iterator[_TableRow]:
    yield _TableRow(tuple(map(_Cell, _headings(subjects))), rule=2, strong=True)
    counts = [sum(layer.kind in ("conv", "fc") for layer in subject.layers) for subject in subjects]
    yield _TableRow(tuple(_Cell(str(count)) for count in counts), "weight layers", rule=1)
    inputs = [_input(subject) for subject in subjects]
    yield _TableRow(tuple(map(_Cell, inputs)), "input", spans=len(set(inputs)) == 1, rule=1)
    for title in _titles(subjects):
        yield from _stage(title, subjects)
    facts = [fact for name, fact in look.facts.items() if name not in ("shape", "rule")]
    for position, fact in enumerate(facts):
        texts = (fact.text(subject.layers, subject.report).partition(" (")[0] for subject in subjects)
        yield _TableRow(tuple(map(_Cell, texts)), fact.title, rule=1 if position == 0 else 0)


def _headings(subjects: tuple[Subject, ...]) -> list[str]:
    """The networks' names, those of files without their folders if that tells them apart."""
    names = [subject.network.name for subject in subjects]
    short = [without_place(name) for name in names]
    return [name if short.count(own) > 1 else own for name, own in zip(names, short)]


def _names(subjects: tuple[Subject, ...]) -> list[str]:
    """The headings, with the literature's name of a column."""
    return [subject.network.title or heading for subject, heading in zip(subjects, _headings(subjects))]


def _input(subject: Subject) -> str:
    given = subject.inputs[0]
    sample = sample_sides(given.shape, given.batch_axis)
    return f"{' × '.join(map(str, sample[1:]))} RGB image" if sample[:1] == (3,) else input_shape(given)


def _titles(subjects: tuple[Subject, ...]) -> list[str]:
    """The stages of all networks, the classifier last."""
    titles = dict.fromkeys(stage.name for subject in subjects for stage in subject.stages)
    return sorted(titles, key=lambda title: (title == HEAD, len(title), title))


def _stage(title: str, subjects: tuple[Subject, ...]) -> Iterator[_TableRow]:
    """A stage's rows: its layers, then its pool, which spans all columns if it is the same in all."""
    columns = [_cells(title, subject) for subject in subjects]
    marked = [columns[0], *(_marked(before, column) for before, column in pairwise(columns))]
    pools = [column[-1] if column and _is_pool(column[-1]) else None for column in marked]
    shared = title != HEAD and all(pools) and len({pool.text for pool in pools if pool}) == 1
    bodies = [column[:-1] if shared else column for column in marked]
    for position, row in enumerate(zip_longest(*bodies)):
        pairs = zip((None, *row), row)
        cells = tuple(ABSENT if cell is None and before is not None else cell for before, cell in pairs)
        alike = title == HEAD and all(cells) and len({cell.text for cell in cells if cell}) == 1
        yield _TableRow(cells, title if position == 0 else "", spans=alike, rule=int(position == 0))
    if shared:
        yield _TableRow(tuple(pools), spans=True, rule=1)


def _cells(title: str, subject: Subject) -> list[_Cell]:
    rows = (row for stage in subject.stages if stage.name == title for row in stage.rows)
    return [_Cell(_text(row), row.layers) for row in rows if not _is_idle(row)]


def _is_idle(row: LayerRow) -> bool:
    """Whether the table leaves a row out: an adaptive pool that keeps its input, or a flatten."""
    report = row.layer.report
    op = row.layer.node.op
    return report.input_shape == report.output_shape if op.is_adaptive else op.is_layout


def _text(row: LayerRow) -> str:
    """A layer in the paper's notation, with the batch norm after it."""
    word = _word(row.layer)
    text = write((word,)) if word else f"{row.layer.word} {row.layer.spec}".removesuffix(f" {row.layer.word}")
    return ", ".join((text, *(minor for minor in row.minor if minor not in ("ReLU", "dropout", "flatten"))))


def _word(layer: Layer) -> Word | None:
    report, word = layer.report, layer.node.op.notation
    if word in ("conv", "maxpool", "avgpool") and report.kernel_size and report.stride and report.padding:
        if any(len(set(pair)) > 1 for pair in (report.kernel_size, report.stride, report.padding)):
            return None
        window = (report.kernel_size[0], report.stride[0], report.padding[0])
        return Word(word, report.output_shape[1] if word == "conv" else 0, *window)
    if word == "fc":
        return Word(word, report.output_shape[1])
    return Word(word) if word else None


def _marked(before: Sequence[_Cell], column: Sequence[_Cell]) -> list[_Cell]:
    """The column with the cells marked that the column before does not have. Of equal layers the last is marked, as in
    the paper; equal pools at the end of both never are.
    """
    ends = [[cell.text for cell in cells[-1:] if _is_pool(cell)] for cells in (before, column)]
    texts = [[cell.text for cell in cells[: len(cells) - len(end)]] for cells, end in zip((before, column), ends)]
    blocks = SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_matching_blocks()
    same = {place for block in blocks for place in range(block.b, block.b + block.size)}
    if ends[0] == ends[1]:
        same.add(len(texts[1]))
    return [_Cell(cell.text, cell.layers, place not in same) for place, cell in enumerate(column)]


def _is_pool(cell: _Cell) -> bool:
    return bool(cell.layers) and cell.layers[0].kind == "pool"


def _column_edges(rows: Sequence[_TableRow], count: int) -> tuple[float, ...]:
    """The edges of the columns, from the left edge of the first to the right edge of the last."""
    cells = ((cell, count if row.spans else 1) for row in rows for cell in row.cells if cell)
    widest = max((text_width(cell.text, BODY, bold=True) + 2 * PADDING) / spanned for cell, spanned in cells)
    width = min(max(widest, LEAST), WIDEST)
    stub = MARGIN + max(text_width(row.title, SMALL) for row in rows) + PADDING
    return tuple(stub + width * i for i in range(count + 1))


def _frame(row: _TableRow, y: float, edges: tuple[float, ...], theme: Theme) -> list[Shape]:
    shapes: list[Shape] = []
    if row.rule:
        color, weight = (theme.ink, 1.2) if row.rule == 2 else (theme.border, 0.75)
        shapes.append(Line(((MARGIN, y - RULE_GAP), (edges[-1], y - RULE_GAP)), color, weight))
    if row.title:
        shapes.append(Text(MARGIN, y + 10, row.title, SMALL, theme.muted))
    return shapes


def _parts(
    row: _TableRow,
    number: int,
    y: float,
    edges: tuple[float, ...],
    subjects: tuple[Subject, ...],
    theme: Theme,
    heat: Heat | None,
) -> Iterator[Part]:
    """A part for each cell. In a row that spans all columns, the first cell's part draws it."""
    for column, (cell, subject) in enumerate(zip(row.cells, subjects)):
        if cell is None:
            continue
        last = len(subjects) if row.spans else column + 1
        left, right = edges[column], edges[last]
        shapes = () if row.spans and column else tuple(_cell(cell, row, left, right, y, theme, heat))
        kind = cell.layers[0].kind if cell.layers else "other"
        tooltip = "\n".join(layer.details for layer in cell.layers)
        name = f"{column + 1}.{number + 1}"
        yield Part(name, shapes, (cell.text,), tooltip, kind, (f"{column + 1} {subject.title}",))


def _cell(
    cell: _Cell, row: _TableRow, left: float, right: float, y: float, theme: Theme, heat: Heat | None
) -> Iterator[Shape]:
    fill, ink = "", theme.ink
    if heat and cell.layers:
        fill = heat.fill(cell.layers)
        ink = theme.ink_on(fill)
    elif cell.differs:
        fill = theme.fills[cell.layers[0].kind if cell.layers else "other"]
    if fill:
        yield Rectangle(left + 3, y + 0.5, right - left - 6, ROW - 1, fill, theme.outline, 0.5)
    size, bold = (HEADING, True) if row.strong else (BODY, cell.differs)
    text = fitted(cell.text, size, right - left - PADDING, bold)
    yield Text((left + right) / 2, y + 10, text, size, ink, bold, "middle")


def _links(parts: Sequence[Part]) -> Iterator[Link]:
    """The edges of the graph, down each column; nothing is drawn."""
    for cluster in dict.fromkeys(part.cluster for part in parts):
        column = [part for part in parts if part.cluster == cluster and part.tooltip]
        for one, other in pairwise(column):
            yield Link(one.name, other.name, ())


def _notes(subjects: tuple[Subject, ...], has_absent: bool) -> Iterator[str]:
    if len(subjects) > 1:
        absent = f"; {ABSENT.text}: lacks a layer that it has" if has_absent else ""
        yield f"Bold: differs from the column to the left{absent}."
    weights = [[row for stage in s.stages for row in stage.rows if row.layer.kind in ("conv", "fc")] for s in subjects]
    hidden = [row for rows in weights for row in (rows[:-1] if rows[-1:] and rows[-1].layer.kind == "fc" else rows)]
    if hidden and all("ReLU" in row.minor for row in hidden):
        yield "ReLU follows every convolution and every FC layer but the last; it is not shown."
