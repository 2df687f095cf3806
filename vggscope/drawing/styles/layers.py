"""`layers`: every op, with its output shape at the start of its arrow. Each stage is a card."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from vggscope.drawing.engine import Layout
from vggscope.drawing.flow import card_frame, flow, input_part
from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.look import Heat, Look, heat_of
from vggscope.drawing.picture import Frame, Link, Part, Picture, Rectangle, Shape, Text, arrow
from vggscope.drawing.sheet import page
from vggscope.drawing.stage_graph import INTO, LINE, ROW, OpStack, OpText, StageGraph, drawn_as, stage_graph
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.graph import INPUT
from vggscope.record import record

DEFAULT = ()
"""The default facts beside the ops: none, since their shapes are on the arrows."""

RANKDIR = "TB"
"""The default direction of the graph as DOT."""

PADDING, HEAD = 8.0, 21.0
"""A card's padding and the height of its heading, in points."""


@record
class _GraphCard:
    """A stage's graph and its layout, which begins at 0, 0."""

    graph: StageGraph
    layout: Layout

    @property
    def width(self) -> float:
        heading = text_width(self.graph.stage.name, HEADING, bold=True)
        return max(self.layout.width, min(heading, 200.0)) + 2 * PADDING

    @property
    def height(self) -> float:
        return HEAD + self.layout.height + PADDING


def draw(subject: Subject, look: Look) -> Picture:
    """Draw a network, its stages' graphs in rows."""
    cards = {card.graph.stage.name: card for card in _cards(subject, look)}
    placed = flow(subject, {name: (card.width, card.height) for name, card in cards.items()}, look)
    ops = [op for card in cards.values() for stack in card.graph.stacks.values() for op in stack.ops]
    heat = heat_of(look, [(op.layer,) for op in ops])
    names = drawn_as(subject)
    frame: list[Shape] = []
    labels: list[Shape] = []
    links = [Link("", "", link.shapes) for link in placed.links]
    parts = [input_part(subject, placed.frames[INPUT], look.theme)]
    for name, card in cards.items():
        outline = placed.frames[name]
        shift = (outline.x + (outline.width - card.layout.width) / 2, outline.y + HEAD)
        frame += _frame(card, outline, shift, look.theme)
        links += _links(card, names, shift, look.theme)
        labels += _names(card, shift, look.theme)
        for key, stack in card.graph.stacks.items():
            box = card.layout.boxes[key].moved(*shift)
            labels.append(_shape_text(stack, box, look.theme))
            parts += _parts(stack, (name, *stack.cluster), box, look.theme, heat)
    return page(
        title=subject.title,
        caption=subject.caption,
        theme=look.theme,
        size=placed.size,
        frame=tuple(frame),
        links=tuple(links),
        parts=tuple(parts),
        notes=subject.notes,
        heat=heat,
        labels=tuple(labels),
        framing=look.framing,
        engine=next((card.layout.engine for card in cards.values() if card.layout.engine), ""),
    )


def _cards(subject: Subject, look: Look) -> Iterator[_GraphCard]:
    """The stages' graphs; the ops of the paper's stages are equally wide."""
    graphs = [stage_graph(stage, subject, look) for stage in subject.stages]
    least = max(graph.width for graph in graphs) if subject.has_paper_stages else 0.0
    for graph in graphs:
        yield _GraphCard(graph, graph.laid_out(max(least, graph.width), look.engine))


def _frame(card: _GraphCard, outline: Frame, shift: tuple[float, float], theme: Theme) -> list[Shape]:
    """The card, its heading, and the frames of the modules in it with their names."""
    shapes = card_frame(card.graph.stage.name, outline, PADDING, theme)
    for cluster in card.layout.clusters.values():
        box = cluster.moved(*shift)
        shapes.append(Rectangle(box.x, box.y, box.width, box.height, "", theme.border, radius=3, dashed=True))
    return shapes


def _names(card: _GraphCard, shift: tuple[float, float], theme: Theme) -> list[Shape]:
    """The names of the modules in a card and their numbers of repetitions, readable over the arrows."""
    shapes: list[Shape] = []
    for key, cluster in card.layout.clusters.items():
        module, box = card.graph.frames[key], cluster.moved(*shift)
        room = box.width - (34 if module.count > 1 else 10)
        title = Text(box.x + 5, box.y + 10, fitted(module.title, SMALL, room), SMALL, theme.muted)
        times = Text(box.right - 5, box.y + 10, f"×{module.count}", BODY, theme.ink, bold=True, anchor="end")
        for text in (title, times) if module.count > 1 else (title,):
            if text.text:
                left, top, right, bottom = text.bounds
                shapes += [Rectangle(left - 1.5, top - 1, right - left + 3, bottom - top + 2, theme.card), text]
    return shapes


def _links(card: _GraphCard, names: dict[str, str], shift: tuple[float, float], theme: Theme) -> list[Link]:
    """The arrows between stacks, by the ops at their ends, and the links within each stack, which are not drawn."""
    links = []
    for source, target in card.graph.edges:
        points = tuple((x + shift[0], y + shift[1]) for x, y in card.layout.curves[source, target])
        drawn = arrow(points, theme.arrow, curved=len(points) > 2, head=4.5)
        stack = card.graph.stacks[source]
        last = stack.ops[-1].layer.node.name if stack.ops else names[source.removeprefix(INTO)]
        links.append(Link(last, target, drawn, stack.shape))
    for stack in card.graph.stacks.values():
        names_of_ops = [op.layer.node.name for op in stack.ops]
        links += [Link(one, other, ()) for one, other in pairwise(names_of_ops)]
    return links


def _shape_text(stack: OpStack, frame: Frame, theme: Theme) -> Text:
    return Text(frame.x + frame.width / 2, frame.bottom - 3, stack.shape, SMALL, theme.muted, anchor="middle")


def _parts(stack: OpStack, cluster: tuple[str, ...], frame: Frame, theme: Theme, heat: Heat | None) -> Iterator[Part]:
    y = frame.y
    for op in stack.ops:
        yield _part(op, cluster, Frame(frame.x, y, frame.width, op.height), theme, heat)
        y += op.height


def _part(op: OpText, cluster: tuple[str, ...], frame: Frame, theme: Theme, heat: Heat | None) -> Part:
    kind = op.layer.kind
    fill = heat.fill((op.layer,)) if heat else theme.fills[kind]
    ink = theme.ink_on(fill)
    spec = fitted(op.spec, BODY, frame.width - 18 - min(text_width(op.name, BODY), frame.width * 0.4))
    room = frame.width - text_width(spec, BODY) - 18
    name = fitted(op.name, BODY, room)
    shapes: list[Shape] = [
        Rectangle(frame.x, frame.y, frame.width, frame.height, fill, theme.accents[kind], 0.6),
        Rectangle(frame.x, frame.y, 2, frame.height, theme.accents[kind]),
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
        text = fitted(fact, SMALL, frame.width - 12)
        shapes.append(Text(frame.x + 6, frame.y + ROW + 7 + LINE * index, text, SMALL, ink))
    lines = (f"{op.name} {op.spec}".rstrip(), *op.facts)
    return Part(op.layer.node.name, tuple(shapes), lines, op.layer.details, kind, cluster)
