"""Where a network is cut: into frozen features and a head, and into the stages that checkpointing recomputes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from vggscope.analysis.memory.calls import Call
from vggscope.graph import INPUT, Network
from vggscope.ops.base import Shape, numel


def head_parameters(network: Network) -> frozenset[str]:
    """The names of the parameters behind the last layer that makes the map smaller: VGG's FC layers, a ResNet's `fc`.

    Where there are none behind it, those of the last layer with parameters.
    """
    start = 0
    for position, node in enumerate(network.nodes):
        before = [_area(shape) for shape in network.input_shapes(node)]
        if before and 0 < _area(network.output_shape(node)) < max(before):
            start = position + 1
    owned = [node.parameters for node in network.nodes[start:] if node.parameters]
    if not owned:
        owned = [node.parameters for node in network.nodes if node.parameters][-1:]
    return frozenset(p.name for parameters in owned for p in parameters)


def stages(network: Network, calls: Sequence[Call]) -> tuple[range, ...]:
    """The calls of each stage that checkpointing recomputes from one tensor.

    A stage ends at the first place where the map has become smaller and one tensor is all that later calls read of
    earlier ones. What stands behind the last such place is the head and in no stage.
    """
    found: list[range] = []
    start, area = 0, _area(network.input_shape)
    for position in _crossings(calls):
        now = _area(network.shapes.get(calls[position].output, ()))
        if 0 < now < area:
            found.append(range(start, position + 1))
            start, area = position + 1, now
    return tuple(found)


def _area(shape: Shape) -> int:
    """Pixels of a map; 0 for what is no map."""
    return numel(shape[2:]) if len(shape) == 4 else 0


def _crossings(calls: Sequence[Call]) -> Iterator[int]:
    """The positions behind which only that call's output is read, and is not overwritten."""
    last = {name: position for position, call in enumerate(calls) for name in call.inputs}
    needed_until = last.get(INPUT, -1)
    for position, (call, following) in enumerate(pairwise(calls)):
        overwritten = following.shares and following.gradient == "new"
        if needed_until <= position and not overwritten:
            yield position
        needed_until = max(needed_until, last.get(call.output, -1))
