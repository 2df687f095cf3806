"""Writes a network's nodes down as its calls are seen.

Which node gave a tensor is known by the tensor's identity. A tensor that no input of the network has touched (a
weight, a buffer, a table made of them) is a Constant: what it was made of belongs to the first node that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from vggscope.errors import ShapeError
from vggscope.graph import INPUT, INPUT_MARK, Input, Node, Parameter
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithConstants
from vggscope.ops.recorded import Recorded, Result, Unknown
from vggscope.record import record
from vggscope.trace.layout import lying, shares_memory
from vggscope.trace.tensors import tensors_in
from vggscope.units import shape_text

if TYPE_CHECKING:
    from torch import Tensor


@record
class Constant:
    """Where a tensor comes from that no input has touched: the parameters that it was made of. `made` tells that
    forward made it, so that it lies in memory of its own.
    """

    parameters: tuple[Parameter, ...] = ()
    reads_computed_weight: bool = False


UNTOUCHED = Constant()
"""What is made of nothing that has a name: numbers that a forward writes down."""


def _uncounted() -> None:
    return None


@record
class Call:
    """One call as the tables read it.

    `ops` is one op, or one for each result where each result is its own node (the pieces of a `chunk`). `weights` are
    tensors that the op knows by itself, which are no inputs of the node. `count` gives the
    multiply-accumulates by torch's counter, for an op whose rule does not.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...] = ()
    count: Callable[[], int | None] = _uncounted


