"""`layers`: every op, its output's shape where its arrow starts. A stage a card, a repeated module drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vggscope.graph import INPUT
from vggscope.render.diagram.engine import Frame, Layout, lay_out
from vggscope.render.diagram.flow import flow, input_part
from vggscope.render.diagram.fonts import fitted, text_width
from vggscope.render.diagram.layer import Layer, shape, shapes
from vggscope.render.diagram.look import Heat, Look, heat_of
from vggscope.render.diagram.page import caption, page
from vggscope.render.diagram.picture import Box, Link, Part, Picture, Shape, Text, arrow
from vggscope.render.diagram.stage import Block, Stage, within
from vggscope.render.diagram.subject import Subject
from vggscope.render.diagram.theme import BODY, HEADING, SMALL, Theme

DEFAULT = ()
"""Nothing is written beside the ops where nothing is asked for: their shapes stand on the arrows."""

RANKDIR = "TB"
"""Which way the graph runs as DOT where nothing else is asked for."""

PADDING, HEAD, ROW, LINE, SHAPE, GAP = 8.0, 21.0, 14.0, 11.0, 12.0, 13.0
"""In points: a card's sides; the heights of its heading, an op, a line of facts, a shape; and the arrows' length."""

INTO = "into "
"""Before the name of a tensor that comes into a card: the entry's name."""

WIDEST = 230.0
"""No op is wider than this; a longer name is cut in its middle."""


@dataclass(frozen=True)
class _Op:
    """One op as it is written: its name, its path where that is another, what it does, the facts asked for."""

    layer: Layer
    name: str
    path: str
    spec: str
    facts: tuple[str, ...]

    @property
    def height(self) -> float:
        return ROW + LINE * len(self.facts)

    @property
    def width(self) -> float:
        first = text_width(self.name, BODY) + text_width(self.spec, BODY) + 24
        first += text_width(self.path, SMALL) + 7 if self.path else 0
        return min(max([first, *(text_width(fact, SMALL) + 14 for fact in self.facts)]), WIDEST)


@dataclass(frozen=True)
class _Unit:
    """Ops stacked: each but the first reads only the one above and leaves its shape. Without ops it is an entry: what
    comes into the card. `shape` is what comes out, `cluster` the name of the module that it stands in, if one is drawn.
    """

    name: str
    ops: tuple[_Op, ...]
    shape: str
    cluster: tuple[str, ...] = ()

    @property
    def body(self) -> float:
        return sum(op.height for op in self.ops)

    @property
    def height(self) -> float:
        return self.body + SHAPE


@dataclass(frozen=True)
class _Card:
    """A stage's graph, laid out, with `origin` 0, 0. Clusters are named by their place among the stage's blocks."""

    stage: Stage
    units: dict[str, _Unit]
    edges: tuple[tuple[str, str], ...]
    layout: Layout

    @property
    def width(self) -> float:
        heading = text_width(self.stage.name, HEADING, bold=True)
        return max(self.layout.width, min(heading, 200.0)) + 2 * PADDING

    @property
    def height(self) -> float:
        return HEAD + self.layout.height + PADDING


def draw(subject: Subject, look: Look) -> Picture:
    """The picture of one network, its stages' graphs in rows."""
    cards = {stage.name: _card(stage, subject, look) for stage in subject.stages}
    placed = flow(subject, {name: (card.width, card.height) for name, card in cards.items()}, look)
    ops = [op for card in cards.values() for unit in card.units.values() for op in unit.ops]
    heat = heat_of(look, [(op.layer,) for op in ops])
    frame: list[Shape] = []
    labels: list[Shape] = []
    links = [Link("", "", link.shapes) for link in placed.links]
    parts = [input_part(subject, placed.frames[INPUT], look.theme)]
    drawn_as = _drawn_as(subject)
    for name, card in cards.items():
        outline = placed.frames[name]
        shift = (outline.x + (outline.width - card.layout.width) / 2, outline.y + HEAD)
        frame += _frame(card, outline, shift, look.theme)
        links += _links(card, drawn_as, shift, look.theme)
        labels += _names(card, shift, look.theme)
        for key, unit in card.units.items():
            labels.append(_shape_text(unit, card.layout.boxes[key].moved(*shift), look.theme))
            groups = (card.stage.name, *unit.cluster)
            parts += _parts(unit, groups, card.layout.boxes[key].moved(*shift), look.theme, heat)
    return page(
        title=subject.title,
        said=caption(subject),
        theme=look.theme,
        size=placed.size,
        frame=tuple(frame),
        links=tuple(links),
        parts=tuple(parts),
        heat=heat,
        labels=tuple(labels),
    )


