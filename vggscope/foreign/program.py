"""Records the calls of a program that is read, not run, as the nodes of a Network.

`trace.recorder` does the same for a module that runs. Here shapes come from the file or from the rules of the ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vggscope.errors import ShapeError
from vggscope.foreign.aten import FREE, KEEP_SHAPE, MAKERS, SAME, FunctionCall, recurrent
from vggscope.foreign.values import UNKNOWN, ProgramValue, can_view, values_in
from vggscope.graph import ConstantValue, Node, Parameter
from vggscope.ops.activation import Overwriting
from vggscope.ops.base import Op, Shape, infer_output_shape
from vggscope.ops.constant import WithComputedWeights, WithConstants
from vggscope.ops.convolution import Convolution
from vggscope.ops.elementwise import KEEPS, Elementwise
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import BatchNorm2d
from vggscope.ops.recorded import CallResult, Recorded, Unknown
from vggscope.ops.regularization import AlwaysDropout, Dropout
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape, View
from vggscope.record import record
from vggscope.trace.function_table import CREATIONS, FUNCTIONS, MATRIX_PRODUCTS, SAME_DATA, WEIGHTED, WITHOUT_MACS
from vggscope.trace.node_names import unique_name
from vggscope.units import shape_text


@record
class Scope:
    """Where a call stands: the path of the innermost module, and its class if that is a layer of torch.nn."""

    path: str = ""
    layer: str = ""


@record
class ProgramCall:
    """A call as it was read: the tensors of `ops`, the weights last, or of all arguments if there is no op.

    `nodes` are the names of the results that are nodes, empty for constants. A call of several nodes has an op for
    each, or one for all.
    """

    call: FunctionCall
    ops: tuple[Op, ...]
    inputs: tuple[ProgramValue, ...]
    weights: tuple[ProgramValue, ...]
    results: tuple[ProgramValue, ...]
    nodes: tuple[str, ...]


@dataclass
class Program:
    """The nodes and the shapes that were recorded, in execution order.

    `dtype` is the network's own. `reserved` are the paths of modules, which no function's node is named after.
    `resized` says that the inputs have other sizes than in the file: results then have the shapes of the rules.
    `unknown` are the places of each op of unknown cost, and `read` the parameters that nodes read. `calls` are all
    calls, those of constants too, and `same` has each tensor that is another one with that.
    """

    dtype: str
    reserved: frozenset[str]
    resized: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    calls: list[ProgramCall] = field(default_factory=list)
    same: list[tuple[ProgramValue, ProgramValue]] = field(default_factory=list)
    _pieces: set[str] = field(default_factory=set)
    _repeats: dict[str, int] = field(default_factory=dict)

    def given(self, name: str, value: ProgramValue) -> None:
        """Record an input of the program."""
        value.source = name
        self.shapes[name] = value.shape

    def call(self, call: FunctionCall, results: Sequence[ProgramValue], scope: Scope) -> None:
        """Record a call, and the origins of the tensors that it returns.

        Raises ShapeError if its op does not take inputs of another size than those in the file.
        """
        tensors = values_in((call.args, call.kwargs))
        if not results:
            return
        if call.name in SAME or call.name in SAME_DATA:
            if tensors:
                self._same(tensors[0], results)
        elif all(value.is_constant for value in tensors) and call.name not in MATRIX_PRODUCTS:
            self._constants(call, tensors, results)
        elif call.name == "contiguous" and tensors[0].is_contiguous:
            self._same(tensors[0], results)
        else:
            self._record(call, tensors, results, scope)

    def layer(self, op: Op, value: ProgramValue, path: str) -> ProgramValue:
        """Record a layer that returns its input, such as nn.Identity, and return its output."""
        result = ProgramValue(value.shape, value.dtype, filed=value.filed, strides=value.strides, memory=value.memory)
        self._add(path, op, (value,), (), result, path)
        result.memory = value.memory
        call = FunctionCall("alias", False, (value,), {})
        self.calls.append(ProgramCall(call, (op,), (value,), (), (result,), (result.source,)))
        return result

    def created(self, call: FunctionCall, result: ProgramValue) -> None:
        """Record a call that makes a constant of no tensor."""
        self.calls.append(ProgramCall(call, (), (), (), (result,), ("",)))

    def _same(self, value: ProgramValue, results: Sequence[ProgramValue]) -> None:
        for result in results:
            self.same.append((result, value))
            result.takes(value)
            result.shape = value.shape if self.resized else result.shape

    def _constants(self, call: FunctionCall, tensors: Sequence[ProgramValue], results: Sequence[ProgramValue]) -> None:
        """Record results that depend on no input. A matrix that is turned is still known as itself."""
        parameters = tuple(dict.fromkeys(p for value in tensors for p in value.parameters))
        shares = call.name in _VIEWS
        for result in results:
            result.parameters = parameters
            result.is_computed = (any(v.is_computed for v in tensors) or not shares) and result.numel() > 1
        if call.name in ("t", "permute", "transpose") and results[0].dim() == 2:
            (matrix,) = tensors[:1]
            is_turned = call.name != "permute" or [axis % 2 for axis in call.args[1]] == [1, 0]
            results[0].turned = matrix if is_turned and not matrix.is_computed else None
        self.calls.append(ProgramCall(call, (), tuple(tensors), (), tuple(results), ("",) * len(results)))

    def _record(
        self, call: FunctionCall, tensors: tuple[ProgramValue, ...], results: Sequence[ProgramValue], scope: Scope
    ) -> None:
        if self.resized:
            call = _resized(call, tensors, results)
        ops, inputs, weights = read_call(call, tensors, results, scope)
        if self.resized and has_no_rule(ops[0]):
            _resize(call, tensors, results)
        module = scope.path if scope.layer else None
        base = scope.path if module else ".".join(filter(None, (scope.path, call.name)))
        if len(ops) == len(results) > 1:
            pieces = tuple(self._add(base, op, inputs, weights, result, None) for op, result in zip(ops, results))
            self._pieces.update(pieces)
            self.calls.append(ProgramCall(call, ops, inputs, weights, tuple(results), pieces))
            return
        first = self._add(base or call.name, ops[0], inputs, weights, results[0], module)
        names = [first]
        for position, result in enumerate(results[1:], 1):
            op = CallResult(ops[0].name, position, result.shape)
            names.append(self._add(first, op, (results[0],), (), result, None))
        self._pieces.update(names[1:])
        read = _with_states(call, inputs)
        self.calls.append(ProgramCall(call, ops[:1], read, weights, tuple(results), tuple(names)))
        if call.in_place and not isinstance(ops[0], View):
            results[0].memory = tensors[0].memory

    def _add(
        self,
        base: str,
        op: Op,
        inputs: tuple[ProgramValue, ...],
        weights: tuple[ProgramValue, ...],
        result: ProgramValue,
        module: str | None,
    ) -> str:
        op = _with_layout(op, inputs, result)
        if isinstance(op, View) and op.shares:
            result.memory = inputs[0].memory
        computed = tuple(value for value in weights if not value.is_constant)
        if computed:
            op = WithComputedWeights(op, tuple(value.dim() > 1 for value in computed))
            inputs, weights = (*inputs, *computed), tuple(value for value in weights if value.is_constant)
        parameters = tuple(dict.fromkeys(p for v in (*inputs, *weights) if v.is_constant for p in v.parameters))
        constants = tuple(value.shape if value.is_constant else None for value in inputs)
        if any(shape is not None for shape in constants):
            fixed = (place for place, value in enumerate(inputs) if value.is_constant and not value.parameters)
            op = WithConstants(op, constants, tuple(fixed))
        sources = tuple(value.source for value in inputs if not value.is_constant)
        name = self._unique(base, module is not None)
        op = self._checked(name, op, sources, result, any(p.trainable for p in parameters))
        self.nodes[name] = Node(
            name,
            op,
            sources,
            module,
            "",
            parameters,
            reads_computed_weight=any(value.is_computed for value in (*inputs, *weights) if value.is_constant),
            detached=not result.dtype.startswith(("float", "bfloat", "complex")),
            dtype="" if result.dtype == self.dtype else result.dtype,
            constants=_constants_of(op, inputs, weights, parameters),
        )
        self.read.update(p.name for p in parameters)
        self.shapes[name] = result.shape
        result.source, result.parameters = name, ()
        return name

    def _checked(self, name: str, op: Op, sources: tuple[str, ...], result: ProgramValue, trains: bool) -> Op:
        """The op if its rule gives the shape in the file, else one of unknown cost with that shape.

        With inputs of another size, the result gets the shape of the rule.
        """
        inputs = tuple(self.shapes[source] for source in sources)
        try:
            shape: Shape | None = infer_output_shape(op, *inputs)
        except ShapeError as error:
            if self.resized:
                raise ShapeError(f"{name}: {error.problem}", error.remedy) from None
            shape = None
        if self.resized and shape is not None:
            result.shape = shape
        elif shape != result.shape:
            expected = "none" if shape is None else shape_text(shape)
            told = shape_text(result.shape) or "one number"
            self.warnings.setdefault(
                f"{name}: vggscope computes the output shape of {op.name} as {expected}, the file says {told};"
                " its cost is unknown"
            )
            return Unknown(op.name, inputs, result.shape, trains=trains, arguments_given=(op.described,))
        if op.macs(inputs, result.shape) is None:
            self.unknown.setdefault(op.name, []).append(name)
        return replace(op, trains=True) if isinstance(op, Recorded) and trains else op

    def finished(self, returned: frozenset[str]) -> tuple[Node, ...]:
        """The nodes, without results of several that nothing reads."""
        kept: list[Node] = []
        read = set(returned)
        for node in reversed(self.nodes.values()):
            if node.name in read or node.name not in self._pieces:
                read.update(node.inputs)
                kept.append(node)
        return tuple(reversed(kept))

    def _unique(self, base: str, is_module: bool) -> str:
        """The name, with :2, :3, ... if it is taken. A function never takes the path of a module."""
        return unique_name(base, self.shapes, () if is_module else self.reserved, self._repeats)


_VIEWS = frozenset(
    {"view", "permute", "transpose", "t", "select", "getitem", "unsqueeze", "squeeze", "expand", "reshape"}
)
"""Functions whose result uses the memory of their input."""


def read_call(
    call: FunctionCall, tensors: tuple[ProgramValue, ...], results: Sequence[ProgramValue], scope: Scope
) -> tuple[tuple[Op, ...], tuple[ProgramValue, ...], tuple[ProgramValue, ...]]:
    """The ops of a call, its inputs, and the tensors that are the op's own weights."""
    layer = recurrent(call)
    if layer is not None:
        return (layer[0],), layer[1], layer[2]
    tensors = values_in((call.args, call.kwargs))
    ops = tuple(_of_layer(op, scope) for op in _ops_of(call, results)) or _without_rule(call, tensors, results)
    ops = tuple(_in_place(op) for op in ops) if call.in_place else ops
    if call.name == "batch_norm" and len(tensors) == 5:
        tensors = (tensors[0], *tensors[3:], *tensors[1:3])  # the weights first, as in the module
    is_weighted = call.name in WEIGHTED or call.name == "instance_norm"
    return (ops, tensors[:1], tensors[1:]) if is_weighted else (ops, tensors, ())


