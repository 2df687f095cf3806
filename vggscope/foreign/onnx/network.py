"""An ONNX graph as a Network.

The graph is run on shapes, for one sample and for two, which tells how each tensor grows with the batch. What a
constant alone determines is computed and is no layer. A node without a rule is kept: its shapes are those that the file
states, and its cost is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from vggscope.checkpoint.formats.onnx_file import part_name
from vggscope.checkpoint.formats.onnx_model import (
    MOST_NODES,
    STANDARD,
    OnnxFunction,
    OnnxModel,
    OnnxNode,
    OnnxTensor,
    ValueInfo,
    names_parameter,
)
from vggscope.checkpoint.formats.onnx_recurrent import JOINED, joined
from vggscope.errors import CheckpointError, ShapeError, option, printable
from vggscope.foreign.onnx.constants import OnnxConstants, arguments_of, described, filed
from vggscope.foreign.onnx.ops import WITHOUT_MACS, OnnxLayer, is_made_up, is_number, layers, torch_recurrent
from vggscope.foreign.onnx.patterns import OnnxPattern, OnnxPatterns
from vggscope.foreign.onnx.values import OnnxCall, OnnxValue, evaluate
from vggscope.graph import (
    INPUT,
    OUTPUT,
    Buffer,
    ConstantValue,
    Failure,
    Input,
    Network,
    Node,
    Output,
    Parameter,
    SamePadding,
)
from vggscope.inputs import InputSize
from vggscope.ops.base import Op, Shape, infer_output_shape
from vggscope.ops.constant import WithComputedWeights, WithConstants
from vggscope.ops.recorded import CallResult, Recorded, Unknown
from vggscope.record import record
from vggscope.trace.node_names import unique_name
from vggscope.units import count_text, shape_text
from vggscope.vgg.labels import labelled

BATCH = "the batch"
"""The symbol of the batch axis of inputs that fix it."""

DEEPEST_CALLS = 16
"""The most functions of a file that call each other."""

MOST_COMPARED = 16
"""The most outputs of which the one that depends on the most weights is found."""

UNREAD = "no node of the graph reads it"
"""Why no layer owns an initializer."""

_MANY = 4
"""The most nodes of one kind that a warning names."""

_VIEWS = frozenset({"Transpose", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""The ops that only lay out a constant; any other computes a new one."""

_FIRST_ALONE = _VIEWS | {
    "QuantizeLinear",
    "DequantizeLinear",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Tile",
    "Pad",
    "Clip",
}
"""The ops whose first input alone holds data; the others are sizes, places, scales and bounds."""

_REORDERS = frozenset({"Transpose", "Slice", "Split", "Expand", "Gather"})
"""The ops whose output, a view in torch, does not have its elements in the order of its axes."""

_VARIADIC = frozenset({"Sum", "Max", "Min"})
"""The ops of any number of inputs, which are chains of ops of two."""


@record
class GivenInput:
    """The shape of an input with its batch axis, as the caller gives it; without a name it is the next input's.

    `size` is what the caller wrote, which may have the axis of the batch, if that is not known yet.
    """

    shape: Shape
    name: str = ""
    size: InputSize | None = None


@record
class OnnxTranslation:
    """The Network of a graph, with the file's names.

    By the name of a node of the Network, `values` has the value of the file that is its output, and `weights` the
    initializers that are its parameters and running statistics, in torch's order; an empty name is a computed one.
    """

    network: Network
    values: Mapping[str, str]
    weights: Mapping[str, tuple[str, ...]]


def network_of_onnx(
    model: OnnxModel, name: str, given: Sequence[GivenInput] = (), batch_axis: int | None = 0
) -> Network:
    """Return the Network of a graph, as `translated` does."""
    return translated(model, name, given, batch_axis).network


def translated(
    model: OnnxModel, name: str, given: Sequence[GivenInput] = (), batch_axis: int | None = 0
) -> OnnxTranslation:
    """Return the Network of a graph, under the file's own names.

    `given` are the sizes of inputs whose axes the file leaves open. Raises CheckpointError, without the path, for a
    graph that is none, and ShapeError for inputs that it does not take.
    """
    nodes = joined(tuple(_expanded(model)), model)
    axes, notes = _input_axes(model, given, batch_axis)
    fixed = _fixed_batch(axes)
    run = _ShapeRun(model, nodes, _with_batch(axes, 1), is_other_batch=fixed not in (0, 1))
    run.run()
    other = None if run.failure else _second(model, nodes, axes)
    batch = 1
    if run.failure is not None and fixed > 1:
        batch = fixed
        # Its reshapes hold the batch: the figures are those of the whole batch.
        run = _ShapeRun(model, nodes, _with_batch(axes, fixed))
        run.run()
    elif fixed > 1:
        notes.append(f"the file fixes a batch of {fixed}, the figures are those of one sample")
    return _Finish(model, name, run, other, batch, notes).translation()


def _second(model: OnnxModel, nodes: tuple[OnnxNode, ...], axes: Mapping[str, _Axes]) -> _ShapeRun | None:
    """The run on two samples; None if the graph takes only one."""
    run = _ShapeRun(model, nodes, _with_batch(axes, 2), is_other_batch=_fixed_batch(axes) not in (0, 2))
    run.run()
    return None if run.failure else run


@record
class _Axes:
    """The sizes of an input, with BATCH for the axis of the batch, and the batch that the file fixes, else 0."""

    sizes: tuple[int | str, ...]
    dtype: str
    fixed: int = 0


def _fixed_batch(axes: Mapping[str, _Axes]) -> int:
    return max((given.fixed for given in axes.values()), default=0)


def _with_batch(axes: Mapping[str, _Axes], batch: int) -> dict[str, OnnxValue]:
    """The values of the inputs for a batch."""
    return {
        name: OnnxValue(tuple(batch if isinstance(size, str) else size for size in given.sizes), given.dtype, name)
        for name, given in axes.items()
    }


OPEN_SIDE, OPEN_LENGTH = 224, 32
"""The size of a side of an image, and of any other axis, that the file leaves open and the caller does not give."""