@dataclass
class Recorder:
    """The nodes so far by name, in execution order, with the shapes seen; and where each tensor comes from."""

    origins: MutableMapping[Tensor, str | Constant]
    reserved: frozenset[str]
    inputs: tuple[Input, ...] = ()
    returns: str = "nothing"
    nodes: dict[str, Node] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    pieces: set[str] = field(default_factory=set)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    returned: set[str] = field(default_factory=set)
    output: str | None = None
    output_place: int = 0
    repeats: dict[str, int] = field(default_factory=dict)
    named: dict[str, ReferenceType[Tensor]] = field(default_factory=dict)
    named_until: dict[str, str] = field(default_factory=dict)

    def begin(self, named: Sequence[tuple[str, Tensor]]) -> None:
        """Take these tensors as the network's inputs, by forward's names for them; a single one is INPUT."""
        inputs = []
        for argument, tensor in named:
            name = INPUT if len(named) == 1 else argument + INPUT_MARK if argument in self.reserved else argument
            self.origins[tensor] = name
            self.shapes[name] = shape_of(tensor)
            own = tensor.is_floating_point()
            inputs.append(Input(name, shape_of(tensor), "" if own else str(tensor.dtype).removeprefix("torch.")))
        self.inputs = tuple(inputs)

    def end(self, result: object) -> None:
        """Take what the forward returned: of several tensors the network's output is the one that the most weights
        went into, of those the first. Of the maps of all stages it is the last stage's, of logits and of what is made
        of them or beside them the logits.

        Others that a call gave beside its first result, as an LSTM's states are, belong to the row of that call.
        """
        origins = [self.origin(tensor) for tensor in tensors_in(result)]
        self.returns = "None" if result is None else "no tensor" if not origins else "tensors"
        given = {origin: place for place, origin in reversed(list(enumerate(origins))) if isinstance(origin, str)}
        if not given:
            self.returns = self.returns if not origins else "constants"
            return
        weighted = self._weighted if len(given) > 1 else lambda _: 0
        self.output = max(given, key=lambda name: (weighted(name), -given[name]))
        self.output_place = given[self.output]
        beside = {name for name in given if name in self.nodes and isinstance(self.nodes[name].op, Result)}
        self.returned.update(name for name in given if name == self.output or name not in beside)

    def _weighted(self, name: str) -> int:
        """How many layers with weights went into what a node gave."""
        found, left = set(), [name]
        while left:
            node = self.nodes.get(left.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                left += node.inputs
        return sum(bool(self.nodes[name].parameters) for name in found)

    def cost_warnings(self) -> tuple[str, ...]:
        """A sentence for each op whose cost is unknown."""
        return tuple(
            f"{places[0]}: the cost of {op} is unknown"
            + (f", and of {len(places) - 1} more call{'s' * (len(places) > 2)} of it" if len(places) > 1 else "")
            for op, places in self.unknown.items()
        )

    def warn(self, text: str) -> None:
        """Note what the reader should know, once."""
        self.warnings.setdefault(text)

    def origin(self, tensor: Tensor) -> str | Constant:
        """The node that gave a tensor, or the Constant that it is."""
        return self.origins.get(tensor, UNTOUCHED)

    def is_constant(self, tensors: Sequence[Tensor]) -> bool:
        """Whether no node has given any of these."""
        return not any(isinstance(self.origin(tensor), str) for tensor in tensors)

    def pass_on(self, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Results that are known by what they were made of: constants of constants."""
        parameters = self._owned(inputs)
        for tensor in results:
            made = self._is_made(inputs) or not any(shares_memory(tensor, source) for source in inputs)
            self.origins[tensor] = Constant(parameters, made and tensor.numel() > 1)

    def repeat(self, tensor: Tensor, results: Sequence[Tensor]) -> None:
        """Results that are the values of another tensor."""
        for result in results:
            self.origins[result] = self.origin(tensor)

    def macs(self, name: str) -> int | None:
        """What a node cost, by the shapes that were seen."""
        node = self.nodes[name]
        return node.op.macs(tuple(self.shapes[source] for source in node.inputs), self.shapes[name])

    def add(
        self,
        base: str,
        call: Call,
        results: Sequence[Tensor],
        module: str | None = None,
        parameters: tuple[Parameter, ...] = (),
    ) -> None:
        """One call: a node, or one for each of its results."""
        parameters = (*parameters, *self._owned((*call.inputs, *call.weights)))
        if len(call.ops) == len(results) > 1:
            for op, result in zip(call.ops, results):
                self.pieces.add(self._add(base, op, call, result, None, parameters))
            return
        first = self._add(base, call.ops[0], call, results[0], module, parameters)
        if call.ops[0].name == "detach":
            self.pieces.add(first)  # often made only to look at: x.data.shape
        for position, result in enumerate(results[1:], 1):
            op = Result(call.ops[0].name, position, shape_of(result))
            self.pieces.add(self._add(first, op, Call((op,), tuple(results[:1])), result, None, ()))

    def finished(self) -> tuple[Node, ...]:
        """The nodes, without the pieces and views that nothing reads or returns."""
        until = self.named_until
        nodes = tuple(replace(n, named_until=until[n.name]) if n.name in until else n for n in self.nodes.values())
        while True:
            read = self.returned.union(*(node.inputs for node in nodes))
            kept = tuple(node for node in nodes if node.name in read or node.name not in self.pieces)
            if len(kept) == len(nodes):
                return nodes
            nodes = kept

    def _add(
        self,
        base: str,
        op: Op,
        call: Call,
        result: Tensor,
        module: str | None,
        parameters: tuple[Parameter, ...],
    ) -> str:
        import torch

        inputs, weights = call.inputs, call.weights

        name = self._unique(base, module is not None)
        op = lying(op, inputs, result)
        origins = [self.origin(tensor) for tensor in inputs]
        sources = tuple(origin for origin in origins if isinstance(origin, str))
        if len(sources) < len(origins):
            constants = (None if isinstance(o, str) else shape_of(t) for o, t in zip(origins, inputs))
            fixed = (i for i, o in enumerate(origins) if isinstance(o, Constant) and not o.parameters)
            op = WithConstants(op, tuple(constants), tuple(fixed))
        op = self._checked(name, op, call, tuple(self.shapes[source] for source in sources), shape_of(result))
        own, given = (last_words(names) for names in (op.parameters(), [p.name for p in parameters]))
        made = self._is_made((*inputs, *weights)) or (module is not None and not own <= given)
        detached = not torch.is_grad_enabled()
        self.nodes[name] = Node(
            name, op, sources, module, "", parameters, reads_computed_weight=made, detached=detached
        )
        self.shapes[name] = shape_of(result)
        self.origins[result] = name
        self._see_names(name, result)
        return name

    def _see_names(self, name: str, result: Tensor) -> None:
        """Note whose outputs the forward still names while this node runs: those tensors are alive."""
        self.named = {other: tensor for other, tensor in self.named.items() if tensor() is not None}
        self.named_until.update(dict.fromkeys(self.named, name))
        self.named[name] = ref(result)

    def _checked(self, name: str, op: Op, call: Call, inputs: tuple[Shape, ...], output: Shape) -> Op:
        """The op, if its rule gives the output shape that torch gave; else one that carries that shape, and the cost
        that torch's counter gives. A cost that neither tells is a warning.
        """
        try:
            rule: Shape | None = op.output_shape(*inputs)
        except (ShapeError, ValueError, IndexError, TypeError):
            rule = None
        if rule == output and op.macs(inputs, output) is not None:
            return op
        cost = call.count()
        if cost is not None:
            return Recorded(op.name, inputs, output, shares=not op.allocates, cost=cost)
        if rule != output:
            said = "none" if rule is None else shape_text(rule)
            self.warn(f"{name}: our rule for {op.name} gives {said}, torch {shape_text(output)}; its cost is unknown")
            return Unknown(op.name, inputs, output)
        self.unknown.setdefault(op.name, []).append(name)
        return op

    def _owned(self, tensors: Sequence[Tensor]) -> tuple[Parameter, ...]:
        origins = [self.origin(tensor) for tensor in tensors]
        return tuple(dict.fromkeys(p for origin in origins if isinstance(origin, Constant) for p in origin.parameters))

    def _is_made(self, tensors: Sequence[Tensor]) -> bool:
        origins = [self.origin(tensor) for tensor in tensors]
        return any(isinstance(origin, Constant) and origin.reads_computed_weight for origin in origins)

    def _unique(self, base: str, is_module: bool) -> str:
        """The name, with :2, :3... where it is taken; a function leaves the modules' paths to them."""
        if base not in self.shapes and (is_module or base not in self.reserved):
            return base
        number = self.repeats.get(base, 1) + 1
        while f"{base}:{number}" in self.shapes:
            number += 1
        self.repeats[base] = number
        return f"{base}:{number}"


def last_words(names: Iterable[str]) -> set[str]:
    """Parameters' names without the modules that they are in."""
    return {name.rpartition(".")[2] for name in names}


def shape_of(tensor: Tensor) -> Shape:
    """A tensor's shape as a plain tuple."""
    return tuple(tensor.shape)


def on_meta(value: object) -> object:
    """The argument with its tensors without data: those that a forward brings along have some."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return value if value.is_meta else value.to("meta")
    if type(value) is tuple:
        return tuple(map(on_meta, value))
    return list(map(on_meta, value)) if type(value) is list else value
