"""The modules that a chain of operations needs, nested as their dotted paths say, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from vggscope.errors import ModelError, printable
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.recorded import Recorded, Result
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape
from vggscope.record import record

REMEDY = "what can be built is a chain of torch.nn modules, each called once; flatten may be a bare function"


@record
class Part:
    """One call: a module that runs `node`, a Sequential of `parts`, or, without a name, the function flatten."""

    name: str
    node: Node | None = None
    parts: tuple[Part, ...] = ()

    @property
    def is_numbered(self) -> bool:
        """Whether all parts below have the names that a Sequential gives by itself: 0, 1, 2."""
        return all(part.name == str(i) and part.is_numbered for i, part in enumerate(self.parts))


def parts(network: Network) -> tuple[Part, ...]:
    """The calls that make up a forward pass: the modules at the top of the tree and the bare flattens, in order.

    Raises ModelError, naming the layer, where the network is no chain or holds what cannot be built.
    """
    previous = INPUT
    nodes = tuple(_flattening(network, node) for node in network.nodes)
    for node in nodes:
        if node.inputs != (previous,):
            raise _refusal(network, node, "reads other than the one layer before it")
        if isinstance(node.op, Recorded | Result):
            raise _refusal(network, node, f"runs {node.op.name}, which is no module of torch.nn")
        if node.module is None and not isinstance(node.op, Flatten):
            raise _refusal(network, node, "is the call of a function")
        previous = node.name
    return _grouped(network, nodes, 0)


def _flattening(network: Network, node: Node) -> Node:
    """A `view` that does on each image what flatten does as that."""
    if not isinstance(node.op, Reshape):
        return node
    op, met = Flatten(), network.input_shapes(node)
    return replace(node, op=op) if len(met) == 1 and op.output_shape(*met) == network.output_shape(node) else node


def _grouped(network: Network, nodes: Sequence[Node], depth: int) -> tuple[Part, ...]:
    """The nodes that share their first `depth` path segments, as parts by the next segment."""
    calls: list[Part] = []
    for name, group in groupby(nodes, lambda node: node.module and node.module.split(".")[depth]):
        members = tuple(group)
        if name is None:
            calls.extend(Part("", node) for node in members)
            continue
        is_leaf = any(node.module and node.module.count(".") == depth for node in members)
        if not name or (is_leaf and len(members) > 1) or any(call.name == name for call in calls):
            raise _refusal(network, members[-1], "stands in a module that is called more than once")
        calls.append(Part(name, members[0]) if is_leaf else Part(name, parts=_grouped(network, members, depth + 1)))
    return tuple(calls)


def _refusal(network: Network, node: Node, problem: str) -> ModelError:
    return ModelError(f"{printable(network.name)} cannot be built: {printable(node.title)} {problem}", REMEDY)