def _input_axes(
    model: OnnxModel, given: Sequence[GivenInput], batch_axis: int | None
) -> tuple[dict[str, _Axes], list[str]]:
    """The axes of each input, and notes on the sizes that were chosen. Raises ShapeError for sizes that do not fit."""
    if not model.inputs:
        raise CheckpointError("its graph has no inputs", "write it with torch.onnx.export or onnx.save")
    if len({info.name for info in model.inputs}) < len(model.inputs):
        raise CheckpointError("two of its inputs have the same name", "it is damaged")
    named = _given_by_name(model, given, batch_axis)
    symbols: dict[str, int] = {}
    first = model.inputs[0].axes
    batch = None if batch_axis is None or not first or batch_axis >= len(first) else first[batch_axis]
    result, notes = {}, list[str]()
    for info in model.inputs:
        shape = named.get(info.name)
        stated = info.axes if info.axes is not None else (None,) * len(shape or ())
        if info.axes is None and shape is None:
            raise ShapeError(f"the file states no shape of {printable(info.name)}", f"give {option('input_size')}")
        if shape is not None:
            shape = _fitted(info, stated, shape, batch_axis)
        sizes: list[int | str] = []
        fixed = 0
        for axis, size in enumerate(stated):
            is_batch = axis == batch_axis and (size == batch or size is None)
            known = size if isinstance(size, int) else symbols.get(size or "")
            if is_batch:
                fixed = size if isinstance(size, int) else 0
                sizes.append(BATCH)
                continue
            if known is None:
                known = shape[axis] if shape is not None else _chosen(info, stated, axis, notes)
                symbols.update({size: known} if isinstance(size, str) else {})
            sizes.append(known)
        result[info.name] = _Axes(tuple(sizes), info.dtype or "float32", fixed)
    return result, notes


def _given_by_name(model: OnnxModel, given: Sequence[GivenInput], batch_axis: int | None) -> dict[str, Shape]:
    """The shapes that the caller gives, by the input's name."""
    names = [info.name for info in model.inputs]
    unknown = next((one.name for one in given if one.name and one.name not in names), None)
    if unknown is not None or len(given) > len(names):
        listed = ", ".join(printable(name, 40) for name in names[:8])
        problem = f"there is no input {unknown!r}" if unknown is not None else f"{len(given)} inputs are given"
        raise ShapeError(f"{problem}; the file has {listed}", f"give {option('input_size')} for those")
    rest = iter([name for name in names if name not in {one.name for one in given}])
    stated = {info.name: info.axes for info in model.inputs if info.axes is not None}
    named = ((one.name or next(rest), one) for one in given)
    return {
        name: one.shape if one.size is None or name not in stated else one.size.for_stated(stated[name], batch_axis)
        for name, one in named
    }


def _fitted(info: ValueInfo, stated: Sequence[int | str | None], shape: Shape, batch_axis: int | None) -> Shape:
    """A given shape. Raises ShapeError unless it has the sizes that the file fixes; the batch is not compared."""
    pairs = enumerate(zip(stated, shape))
    fits = (axis == batch_axis or not isinstance(size, int) or size == have for axis, (size, have) in pairs)
    if len(shape) != len(stated) or not all(fits):
        # As sizes are given: without the batch.
        have, given = (
            "x".join("?" if size is None else str(size) for axis, size in enumerate(sizes) if axis != batch_axis)
            for sizes in (stated, shape)
        )
        sample = "" if batch_axis is None else " for a sample"
        raise ShapeError(
            f"the file fixes {printable(info.name)} as {printable(have)}{sample}, which {given} does not fit",
            f"leave {option('input_size')} out, or export the model again with dynamic axes",
        )
    return shape


def _chosen(info: ValueInfo, stated: Sequence[int | str | None], axis: int, notes: list[str]) -> int:
    """The size of an axis that the file leaves open, with a note."""
    size = OPEN_SIDE if len(stated) == 4 and axis >= 2 else OPEN_LENGTH
    symbol = stated[axis] if isinstance(stated[axis], str) else f"axis {axis}"
    note = f"the file leaves {printable(str(symbol))} of {printable(info.name)} open, {size} is taken"
    notes.append(f"{note}; {option('input_size')} gives another")
    return size


def _expanded(model: OnnxModel) -> Iterator[OnnxNode]:
    """Yield the nodes of the graph, with the nodes of the file's functions in place of their calls."""
    count = 0
    for node in model.nodes:
        for inner in _body(model, node, 0):
            count += 1
            if count > MOST_NODES:
                raise CheckpointError(f"with its functions it has more than {MOST_NODES:,} nodes")
            yield inner


def _body(model: OnnxModel, node: OnnxNode, depth: int) -> Iterator[OnnxNode]:
    """Yield the nodes of a call of a function; any other node as it is."""
    function = model.functions.get((node.domain, node.op_type)) if node.domain not in STANDARD else None
    if function is None:
        yield node
        return
    if depth == DEEPEST_CALLS:
        raise CheckpointError(f"{node.title}: its functions call each other without end", "it is damaged or malicious")
    names = {**dict(zip(function.inputs, node.inputs)), **dict(zip(function.outputs, node.outputs))}
    names.update((name, "") for name in function.inputs[len(node.inputs) :])
    prefix = f"{node.name or node.outputs[0] if node.outputs else node.name}/"
    for inner in function.nodes:
        yield from _body(model, _renamed(inner, node, function, names, prefix), depth + 1)


def _renamed(
    inner: OnnxNode, call: OnnxNode, function: OnnxFunction, names: Mapping[str, str], prefix: str
) -> OnnxNode:
    """A function's node with the values and attributes of the call in place of the function's own."""

    def name_of(name: str) -> str:
        return names.get(name, prefix + name) if name else ""

    attributes = dict(inner.attributes)
    for name, source in inner.references:
        value = call.attributes.get(source, function.defaults.get(source))
        attributes.pop(name, None)
        if value is not None:
            attributes[name] = value
    return replace(
        inner,
        name=prefix + (inner.name or inner.op_type),
        inputs=tuple(map(name_of, inner.inputs)),
        outputs=tuple(map(name_of, inner.outputs)),
        reads=tuple(map(name_of, inner.reads)),
        attributes=attributes,
        scope=inner.scope or call.scope,
    )


