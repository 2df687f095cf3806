"""A stage as a graph of its ops, with its layout. Successive ops that keep the shape are stacked on each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise, takewhile

from vggscope.drawing.engine import Layout, lay_out
from vggscope.drawing.fonts import text_width
from vggscope.drawing.layer import Layer, output_range, shape
from vggscope.drawing.look import Look
from vggscope.drawing.picture import Frame
from vggscope.drawing.stages import LayerBlock, Stage, within
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import BODY, SMALL
from vggscope.graph import INPUT
from vggscope.record import record

ROW, LINE, SHAPE, GAP = 14.0, 11.0, 12.0, 13.0
"""In points: the heights of an op, of a line of facts and of a shape, and the length of arrows in a chain."""

INTO = "into "
"""The prefix of the name of an input: a tensor that enters the stage."""

NARROWEST, WIDEST = 60.0, 230.0
"""The least and the largest width of an op, in points; a longer name is cut in the middle."""


@record
class OpText:
    """The texts of an op: its name, its path if it differs from the name, its parameters in short, its facts."""

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
class OpStack:
    """Successive ops without arrows in between: each reads only the one above and keeps its shape. A stack without ops
    is an input of the stage. `shape` is the output shape, `cluster` the titles of the modules around it, if drawn.
    """

    name: str
    ops: tuple[OpText, ...]
    shape: str
    cluster: tuple[str, ...] = ()

    @property
    def height(self) -> float:
        return sum(op.height for op in self.ops) + SHAPE


@record
class ModuleFrame:
    """The frame around the stacks of a module, with its title and how often the module is repeated."""

    title: str
    count: int
    stacks: tuple[str, ...]


@record
class StageGraph:
    """The stacks of a stage by name, the edges between them, and the frames around modules by a key, the outer ones
    first.
    """

    stage: Stage
    stacks: dict[str, OpStack]
    edges: tuple[tuple[str, str], ...]
    frames: dict[str, ModuleFrame]

    @property
    def width(self) -> float:
        """The width of its ops, all drawn equally wide."""
        return max([NARROWEST, *(op.width for stack in self.stacks.values() for op in stack.ops)])

    def laid_out(self, width: float, engine: str) -> Layout:
        """The layout of its stacks, with ops of this width. Clusters have the keys of `frames`."""
        sizes = {
            name: (width if stack.ops else max(30.0, text_width(stack.shape, SMALL)), stack.height)
            for name, stack in self.stacks.items()
        }
        if not self.frames and list(self.edges) == list(pairwise(self.stacks)):
            return _stacked(sizes)
        return lay_out(sizes, self.edges, {key: frame.stacks for key, frame in self.frames.items()}, engine)


def stage_graph(stage: Stage, subject: Subject, look: Look) -> StageGraph:
    """The graph of a stage. A repeated module is drawn once."""
    owners: dict[str, str] = {}
    stacks: dict[str, OpStack] = {}
    frames: dict[str, ModuleFrame] = {}
    for number, block in enumerate(stage.blocks):
        members = _stacks(block, subject, look)
        stacks.update((stack.name, stack) for stack in members)
        if _is_framed(block, subject.depth):
            frames[str(number)] = ModuleFrame(block.title, block.count, tuple(stack.name for stack in members))
        frames.update(
            (f"{number} {path}", frame) for path, frame in _inner_frames(stage, block, members, subject.depth)
        )
        names = [stack.name for stack in members for _ in stack.ops]
        for instance in block.instances:
            owners.update((layer.node.name, name) for layer, name in zip(instance, names))
    inputs, edges = _edges(stage, subject, owners)
    around = {name: [frame.title for frame in frames.values() if name in frame.stacks] for name in stacks}
    stacks = {name: replace(stack, cluster=tuple(filter(None, around[name]))) for name, stack in stacks.items()}
    return StageGraph(stage, {**inputs, **stacks}, edges, frames)


def _is_framed(block: LayerBlock, depth: int | None) -> bool:
    """Whether a block has a frame: a repeated one, and a module down to this depth."""
    return block.count > 1 or bool(block.title and (depth is None or len(block.path.split(".")) <= depth))


def _inner_frames(
    stage: Stage, block: LayerBlock, stacks: Sequence[OpStack], depth: int | None
) -> Iterator[tuple[str, ModuleFrame]]:
    """The frames of the modules within a block down to this depth, each with its path and place; none without a depth.
    A module of a single layer has none.
    """
    outer = len(_common([layer.name.split(".")[:-1] for layer in stage.layers]))
    outer = max(outer, len(block.path.split(".")) if block.path else 0)
    for level in range(outer + 1, (depth or 0) + 1):
        runs = groupby(stacks, key=lambda stack: tuple(stack.ops[0].layer.name.split(".")[:-1][:level]))
        for place, (path, run) in enumerate(runs):
            members = list(run)
            if len(path) == level and sum(len(stack.ops) for stack in members) > 1:
                names = tuple(stack.name for stack in members)
                yield f"{level} {place}", ModuleFrame(within(block.path, ".".join(path)), 1, names)


def _common(paths: Sequence[Sequence[str]]) -> list[str]:
    """The first parts that all paths share."""
    return [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths))]


def drawn_as(subject: Subject) -> dict[str, str]:
    """The node that is drawn for each node: of repeated modules, that of the first."""
    drawn = dict.fromkeys(subject.given_names, INPUT)
    for stage in subject.stages:
        for block in stage.blocks:
            for instance in block.instances:
                pairs = zip(instance, block.instances[0])
                drawn.update((layer.node.name, first.node.name) for layer, first in pairs)
    return drawn


def _stacks(block: LayerBlock, subject: Subject, look: Look) -> list[OpStack]:
    """The ops of a block's first instance in stacks."""
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
            and (subject.depth is None or _module_of(layer, subject.depth) == _module_of(above, subject.depth))
        ):
            stacks[-1].append(layer)
        else:
            stacks.append([layer])
    ends = [sum(map(len, stacks[: i + 1])) - 1 for i in range(len(stacks))]
    results = [output_range([instance[end] for instance in block.instances]) for end in ends]
    return [
        OpStack(stack[0].node.name, tuple(_op(layer, block, subject, look) for layer in stack), result)
        for stack, result in zip(stacks, results)
    ]


