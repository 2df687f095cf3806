"""The pictures of tutorials that are tables of cells: linear, dropout, padding, the paper's Table 1, and a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.picture import Picture, Rectangle, Shape, Text, arrow
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.subject import without_place
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.tutorials.dropout import Dropped
from vggscope.tutorials.layer import LayerTutorial
from vggscope.tutorials.linear import Products
from vggscope.tutorials.padding import PaddingSizes
from vggscope.tutorials.paper import Paper
from vggscope.tutorials.tutorial import Number, Rows, number_text
from vggscope.units import bytes_text, count_text, kernel_text, pair_text, percent_text, shape_text

CELL, GAP = 27.0, 30.0
"""In points: the side of a cell, and the space between two grids."""

SHOWN = (1, 2, 3, 6, 13)
"""After how many convolutions the sizes are shown."""

CARD, WORD = 150.0, 17.0
"""In points: the width of a layer's card, and the height of a word of Table 1."""


def _grid(rows: Rows, x: float, y: float, kind: str, theme: Theme, cell: float = CELL) -> Iterator[Shape]:
    fill = theme.fills[kind]
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            left, top = x + column * cell, y + row * CELL
            yield Rectangle(left, top, cell, CELL, fill, theme.border, 0.5)
            middle = (left + cell / 2, top + CELL / 2 + 3)
            yield Text(*middle, number_text(value), SMALL, theme.ink_on(fill), anchor="middle")


def _columns(values: Sequence[Number]) -> Rows:
    return tuple((value,) for value in values)


def draw_linear(title: str, data: Products, theme: Theme) -> Picture:
    """The weights, the input, the bias and the output as matrices."""
    grids = (
        ("weights", data.weight, "conv", "\N{MULTIPLICATION SIGN}"),
        ("x", _columns(data.input), "input", "+"),
        ("bias", _columns(data.bias), "norm", "="),
        ("y", _columns(data.output), "fc", ""),
    )
    height = CELL * max(len(rows) for _, rows, _, _ in grids)
    frame: list[Shape] = []
    x = MARGIN
    for heading, rows, kind, sign in grids:
        top = TOP + 14 + (height - CELL * len(rows)) / 2
        frame.append(Text(x, top - 5, heading, HEADING, theme.ink, bold=True))
        frame += _grid(rows, x, top, kind, theme)
        x += CELL * len(rows[0])
        if sign:
            middle = TOP + 14 + height / 2 + 4
            frame.append(Text(x + GAP / 2, middle, sign, 12, theme.ink, bold=True, anchor="middle"))
            x += GAP
    y = TOP + 14 + height + 4
    for place, (row, bias, result) in enumerate(zip(data.weight, data.bias, data.output)):
        y += 13
        products = "+".join(f"({number_text(w)})({number_text(v)})" for w, v in zip(row, data.input))
        text = f"y[{place}] = {products} + ({number_text(bias)}) = {number_text(result)}"
        frame.append(Text(MARGIN, y, text, BODY, theme.ink))
    right = max(text.bounds[2] for text in frame if isinstance(text, Text))
    caption = "each output is the inner product of a row of the weights with all inputs, and a bias"
    return page(title, caption, theme, (max(right, x), y), tuple(frame))


def draw_dropout(title: str, data: Dropped, theme: Theme) -> Picture:
    """The input, a mask, what training makes of them, the mean over all masks, and evaluation."""
    rows = (
        ("x", data.input, "input"),
        ("mask", data.mask, "pool"),
        (f"in training: x * mask / (1 - {data.p:g})", data.training, "conv"),
        ("mean over all masks", data.mean_of_all_masks, "norm"),
        ("at evaluation", data.evaluation, "fc"),
    )
    left = MARGIN + max(text_width(label, BODY) for label, _, _ in rows) + 10
    frame: list[Shape] = []
    y = TOP
    for label, values, kind in rows:
        frame.append(Text(left - 10, y + CELL / 2 + 3, label, BODY, theme.ink, anchor="end"))
        frame += _grid((tuple(values),), left, y, kind, theme, 40)
        y += CELL + 8
    caption = f"each value is 0 with probability {data.p:g} in training; evaluation changes nothing"
    return page(title, caption, theme, (left + 40 * len(data.input), y - 8), tuple(frame))


