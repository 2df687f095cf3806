"""Which pixels one unit depends on, followed from the unit back to the input.

Exact where the rule is not: what lies in a map's padding, or behind the last window that fits, is read by nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set

from vggscope.analysis.receptive_field.extent import Laid, Span
from vggscope.analysis.receptive_field.view import BLIND, Side, Untold, View
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.reading import Reads

Positions = tuple[Set[int], ...]
"""Along each of the image's axes, the positions of a node that are read."""


def pixels_read(
    network: Network, views: Mapping[str, View | Untold], node: Node, unit: tuple[int, ...]
) -> tuple[Span, ...] | None:
    """The first and the last pixel along each axis that a unit depends on; None where it depends on none.

    `views` are the network's, the node's own must be known.
    """
    view = views[node.name]
    assert isinstance(view, View)
    start = tuple({_position(side, place)} for side, place in zip(view.sides, unit))
    wanted: defaultdict[str, list[Positions]] = defaultdict(list, {node.name: [start]})
    for current in reversed(network.nodes[: network.nodes.index(node) + 1]):
        if current.name in wanted:
            _ask(network, views, current, _together(wanted.pop(current.name)), wanted)
    if INPUT not in wanted:
        return None
    return tuple((min(found), max(found)) for found in _together(wanted[INPUT]))


def _position(side: Side, place: int) -> int:
    """Where a unit of the map lies along the node's own axis."""
    if side.axis is None:
        return 0
    return place * side.extent.fold.inner if isinstance(side.extent, Laid) else place


def _together(asked: list[Positions]) -> Positions:
    return asked[0] if len(asked) == 1 else tuple(frozenset().union(*side) for side in zip(*asked))


def _ask(
    network: Network,
    views: Mapping[str, View | Untold],
    node: Node,
    positions: Positions,
    wanted: defaultdict[str, list[Positions]],
) -> None:
    """Hand on to the node's inputs what of each is read."""
    reads = node.op.reads(network.input_shapes(node), network.output_shape(node))
    assert reads is not None
    for name, read in zip(node.inputs, reads):
        view = views[name]
        if view is BLIND or not isinstance(view, View):
            continue
        shape = network.shapes[name]
        found = tuple(_sources(side, read, asked, shape) for side, asked in zip(view.sides, positions))
        if all(found):
            wanted[name].append(found)


def _sources(side: Side, reads: Reads, positions: Set[int], shape: tuple[int, ...]) -> Set[int]:
    if side.axis is None:
        return {0}
    along = reads.get(side.axis)
    if along is None:
        return set(range(shape[side.axis]))
    return along[1].sources(positions, shape[side.axis])