def _with_states(call: FunctionCall, inputs: tuple[ProgramValue, ...]) -> tuple[ProgramValue, ...]:
    """The inputs of a call; those of a recurrent layer with its first states, which are none if they are constants."""
    return (inputs[0], *values_in(call.args[1])) if recurrent(call) is not None else inputs


def has_no_rule(op: Op) -> bool:
    """Whether no rule gives an op's output shape, but the file or a run."""
    return isinstance(op, (Recorded, Unknown))


def is_view(op: Op) -> bool:
    """Whether an op's output may lie in the memory of its input."""
    return isinstance(op, View)


def _ops_of(call: FunctionCall, results: Sequence[ProgramValue]) -> tuple[Op, ...]:
    """The ops that the tables give for a call; empty without one."""
    maker: Callable[..., Any] | None = MAKERS.get(call.name) or FUNCTIONS.get(call.name)
    if call.in_place and call.name in MATRIX_PRODUCTS:
        return ()
    if maker is not None and _is_cut_into(call, results):
        try:
            made = maker(*call.args, **call.kwargs)
        except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, AssertionError):
            made = ()
        if made:
            return made if isinstance(made, tuple) else (made,)
    return (Elementwise(call.name, _plain(call)),) if call.name in KEEPS else ()


def _is_cut_into(call: FunctionCall, results: Sequence[ProgramValue]) -> bool:
    """Whether a call makes as many pieces as it has results; true for one that cuts up nothing.

    The tables make an op for each piece, of which a damaged file may claim billions.
    """
    if call.name not in ("split", "chunk", "unbind", "tensor_split"):
        return True
    given, rest = call.args[0], call.args[1:]
    dim = call.kwargs.get("dim", (rest[1:2] if call.name != "unbind" else rest[:1]) or (0,))
    axis = dim[0] if isinstance(dim, tuple) else dim
    if type(axis) is not int or not -given.dim() <= axis < given.dim():
        return False
    if call.name == "unbind":
        return bool(given.shape[axis] == len(results))
    if not rest or not isinstance(rest[0], int):
        return bool(rest)
    pieces = -(-given.shape[axis] // max(rest[0], 1)) if call.name == "split" else rest[0]
    return pieces > 0 and (pieces == len(results) or (call.name == "chunk" and pieces < 10_000))


def _without_rule(
    call: FunctionCall, tensors: Sequence[ProgramValue], results: Sequence[ProgramValue]
) -> tuple[Op, ...]:
    is_free = call.name in FREE or call.name in WITHOUT_MACS
    is_free = is_free or (call.name in (*FUNCTIONS, *MAKERS) and call.name not in MATRIX_PRODUCTS)
    kind = Recorded if is_free else Unknown
    shapes = tuple(value.shape for value in tensors if not value.is_constant)
    given = tuple(_described(value) for value in call.args)
    named = (f"{key}={_described(value)}" for key, value in sorted(call.kwargs.items()))
    op = kind(call.name, shapes, results[0].shape, arguments_given=(*given, *named))
    return (replace(op, differentiable=call.name not in CREATIONS),)


def _described(value: object) -> object:
    """An argument as text, None for a tensor."""
    if isinstance(value, ProgramValue):
        return None
    if values_in(value):
        return f"{len(values_in(value))} tensors"
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _plain(call: FunctionCall) -> tuple[object, ...]:
    """The arguments that are no tensors, with None for each tensor; empty if all are tensors."""
    several = len(values_in((call.args, call.kwargs))) > 1
    none = "None" if several else None
    given = [None if isinstance(v, ProgramValue) else none if v is None else v for v in call.args]
    named = [f"{key}={'x' if isinstance(v, ProgramValue) else v}" for key, v in call.kwargs.items()]
    if not named and all(value is None for value in given):
        return ()
    return (*(v if v is None or isinstance(v, (bool, int, float, str)) else str(v) for v in given), *named)


def _of_layer(op: Op, scope: Scope) -> Op:
    """The op at evaluation, of a layer of torch.nn in a program that was written in training mode."""
    if scope.layer and isinstance(op, AlwaysDropout):
        return Dropout(op.p, op.inplace)
    if scope.layer and isinstance(op, BatchNorm2d) and op.track_running_stats:
        return replace(op, batch_statistics=False)
    return op


def _in_place(op: Op) -> Op:
    return replace(op, inplace=True) if isinstance(op, (Overwriting, Elementwise, Dropout)) else op


def _with_layout(op: Op, inputs: tuple[ProgramValue, ...], result: ProgramValue) -> Op:
    """The op with the memory layout of its tensors, as `trace.layout.with_layout` gives it."""
    if isinstance(op, (Reshape, Flatten)):
        return replace(op, shares=can_view(inputs[0], result.filed or result.shape))
    if isinstance(op, Convolution) and inputs[0].dim() == 4 and not inputs[0].is_contiguous:
        return replace(op, channels_last=_is_channels_last(inputs[0]))
    if isinstance(op, Linear) and inputs[0].dim() > 2 and not inputs[0].is_contiguous:
        shape = inputs[0].filed or inputs[0].shape
        return replace(op, copied=not can_view(inputs[0], (product(shape[:-1]), shape[-1])), apart=True)
    return op


def product(sizes: Sequence[int]) -> int:
    """The product of sizes."""
    result = 1
    for size in sizes:
        result *= size
    return result


def _is_channels_last(value: ProgramValue) -> bool:
    shape, strides = value.filed or value.shape, value.strides or ()
    _, channels, height, width = shape
    return strides == (channels * height * width, 1, channels * width, channels)


def _constants_of(
    op: Op, inputs: tuple[ProgramValue, ...], weights: tuple[ProgramValue, ...], parameters: tuple[Parameter, ...]
) -> tuple[ConstantValue, ...]:
    """What is known of the constants that a call reads; empty if they are its parameters, or none."""
    has_statistics = bool(op.buffers())
    values = [value.known for value in inputs if value.is_constant]
    for value in weights:
        is_statistic = has_statistics and value.buffer
        values.append(ConstantValue("{}", (value.buffer,), (value.shape,)) if is_statistic else value.known)
    names = [parameter.name for parameter in parameters]
    if all(value.text == "{}" for value in values) and [value.names[0] for value in values] == names:
        return ()
    return tuple(values)


def _resized(call: FunctionCall, tensors: Sequence[ProgramValue], results: Sequence[ProgramValue]) -> FunctionCall:
    """A call of a reshape with the numbers that it has for another batch.

    Its shape in the file holds the batch as a number. The axis that the batch is in follows from the axes before it.
    """
    target = call.args[1] if call.name in ("view", "reshape", "expand") and len(call.args) > 1 else None
    if not isinstance(target, (list, tuple)) or not results or results[0].filed is None:
        return call
    given, filed = tensors[0], tensors[0].filed or tensors[0].shape
    grown = [axis for axis, sizes in enumerate(zip(filed, given.shape)) if sizes[0] != sizes[1]]
    if len(grown) != 1 or len(filed) != len(given.shape):
        return call
    axis, numbers = grown[0], list(target)
    place = _place_of(filed, axis, results[0].filed) if call.name != "expand" else axis - len(filed) + len(numbers)
    if place is None or numbers[place] == -1:
        return call
    numbers[place] = numbers[place] * given.shape[axis] // filed[axis]
    return replace(call, args=(call.args[0], tuple(numbers), *call.args[2:]))


def _resize(call: FunctionCall, tensors: Sequence[ProgramValue], results: Sequence[ProgramValue]) -> None:
    """Give the results of a call without a rule their shapes. Raise ShapeError if they are not those in the file."""
    if all(value.filed in (None, value.shape) for value in tensors):
        return
    if call.name not in KEEP_SHAPE:
        raise ShapeError(f"the shape of what {call.name} returns is known for the sizes in the file alone")
    for result in results:
        result.shape = tensors[0].shape


def _place_of(before: Shape, axis: int, after: Shape) -> int | None:
    """The axis of a reshaped tensor that holds an axis of it: the one with as many elements before it."""
    ahead = product(before[:axis])
    return next((i for i in range(len(after)) if product(after[:i]) == ahead), None)


def parameter_value(parameter: Parameter, dtype: str) -> ProgramValue:
    """A parameter as a constant."""
    known = ConstantValue("{}", (parameter.name,), (parameter.shape,))
    return ProgramValue(parameter.shape, dtype, parameters=(parameter,), known=known)


def buffer_value(name: str, shape: Shape, dtype: str) -> ProgramValue:
    """A buffer as a constant, of which the values are not known."""
    return ProgramValue(shape, dtype, known=UNKNOWN, buffer=name)


def output_of(nodes: Mapping[str, Node], sources: Sequence[str]) -> tuple[str | None, int]:
    """The node that is the network's output, and its place: the first that depends on the most layers with weights."""
    places = {name: place for place, name in reversed(list(enumerate(sources))) if name}
    if not places:
        return None, 0
    weighted = {name: _weighted_layers(nodes, name) if len(places) > 1 else 0 for name in places}
    output = max(places, key=lambda name: (weighted[name], -places[name]))
    return output, places[output]


def _weighted_layers(nodes: Mapping[str, Node], name: str) -> int:
    ancestors, pending = set(), [name]
    while pending:
        node = nodes.get(pending.pop())
        if node is not None and node.name not in ancestors:
            ancestors.add(node.name)
            pending += node.inputs
    return sum(bool(nodes[name].parameters) for name in ancestors)
