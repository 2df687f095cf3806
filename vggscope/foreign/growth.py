"""How the nodes of a program that is read grow with the batch, from its shapes for one sample and for two."""

from __future__ import annotations

from dataclasses import replace

from vggscope.errors import option
from vggscope.foreign.program import Program
from vggscope.graph import Network, Node
from vggscope.ops.base import Op, Shape
from vggscope.trace.layout import with_layout_of


def nodes_with_growth(nodes: tuple[Node, ...], one: Program, two: Program) -> tuple[Node, ...] | None:
    """The nodes for one sample with their growth by a second one; None if the two do not have the same nodes."""
    if one.nodes.keys() != two.nodes.keys():
        return None
    if any(len(one.shapes[name]) != len(two.shapes[name]) for name in one.shapes):
        return None
    return tuple(_with_growth(node, one, two) for node in nodes)


def _with_growth(node: Node, one: Program, two: Program) -> Node:
    grown = growth(one.shapes[node.name], two.shapes[node.name])
    first, both = _macs(node.op, node, one), _macs(two.nodes[node.name].op, node, two)
    is_same = one.shapes[node.name] == two.shapes[node.name]
    expected = first if is_same or first is None else 2 * first
    batched_op = with_layout_of(node.op, two.nodes[node.name].op)
    return replace(node, batch_growth=grown, irregular=both != expected, batched_op=batched_op)


def _macs(op: Op, node: Node, program: Program) -> int | None:
    return op.macs(tuple(program.shapes[source] for source in node.inputs), program.shapes[node.name])


def growth(one: Shape, two: Shape) -> Shape | None:
    """By how much a second sample extends each axis; None if it doubles the first axis alone.

    >>> growth((1, 8), (2, 8)), growth((3, 1, 8), (3, 2, 8)), growth((5,), (5,))
    (None, (0, 1, 0), (0,))
    """
    added = tuple(more - size for size, more in zip(one, two))
    return None if one and added == (*one[:1], *(0,) * (len(one) - 1)) else added


def has_batch(network: Network) -> bool:
    """Whether the axis that grows may be the batch: what is returned grows, and no layer takes it for its steps."""
    growths = _growths(network)
    returned = [name for name in network.returned_nodes if network.shapes[name]]
    grows = not returned or any(growths[name] is None or any(growths[name] or ()) for name in returned)
    return grows and not reads_by_steps(network)


def reads_by_steps(network: Network) -> bool:
    """Whether a recurrent layer takes the axis that grows for its steps, so that the batch may be the next one."""
    growths = _growths(network)
    for node in network.nodes:
        steps = node.op.steps_axis(network.shapes[node.inputs[0]]) if node.inputs else None
        if steps is not None and _grows(growths[node.inputs[0]], steps):
            return True
    return False


def _growths(network: Network) -> dict[str, Shape | None]:
    growths = {given.name: given.batch_growth for given in network.inputs}
    return {**growths, **{node.name: node.batch_growth for node in network.nodes}}


def _grows(growth: Shape | None, axis: int) -> bool:
    """Whether an axis grows with the batch; None is that of the first axis."""
    return axis == 0 if growth is None else growth[axis] > 0


def no_batch() -> str:
    """Why a file is read for the inputs in it alone whose batch is not known."""
    return f"which axis of its input is the batch is not known; {option('batch_axis')} and a size name it"


def batch_axis_note(axis: int) -> str:
    """The note on an axis that was chosen for the batch."""
    return f"the batch is taken to be axis {axis} of its input; {option('batch_axis')} names another"


def is_extrapolated(one: Program, two: Program, whole: Program, batch: int) -> bool:
    """Whether each further sample up to `batch` adds to all shapes what the second one adds."""
    if whole.nodes.keys() != one.nodes.keys():
        return False
    return all(
        len(shape) == len(one.shapes[name])
        and all(a + (b - a) * (batch - 1) == c for a, b, c in zip(one.shapes[name], two.shapes[name], shape))
        for name, shape in whole.shapes.items()
    )