def draw_padding(title: str, data: PaddingSizes, theme: Theme) -> Picture:
    """How many windows read each pixel, with padding and without, and the sizes after several convolutions."""
    frame: list[Shape] = []
    x, side = MARGIN, CELL * len(data.windows_padded)
    for heading, rows in (("padding 1", data.windows_padded), ("padding 0", data.windows_unpadded)):
        frame.append(Text(x, TOP + 9, heading, HEADING, theme.ink, bold=True))
        frame += _heat_grid(rows, x, TOP + 16, theme)
        x += side + GAP
    frame.append(Text(x, TOP + 9, "side of 224x224 after", HEADING, theme.ink, bold=True))
    y = TOP + 26
    for size in (size for size in data.sizes if size.convolutions in SHOWN):
        word = "convolution" if size.convolutions == 1 else "convolutions"
        text = f"{size.convolutions} {word}: {size.padded} with padding 1, {size.unpadded} without"
        frame.append(Text(x, y, text, BODY, theme.ink))
        y += 15
    right = max(text.bounds[2] for text in frame if isinstance(text, Text))
    caption = "left: how many 3x3 windows read each pixel of a 5x5 picture"
    return page(title, caption, theme, (right, max(y - 10, TOP + 16 + side)), tuple(frame))


def _heat_grid(rows: Rows, x: float, y: float, theme: Theme) -> Iterator[Shape]:
    """Cells whose colour is the stronger, the larger their number is."""
    most = max(max(row) for row in rows)
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            fill = theme.heat_at(0.6 * value / most)
            left, top = x + column * CELL, y + row * CELL
            yield Rectangle(left, top, CELL, CELL, fill, theme.border, 0.5)
            at = (left + CELL / 2, top + CELL / 2 + 3)
            yield Text(*at, number_text(value), SMALL, theme.ink_on(fill), anchor="middle")


_KINDS = {"conv": "conv", "FC-": "fc", "maxp": "pool", "LRN": "norm"}
"""The kind of a word of Table 1 by how it begins."""


def draw_paper(title: str, data: Paper, theme: Theme) -> Picture:
    """Table 1: the configurations side by side, stage by stage, with the parameters of Table 2 below."""
    stages = [_stages(column.notation) for column in data.columns]
    words = [word for column in stages for stage in column for word in stage]
    width = max(text_width(word, SMALL) for word in words) + 12
    frame: list[Shape] = []
    y = TOP + 26
    for place, column in enumerate(data.columns):
        middle = MARGIN + place * (width + 4) + width / 2
        frame.append(Text(middle, TOP + 8, column.column, HEADING, theme.ink, bold=True, anchor="middle"))
        layers = f"{column.paper_weight_layers} layers"
        frame.append(Text(middle, TOP + 19, layers, SMALL, theme.muted, anchor="middle"))
    for side_by_side in zip_longest(*stages, fillvalue=()):
        for place, stage in enumerate(side_by_side):
            for row, word in enumerate(stage):
                frame += _word(word, MARGIN + place * (width + 4), y + row * WORD, width, theme)
        y += WORD * max(map(len, side_by_side)) + 5
    for place, column in enumerate(data.columns):
        middle = MARGIN + place * (width + 4) + width / 2
        frame.append(Text(middle, y + 9, count_text(column.params), SMALL, theme.ink, anchor="middle"))
        published = f"paper: {column.paper_params_millions} M"
        frame.append(Text(middle, y + 20, published, SMALL, theme.muted, anchor="middle"))
    end = MARGIN + len(stages) * (width + 4) - 4
    return page(
        title,
        "Table 1, and below it the parameters: counted, and as Table 2 has them",
        theme,
        (end, y + 22),
        tuple(frame),
    )