@record
class _Made:
    """A node of the Network before it has its name. `key` stands for the name; `call` is the file's node.

    `weights` are the initializers that are its parameters and running statistics, empty names for computed ones.
    """

    key: str
    op: Op
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    call: OnnxNode
    is_first: bool
    dtype: str
    constants: tuple[ConstantValue, ...] = ()
    reads_computed_weight: bool = False
    weights: tuple[str, ...] = ()


@dataclass
class _ShapeRun:
    """The graph, run on shapes. `values` are the values by name, `tensors` those of them in the file, `made` the
    nodes in order.
    """

    model: OnnxModel
    nodes: tuple[OnnxNode, ...]
    inputs: dict[str, OnnxValue]
    values: dict[str, OnnxValue] = field(default_factory=dict)
    tensors: dict[str, OnnxTensor] = field(default_factory=dict)
    made: list[_Made] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    owned: set[str] = field(default_factory=set)
    statistics: set[str] = field(default_factory=set)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    same_paddings: list[SamePadding] = field(default_factory=list)
    is_other_batch: bool = False
    failure: Failure | None = None
    _patterns: OnnxPatterns | None = None

    def run(self) -> None:
        """Run the nodes up to the first whose output has no known shape."""
        self.values.update(self.inputs)
        self.shapes.update({name: value.shape for name, value in self.inputs.items()})
        written = set(self.values) | set(self.model.initializers)
        for node in self.nodes:
            for output in filter(None, node.outputs):
                if output in written:
                    raise CheckpointError(f"two nodes write {printable(output)}", "the graph is damaged")
                written.add(output)
        outputs = frozenset(info.name for info in self.model.outputs)
        self._patterns = OnnxPatterns(
            self.nodes, outputs, self.values, lambda name: self._tensor(self.model.initializers[name])
        )
        for node in self.nodes:
            try:
                self._run_node(node)
            except ShapeError as error:
                self.failure = Failure(f"{node.title}: {error.problem}", "size", error.remedy, hides_rest=True)
                return

    def _run_node(self, node: OnnxNode) -> None:
        call = self._call(node)
        if node.op_type in _VARIADIC and node.domain in STANDARD and len(call.inputs) > 2:
            self._run_chain(call)
            return
        pattern = self._patterns.ending_at(node) if self._patterns else None
        if pattern is not None:
            self._run_pattern(call, pattern)
            return
        is_standard = node.domain in STANDARD
        if is_standard and node.op_type in JOINED.values():
            self._run_layer(call, torch_recurrent(call, self.model.initializers))
            return
        results = self._evaluated(call) if is_standard else None
        if results is not None:
            self.values.update(zip(node.outputs, (self._with_origin(call, value) for value in results)))
            return
        if all(value is None or value.is_constant for value in call.inputs) and not node.reads:
            self._run_constant(call)
            return
        made = layers(call) if is_standard else None
        if made is None:
            self._run_unknown(call)
        elif len(made) > 1:
            for place, layer in enumerate(made):
                if node.outputs[place]:
                    self.values[node.outputs[place]] = self._add(call, layer, node.outputs[place], place == 0)
        else:
            self._run_layer(call, made[0])

    def _run_chain(self, call: OnnxCall) -> None:
        """Run an op of many inputs as ops of two, one after the other."""
        node = call.node
        before = node.inputs[0]
        for place, name in enumerate(node.inputs[1:], 1):
            output = node.outputs[0] if place == len(node.inputs) - 1 else f"{node.outputs[0]}/{place}"
            self._run_node(replace(node, inputs=(before, name), outputs=(output,)))
            before = output

    def _run_pattern(self, call: OnnxCall, pattern: OnnxPattern) -> None:
        """Add the layer that several nodes are, in place of those of them that have run."""
        gone = {output for node in pattern.nodes for output in node.outputs}
        self.made = [made for made in self.made if made.key not in gone]
        for name in gone:
            self.shapes.pop(name, None)
        node = replace(call.node, inputs=(pattern.source, *pattern.weights))
        inputs = tuple(self._value(name, node) for name in node.inputs)
        self._run_layer(replace(call, node=node, inputs=inputs, attributes={}), pattern.layer)

    def _run_layer(self, call: OnnxCall, layer: OnnxLayer) -> None:
        outputs = call.node.outputs
        first = outputs[0] if outputs else ""
        key = first or f"{call.node.name or call.node.op_type}/{len(self.made)}"
        value = self._add(call, layer, key, True)
        self.values.update({first: value} if first else {})
        self._further(call, value, key)

    def _further(self, call: OnnxCall, first: OnnxValue, key: str) -> None:
        """Add the second and later results of a node that something reads."""
        for place, name in enumerate(call.node.outputs[1:], 1):
            if not name:
                continue
            stated = self._stated(name)
            shape = stated.shape if stated is not None else self._result_shape(call, place, first)
            if shape is not None and name in self._wanted:
                dtype = stated.dtype if stated and stated.dtype else _result_dtype(call, first)
                op = CallResult(call.node.op_type.removeprefix("nn."), place, shape)
                self._append(_Made(name, op, (first.node,), (), call.node, False, dtype), shape)
                self.values[name] = OnnxValue(shape, dtype, name)

    def _result_shape(self, call: OnnxCall, place: int, first: OnnxValue) -> Shape | None:
        """The shape of a further result that the file does not state."""
        if call.node.op_type in ("TopK", "MaxPool", "Dropout", "Unique"):
            return first.shape
        if call.node.op_type in ("LSTM", "GRU", "RNN") and len(first.shape) == 4:
            return first.shape[1:]
        if call.node.op_type in JOINED.values():
            directions, _, hidden = call.shape(2)
            batch = first.shape[0 if call.integer("batch_first") else 1]
            return (directions * call.integer("num_layers", 1), batch, hidden)
        return None

    def _run_constant(self, call: OnnxCall) -> None:
        """Record what a node computes from constants alone, of which only the shape is known."""
        node = call.node
        known = [value for value in call.inputs if value is not None]
        tensors, is_computed = _origin(call)
        made = layers(call) if node.domain in STANDARD else None
        for place, name in enumerate(node.outputs):
            shape = self._constant_shape(call, made, place)
            if shape is None:
                raise _no_shape(node)
            dtype = (made[0].dtype if made else "") or (known[0].dtype if known else "float32")
            stated = self.model.values.get(name)
            dtype = stated.dtype if stated and stated.dtype else dtype
            made_of = described(call)
            made_of = replace(made_of, text=f"{made_of.text}[{place}]") if place and made_of.text else made_of
            self.values[name] = OnnxValue(shape, dtype, tensors=tensors, is_computed=is_computed, known=made_of)

    def _with_origin(self, call: OnnxCall, value: OnnxValue) -> OnnxValue:
        """A known constant with the tensors of the file that it is computed from.

        A number that is more than a copy of an initializer is one of the code.
        """
        kind = call.node.op_type
        if kind in ("Constant", "Shape", "Size", "ConstantOfShape", "Range") or value.tensors:
            return value
        tensors, is_computed = _origin(call)
        if prod(value.shape) == 1:
            is_copy = kind == "Cast" and not any(other is not None and other.is_computed for other in call.inputs)
            tensors = tuple(t for t in tensors if is_copy and t.name in self.model.initializers)
        known = described(call) if tensors else value.known
        return replace(value, tensors=tensors, is_computed=is_computed, known=known)

    def _constant_shape(self, call: OnnxCall, made: tuple[OnnxLayer, ...] | None, place: int) -> Shape | None:
        if made is not None and place < len(made) and not made[place].weights and made[place].before is None:
            layer = made[place]
            return infer_output_shape(layer.op, *(call.shape(source) for source in layer.inputs))
        if call.node.op_type == "ConstantOfShape":
            sides = call.numbers(0)
            return None if sides is None else tuple(map(int, sides))
        stated = self._stated(call.node.outputs[place])
        return None if stated is None else stated.shape

    def _run_unknown(self, call: OnnxCall) -> None:
        """Add a node of an op without a rule, if the file states the shape of its output."""
        node = call.node
        named = [name for name in node.outputs if name]
        stated = self._stated(named[0]) if named else None
        if stated is None:
            raise _no_shape(node)
        kind = Recorded if node.domain in STANDARD and node.op_type in WITHOUT_MACS else Unknown
        if kind is Unknown:
            op = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
            self.unknown.setdefault(op, []).append(named[0])
        places = tuple(place for place, value in enumerate(call.inputs) if value is not None)
        shapes = tuple(call.shape(place) for place in places)
        given = kind(node.op_type, shapes, stated.shape, arguments_given=arguments_of(call, places))
        layer = OnnxLayer(given, places, is_product=kind is Unknown, dtype=stated.dtype)
        if not any(value is not None and not value.is_constant for value in call.inputs):
            # What its own graphs read are its inputs.
            self._add_reader(call, layer, named[0], stated)
        else:
            self.values[named[0]] = self._add(call, layer, named[0], True)
        self._own_parameters_of_graphs(node)
        self._further(replace(call, node=replace(node, outputs=tuple(named))), self.values[named[0]], named[0])

    def _own_parameters_of_graphs(self, node: OnnxNode) -> None:
        """Add to a node the weights that its own graphs read or have, such as those of the body of a Loop."""
        outer = [tensor for name in node.reads for tensor in self._value(name, node).tensors]
        path = node.name or next(iter(filter(None, node.outputs)), node.op_type)
        held = [replace(tensor, name=f"{path}.{tensor.name}") for tensor in node.holds]
        found = [tensor for tensor in (*outer, *held) if _may_be_weight(tensor)]
        self.owned.update(tensor.name for tensor in found)
        if found:
            made = self.made.pop()
            own = tuple(dict.fromkeys((*made.parameters, *map(_parameter, found))))
            self.made.append(replace(made, parameters=own))

    def _add_reader(self, call: OnnxCall, layer: OnnxLayer, key: str, stated: OnnxValue) -> None:
        outer = [self._value(name, call.node) for name in call.node.reads]
        inputs = tuple(value.node for value in outer if value.node)
        op = replace(layer.op, recorded_inputs=tuple(value.shape for value in outer if value.node))  # type: ignore[call-arg]
        self._append(_Made(key, op, inputs, (), call.node, True, stated.dtype), stated.shape)
        self.values[key] = OnnxValue(stated.shape, stated.dtype, key)

    def _add(self, call: OnnxCall, layer: OnnxLayer, key: str, is_first: bool) -> OnnxValue:
        """Add a node of the Network, and return its output."""
        if layer.before is not None:
            padded = self._add(call, layer.before, f"{key}/before", is_first)
            call = replace(call, inputs=(padded, *call.inputs[1:]))
        if layer.same_padding is not None:
            self.same_paddings.append(layer.same_padding)
        values = [call.inputs[place] for place in layer.inputs]
        read = [value for value in values if value is not None]
        layer = replace(layer, is_product=layer.is_product or self._scales_norm(call))
        held = [value for value in map(call.value, layer.weights) if value is not None]
        op, sources = layer.op, tuple(value.node for value in read if not value.is_constant)
        shapes = [value.shape for value in read]
        shape = infer_output_shape(op, *shapes)
        if not layer.parts:
            _check_weights(op, held)
        computed = tuple(value for value in held if not value.is_constant)
        if computed:
            op = WithComputedWeights(op, tuple(len(value.shape) > 1 for value in computed))
            sources = (*sources, *(value.node for value in computed))
        parameters: list[Parameter] = []
        fixed, owned = [], list[OnnxValue]()
        for place, value in enumerate(read):
            if value.is_constant:
                own = self._parameters(value, is_weight=layer.is_product, is_sure=not op.is_unknown)
                parameters += own
                owned += [value] if own else []
                fixed += [] if own else [place]
        constants: tuple[ConstantValue, ...] = ()
        if any(value.is_constant for value in read):
            op = WithConstants(op, tuple(v.shape if v.is_constant else None for v in read), tuple(fixed))
            sure = not layer.op.is_unknown
            known = (self._constant_value(v, is_weight=layer.is_product, is_sure=sure) for v in read if v.is_constant)
            constants = tuple(known) if fixed else ()
        for value in held:
            own = self._parameters(value, is_weight=True)
            is_turned = layer.is_turned and value is held[0]
            parameters += [replace(one, shape=one.shape[::-1]) for one in own] if is_turned else own
        statistics = [value for value in map(call.value, layer.statistics) if value is not None]
        self.statistics.update(tensor.name for value in statistics for tensor in value.tensors)
        dtype = layer.dtype or next((v.dtype for v in read if not v.is_constant), read[0].dtype)
        is_computed = any(value.is_computed for value in (*read, *held))
        names = tuple(map(_initializer, (*owned, *held, *statistics)))
        if layer.parts:
            names = tuple(part_name(part.tensor.name, part.leaf) for part in layer.parts)
            dtypes = [part.tensor.dtype or "float32" for part in layer.parts]
            parts = (Parameter(name, part.shape, True, kind) for name, part, kind in zip(names, layer.parts, dtypes))
            parameters = [*parts, *(own for value in owned for own in self._parameters(value, is_weight=False))]
        unique = tuple(dict.fromkeys(parameters))
        self._append(_Made(key, op, sources, unique, call.node, is_first, dtype, constants, is_computed, names), shape)
        first = call.value(0)
        is_whole = first is None or first.is_whole or not layer.op.is_layout
        return OnnxValue(shape, dtype, key, is_whole=is_whole and call.node.op_type not in _REORDERS)

    def _append(self, made: _Made, shape: Shape) -> None:
        if made.key in self.shapes:
            raise CheckpointError(f"two nodes write {printable(made.key)}", "the graph is damaged")
        self.made.append(made)
        self.shapes[made.key] = shape

    def _parameters(self, value: OnnxValue, *, is_weight: bool, is_sure: bool = True) -> list[Parameter]:
        """The parameters that a constant is computed from. A constant that no layer owns has the name of one.

        `is_sure` is false of what an op without a rule reads: numbers and places are then no weights.
        """
        found = self._weights(value, is_weight=is_weight, is_sure=is_sure)
        self.owned.update(tensor.name for tensor in found)
        return [_parameter(tensor, value.dtype) for tensor in found]

    def _weights(self, value: OnnxValue, *, is_weight: bool, is_sure: bool) -> list[OnnxTensor]:
        given = [tensor for tensor in value.tensors if not self._is_scale(tensor)]
        return [t for t in given if _is_parameter(t) or (is_weight and (is_sure or _may_be_weight(t)))]

    def _constant_value(self, value: OnnxValue, *, is_weight: bool, is_sure: bool) -> ConstantValue:
        """What is known of a constant that a layer reads beside its inputs."""
        found = self._weights(value, is_weight=is_weight, is_sure=is_sure)
        parameters = {tensor.name: _parameter(tensor, value.dtype) for tensor in found}
        return OnnxConstants(self.model, self.tensors).read_as(value, parameters)

    def _scales_norm(self, call: OnnxCall) -> bool:
        """Whether a node multiplies by the scale of a group norm, or adds its shift.

        An exporter writes such a norm as an InstanceNormalization of groups and these two, with weights of its own
        names.
        """
        number = {"Mul": 1, "Add": 0}.get(call.node.op_type)
        if number is None or (call.node.scope or "-") not in self._norm_scopes:
            return False
        constants = [value for value in call.inputs if value is not None and value.is_constant]
        return len(constants) == 1 and prod(constants[0].shape) > 1 and not is_made_up(constants[0], number)

    @cached_property
    def _wanted(self) -> frozenset[str]:
        """The values that a node reads, or that are outputs of the graph."""
        read = (name for node in self.nodes for name in (*node.inputs, *node.reads))
        return frozenset((*read, *(output.name for output in self.model.outputs)))

    @cached_property
    def _norm_scopes(self) -> frozenset[str]:
        return frozenset(node.scope for node in self.nodes if node.op_type == "InstanceNormalization")

    def _is_scale(self, tensor: OnnxTensor) -> bool:
        """Whether a tensor is the scale that onnxruntime's quantisation has made for another one."""
        name = tensor.name.removesuffix("_scale")
        return name != tensor.name and f"{name}_quantized" in self.model.initializers

    def _evaluated(self, call: OnnxCall) -> tuple[OnnxValue, ...] | None:
        if call.node.op_type == "Constant":
            return (self._constant(call.node),)
        try:
            return evaluate(call)
        except (LookupError, TypeError, ValueError, ArithmeticError, ShapeError):
            return None

    def _constant(self, node: OnnxNode) -> OnnxValue:
        for key, value in node.attributes.items():
            if isinstance(value, OnnxTensor):
                return self._tensor(replace(value, name=node.outputs[0] if node.outputs else ""))
            if key.startswith(("value_int", "value_float")):
                numbers = value if isinstance(value, tuple) else (value,)
                dtype = "int64" if key.startswith("value_int") else "float32"
                return OnnxValue((len(numbers),) if isinstance(value, tuple) else (), dtype, numbers=numbers)
        raise _no_shape(node)

    def _tensor(self, tensor: OnnxTensor) -> OnnxValue:
        self.tensors[tensor.name] = tensor
        numbers = self.model.numbers(tensor)
        return OnnxValue(tensor.shape, tensor.dtype, numbers=numbers, tensors=(tensor,), known=filed(tensor))

    def _call(self, node: OnnxNode) -> OnnxCall:
        inputs = tuple(self._value(name, node) if name else None for name in node.inputs)
        attributes: Mapping[str, Any] = node.attributes
        if isinstance(attributes.get("value"), OnnxTensor) and node.op_type != "Constant":
            attributes = {**attributes, "value": self._tensor(attributes["value"])}
        return OnnxCall(node, inputs, attributes, self.model.opset)

    def _value(self, name: str, node: OnnxNode) -> OnnxValue:
        value = self.values.get(name)
        if value is None:
            tensor = self.model.initializers.get(name)
            if tensor is None:
                problem = f"{node.title} reads {printable(name)}, which no node before it writes"
                raise CheckpointError(problem, "the graph has a circle, or is damaged")
            value = self.values[name] = self._tensor(tensor)
        self.read.add(name)
        return value

    def _stated(self, name: str) -> OnnxValue | None:
        """A value as the file states it; None if it states an axis neither as a number nor by an input's symbol.

        The shapes of a file of a fixed batch are those of that batch alone.
        """
        info = self.model.values.get(name) or self._output_infos.get(name)
        if info is None or info.axes is None or self.is_other_batch:
            return None
        known = self._symbols
        sizes = [axis if isinstance(axis, int) else known.get(axis or "") for axis in info.axes]
        if any(size is None for size in sizes):
            return None
        return OnnxValue(tuple(size for size in sizes if size is not None), info.dtype or "float32")

    @cached_property
    def _output_infos(self) -> dict[str, ValueInfo]:
        return {output.name: output for output in self.model.outputs}

    @cached_property
    def _symbols(self) -> dict[str, int]:
        """The size of each symbol in the shapes of inputs."""
        return {
            axis: size
            for info in self.model.inputs
            for axis, size in zip(info.axes or (), self.inputs[info.name].shape)
            if isinstance(axis, str)
        }