def _card(stage: Stage, subject: Subject, look: Look) -> _Card:
    owners: dict[str, str] = {}
    units: dict[str, _Unit] = {}
    clusters: dict[str, list[str]] = {}
    for number, block in enumerate(stage.blocks):
        found = _units(block, subject, look)
        units.update((unit.name, unit) for unit in found)
        if block.title or block.count > 1:
            clusters[str(number)] = [unit.name for unit in found]
        names = [unit.name for unit in found for _ in unit.ops]
        for instance in block.instances:
            owners.update((layer.node.name, name) for layer, name in zip(instance, names))
    entries, edges = _edges(stage, subject, owners)
    units = {**entries, **units}
    return _Card(stage, units, edges, _laid_out(units, edges, clusters, look))


def _units(block: Block, subject: Subject, look: Look) -> list[_Unit]:
    """The ops of a block's first instance, stacked where one follows another and leaves the shape."""
    stacks: list[list[Layer]] = []
    consumers = subject.network.consumers
    for layer in block.instances[0]:
        above = stacks[-1][-1] if stacks else None
        if (
            above is not None
            and layer.node.inputs == (above.node.name,)
            and len(consumers[above.node.name]) == 1
            and layer.report.output_shape == above.report.output_shape
            and (layer.is_minor or layer.kind == "norm")
        ):
            stacks[-1].append(layer)
        else:
            stacks.append([layer])
    ends = [sum(map(len, stacks[: i + 1])) - 1 for i in range(len(stacks))]
    results = [shapes([instance[end].report.output_shape for instance in block.instances]) for end in ends]
    cluster = (block.title,) if block.title else ()
    return [
        _Unit(stack[0].node.name, tuple(_op(layer, block, subject, look) for layer in stack), result, cluster)
        for stack, result in zip(stacks, results)
    ]


def _op(layer: Layer, block: Block, subject: Subject, look: Look) -> _Op:
    name = within(block.path, layer.name)
    spec = "" if layer.spec == name.partition(":")[0].rpartition(".")[2].rstrip("_") else layer.spec
    facts = tuple(
        f"{fact.title}: {text}"
        for key, fact in look.facts.items()
        if key != "shape" and (text := fact.text((layer,), subject.report)) not in ("", "0", "0 B")
    )
    return _Op(layer, name, layer.node.name if layer.node.label else "", spec, facts)


def _edges(
    stage: Stage, subject: Subject, owners: dict[str, str]
) -> tuple[dict[str, _Unit], tuple[tuple[str, str], ...]]:
    """What comes into the stage, a unit without ops for each tensor, and which unit reads which. A repeated module is
    drawn once: what runs from one time to the next is left out.
    """
    place = {
        layer.node.name: (number, turn)
        for number, block in enumerate(stage.blocks)
        for turn, instance in enumerate(block.instances)
        for layer in instance
    }
    entries: dict[str, _Unit] = {}
    edges: dict[tuple[str, str], None] = {}
    for layer in stage.layers:
        target = owners[layer.node.name]
        for source in layer.node.inputs:
            if source not in owners:
                key = INTO + source
                entries[key] = _Unit(key, (), shape(subject.network.shapes[source]))
                edges[key, target] = None
                continue
            (block, turn), (own_block, own_turn) = place[source], place[layer.node.name]
            if owners[source] != target and (block != own_block or turn == own_turn):
                edges[owners[source], target] = None
    if len(entries) > 1:
        makers = {layer.node.name: other.name for other in subject.stages for layer in other.layers}
        entries = {
            key: replace(unit, shape=f"{makers.get(key.removeprefix(INTO), INPUT)}: {unit.shape}")
            for key, unit in entries.items()
        }
    return entries, tuple(edges)


def _laid_out(
    units: dict[str, _Unit], edges: tuple[tuple[str, str], ...], clusters: dict[str, list[str]], look: Look
) -> Layout:
    width = max([60.0, *(op.width for unit in units.values() for op in unit.ops)])
    sizes = {
        name: (width if unit.ops else max(30.0, text_width(unit.shape, SMALL)), unit.height)
        for name, unit in units.items()
    }
    if not clusters and list(edges) == list(pairwise(units)):
        return _stacked(sizes)
    return lay_out(sizes, edges, clusters, look.engine)


def _stacked(sizes: dict[str, tuple[float, float]]) -> Layout:
    """A chain: one unit under another."""
    widest, y = max(width for width, _ in sizes.values()), 0.0
    boxes = {}
    for name, (width, height) in sizes.items():
        boxes[name] = Frame((widest - width) / 2, y, width, height)
        y += height + GAP
    middle = widest / 2
    curves = {(one, other): ((middle, boxes[one].bottom), (middle, boxes[other].y)) for one, other in pairwise(sizes)}
    return Layout(boxes, {}, curves, widest, y - GAP)


