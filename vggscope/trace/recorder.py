"""Record the nodes of a network, call by call.

The recorder maps each tensor to the node that computes it, by the tensor's identity. A tensor that does not depend on
the network's inputs (a weight, a buffer, a table computed from them) is a Constant. Its parameters belong to the first
node that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import GeneratorType
from typing import TYPE_CHECKING, NamedTuple
from weakref import ReferenceType, ref

from vggscope.graph import INPUT, INPUT_MARK, OUTPUT, CodePosition, ConstantValue, Input, Node, Output, Parameter
from vggscope.ops.base import Op, Shape, numel, shape_by_rule
from vggscope.ops.constant import RewrittenWeight, WithComputedWeights, WithConstants
from vggscope.ops.recorded import CallResult, Recorded, Unknown
from vggscope.record import changed, record
from vggscope.trace.constants import ConstantValues
from vggscope.trace.flops import UNCOUNTED, Counted, OperatorMacs
from vggscope.trace.layout import shares_memory, with_layout
from vggscope.trace.node_names import unique_name
from vggscope.trace.saved import Saved, by_rule, kind
from vggscope.trace.source_line import Stack, current_positions
from vggscope.trace.tensors import dtype_name, named_tensors, tensors_in
from vggscope.trace.transforms import is_transforming
from vggscope.trace.weight_calls import WeightCalls, with_weights
from vggscope.trace.writes import Write, Writes, region_of
from vggscope.units import count_text, shape_text

if TYPE_CHECKING:
    from torch import Tensor


@record
class Constant:
    """The origin of a tensor that does not depend on the network's inputs: the parameters that it depends on.

    `reads_computed_weight` is true if forward computes the tensor, which then has memory of its own. `call` is the node
    of the call on weights that it comes from, empty for a parameter, a buffer, or a tensor from elsewhere.
    """

    parameters: tuple[Parameter, ...] = ()
    reads_computed_weight: bool = False
    call: str = ""


WITHOUT_PARAMETERS = Constant()
"""The origin of a tensor that depends on no parameter, such as numbers in the code of forward."""


Count = Callable[[Sequence["Tensor"]], Counted]
"""A function that returns the cost of a call with gradients for the given tensors."""


def _no_count(leaves: Sequence[Tensor]) -> Counted:
    return UNCOUNTED


class Origins(NamedTuple):
    """Where the tensors of a call come from.

    `nodes` are the nodes and inputs of the network, and `parameters` those that constants depend on. `are_computed` is
    whether forward computes one of these constants, and `weight_inputs` are the calls that do, as a Node's. `kinds` has
    a letter for each tensor: n for a node or an input, p for a constant with parameters, c for one without.
    """

    nodes: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    are_computed: bool
    kinds: str
    weight_inputs: tuple[str, ...] = ()

    @property
    def train(self) -> bool:
        """Whether one of the parameters is trained."""
        return True in [parameter.trainable for parameter in self.parameters]


class NodeFacts(NamedTuple):
    """What a node has in common with those of equal calls: their tensors are alike, and of the same kinds of origins.

    - `op` agrees with torch in the shape, the cost and what is saved for backward. `kinds` are those of the origins of
      its inputs and weights.
    - `parameters` are the names of the parameters that the op has, and `has_gradient` is whether it has a gradient.
    - `torch_macs` are the multiply-accumulates of the operators that torch dispatches, None if they are unknown.
    - `kind` tells apart the ops of which torch is asked what they save for backward, once in each run; None for an op
      of which it is not. `is_asked` is whether torch was asked about this call, and has agreed.
    - `shape`, `strides` and `dtype` are those of the result; a sparse one has no strides. `is_differentiable`:
      whether it can have a gradient.
    """

    op: Op
    kinds: str
    parameters: frozenset[str]
    has_gradient: bool
    torch_macs: int | None
    kind: object
    is_asked: bool
    shape: Shape
    strides: Shape | None
    dtype: str
    is_differentiable: bool


class Call(NamedTuple):
    """One call of a function or module.

    - `ops` is one op, or one for each result if each result is a node of its own, as with `chunk`.
    - `weights` are tensors that belong to the op. They are not inputs of the node.
    - `cost` returns the cost by torch's counter, with gradients for the given tensors. It is used if the op's own rule
      fails.
    - `dispatched` are the multiply-accumulates of the operators that the call has dispatched; None if it is not known.
    - `saved` returns what autograd saves of the call in training; None if it is not known.
    - `reads` are further constants that its values depend on.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...] = ()
    cost: Count = _no_count
    dispatched: OperatorMacs | None = None
    saved: Callable[[Op], Saved | None] = lambda op: None
    reads: tuple[Tensor, ...] = ()