def _key(name: str) -> str:
    """The key in the state dict. dynamo names anew the bias that a convolution gets from a batch norm.

    >>> _key("features.0.weight_bias"), _key("features.0.bias")
    ('features.0.bias', 'features.0.bias')
    """
    return f"{name.removesuffix('.weight_bias')}.bias" if name.endswith(".weight_bias") else name


def _origin(call: OnnxCall) -> tuple[tuple[OnnxTensor, ...], bool]:
    """The tensors of the file that hold the data of a constant, and whether it is more than a view of one."""
    kind = call.node.op_type
    given = call.inputs[:1] if kind in _FIRST_ALONE else call.inputs
    data = [value for place, value in enumerate(given) if len(given) == 1 or not is_number(call, place)]
    known = [value for value in data if value is not None and value.dtype != "bool"]
    if any(_is_floating(value.dtype) for value in known):
        known = [value for value in known if value.dtype not in ("int32", "int64")]  # axes and places
    held = [tensor for tensor in call.node.holds if _may_be_weight(tensor)]
    tensors = tuple(dict.fromkeys((*(tensor for value in known for tensor in value.tensors), *held)))
    return tensors, kind not in _VIEWS or any(value.is_computed for value in known)


def _initializer(value: OnnxValue) -> str:
    """The name of the initializer that a constant is; empty for one that is computed."""
    return value.tensors[0].name if len(value.tensors) == 1 and not value.is_computed else ""


