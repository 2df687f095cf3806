"""The module calls of a chain of operations, nested as the module paths are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from vggscope.errors import ModelError, printable
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.recorded import CallResult, Recorded
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape
from vggscope.record import record

REMEDY = "what can be built is a chain of torch.nn modules, each called once; flatten may be a bare function"


@record
class ModuleCall:
    """One step of forward: a module that runs `node`, a Sequential of `children`, or, without a name, torch.flatten."""

    name: str
    node: Node | None = None
    children: tuple[ModuleCall, ...] = ()

    @property
    def is_numbered(self) -> bool:
        """Whether all names below are those that nn.Sequential gives by default: 0, 1, 2."""
        return all(child.name == str(i) and child.is_numbered for i, child in enumerate(self.children))


def module_calls(network: Network) -> tuple[ModuleCall, ...]:
    """The steps of forward, in order: calls of the top-level modules and of torch.flatten.

    Raises ModelError, naming the layer, where the network is no chain or has a layer that cannot be built.
    """
    previous = INPUT
    nodes = tuple(_as_flatten(network, node) for node in network.nodes)
    for node in nodes:
        if node.inputs != (previous,):
            raise _refusal(network, node, "reads other than the one layer before it")
        if isinstance(node.op, Recorded | CallResult):
            raise _refusal(network, node, f"runs {node.op.name}, which is no module of torch.nn")
        if node.module is None and not isinstance(node.op, Flatten):
            raise _refusal(network, node, "is the call of a function")
        previous = node.name
    return _nested(network, nodes, 0)


def _as_flatten(network: Network, node: Node) -> Node:
    """The node with Flatten for a `view` that has the same output shape; any other node unchanged."""
    if not isinstance(node.op, Reshape):
        return node
    op, shapes = Flatten(), network.input_shapes(node)
    return replace(node, op=op) if len(shapes) == 1 and op.output_shape(*shapes) == network.output_shape(node) else node


def _nested(network: Network, nodes: Sequence[Node], depth: int) -> tuple[ModuleCall, ...]:
    """The calls of nodes that share the first `depth` segments of their paths, grouped by the next segment."""
    calls: list[ModuleCall] = []
    for name, group in groupby(nodes, lambda node: node.module and node.module.split(".")[depth]):
        members = tuple(group)
        if name is None:
            calls.extend(ModuleCall("", node) for node in members)
            continue
        is_leaf = any(node.module and node.module.count(".") == depth for node in members)
        if not name or (is_leaf and len(members) > 1) or any(call.name == name for call in calls):
            raise _refusal(network, members[-1], "is in a module that is called more than once")
        children = () if is_leaf else _nested(network, members, depth + 1)
        calls.append(ModuleCall(name, members[0] if is_leaf else None, children))
    return tuple(calls)


def _refusal(network: Network, node: Node, problem: str) -> ModelError:
    return ModelError(f"{printable(network.name)} cannot be built: {printable(node.title)} {problem}", REMEDY)