def _module_of(layer: Layer, depth: int) -> list[str]:
    """The path of the module at this depth that holds a layer."""
    return layer.name.split(".")[:-1][:depth]


def _op(layer: Layer, block: LayerBlock, subject: Subject, look: Look) -> OpText:
    name = within(block.path, layer.name)
    facts = tuple(
        f"{fact.title}: {text}"
        for key, fact in look.facts.items()
        if key != "shape" and (text := fact.text((layer,), subject.report)) not in ("", "0", "0 B")
    )
    return OpText(layer, name, layer.node.name if layer.node.label else "", layer.spec_beside(name), facts)


def _edges(
    stage: Stage, subject: Subject, owners: dict[str, str]
) -> tuple[dict[str, OpStack], tuple[tuple[str, str], ...]]:
    """The inputs of the stage, a stack without ops for each tensor, and which stack reads which. Edges between two
    repetitions of a module are left out.
    """
    place = {
        layer.node.name: (number, repetition)
        for number, block in enumerate(stage.blocks)
        for repetition, instance in enumerate(block.instances)
        for layer in instance
    }
    inputs: dict[str, OpStack] = {}
    edges: dict[tuple[str, str], None] = {}
    for layer in stage.layers:
        target = owners[layer.node.name]
        for source in layer.node.inputs:
            if source not in owners:
                key = INTO + source
                inputs[key] = OpStack(
                    key, (), shape(subject.network.shapes[source], subject.network.batch_axis_of(source))
                )
                edges[key, target] = None
                continue
            (block, repetition), (own_block, own_repetition) = place[source], place[layer.node.name]
            if owners[source] != target and (block != own_block or repetition == own_repetition):
                edges[owners[source], target] = None
    if len(inputs) > 1:
        sources = {tensor.name: tensor.label for tensor in subject.network.inputs}
        sources.update((layer.node.name, layer.name) for layer in subject.every_layer)
        sources.update((layer.node.name, other.name) for other in subject.stages for layer in other.layers)
        inputs = {
            key: replace(stack, shape=f"{sources[key.removeprefix(INTO)]}: {stack.shape}")
            for key, stack in inputs.items()
        }
    return inputs, tuple(edges)


def _stacked(sizes: dict[str, tuple[float, float]]) -> Layout:
    """The layout of a chain: one box below another."""
    widest, y = max(width for width, _ in sizes.values()), 0.0
    boxes = {}
    for name, (width, height) in sizes.items():
        boxes[name] = Frame((widest - width) / 2, y, width, height)
        y += height + GAP
    middle = widest / 2
    curves = {(one, other): ((middle, boxes[one].bottom), (middle, boxes[other].y)) for one, other in pairwise(sizes)}
    return Layout(boxes, {}, curves, widest, y - GAP)
