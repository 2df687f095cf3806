"""Where the rows of a block branch: each tensor that is not simply read by the row below, as a line beside the rows."""

from __future__ import annotations

from collections.abc import Sequence

from vggscope.drawing.stages import LayerBlock, Stage
from vggscope.record import record

TOP = -1
"""The place above the first row: the input of the rows."""

Edge = tuple[int, int]
"""The numbers of a row and of a later row that reads it."""


@record
class Rail:
    """A line beside rows: one tensor that several rows read, or several that one row reads. `lane` 0 is the one next to
    the rows.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    lane: int

    @property
    def top(self) -> int:
        return min(self.sources)

    @property
    def bottom(self) -> int:
        return max(self.targets)


def block_rails(block: LayerBlock) -> tuple[Rail, ...]:
    """The rails between the rows of a block, numbered within it."""
    edges: dict[Edge, None] = {}
    place = {layer.node.name: number for number, row in enumerate(block.rows) for layer in row.layers}
    given = block.rows[0].layer.node.inputs
    for number, row in enumerate(block.rows):
        for name in row.layer.node.inputs:
            if name in place and not _reads_row_above(block, number, name):
                edges[place[name], number] = None
            elif number and name in given:
                edges[TOP, number] = None
    return _in_lanes(edges)


def starts_branch(block: LayerBlock, number: int) -> bool:
    """Whether a row does not read the row above it, so that nothing passes between the two."""
    return number > 0 and not any(
        _reads_row_above(block, number, name) for name in block.rows[number].layer.node.inputs
    )


def stage_rails(stage: Stage) -> tuple[Rail, ...]:
    """The rails between the blocks of a stage, whose rows are numbered from the first block on."""
    edges: dict[Edge, None] = {}
    place: dict[str, int] = {}
    given = stage.blocks[0].rows[0].layer.node.inputs
    first, above = 0, ""
    for block in stage.blocks:
        own = {layer.node.name for layer in block.instances[0]}
        shared = block.rows[0].layer.node.inputs
        for number, row in enumerate(block.rows):
            for name in row.layer.node.inputs:
                # Within a block the first row's input has a rail of the block; the last layer above has no need of one.
                if name in own or (number and name in shared) or name == above:
                    continue
                if name in place and place[name] < first - 1:
                    edges[place[name], first + number] = None
                elif first and name in given:
                    edges[TOP, first + number] = None
        for instance in block.instances:
            layers = iter(instance)
            place.update(
                (next(layers).node.name, first + number) for number, row in enumerate(block.rows) for _ in row.layers
            )
        first, above = first + len(block.rows), block.instances[-1][-1].node.name
    return _in_lanes(edges)


def read_from_elsewhere(stage: Stage, names: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Of each row that reads another stage's layer or an input, and not as the stage's first row does: the rows' first
    layers, and what they read by the `names` that people know.
    """
    own = {layer.node.name for layer in stage.layers}
    given = stage.blocks[0].rows[0].layer.node.inputs
    elsewhere: dict[str, tuple[str, ...]] = {}
    for row in stage.rows:
        read = [name for name in row.layer.node.inputs if name not in own and name not in given]
        if read:
            elsewhere[row.layer.node.name] = tuple(dict.fromkeys(names.get(name, name) for name in read))
    return elsewhere


def lanes(rails: Sequence[Rail]) -> int:
    """How many lanes they take."""
    return 1 + max((rail.lane for rail in rails), default=-1)


def _reads_row_above(block: LayerBlock, number: int, name: str) -> bool:
    return number > 0 and name == block.rows[number - 1].layers[-1].node.name


def _in_lanes(edges: Sequence[Edge] | dict[Edge, None]) -> tuple[Rail, ...]:
    """The edges as rails: those of a row that several rows read, then those that the same row reads. The shortest are
    next to the rows, and two whose rows overlap are in different lanes.
    """
    targets: dict[int, list[int]] = {}
    for source, target in edges:
        targets.setdefault(source, []).append(target)
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((source,), tuple(several)) for source, several in targets.items() if len(several) > 1
    ]
    sources: dict[int, list[int]] = {}
    for source, target in edges:
        if len(targets[source]) == 1:
            sources.setdefault(target, []).append(source)
    groups += [(tuple(several), (target,)) for target, several in sources.items()]
    rails: list[Rail] = []
    for several, readers in sorted(groups, key=lambda group: max(group[1]) - min(group[0])):
        top, bottom = min(several), max(readers)
        taken = {rail.lane for rail in rails if rail.top < bottom and top < rail.bottom}
        rails.append(Rail(several, readers, next(lane for lane in range(len(rails) + 1) if lane not in taken)))
    return tuple(rails)
