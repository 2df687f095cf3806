"""A Network as an nn.Module, with the module paths and state-dict keys of its nodes.

A column of Table 1 becomes torchvision's module tree: `features`, `avgpool` and `classifier`.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, printable
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.recorded import CallResult, Recorded
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape
from vggscope.record import record

if TYPE_CHECKING:
    from torch import Tensor, nn

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

    Raises ModelError, naming the layer, where the network is not a chain or has a layer that cannot be built, and
    ShapeError where its forward pass fails: the layers after that are not known.
    """
    network.require_runnable()
    previous, owners = INPUT, dict[str, Node]()
    nodes = tuple(_as_flatten(network, node) for node in network.nodes)
    for node in nodes:
        if node.inputs != (previous,):
            raise _refusal(network, node, "reads other than the one layer before it")
        if isinstance(node.op, Recorded | CallResult):
            raise _refusal(network, node, f"runs {node.op.name}, which is not a module of torch.nn")
        if node.op.has_gates:
            raise _refusal(network, node, "returns its last states too, which no chain passes on")
        if node.module is None and not isinstance(node.op, Flatten):
            raise _refusal(network, node, "is the call of a function")
        # Vectors may be one tensor because an exporter writes equal ones once, such as the zeros of two biases.
        for weight in (own.name for own in node.parameters if len(own.shape) > 1):
            owner = owners.setdefault(weight, node)
            if owner.module != node.module:
                raise _refusal(network, node, f"shares the weights of {printable(owner.title)}")
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


def module(network: Network) -> nn.Module:
    """The module in the network's dtype, on the caller's default device and with torch's own initialisation.

        with torch.device("meta"):
            model = module(network)  # allocates no memory

    Raises ModelError for a network that is not a chain of torch.nn modules.
    """
    calls = module_calls(network)
    try:
        built: nn.Module = _vgg()(calls)
    except KeyError as error:  # torch refuses a submodule named like an attribute of nn.Module
        raise ModelError(f"{printable(network.name)} cannot be built: {printable(error.args[0])}", REMEDY) from None
    if network.dtype == "float32":
        return built
    import torch

    return built.to(getattr(torch, network.dtype))


def submodule(model: nn.Module, at: str, network: Network | None = None) -> nn.Module:
    """The module at a path such as `features.0`, or, with the model's Network, at a label such as `conv1_1`.

    Raises ModelError with the nearest names where there is none.
    """
    labels = {node.label: node.module for node in network.nodes if node.label and node.module} if network else {}
    modules: dict[str, nn.Module] = dict(model.named_modules())
    path = labels.get(at, at)
    if not path or path not in modules:
        names = [*filter(None, modules), *labels]
        nearest = difflib.get_close_matches(at, names, n=3) or names[:3]
        raise ModelError(f"no module {at!r}", f"the nearest are {', '.join(nearest)}" if nearest else "")
    return modules[path]


def __getattr__(name: str) -> object:
    """The class VGG, created on first use: this file must import without torch, and pickle must find the class."""
    if name == "VGG":
        return _vgg()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _vgg() -> type[nn.Module]:
    import torch
    from torch import nn

    class VGG(nn.Module):
        """The modules of a network, called one after the other."""

        __qualname__ = "VGG"

        def __init__(self, calls: tuple[ModuleCall, ...]) -> None:
            super().__init__()
            self._calls = calls
            for call in calls:
                if call.name:
                    self.add_module(call.name, _built(call))

        def forward(self, x: Tensor) -> Tensor:
            for call in self._calls:
                if call.name:
                    x = self.get_submodule(call.name)(x)
                elif call.node and isinstance(call.node.op, Flatten):
                    x = torch.flatten(x, call.node.op.start_dim, call.node.op.end_dim)
            return x

    return VGG


def _built(call: ModuleCall) -> nn.Module:
    from torch import nn

    if call.node is None:
        return nn.Sequential(OrderedDict((child.name, _built(child)) for child in call.children))
    op = call.node.op
    cls = getattr(nn, op.name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ModelError(f"{printable(call.node.title)} cannot be built: torch.nn has no {op.name}", REMEDY)
    built: nn.Module = cls(**op.arguments())
    return built