def _check_weights(op: Op, held: list[OnnxValue]) -> None:
    """Raise ShapeError unless the weights have as many elements as the op's own parameters."""
    for (leaf, shape), value in zip(op.parameters().items(), held):
        if prod(shape) != prod(value.shape):
            raise ShapeError(f"{op.name}: its {leaf} of {shape_text(value.shape)} is not {shape_text(shape)}")


def _result_dtype(call: OnnxCall, first: OnnxValue) -> str:
    return "int64" if call.node.op_type in ("TopK", "MaxPool") else first.dtype


def _no_shape(node: OnnxNode) -> ShapeError:
    return ShapeError(
        "the file does not state the shape of its output",
        "onnx.shape_inference.infer_shapes adds the shapes that it can infer",
    )


def _is_parameter(tensor: OnnxTensor) -> bool:
    is_weight = tensor.name.startswith(("onnx::Conv_", "onnx::Gemm_", "onnx::MatMul_")) and prod(tensor.shape) > 1
    return _is_floating(tensor.dtype) and (is_weight or names_parameter(tensor.name))


def _may_be_weight(tensor: OnnxTensor) -> bool:
    """Whether a tensor that a node of an unknown kind reads is taken for weights: several numbers, no indices."""
    return prod(tensor.shape) > 1 and (_is_floating(tensor.dtype) or tensor.dtype in ("int8", "uint8", "int4", "uint4"))