@dataclass
class Recorder:
    """The recorded nodes and output shapes by name, in execution order, and the origin of each tensor.

    `strides` are those of the inputs and of the nodes' outputs, without those of sparse tensors.

    `dtype` is the network's own dtype, which tensors do not name. `lines` has the running lines at each reshape that
    changes the number of rows.
    `output_origins` are the nodes or inputs whose tensors forward returns, "" for a constant, and `returned_parameters`
    the parameters whose values it returns.
    `torch_macs` are the multiply-accumulates of the operators that torch has dispatched, None if they are unknown, and
    `disagreements` are sentences on figures that differ from torch's. `asked` are the kinds of ops of which torch was
    asked what they save for backward, with whether it agrees with their rule.
    `needs_gradient` are the nodes whose output depends on a parameter that is trained.
    `sparse_gradients` are the names of parameters whose gradient a call makes sparse.
    `compares` is false in a run whose figures are not compared with torch's, `describes` in one of which only ops,
    shapes and costs are read: its nodes have no constants and no positions in the code. `memory` is false in one of
    which nothing is read that the memory analysis alone needs.
    `named` are the tensors of nodes and of calls on weights, each with the last node when it is made. `named_until` is
    the last node before a tensor is freed, and `last_named` holds the last one of all.
    `positions` gives the calls of the user's own code that are running.
    `has_own_backward` is true inside a torch.autograd.Function, whose backward is the user's code.
    """

    origins: MutableMapping[Tensor, str | Constant]
    constants: ConstantValues
    writes: Writes
    reserved: frozenset[str]
    weights: WeightCalls
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    output_origins: tuple[str, ...] = ()
    returns: str = "nothing"
    nodes: dict[str, Node] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    strides: dict[str, Shape] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    pieces: set[str] = field(default_factory=set)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    returned: set[str] = field(default_factory=set)
    output: str | None = None
    output_place: int = 0
    repeats: dict[str, int] = field(default_factory=dict)
    named: dict[str, tuple[ReferenceType[Tensor], str]] = field(default_factory=dict)
    named_until: dict[str, str] = field(default_factory=dict)
    last_named: list[str] = field(default_factory=lambda: [""])
    needs_gradient: set[str] = field(default_factory=set)
    has_own_backward: bool = False
    sparse_gradients: set[str] = field(default_factory=set)
    dtype: str = "float32"
    lines: dict[str, Stack] = field(default_factory=dict)
    returned_parameters: set[str] = field(default_factory=set)
    torch_macs: int | None = 0
    disagreements: list[str] = field(default_factory=list)
    asked: dict[object, bool] = field(default_factory=dict)
    compares: bool = True
    describes: bool = True
    memory: bool = True
    positions: Callable[[], tuple[CodePosition, ...]] = current_positions

    def begin(self, arguments: Sequence[tuple[str, Tensor]]) -> None:
        """Record the network's inputs under the names of forward's arguments; a single input is named INPUT."""
        inputs = []
        for argument, tensor in arguments:
            name = INPUT if len(arguments) == 1 else argument + INPUT_MARK if argument in self.reserved else argument
            self.origins[tensor] = name
            self.shapes[name] = shape_of(tensor)
            self._note_strides(name, tensor)
            inputs.append(Input(name, shape_of(tensor), dtype_name(tensor, self.dtype)))
        self.inputs = tuple(inputs)

    def end(self, result: object) -> None:
        """Record what forward returns.

        Of several tensors, the network's output is the first that depends on the most layers with weights: the feature
        map of the last stage, or the logits beside an auxiliary result. Further results of one call, such as the
        states of an LSTM, belong to the row of that call.
        """
        self.refresh("", tensors_in(result))
        self.outputs = tuple(
            Output(_output_name(place), shape_of(tensor), dtype_name(tensor, self.dtype), source=self._source(tensor))
            for place, tensor in named_tensors("", result)
        )
        origins = [self.origin(tensor) for tensor in tensors_in(result)]
        self.output_origins = tuple([origin if isinstance(origin, str) else "" for origin in origins])
        self.returned_parameters = {p.name for o in origins if isinstance(o, Constant) for p in o.parameters}
        nothing = {type(None): "None", GeneratorType: "a generator"}.get(type(result), "no tensor")
        self.returns = "tensors" if origins else nothing
        places = {origin: place for place, origin in reversed(list(enumerate(origins))) if isinstance(origin, str)}
        if not places:
            self.returns = self.returns if not origins else "constants"
            return
        weighted = self._weighted_layers if len(places) > 1 else lambda _: 0
        self.output = max(places, key=lambda name: (weighted(name), -places[name]))
        self.output_place = places[self.output]
        further = {name for name in places if name in self.nodes and isinstance(self.nodes[name].op, CallResult)}
        self.returned.update(name for name in places if name == self.output or name not in further)

    def _source(self, tensor: Tensor) -> str:
        """Return the node or input whose tensor it is, the call itself for a further result; empty for a constant."""
        origin = self.origin(tensor)
        while isinstance(origin, str) and origin in self.nodes and isinstance(self.nodes[origin].op, CallResult):
            (origin,) = self.nodes[origin].inputs
        return origin if isinstance(origin, str) else ""

    def _weighted_layers(self, name: str) -> int:
        """Return the number of layers with weights that a node's output depends on."""
        ancestors, pending = set(), [name]
        while pending:
            node = self.nodes.get(pending.pop())
            if node is not None and node.name not in ancestors:
                ancestors.add(node.name)
                pending += node.inputs
        return sum(bool(self.nodes[name].parameters) for name in ancestors)

    def warn(self, text: str) -> None:
        """Add a warning unless it is recorded already."""
        self.warnings.setdefault(text)

    def origin(self, tensor: Tensor) -> str | Constant:
        """Return the name of the node that computes a tensor, or the tensor's Constant."""
        return self.origins.get(tensor, WITHOUT_PARAMETERS)

    def refresh(self, path: str, tensors: Sequence[Tensor]) -> None:
        """Record that tensors have the values that nodes wrote to their memory by way of other tensors.

        A write to a part of a tensor becomes a node `setitem` below the module's `path`.
        """
        if not self.writes.by_storage:
            return
        for tensor in tensors:
            for write in self.writes.missed(tensor):
                if write.region == region_of(tensor):
                    self.origins[tensor] = write.node
                else:
                    self._add_setitem(f"{path}.setitem" if path else "setitem", tensor, write)
                self.writes.include(tensor)

    def _add_setitem(self, base: str, tensor: Tensor, write: Write) -> None:
        name, origin, shape = self._unique(base, False), self.origin(tensor), shape_of(tensor)
        sources = (origin, write.node) if isinstance(origin, str) else (write.node,)
        parameters = () if isinstance(origin, str) else origin.parameters
        shapes = shape, self.shapes[write.node]
        trains, regions = any(p.trainable for p in parameters), (str(write.region), str(region_of(tensor)))
        op: Op = Recorded("setitem", shapes, shape, shares=True, trains=trains, arguments_given=regions)
        constants: tuple[ConstantValue, ...] = ()
        if isinstance(origin, Constant):
            op = WithConstants(op, (shape, None), () if parameters else (0,))
            constants = (self.constants.of(tensor),)
        detached = self.nodes[write.node].detached
        self.nodes[name] = Node(name, op, sources, None, "", parameters, detached=detached, constants=constants)
        if self.nodes[name].passes_gradient and self.needs_gradient.intersection(sources):
            self.needs_gradient.add(name)
        self.shapes[name] = shape
        self.origins[tensor] = name
        self.pieces.add(name)

    def wrote(self, tensor: Tensor) -> None:
        """Record that the node that computes a tensor has written to its memory in place."""
        origin = self.origin(tensor)
        if isinstance(origin, str):
            self.writes.add(tensor, origin)

    def has_written(self, value: object, tensor: Tensor) -> bool:
        """Return whether a value is the part of a tensor's memory that was written last."""
        from torch import Tensor

        return isinstance(value, Tensor) and shares_memory(value, tensor) and self.writes.is_last(value)

    def is_constant(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether none of the tensors depends on the network's inputs."""
        return not any(isinstance(self.origin(tensor), str) for tensor in tensors)

    def pass_on(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], base: str = "", call: Call | None = None
    ) -> None:
        """Record results that depend on constants alone as constants. `base` and `call` are those of a weight's."""
        parameters = self._constant_parameters(inputs)
        names = self._weight_call(base, call, results) if base else [""] * len(results)
        for tensor, name in zip(results, names):
            is_computed = self._reads_computed(inputs) or not any(shares_memory(tensor, source) for source in inputs)
            self.origins[tensor] = Constant(parameters, is_computed and tensor.numel() > 1, name)
            self.writes.include(tensor)
            if name and self.describes:
                self._note_named(name, tensor, self.last_named[0])

    def pass_on_overwritten(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], base: str, call: Call | None
    ) -> None:
        """Record a call on constants alone that overwrites its first input, which it returns.

        If that is a view of a weight that forward computes, this is another one from now on. Nothing is known of the
        calls on weights if there are further views, or if autograd does not see the call.
        """
        from torch import is_grad_enabled

        (result,) = results
        before, shared = self.origin(result), self.weights.sharing(result)
        is_computed = isinstance(before, Constant) and before.reads_computed_weight and bool(before.call)
        is_seen = is_grad_enabled() and _is_differentiable(result)
        self.pass_on(inputs, results, base, call)
        after = self.origin(result)
        assert isinstance(after, Constant)
        if not (is_computed and is_seen and base) or len(shared) > 1:
            self.weights.is_known = False
        for tensor in shared[:1]:
            own = self.origin(tensor)
            assert isinstance(own, Constant)
            ops = (RewrittenWeight(),) if self.describes else ()
            self.weights.is_known &= not self.describes or self.weights.made(own.call)
            (name,) = self.weights.add(f"{base}_base", ops, (own.call, after.call), (tensor,), (), len(self.nodes))
            parameters = {parameter.name: parameter for parameter in (*own.parameters, *after.parameters)}
            self.origins[tensor] = Constant(tuple(parameters.values()), True, name)

    def _weight_call(self, base: str, call: Call | None, results: Sequence[Tensor]) -> list[str]:
        """Note a call on weights alone, and return the names of its results."""
        if call is None:
            return self.weights.add(base, (), (), results, (), 0)
        named = self._kept()
        ops = [
            with_layout(with_weights(op, call.weights), call.inputs, result) for op, result in zip(call.ops, results)
        ]
        sources = self._weight_names((*call.inputs, *call.weights))
        return self.weights.add(base, ops, sources, results, named, len(self.nodes))

    def _weight_names(self, tensors: Sequence[Tensor]) -> list[str]:
        """Return the calls on weights that compute constants, or the nodes of parameters and buffers."""
        names = []
        for tensor in tensors:
            origin = self.origin(tensor)
            assert isinstance(origin, Constant)
            names.append(origin.call or self.weights.leaf(tensor, origin.parameters, len(self.nodes)))
        return names

    def _weight_inputs(self, tensors: Sequence[Tensor]) -> tuple[str, ...]:
        """Return the calls that compute the constants among a node's tensors, empty texts for parameters.

        Empty if one of them is from elsewhere.
        """
        names = []
        for tensor in tensors:
            origin = self.origin(tensor)
            if isinstance(origin, str):
                continue
            is_parameter = bool(origin.parameters) and not origin.reads_computed_weight
            name = "" if is_parameter else self._weight_names((tensor,))[0]
            if not (name or is_parameter):
                return ()
            names.append(name)
        return tuple(names) if any(names) else ()

    def repeat(self, tensor: Tensor, results: Sequence[Tensor]) -> None:
        """Record results that have the same values, and thus the same origin, as a tensor."""
        for result in results:
            self.origins[result] = self.origin(tensor)
            self.writes.include(result)

    def macs(self, name: str) -> int | None:
        """Return the multiply-accumulates of a node for the recorded shapes; None if unknown."""
        node = self.nodes[name]
        return node.op.macs(tuple(self.shapes[source] for source in node.inputs), self.shapes[name])

    def add(self, base: str, call: Call, results: Sequence[Tensor], module: str | None = None) -> tuple[NodeFacts, ...]:
        """Record one call: a node for its first result, and one for each further result.

        Return what the nodes have in common with those of equal calls; empty if each call must be looked at.
        """
        if len(call.ops) == len(results) > 1:
            pieces = [self._add(base, op, call, result, None) for op, result in zip(call.ops, results)]
            self.pieces.update(name for name, _ in pieces)
            known = tuple(facts for _, facts in pieces if facts is not None)
            return known if len(known) == len(pieces) else ()
        first, facts = self._add(base, call.ops[0], call, results[0], module)
        if call.ops[0].name == "detach":
            self.pieces.add(first)  # often called only to read an attribute: x.data.shape
            return ()
        for position, result in enumerate(results[1:], 1):
            op = CallResult(call.ops[0].name, position, shape_of(result))
            self.pieces.add(self._add(first, op, Call((op,), tuple(results[:1])), result, None)[0])
        return (facts,) if facts is not None and len(results) == 1 else ()

    def is_repeatable(self, known: Sequence[NodeFacts], origins: Origins) -> bool:
        """Return whether a call may be recorded by the facts of an equal one, without asking torch in this run."""
        if not known or self.has_own_backward:
            return False
        if origins.are_computed or not (self.compares and self.memory):
            return True
        asked = {None, *(facts.kind for facts in known if facts.is_asked)}
        return all(facts.kind in asked or self.asked.get(facts.kind, False) for facts in known)

    def add_again(
        self,
        base: str,
        known: Sequence[NodeFacts],
        tensors: tuple[Sequence[Tensor], Sequence[Tensor]],
        origins: Origins,
        results: Sequence[Tensor],
        module: str | None = None,
    ) -> None:
        """Record a call that is equal to an earlier one, of which `add` has returned the facts.

        `tensors` are its inputs and weights, and `origins` theirs.
        """
        for facts, result in zip(known, results):
            if self.compares:
                self._add_torch_macs(facts.torch_macs)
                if facts.is_asked:
                    self.asked.setdefault(facts.kind, True)
            name = self._unique(base, module is not None)
            self._place(name, facts, origins, self._constants_of(facts.op, *tensors, (), origins), result, module)
            if len(known) > 1:
                self.pieces.add(name)

    def finished(self) -> tuple[Node, ...]:
        """Return the nodes without the pieces and views that no node reads and forward does not return."""
        (last,) = self.last_named
        until = {**{name: last for name in self._kept() if self.named[name][1] != last}, **self.named_until}
        nodes = tuple(changed(n, named_until=until[n.name]) if n.name in until else n for n in self.nodes.values())
        while True:
            read = self.returned.union(*(node.inputs for node in nodes))
            kept = tuple(node for node in nodes if node.name in read or node.name not in self.pieces)
            if len(kept) == len(nodes):
                places = {name: place for place, name in enumerate(self.nodes)}
                return self.weights.attached(nodes, places, until) if self.weights.calls else nodes
            nodes = kept

    def _add(self, base: str, op: Op, call: Call, result: Tensor, module: str | None) -> tuple[str, NodeFacts | None]:
        """Record a node. Return its name, and what the nodes of equal calls have in common."""
        name = self._unique(base, module is not None)
        op, call = self._with_computed_weights(with_layout(op, call.inputs, result), call)
        inputs, weights = call.inputs, call.weights
        origins = self.origins_of(inputs, weights)
        if len(origins.nodes) < len(inputs):
            own = list(map(self.origin, inputs))
            shapes = (None if isinstance(o, str) else shape_of(t) for o, t in zip(own, inputs))
            fixed = (i for i, o in enumerate(own) if isinstance(o, Constant) and not o.parameters)
            op = WithConstants(op, tuple(shapes), tuple(fixed))
        op, is_ruled = self._checked(name, op, call, origins, result)
        torch_macs, agrees = self._compare(name, op, call, origins.nodes, result) if self.compares else (0, True)
        parameters = _last_parts(op.parameters())
        is_computed = origins.are_computed or (module is not None and _lacks(parameters, origins.parameters))
        kind = self._kind_of(op, call) if self.compares else None
        is_asked = kind is not None and self.memory and not is_computed and kind not in self.asked
        if is_asked:
            self.asked[kind] = self._compare_saved(name, op, call, result)
        common = op, origins.kinds, parameters, op.gradient != "none", torch_macs, kind, is_asked
        facts = NodeFacts(*common, *_about(result))
        self._place(name, facts, origins, self._constants_of(op, inputs, weights, call.reads, origins), result, module)
        is_equal = is_ruled and agrees and not call.reads and not self.has_own_backward
        is_equal = is_equal and self.asked.get(kind, True)
        return name, facts if is_equal and not isinstance(op, WithComputedWeights) else None

    def _place(
        self,
        name: str,
        facts: NodeFacts,
        origins: Origins,
        constants: tuple[ConstantValue, ...],
        result: Tensor,
        module: str | None,
    ) -> None:
        """Add a node to the network, with what depends on the place of its call and not on the call alone."""
        parameters = origins.parameters
        detached = not (facts.is_differentiable and (self.has_own_backward or _gradient_mode()()))
        self.nodes[name] = Node(
            name,
            facts.op,
            origins.nodes,
            module,
            "",
            parameters,
            reads_computed_weight=origins.are_computed or (module is not None and _lacks(facts.parameters, parameters)),
            detached=detached,
            custom_backward=self.has_own_backward,
            dtype="" if facts.dtype == self.dtype else facts.dtype,
            weight_inputs=origins.weight_inputs,
            keeps_gradient=_keeps_gradient(facts.op, parameters),
            constants=constants,
            called_at=self.positions() if self.describes else (),
        )
        has_gradient = facts.has_gradient and not detached
        if has_gradient and (origins.train or not self.needs_gradient.isdisjoint(origins.nodes)):
            self.needs_gradient.add(name)
        self.shapes[name] = facts.shape
        if facts.strides is not None:
            self.strides[name] = facts.strides
        self.origins[result] = name
        self.writes.include(result)
        if self.describes and self.memory:
            self.last_named[0] = name
            self._note_named(name, result, name)

    def origins_of(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Origins:
        """Return what the origins of a call's tensors tell."""
        tensors = (*inputs, *weights)
        nodes: list[str] = []
        parameters: dict[str, Parameter] = {}
        are_computed, kinds = False, ""
        for tensor in tensors:
            origin = self.origins.get(tensor, WITHOUT_PARAMETERS)
            if isinstance(origin, str):
                nodes.append(origin)
                kinds += "n"
            else:
                are_computed = are_computed or origin.reads_computed_weight
                kinds += "p" if origin.parameters else "c"
                for parameter in origin.parameters:
                    parameters[parameter.name] = parameter
        are_looked_up = self.describes and self.memory and (are_computed or "c" in kinds[: len(inputs)])
        names = self._weight_inputs(tensors) if are_looked_up else ()
        return Origins(tuple(nodes), tuple(parameters.values()), are_computed, kinds, names)

    def _note_strides(self, name: str, tensor: Tensor) -> None:
        import torch

        if tensor.layout is torch.strided:
            self.strides[name] = tensor.stride()

    def _constants_of(
        self, op: Op, inputs: Sequence[Tensor], weights: Sequence[Tensor], reads: Sequence[Tensor], origins: Origins
    ) -> tuple[ConstantValue, ...]:
        """Return what is known of the constants that a call reads; empty if they are its parameters, or none."""
        are_nodes = len(origins.nodes) == len(inputs)
        if not self.describes or (are_nodes and not weights and not reads):
            return ()
        given = self.constants.of
        constants = () if are_nodes else [tensor for tensor in inputs if not isinstance(self.origin(tensor), str)]
        value_of = self.constants.buffer if op.buffers() else given
        values = (*map(given, constants), *map(value_of, weights), *map(given, reads))
        names = [parameter.name for parameter in origins.parameters]
        if {value.text for value in values} == {"{}"} and [value.names[0] for value in values] == names:
            return ()
        return values

    def _with_computed_weights(self, op: Op, call: Call) -> tuple[Op, Call]:
        """Return an op and its call with the weights that other nodes compute as inputs."""
        computed = tuple([tensor for tensor in call.weights if isinstance(self.origin(tensor), str)])
        if not computed:
            return op, call
        weights = tuple(tensor for tensor in call.weights if not isinstance(self.origin(tensor), str))
        op = WithComputedWeights(op, tuple(tensor.dim() > 1 for tensor in computed))
        return op, call._replace(inputs=(*call.inputs, *computed), weights=weights)

    def _note_named(self, name: str, tensor: Tensor, since: str) -> None:
        """Note as long as a tensor is alive, as a variable in forward refers to it, which node is the last one.

        `since` is the last node when the tensor is made.
        """
        end = partial(_note_end, name, since, self.named_until, self.last_named)
        self.named[name] = ref(tensor, end), since

    def _checked(self, name: str, op: Op, call: Call, origins: Origins, result: Tensor) -> tuple[Op, bool]:
        """Return the op if its rule agrees with torch's output shape; else an op with torch's shape and counted cost.

        The second value is whether its rules give both, as they do for all equal calls. Warns if neither the rule nor
        torch's counter knows the cost.
        """
        sources, trains = origins.nodes, origins.train
        inputs, output = tuple([self.shapes[source] for source in sources]), shape_of(result)
        rule = shape_by_rule(op, inputs)
        if rule is not None and rule != output and not is_transforming():
            self.disagree(
                f"{name}: vggscope computes the output shape of {op.name} as {shape_text(rule)},"
                f" torch as {shape_text(output)}; torch's is used"
            )
        macs = op.macs(inputs, output) if rule == output else None
        is_ruled = macs is not None and not isinstance(op, Recorded)
        if is_ruled and not is_transforming() and not (macs and self.has_own_backward):
            return op, True
        if isinstance(op, Recorded) and not op.is_unknown:
            return changed(op, trains=op.trains or trains), not trains
        counted = call.cost([tensor for tensor in (*call.inputs, *call.weights) if self.is_trained(tensor)])
        if is_ruled and counted.macs == macs and not self.has_own_backward:
            return op, False
        if counted.macs is None and macs is not None:
            counted = Counted(macs)
        if counted.macs is not None:
            recorded = Recorded(
                op.name,
                inputs,
                output,
                shares=not op.allocates,
                cost=counted.macs,
                backward_cost=None if self.has_own_backward and counted.macs else counted.backward,
                differentiated=tuple(source in self.needs_gradient for source in sources),
                trains=trains,
                differentiable=counted.differentiable,
                arguments_given=(op.described,),
            )
            return recorded, False
        if rule != output:
            expected = "none" if rule is None else shape_text(rule)
            self.warn(
                f"{name}: vggscope computes the output shape of {op.name} as {expected}, torch as {shape_text(output)};"
                " its cost is unknown"
            )
            return Unknown(op.name, inputs, output, arguments_given=(op.described,)), False
        self.unknown.setdefault(op.name, []).append(name)
        return _trained(op) if trains else op, False

    def _compare(
        self, name: str, op: Op, call: Call, sources: tuple[str, ...], result: Tensor
    ) -> tuple[int | None, bool]:
        """Add torch's multiply-accumulates of a node to the total, and record if ours differ without a known reason.

        Return them, and whether ours do not differ.
        """
        agrees = True
        ours = op.macs(tuple(self.shapes[source] for source in sources), shape_of(result))
        if isinstance(op.without_constants, (Recorded, CallResult)) or is_transforming():
            torchs = ours  # counted by torch already
        elif call.dispatched is None or not call.dispatched.is_known:
            torchs = 0 if ours == 0 else None
        else:
            torchs = call.dispatched.total
            # The weights that a hook computes are no part of the layer, as in the former spectral_norm.
            agrees = ours is None or ours in (torchs, call.dispatched.by_formula)
            if not agrees:
                assert ours is not None
                self.disagree(
                    f"{name}: vggscope counts {count_text(ours)} MACs of {op.name},"
                    f" torch's own operators {count_text(torchs)}"
                )
        self._add_torch_macs(torchs)
        return torchs, agrees

    def _add_torch_macs(self, macs: int | None) -> None:
        self.torch_macs = None if self.torch_macs is None or macs is None else self.torch_macs + macs

    def _kind_of(self, op: Op, call: Call) -> object:
        """Return what tells apart the ops of which torch is asked what they save; None for one of which it is not."""
        if not op.predicts_memory or isinstance(op, Recorded) or self.has_own_backward or is_transforming():
            return None
        if len(call.inputs) != len(set(map(id, call.inputs))):
            return None
        return kind(op.op if isinstance(op, WithConstants) else op), tuple(map(_is_differentiable, call.inputs))

    def _compare_saved(self, name: str, op: Op, call: Call, result: Tensor) -> bool:
        """Return whether an op saves for backward what torch says, and record if it does not."""
        op = op.op if isinstance(op, WithConstants) else op  # torch is asked about all inputs of the call
        if op.saved_for_backward(tuple(map(shape_of, call.inputs)), shape_of(result)).sums:
            return True  # the meta device has no fused kernel of attention
        torchs = call.saved(op)
        if torchs is None:
            return True
        needs = tuple(map(_is_differentiable, call.inputs))
        # Torch's CPU keeps statistics in the dtype of the input, the other devices in float32 at least.
        (*shapes, output), width = torchs.shapes, result.element_size()
        ours, wide = (by_rule(op, tuple(shapes), output, needs, width, least) for least in (0, 4))
        agrees = torchs in (ours, wide)
        if not agrees:
            self.disagree(f"{name}: vggscope says that {op.name} saves {ours.text} for backward, torch {torchs.text}")
        return agrees

    def has_sparse_gradient(self, weight: Tensor) -> None:
        """Record that a call makes the gradient of a weight sparse."""
        origin = self.origin(weight)
        if isinstance(origin, Constant):
            self.sparse_gradients.update(parameter.name for parameter in origin.parameters)

    def disagree(self, text: str) -> None:
        """Record that a figure differs from torch's without a known reason."""
        self.disagreements.append(text)

    def has_kept(self) -> bool:
        """Return whether a node's tensor is alive after forward, because the module has stored it for its next call."""
        kept = self._kept()
        self.weights.are_kept = not all(name in self.nodes for name in kept)
        return any(name in self.nodes for name in kept)

    def _kept(self) -> list[str]:
        """Return the nodes and the calls on weights whose tensors are alive."""
        return [name for name, (tensor, _) in self.named.items() if tensor() is not None]

    def is_trained(self, tensor: Tensor) -> bool:
        """Return whether training computes a gradient of a tensor."""
        origin = self.origin(tensor)
        if isinstance(origin, str):
            return origin in self.needs_gradient
        return any(parameter.trainable for parameter in origin.parameters)

    def _constant_parameters(self, tensors: Sequence[Tensor]) -> tuple[Parameter, ...]:
        origins = map(self.origin, tensors)
        found = [p for origin in origins if isinstance(origin, Constant) for p in origin.parameters]
        return tuple({parameter.name: parameter for parameter in found}.values()) if len(found) > 1 else tuple(found)

    def _reads_computed(self, tensors: Sequence[Tensor]) -> bool:
        origins = map(self.origin, tensors)
        return any(isinstance(origin, Constant) and origin.reads_computed_weight for origin in origins)

    def _unique(self, base: str, is_module: bool) -> str:
        """Return the name, with :2, :3, ... if it is taken. A function never takes the path of a module."""
        return unique_name(base, self.shapes, () if is_module else self.reserved, self.repeats)


def _trained(op: Op) -> Op:
    """Return an op that reads a parameter that is trained, which one of unknown cost notes."""
    if isinstance(op, WithConstants):
        return replace(op, op=_trained(op.op))
    return replace(op, trains=True) if isinstance(op, Unknown) else op


def _about(result: Tensor) -> tuple[Shape, Shape | None, str, bool]:
    """Return what NodeFacts hold of a result."""
    from torch import strided

    strides = result.stride() if result.layout is strided else None
    return shape_of(result), strides, dtype_name(result), _is_differentiable(result)


@cache
def _gradient_mode() -> Callable[[], bool]:
    from torch import is_grad_enabled

    return is_grad_enabled


def _note_end(name: str, since: str, named_until: dict[str, str], last: list[str], tensor: object) -> None:
    """Note the last node when a tensor is freed, unless there is none since the tensor was made."""
    if last[0] != since:
        named_until[name] = last[0]


def _keeps_gradient(op: Op, parameters: Sequence[Parameter]) -> bool:
    """Return whether a parameter is joined with other tensors as it is, so that its gradient is a part of theirs."""
    if not isinstance(op, WithConstants) or op.op.gradient != "part":
        return False
    sizes = [numel(shape) for shape in op.constants if shape is not None]
    return sizes == [numel(parameter.shape) for parameter in parameters]


def _is_differentiable(result: Tensor) -> bool:
    """Return whether a tensor of this dtype can have a gradient."""
    return result.is_floating_point() or result.is_complex()


def _lacks(own: frozenset[str], parameters: Sequence[Parameter]) -> bool:
    """Return whether a layer lacks a parameter that its op has: forward computes that of a parametrized one."""
    return bool(own) and not own <= _last_parts([parameter.name for parameter in parameters])


def _last_parts(names: Iterable[str]) -> frozenset[str]:
    """Return the parameters' names without the paths of their modules."""
    return frozenset([name.rpartition(".")[2] for name in names])


def _output_name(place: str) -> str:
    """Return the name of an output at a place such as `[1]` or `.logits`; a dict's key is a name of its own."""
    return OUTPUT + place if not place.startswith(".") else place[1:]


def shape_of(tensor: Tensor) -> Shape:
    """Return a tensor's shape as a plain tuple."""
    return tuple(tensor.shape)
