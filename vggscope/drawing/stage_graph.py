"""A stage as a graph of its ops, those stacked that follow one another and leave the shape, and its layout."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from vggscope.drawing.engine import Layout, lay_out
from vggscope.drawing.fonts import text_width
from vggscope.drawing.layer import Layer, shape, shapes
from vggscope.drawing.look import Look
from vggscope.drawing.picture import Frame
from vggscope.drawing.stage import Block, Stage, within
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import BODY, SMALL
from vggscope.graph import INPUT
from vggscope.record import record

ROW, LINE, SHAPE, GAP = 14.0, 11.0, 12.0, 13.0
"""In points: the heights of an op, of a line of facts and of a shape, and the arrows' length in a chain."""

INTO = "into "
"""Before the name of a tensor that comes into a stage: the entry's name."""

NARROWEST, WIDEST = 60.0, 230.0
"""No op is narrower or wider than this, in points; a longer name is cut in its middle."""


@record
class Op:
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


@record
class Unit:
    """Ops stacked: each but the first reads only the one above and leaves its shape. Without ops it is an entry: what
    comes into the card. `shape` is what comes out, `cluster` the name of the module that it stands in, if one is drawn.
    """

    name: str
    ops: tuple[Op, ...]
    shape: str
    cluster: tuple[str, ...] = ()

    @property
    def body(self) -> float:
        return sum(op.height for op in self.ops)

    @property
    def height(self) -> float:
        return self.body + SHAPE


@record
class StageGraph:
    """The units of a stage by name, which reads which, and the units of each block that has a name, by its place."""

    stage: Stage
    units: dict[str, Unit]
    edges: tuple[tuple[str, str], ...]
    clusters: dict[str, list[str]]

    @property
    def width(self) -> float:
        """How wide its ops are drawn, all alike."""
        return max([NARROWEST, *(op.width for unit in self.units.values() for op in unit.ops)])

    def laid_out(self, width: float, engine: str) -> Layout:
        """Where its units go, with ops of this width; clusters are named by their block's place."""
        sizes = {
            name: (width if unit.ops else max(30.0, text_width(unit.shape, SMALL)), unit.height)
            for name, unit in self.units.items()
        }
        if not self.clusters and list(self.edges) == list(pairwise(self.units)):
            return _stacked(sizes)
        return lay_out(sizes, self.edges, self.clusters, engine)


def stage_graph(stage: Stage, subject: Subject, look: Look) -> StageGraph:
    """The graph of a stage. A repeated module is drawn once."""
    owners: dict[str, str] = {}
    units: dict[str, Unit] = {}
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
    return StageGraph(stage, {**entries, **units}, edges, clusters)


def drawn_as(subject: Subject) -> dict[str, str]:
    """Which op's drawing stands for each node: of modules drawn once, the first one's."""
    found = {INPUT: INPUT}
    for stage in subject.stages:
        for block in stage.blocks:
            for instance in block.instances:
                pairs = zip(instance, block.instances[0])
                found.update((layer.node.name, first.node.name) for layer, first in pairs)
    return found


def _units(block: Block, subject: Subject, look: Look) -> list[Unit]:
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
        Unit(stack[0].node.name, tuple(_op(layer, block, subject, look) for layer in stack), result, cluster)
        for stack, result in zip(stacks, results)
    ]


def _op(layer: Layer, block: Block, subject: Subject, look: Look) -> Op:
    name = within(block.path, layer.name)
    spec = "" if layer.spec == name.partition(":")[0].rpartition(".")[2].rstrip("_") else layer.spec
    facts = tuple(
        f"{fact.title}: {text}"
        for key, fact in look.facts.items()
        if key != "shape" and (text := fact.text((layer,), subject.report)) not in ("", "0", "0 B")
    )
    return Op(layer, name, layer.node.name if layer.node.label else "", spec, facts)


def _edges(
    stage: Stage, subject: Subject, owners: dict[str, str]
) -> tuple[dict[str, Unit], tuple[tuple[str, str], ...]]:
    """What comes into the stage, a unit without ops for each tensor, and which unit reads which. A repeated module is
    drawn once: what runs from one time to the next is left out.
    """
    place = {
        layer.node.name: (number, turn)
        for number, block in enumerate(stage.blocks)
        for turn, instance in enumerate(block.instances)
        for layer in instance
    }
    entries: dict[str, Unit] = {}
    edges: dict[tuple[str, str], None] = {}
    for layer in stage.layers:
        target = owners[layer.node.name]
        for source in layer.node.inputs:
            if source not in owners:
                key = INTO + source
                entries[key] = Unit(key, (), shape(subject.network.shapes[source]))
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