def _parameter(tensor: OnnxTensor, otherwise: str = "float32") -> Parameter:
    """A tensor as a parameter; integers are not trained."""
    dtype = tensor.dtype or otherwise
    return Parameter(_key(tensor.name), tensor.shape, _is_floating(dtype), dtype, tensor.stored)


def _is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat", "complex"))


@record
class _Finish:
    """A run as a Network: its nodes named, its inputs and outputs, and what the file has beside them."""

    model: OnnxModel
    name: str
    run: _ShapeRun
    other: _ShapeRun | None
    batch: int
    notes: list[str]
    recurrent_names: dict[str, str] = field(default_factory=dict)
    once: dict[str, list[str]] = field(default_factory=dict)
    written_once: dict[str, None] = field(default_factory=dict)

    @cached_property
    def readers(self) -> Counter[str]:
        """How many nodes have each parameter."""
        return Counter(parameter.name for made in self.run.made for parameter in made.parameters)

    def translation(self) -> OnnxTranslation:
        """Return the Network and the names in the file."""
        run = self.run
        run.made = list(_overwriting(run, {output.name for output in self.model.outputs}))
        dtype = _main_dtype(run)
        paths = _paths(run.made, self._inputs_names())
        names = {**self._inputs_names(), **paths}
        self._find_written_once(names)
        nodes = tuple(self._node(made, names, dtype) for made in run.made)
        returned, output, place = self._outputs(names, dtype)
        failure = run.failure
        network = Network(
            self.name,
            tuple(self._inputs(dtype)),
            nodes,
            unused=tuple(self._unused(dtype)),
            warnings=tuple(self._warnings(names)),
            failure=failure,
            single=None if self.other or failure else "its shapes hold for the batch of the file's inputs alone",
            output=output if failure is None else None,
            output_place=place,
            returned=returned if failure is None else (),
            tables=tuple(self._tables(dtype)),
            dtype=dtype,
            written_once=frozenset(self.written_once),
            same_paddings=tuple(
                replace(one, source=names[one.source]) for one in run.same_paddings if one.source in names
            ),
        )
        in_file = {output for node in self.model.nodes for output in node.outputs}
        values = {names[made.key]: made.key for made in run.made if made.key in in_file}
        return OnnxTranslation(labelled(network), values, {names[made.key]: made.weights for made in run.made})

    def _inputs_names(self) -> dict[str, str]:
        names = list(self.run.inputs)
        return {names[0]: INPUT} if len(names) == 1 else {name: name for name in names}

    def _growth(self, key: str, shape: Shape) -> Shape | None:
        """By how much each axis grows with a sample; None if the first grows by its own size.

        Where no second sample is known, an axis that is not as long as the batch does not count as one.
        """
        if self.other is None or key not in self.other.shapes:
            return None if not shape or shape[0] == self.batch else (0,) * len(shape)
        growth = tuple(two - one for one, two in zip(shape, self.other.shapes[key]))
        is_usual = bool(shape) and growth == (shape[0], *(0,) * (len(shape) - 1))
        return None if is_usual or not shape else growth

    def _inputs(self, dtype: str) -> Iterator[Input]:
        names = self._inputs_names()
        for name, value in self.run.inputs.items():
            own = "" if value.dtype == dtype else value.dtype
            yield Input(names[name], value.shape, own, self._growth(name, value.shape))

    def _node(self, made: _Made, names: Mapping[str, str], dtype: str) -> Node:
        shape, name = self.run.shapes[made.key], names[made.key]
        return Node(
            name,
            made.op,
            tuple(names[source] for source in made.inputs),
            self._module(made, name),
            parameters=tuple(self._parameters(made, self._module(made, name), dtype)),
            batch_growth=self._growth(made.key, shape),
            detached=not made.dtype.startswith(("float", "bfloat", "complex")),
            dtype="" if made.dtype == dtype else made.dtype,
            constants=made.constants,
            reads_computed_weight=made.reads_computed_weight,
            folded_norm=made.op.is_convolution and _has_folded_norm(made),
        )

    def _parameters(self, made: _Made, module: str | None, dtype: str) -> Iterator[Parameter]:
        """Yield a node's parameters, by the module's path where the exporter made up their names."""
        leaves = [*made.op.parameters()]
        for place, parameter in enumerate(made.parameters):
            own = replace(parameter, dtype="" if parameter.dtype == dtype else parameter.dtype)
            is_made_up = not names_parameter(parameter.name) and self.readers[parameter.name] == 1
            is_plain = module is not None and len(leaves) == len(made.parameters)
            if made.call.op_type in JOINED.values() and place < len(leaves):
                key = f"{module or made.key}.{leaves[place]}"
                own = replace(own, name=self.recurrent_names.setdefault(parameter.name, key))
            elif is_plain and (is_made_up or self._is_split(parameter)):
                own = replace(own, name=f"{module}.{leaves[place]}")
            if parameter.name in self.once:
                self.written_once[own.name] = None
            yield own

    def _is_split(self, parameter: Parameter) -> bool:
        """Whether a tensor that is written once is a parameter of each of its layers: equal vectors are common."""
        return parameter.name in self.once and len(parameter.shape) < 2

    def _find_written_once(self, names: Mapping[str, str]) -> None:
        """Note the parameters that several modules read: the file does not tell whether these share them."""
        readers: dict[str, dict[object, str]] = {}
        for made in self.run.made:
            module = self._module(made, names[made.key])
            own = tuple(parameter.name for parameter in made.parameters)
            which: object = module if module is not None else own if made.op.parameters() else None
            for parameter in made.parameters:
                readers.setdefault(parameter.name, {}).setdefault(which, names[made.key])
        self.once.update((name, list(found.values())) for name, found in readers.items() if len(found) > 1)

    def _module(self, made: _Made, name: str) -> str | None:
        path = name.partition(":")[0]
        return path if path in (made.call.scope, _owner(made)) and made.is_first else None

    def _once_warnings(self) -> Iterator[str]:
        """Yield what the file does not tell of tensors that several layers read."""
        for name, readers in list(self.once.items())[:_MANY]:
            counted = "for each" if any(map(self._is_split, self._read_as(name))) else "once"
            listed = ", ".join(printable(reader, 60) for reader in readers[:_MANY])
            more = f" and {len(readers) - _MANY} more" if len(readers) > _MANY else ""
            unknown = f"whether they share it is unknown, it is counted {counted}"
            once = f"{printable(name, 60)} is written once for {listed}{more}"
            yield f"{once}, as exporters write equal tensors: {unknown}"
        if len(self.once) > _MANY:
            yield f"{len(self.once) - _MANY} more tensors are written once for several layers"

    def _read_as(self, name: str) -> Iterator[Parameter]:
        return (own for made in self.run.made for own in made.parameters if own.name == name)

    def _outputs(self, names: Mapping[str, str], dtype: str) -> tuple[tuple[Output, ...], str | None, int]:
        """The outputs, the node of the network's output if it is not the last, and its place among them."""
        found = []
        for info in self.model.outputs:
            value = self.run.values.get(info.name)
            if value is None:
                continue
            label = OUTPUT if len(self.model.outputs) == 1 else info.name
            own = "" if value.dtype == dtype else value.dtype
            growth = self._growth(value.node, value.shape) if value.node else (0,) * len(value.shape)
            found.append(Output(label, value.shape, own, growth, source=names.get(value.node, "")))
        if not found and self.run.failure is None:
            raise CheckpointError("its graph has no outputs that its nodes write", "it is damaged")
        compared = range(min(len(found), MOST_COMPARED))
        place = max(compared, key=lambda i: (self._weights(found[i].source, names), -i), default=0)
        end = found[place].source if found else ""
        last = names[self.run.made[-1].key] if self.run.made else ""
        is_plain = len(found) == 1 and end == last
        return (() if is_plain else tuple(found)), (None if is_plain else end or None), place

    def _weights(self, name: str, names: Mapping[str, str]) -> int:
        """The number of nodes with parameters that a node depends on."""
        reached, count = {name}, 0
        for made in reversed(self.run.made):
            if names[made.key] in reached:
                reached.update(names[source] for source in made.inputs)
                count += bool(made.parameters)
        return count

    def _unused(self, dtype: str) -> Iterator[tuple[Parameter, str]]:
        for tensor in self.model.initializers.values():
            if tensor.name not in self.run.read and _is_parameter(tensor) and self.run.failure is None:
                yield Parameter(tensor.name, tensor.shape, dtype="" if tensor.dtype == dtype else tensor.dtype), UNREAD

    def _tables(self, dtype: str) -> Iterator[Buffer]:
        """The tensors that nodes read and that are neither parameters nor numbers nor running statistics."""
        owned = self.run.owned | self.run.statistics
        for tensor in self.model.initializers.values():
            if tensor.name not in owned and tensor.name in self.run.read and prod(tensor.shape) > 8 and tensor.dtype:
                yield Buffer(tensor.name, tensor.shape, "" if tensor.dtype == dtype else tensor.dtype, tensor.stored)

    def _constant_warnings(self) -> Iterator[str]:
        """A note on the constants that may be parameters of the module, such as the ones and zeros of an untrained
        GroupNorm, which exporters write as a product and a sum.
        """
        owned = self.run.owned | self.run.statistics
        read = {name for node in self.model.nodes if node.op_type in ("Add", "Mul") for name in node.inputs}
        unnamed = [
            tensor
            for name, tensor in self.model.initializers.items()
            if name in read and name not in owned and _is_floating(tensor.dtype) and prod(tensor.shape) > 1
        ]
        if unnamed:
            count = count_text(sum(prod(tensor.shape) for tensor in unnamed))
            first = printable(unnamed[0].name, 60)
            what = (
                f"{len(unnamed)} constants with {count} values"
                if len(unnamed) > 1
                else f"a constant with {count} values"
            )
            yield f"{what} ({first}), which the file does not name, may be parameters of the module: not counted"

    def _warnings(self, names: Mapping[str, str]) -> Iterator[str]:
        yield from self.notes
        for op, keys in self.run.unknown.items():
            listed = ", ".join(printable(names[key], 60) for key in keys[:_MANY])
            more = f" and {len(keys) - _MANY} more" if len(keys) > _MANY else ""
            yield f"{listed}{more}: there is no rule for the op {printable(op)}, its cost is unknown"
        yield from self._once_warnings()
        yield from self._constant_warnings()
        for made in self.run.made:
            unread = (
                made.call.attributes.get("unread") if made.call.op_type in JOINED.values() and made.is_first else ""
            )
            if unread:
                where = f"lie in {printable(unread, 120)}, which is not read,"
                yield f"{printable(names[made.key], 60)}: its first states {where} and are taken for zeros"
        places = {tensor.location for tensor in self.model.initializers.values() if tensor.location}
        for place in sorted(places)[:_MANY]:
            outside = place.startswith(("/", "\\")) or ".." in place.replace("\\", "/").split("/") or ":" in place
            shown = printable(place, 120)
            if outside:
                yield f"the file keeps weights outside its folder, in {shown}, which is not read"
            else:
                yield f"the file keeps weights in {shown}, read only where their values are compared or written"