def _frame(card: _Card, outline: Frame, shift: tuple[float, float], theme: Theme) -> list[Shape]:
    """The card, its heading, and the frames of the modules in it with their names."""
    room = outline.width - 2 * PADDING
    shapes: list[Shape] = [
        Box(outline.x, outline.y, outline.width, outline.height, theme.card, theme.border, radius=4),
        Text(
            outline.x + PADDING,
            outline.y + 14.5,
            fitted(card.stage.name, HEADING, room, bold=True),
            HEADING,
            theme.ink,
            bold=True,
        ),
    ]
    for found in card.layout.clusters.values():
        box = found.moved(*shift)
        shapes.append(Box(box.x, box.y, box.width, box.height, "", theme.border, radius=3, dashed=True))
    return shapes


def _names(card: _Card, shift: tuple[float, float], theme: Theme) -> list[Shape]:
    """The names of the modules in a card, and how often each is repeated, over whatever runs behind."""
    shapes: list[Shape] = []
    for number, found in card.layout.clusters.items():
        block, box = card.stage.blocks[int(number)], found.moved(*shift)
        title = Text(box.x + 5, box.y + 10, fitted(block.title, SMALL, box.width - 34), SMALL, theme.muted)
        times = Text(box.right - 5, box.y + 10, f"×{block.count}", BODY, theme.ink, bold=True, anchor="end")
        for text in (title, times) if block.count > 1 else (title,):
            if text.text:
                left, top, right, bottom = text.bounds
                shapes += [Box(left - 1.5, top - 1, right - left + 3, bottom - top + 2, theme.card), text]
    return shapes


def _drawn_as(subject: Subject) -> dict[str, str]:
    """Which op's drawing stands for each node: of modules drawn once, the first one's."""
    found = {INPUT: INPUT}
    for stage in subject.stages:
        for block in stage.blocks:
            for instance in block.instances:
                pairs = zip(instance, block.instances[0])
                found.update((layer.node.name, first.node.name) for layer, first in pairs)
    return found


def _links(card: _Card, drawn_as: dict[str, str], shift: tuple[float, float], theme: Theme) -> list[Link]:
    """The arrows between units, by the ops at their ends; and the links within a stack, which needs none drawn."""
    links = []
    for source, target in card.edges:
        points = tuple((x + shift[0], y + shift[1]) for x, y in card.layout.curves[source, target])
        drawn = arrow(points, theme.arrow, curved=len(points) > 2, head=4.5)
        unit = card.units[source]
        last = unit.ops[-1].layer.node.name if unit.ops else drawn_as[source.removeprefix(INTO)]
        links.append(Link(last, target, drawn, unit.shape))
    for unit in card.units.values():
        names = [op.layer.node.name for op in unit.ops]
        links += [Link(one, other, ()) for one, other in pairwise(names)]
    return links


def _shape_text(unit: _Unit, frame: Frame, theme: Theme) -> Text:
    return Text(frame.x + frame.width / 2, frame.bottom - 3, unit.shape, SMALL, theme.muted, anchor="middle")


def _parts(unit: _Unit, cluster: tuple[str, ...], frame: Frame, theme: Theme, heat: Heat | None) -> Sequence[Part]:
    parts, y = [], frame.y
    for op in unit.ops:
        parts.append(_part(op, cluster, Frame(frame.x, y, frame.width, op.height), theme, heat))
        y += op.height
    return parts


def _part(op: _Op, cluster: tuple[str, ...], frame: Frame, theme: Theme, heat: Heat | None) -> Part:
    kind = op.layer.kind
    fill = heat.fill((op.layer,)) if heat else theme.fills[kind]
    ink = theme.ink_on(fill)
    spec = fitted(op.spec, BODY, frame.width - 18 - min(text_width(op.name, BODY), frame.width * 0.4))
    room = frame.width - text_width(spec, BODY) - 18
    name = fitted(op.name, BODY, room)
    shapes: list[Shape] = [
        Box(frame.x, frame.y, frame.width, frame.height, fill, theme.accents[kind], 0.6),
        Box(frame.x, frame.y, 2, frame.height, theme.accents[kind]),
        Text(frame.x + 6, frame.y + 10, name, BODY, ink),
    ]
    if spec:
        shapes.append(Text(frame.right - 5, frame.y + 10, spec, BODY, ink, anchor="end"))
    left = room - text_width(name, BODY) - 7
    if op.path and left > 20:
        muted = ink if heat else theme.muted
        x = frame.x + 13 + text_width(name, BODY)
        shapes.append(Text(x, frame.y + 10, fitted(op.path, SMALL, left), SMALL, muted))
    for index, fact in enumerate(op.facts):
        said = fitted(fact, SMALL, frame.width - 12)
        shapes.append(Text(frame.x + 6, frame.y + ROW + 7 + LINE * index, said, SMALL, ink))
    lines = (f"{op.name} {op.spec}".rstrip(), *op.facts)
    return Part(op.layer.node.name, tuple(shapes), lines, op.layer.details, kind, cluster)
