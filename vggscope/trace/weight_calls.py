"""The calls of forward on weights alone: position-bias tables, standardised weights, joined biases.

A network's nodes read the results as constants. The memory of a step depends on the calls themselves, which are nodes
of their own for it: what they allocate, what autograd saves, and the gradients on the way to the parameters.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from weakref import ReferenceType, ref

from vggscope.graph import Node, Parameter
from vggscope.ops.base import Op, Shape, shape_by_rule
from vggscope.ops.constant import StoredWeight, WithWeightInputs
from vggscope.record import changed
from vggscope.trace.layout import shares_memory
from vggscope.trace.node_names import unique_name
from vggscope.trace.tensors import dtype_name

if TYPE_CHECKING:
    from torch import Tensor

MARK = " (weight)"
"""What follows the names of these nodes, which no other node has."""


class PlacedCall(NamedTuple):
    """A call, how many nodes of the network ran before it, and which tensors a variable refers to meanwhile."""

    node: Node
    place: int
    named: tuple[str, ...]


@dataclass
class WeightCalls:
    """The calls on weights alone of one run.

    `buffers` are the names of the module's buffers. `leaves` are the nodes of the parameters and buffers that are read,
    by their names, and `results` are the tensors of all. `varying` are the results whose shape is another for more
    samples. `is_known` is false once a call has no rule, or changes a tensor in place of which more is not known.
    `are_kept`: the module has stored a result for its next call.
    """

    buffers: MutableMapping[Tensor, str]
    dtype: str
    calls: list[PlacedCall] = field(default_factory=list)
    leaves: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    strides: dict[str, Shape] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    results: dict[str, ReferenceType[Tensor]] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)
    is_known: bool = True
    are_kept: bool = False

    def leaf(self, tensor: Tensor, parameters: tuple[Parameter, ...], place: int) -> str:
        """Return the node of a parameter, or of a buffer; an empty name for another tensor."""
        key = parameters[0].name if len(parameters) == 1 else self.buffers.get(tensor, "")
        if not key or key in self.leaves:
            return self.leaves.get(key, "")
        name = self.leaves[key] = self._named(key, tensor)
        self._add(name, StoredWeight(key, self.shapes[name]), (), tensor, place, (), parameters)
        return name

    def add(
        self,
        base: str,
        ops: Sequence[Op],
        sources: Sequence[str],
        results: Sequence[Tensor],
        named: Sequence[str],
        place: int,
    ) -> list[str]:
        """Add a call with an op for each result, and return the names of the results.

        `sources` are the names of the tensors that it reads. Without ops, only shapes and strides are noted.
        """
        names = [self._named(base, result) for result in results]
        if ops:
            self.is_known = self.is_known and len(ops) == len(results) and all(sources)
            for name, op, result in zip(names, ops, results) if self.is_known else ():
                self._add(name, op, tuple(sources), result, place, tuple(named))
        return names

    def _named(self, base: str, tensor: Tensor) -> str:
        name = unique_name(base + MARK, self.shapes, (), self.repeats)
        self.shapes[name], self.strides[name] = tuple(tensor.shape), tensor.stride()
        self.results[name] = ref(tensor)
        return name

    def sharing(self, tensor: Tensor) -> list[Tensor]:
        """Return the other tensors in the same memory that calls have returned and that are alive."""
        alive = {id(result): result for result in (reference() for reference in self.results.values())}
        return [r for r in alive.values() if r is not None and r is not tensor and shares_memory(r, tensor)]

    def made(self, name: str) -> bool:
        """Return whether the result of a call is all of a tensor that it has made, and may have a gradient."""
        nodes = [call.node for call in self.calls if call.node.name == name]
        return bool(nodes) and (nodes[0].op.allocates or nodes[0].op.is_rewritten) and not nodes[0].detached

    def _add(
        self,
        name: str,
        op: Op,
        sources: tuple[str, ...],
        tensor: Tensor,
        place: int,
        named: tuple[str, ...],
        parameters: tuple[Parameter, ...] = (),
    ) -> None:
        import torch

        if shape_by_rule(op, tuple([self.shapes[source] for source in sources])) != self.shapes[name]:
            self.is_known = False
            return
        is_float = tensor.is_floating_point()
        # A constant that forward makes of numbers keeps its dtype when the weights get another one.
        own = self.dtype if sources or isinstance(op, StoredWeight) else ""
        node = Node(
            name,
            op,
            sources,
            parameters=parameters,
            batch_growth=(0,) * tensor.dim(),
            detached=not (is_float and torch.is_grad_enabled()),
            dtype=dtype_name(tensor, own),
        )
        self.calls.append(PlacedCall(node, place, named))

    def attached(self, nodes: tuple[Node, ...], places: dict[str, int], until: dict[str, str]) -> tuple[Node, ...]:
        """Return the nodes with the calls that run before each, and with the calls until which they are named.

        `places` are the numbers of the network's nodes, and `until` is the last of them that runs while a variable
        refers to a tensor. The nodes are returned as they are if none reads what a call computes.
        """
        needed = self._needed(nodes)
        if not (needed and self.is_known) or self.are_kept or not self.varying.isdisjoint(node.name for node in needed):
            return tuple(changed(node, weight_inputs=()) if node.weight_inputs else node for node in nodes)
        until = dict(until)
        for call in self.calls:
            ended = (name for name in call.named if places.get(until.get(name, ""), -1) < call.place)
            until.update(dict.fromkeys(ended, call.node.name))
        waiting = [changed(node, named_until=until.get(node.name, ""), keeps_gradient=True) for node in needed]
        place_of = {call.node.name: call.place for call in self.calls}
        attached = []
        for node in nodes:
            ahead = [call for call in waiting if place_of[call.name] <= places[node.name]]
            del waiting[: len(ahead)]
            attached.append(
                changed(
                    node,
                    weight_calls=tuple(ahead),
                    named_until=until.get(node.name, ""),
                    keeps_gradient=node.keeps_gradient or bool(node.weight_inputs),
                )
            )
        return tuple(attached)

    def equals(self, other: WeightCalls) -> bool:
        """Return whether another run makes the same calls, whose results have the same shapes."""
        return self._results() == other.shapes

    def compare(self, other: WeightCalls) -> None:
        """Note which results have another shape in another run, such as one on more samples."""
        ours = self._results()
        self.is_known = self.is_known and ours.keys() == other.shapes.keys()
        self.varying.update(name for name, shape in ours.items() if shape != other.shapes.get(name))

    def _results(self) -> dict[str, Shape]:
        """Return the shapes of the calls' results, without those of parameters and buffers."""
        leaves = set(self.leaves.values())
        return {name: shape for name, shape in self.shapes.items() if name not in leaves}

    def _needed(self, nodes: tuple[Node, ...]) -> list[Node]:
        """Return the calls that the nodes depend on, and those that allocate."""
        needed = {name for node in nodes for name in node.weight_inputs}
        kept: list[Node] = []
        if not needed:
            return kept
        for call in reversed(self.calls):
            if call.node.name in needed or call.node.op.allocates:
                needed.update(call.node.inputs)
                kept.append(call.node)
        return kept[::-1]


def with_weights(op: Op, tensors: Sequence[Tensor]) -> Op:
    """Return the op of a call whose last inputs are these weights."""
    return WithWeightInputs(op, tuple(tensor.dim() > 1 for tensor in tensors)) if tensors else op