def _overwriting(run: _ShapeRun, returned: set[str]) -> Iterator[_Made]:
    """Yield the nodes, with those activations in place that a runtime runs so and that cost training nothing.

    ONNX does not say what is in place. An activation overwrites its input if nothing else reads that.
    """
    readers = Counter(source for made in run.made for source in made.inputs)
    by_key = {made.key: made for made in run.made}
    for made in run.made:
        source = by_key.get(made.inputs[0]) if len(made.inputs) == 1 else None
        can_overwrite = getattr(made.op, "keeps_in_place", "") == "output"
        if source is not None and can_overwrite and source.op.allocates and source.key not in returned:
            shapes = tuple(run.shapes[name] for name in source.inputs)
            if readers[source.key] == 1 and not source.op.saved_for_backward(shapes, run.shapes[source.key]).output:
                yield replace(made, op=replace(made.op, inplace=True))  # type: ignore[call-arg]
                continue
        yield made


def _main_dtype(run: _ShapeRun) -> str:
    """The floating-point type of most parameters, or else of an input."""
    sizes: Counter[str] = Counter()
    for parameter in {p for made in run.made for p in made.parameters}:
        sizes[parameter.dtype] += prod(parameter.shape)
    for value in run.inputs.values():
        sizes[value.dtype] += 0
    floating = [name for name, _ in sizes.most_common() if name.startswith(("float", "bfloat", "complex"))]
    return next(iter(floating), "float32")