def _stages(notation: str) -> list[list[str]]:
    """The words of a column up to each maxpool, and the maxpool on its own."""
    stages: list[list[str]] = [[]]
    for word in notation.split():
        if word == "maxpool":
            stages += [[word], []]
        else:
            stages[-1].append(word)
    return stages


def _word(word: str, x: float, y: float, width: float, theme: Theme) -> Iterator[Shape]:
    kind = next((kind for start, kind in _KINDS.items() if word.startswith(start)), "other")
    fill = theme.fills[kind]
    yield Rectangle(x, y, width, WORD - 3, fill, theme.accents[kind], 0.5)
    yield Text(x + width / 2, y + 10, word, SMALL, theme.ink_on(fill), anchor="middle")


def draw_layer(title: str, data: LayerTutorial, theme: Theme) -> Picture:
    """The layer between those before and after it, and its figures."""
    layer = data.layer
    # An input of the network has no op.
    before = [(n.label or n.name, f"{n.op}, {shape_text(n.shape)}".lstrip(", ")) for n in data.before[:3]]
    after = [(n.label or n.name, f"{n.op}, {shape_text(n.shape)}") for n in data.behind[:3]]
    own = [(layer.label or layer.name, f"{layer.op}, {shape_text(layer.output_shape)}")]
    columns = [before, own, after or [("output", shape_text(layer.output_shape))]]
    tallest = max(map(len, columns))
    middle = TOP + tallest * 44 / 2
    frame: list[Shape] = []
    x = MARGIN
    for place, cards in enumerate(columns):
        top = middle - len(cards) * 44 / 2
        for number, (name, text) in enumerate(cards):
            frame += _card(x, top + number * 44 + 4, name, text, "conv" if place == 1 else "other", theme)
        if place < 2 and cards:
            frame += arrow(((x + CARD + 3, middle), (x + CARD + 27, middle)), theme.arrow)
        x += CARD + 30
    y = TOP + tallest * 44 + 8
    for name, text in _figures(data):
        y += 14
        frame.append(Text(MARGIN, y, name, BODY, theme.muted))
        frame.append(Text(MARGIN + 95, y, fitted(text, BODY, 3 * CARD - 40), BODY, theme.ink))
    model = without_place(data.model)
    title = model + title.removeprefix(data.model)
    return page(title, f"a layer of {model}, batch 1, float32", theme, (x - 30, y + 4), tuple(frame))


def _card(x: float, y: float, name: str, text: str, kind: str, theme: Theme) -> Iterator[Shape]:
    fill = theme.fills[kind]
    yield Rectangle(x, y, CARD, 36, fill, theme.accents[kind], 0.75, 3)
    yield Text(x + 8, y + 14, fitted(name, HEADING, CARD - 16, bold=True), HEADING, theme.ink_on(fill), bold=True)
    yield Text(x + 8, y + 27, fitted(text, SMALL, CARD - 16), SMALL, theme.ink_on(fill))


def _figures(data: LayerTutorial) -> Iterator[tuple[str, str]]:
    layer = data.layer
    if layer.rule:
        yield "(W-K+2P)/S+1", layer.rule
    if data.weights:
        yield "weights", ", ".join(f"{w.name.rpartition('.')[2]} {kernel_text(w.shape)}" for w in data.weights)
    share = f" ({percent_text(layer.params, data.network_params)})" if layer.params and data.network_params else ""
    yield "parameters", f"{count_text(layer.params)}{share}"
    share = f" ({percent_text(layer.macs, data.network_macs)})" if layer.macs and data.network_macs else ""
    yield "MACs", f"{count_text(layer.macs)}{share}"
    if layer.receptive_field:
        yield "receptive field", pair_text(layer.receptive_field.size)
    yield "memory of output", bytes_text(layer.activation_bytes)
    yield "saved for backward", bytes_text(data.kept_bytes)