def _has_folded_norm(made: _Made) -> bool:
    """Whether an exporter has folded a batch norm into a convolution.

    dynamo's notes that the node was a batch norm, and the other one names the weights anew.
    """
    is_renamed = len(made.weights) == 2 and all(name.startswith("onnx::Conv") for name in made.weights)
    return is_renamed or "batch_norm" in made.call.exported


def _owner(made: _Made) -> str:
    """The path that all parameters of a node have before their own names, empty if there is none."""
    paths = {parameter.name.rpartition(".")[0] for parameter in made.parameters}
    leaves = {parameter.name.rpartition(".")[2] for parameter in made.parameters}
    return paths.pop() if len(paths) == 1 and leaves <= made.op.without_constants.parameters().keys() else ""


def _paths(made: Sequence[_Made], inputs: Mapping[str, str]) -> dict[str, str]:
    """A unique name for each node: the path of its module, or that and the op's name, or the name in the file."""
    scopes: dict[str, set[str]] = {}
    for one in made:
        scopes.setdefault(one.call.scope, set()).add(one.call.op_type)
    parents = {scope.rpartition(".")[0] for scope in scopes}
    taken, repeats, names = set(inputs.values()), dict[str, int](), {}
    for one in made:
        scope = one.call.scope
        is_module = bool(scope) and len(scopes[scope]) == 1 and scope not in parents
        in_scope = f"{scope}.{one.op.name.lower()}".lstrip(".")
        owner = _owner(one)
        # The exporter gives a convolution that it has joined with a batch norm the scope of that.
        is_joined = bool(owner) and owner.rpartition(".")[0] == scope.rpartition(".")[0] and one.op.is_convolution
        base = scope if is_module and one.is_first and not is_joined else owner or in_scope
        name = unique_name(base, taken, (), repeats)
        taken.add(name)
        names[one.key] = name
    return names
