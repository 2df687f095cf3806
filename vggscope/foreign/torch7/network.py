"""A module of Lua Torch's nn as a Network: its tree of containers and layers, under torch's numbers of the parts.

Each rule follows updateOutput of the class in github.com/torch/nn. A class of cudnn or inn has the rule of nn's of the
same name. The batch is the first axis of every tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.torch7 import (
    PARAMETERS,
    T7Object,
    T7Storage,
    T7Tensor,
    model_in,
    modules_of,
    read_objects,
    weight_shape,
)
from vggscope.checkpoint.reader import explained
from vggscope.errors import CheckpointError, ShapeError, option, printable
from vggscope.foreign.layer_graph import (
    FailedLayer,
    Incomplete,
    LayerGraph,
    check_classes,
    check_given,
    given_for,
    given_shapes,
    naming_file,
)
from vggscope.graph import Network, Parameter
from vggscope.ops import activation
from vggscope.ops.base import Op, Shape
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.linear import Linear
from vggscope.ops.merge import Concatenation
from vggscope.ops.normalization import BatchNorm1d, BatchNorm2d, LocalResponseNorm
from vggscope.ops.pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from vggscope.ops.regularization import Dropout, Dropout2d, Identity
from vggscope.ops.sampling import Upsample
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Pad, Reshape
from vggscope.trace.inputs import SIDES
from vggscope.units import shape_text
from vggscope.vgg.options import BuildOptions

_INPUT = "x"

_DEEPEST = 60
"""Containers in one another."""

_MOST_CALLS = 50_000
"""Calls of modules, those of containers and those that are no node included."""

_SOFTMAX = ("SoftMax", "LogSoftMax", "SpatialSoftMax", "SpatialLogSoftMax")

_Value: TypeAlias = "str | list[_Value]"
"""What a module returns: a node's or an input's name, or a table of such."""


def network_of_torch7_file(path: str, name: str, options: BuildOptions) -> Network | None:
    """Return the Network of the module in a file; None for a file without one.

    Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and ShapeError where
    the module does not take the inputs in `options`.
    """
    with explained(path), BoundedFile(path) as file:
        model = model_in(read_objects(file).value)
    if model is None:
        return None
    options.refuse_column_options(f"{path} has its layers", takes_soft_max=True)
    with naming_file(path):
        network = network_of_torch7(model.module, name, given_shapes(options), soft_max=options.soft_max)
    return check_classes(network, options)


def network_of_torch7(
    module: T7Object, name: str, given: Mapping[str | int, Shape] | None = None, *, soft_max: bool = False
) -> Network:
    """Return the Network of a module.

    `given` is the shape of the input without the batch, by place. A softmax that ends the module is left out unless
    `soft_max`. Raises ShapeError for inputs that it does not take, CheckpointError, without the path, for a module that
    is nested without end.
    """
    paths = {id(each): path for path, each in modules_of(module)}
    check_given(given or {}, [_INPUT])
    shapes, note = _input_shapes(module, paths, given or {})
    walk = _T7Walk(module, paths, shapes[0], soft_max)
    network = walk.network(name)
    for shape in shapes[1:]:
        if network.failure is None:
            break
        other = _T7Walk(module, paths, shape, soft_max).network(name)
        if other.failure is None:
            network = other
    if not note:
        return network
    taken = f"the file does not tell the size of its input, {shape_text(network.inputs[0].shape)} is taken"
    text = f"{taken}; {option('input_size')} gives another"
    return replace(network, warnings=(*network.warnings, text))


def _input_shapes(
    module: T7Object, paths: Mapping[int, str], given: Mapping[str | int, Shape]
) -> tuple[list[Shape], bool]:
    """The shapes of the input to try, without the batch, and whether they are a guess.

    Raises ShapeError where the first layer does not tell the number of its channels.
    """
    planes = next((each.get("nInputPlane") for _, each in modules_of(module) if "nInputPlane" in each.fields.named), 0)
    channels = int(planes) if isinstance(planes, float) and 0 < planes < 2**31 else 0
    own = given_for(given, 0, _INPUT, (channels, None, None) if channels else None)
    if own is not None:
        if any(side < 1 for side in own):
            raise ShapeError("the input has an empty side", f"give {option('input_size')}")
        return [own], False
    weights = (each.get("weight") for _, each in modules_of(module) if each.name == "Linear")
    width = next((weight.shape[1] for weight in weights if isinstance(weight, T7Tensor) and len(weight.shape) == 2), 0)
    first = next((each.name for _, each in modules_of(module) if each.name == "Linear" or each.get("nInputPlane")), "")
    if first == "Linear" and width:
        return [(width,)], False
    if not channels:
        raise ShapeError("the file does not tell the size of its input", f"give {option('input_size')}")
    return [(channels, side, side) for side in SIDES], True


@dataclass
class _T7Walk:
    """The walk through the tree of modules. `paths` has the path of each, by id."""

    root: T7Object
    paths: Mapping[int, str]
    shape: Shape
    soft_max: bool
    graph: LayerGraph = field(default_factory=LayerGraph)
    shared: dict[tuple[str, int, Shape], Parameter] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    calls: int = 0

    def network(self, name: str) -> Network:
        dtypes = [each.get("weight") for _, each in modules_of(self.root)]
        self.graph.dtype = next((weight.dtype for weight in dtypes if isinstance(weight, T7Tensor)), "float32")
        self.graph.give(_INPUT, (1, *self.shape))
        last: _Value = _INPUT
        try:
            last = self.run(self.root, _INPUT, 0, is_last=True)
        except Incomplete as error:
            self.graph.fail(error.failed)
        if not self.graph.nodes and self.graph.failure is None:
            raise CheckpointError("it has no layers that compute anything", "give the file of a model")
        return self.graph.network(name, dict(zip(_names(last), _names(last))), self.notes)

    def run(self, module: T7Object, given: _Value, depth: int, *, is_last: bool = False) -> _Value:
        """What a module returns of a value. `is_last`: it is the end of the whole network."""
        self.calls += 1
        if depth > _DEEPEST or self.calls > _MOST_CALLS:
            raise CheckpointError("its modules are nested too deep", "it is damaged or malicious")
        call = _T7Call(self, module, self.paths[id(module)], given, depth, is_last)
        if is_last and module.name in _SOFTMAX and not self.soft_max:
            why = f"the loss computes the softmax at the end; {option('soft_max')} keeps it"
            self.notes.append(f"{call.path or module.name} is left out: {why}")
            return given
        rule = _RULES.get(module.name)
        if rule is None:
            kind = printable(module.kind, 60)
            raise Incomplete(
                FailedLayer(
                    f"{call.path or 'the module'}: there is no rule for {kind}", "the layers up to it are described"
                )
            )
        try:
            return rule(call)
        except (ValueError, ArithmeticError, LookupError) as error:
            raise Incomplete(FailedLayer(f"{call.path or module.name}: {printable(str(error))}")) from None


def _names(value: _Value) -> list[str]:
    return [value] if isinstance(value, str) else [name for each in value for name in _names(each)]


@dataclass
class _T7Call:
    """A call of a module with a value."""

    walk: _T7Walk
    module: T7Object
    path: str
    given: _Value
    depth: int
    is_last: bool

    @property
    def source(self) -> str:
        """The node that is read. Raises ValueError for a table."""
        if isinstance(self.given, str):
            return self.given
        raise ValueError("it reads one tensor and gets a table")

    @property
    def shape(self) -> Shape:
        return self.walk.graph.shapes[self.source]

    @property
    def table(self) -> list[_Value]:
        if isinstance(self.given, list):
            return self.given
        raise ValueError("it reads a table and gets one tensor")

    def parts(self) -> list[T7Object]:
        parts = self.module.modules
        if parts is None:
            raise ValueError("it has no modules")
        return parts

    def run(self, module: T7Object, given: _Value, *, is_last: bool = False) -> _Value:
        return self.walk.run(module, given, self.depth + 1, is_last=is_last)

    def number(self, name: str, otherwise: float = 0.0) -> float:
        value = self.module.get(name)
        return value if isinstance(value, float) else otherwise

    def whole(self, name: str, otherwise: int = 0, lowest: int = 0) -> int:
        """A whole number of the settings. Raises ValueError for any other."""
        value = self.number(name, otherwise)
        if value != int(value) or not lowest <= value < 2**31:
            raise ValueError(f"its {name} is {value:g}")
        return int(value)

    def pair(self, name: str, otherwise: int = 0, lowest: int = 0) -> tuple[int, int]:
        """The settings of height and width, such as kH and kW."""
        return self.whole(f"{name}H", otherwise, lowest), self.whole(f"{name}W", otherwise, lowest)

    def is_set(self, name: str) -> bool:
        return self.module.get(name) is True

    def weight(self) -> T7Tensor:
        weight = self.module.get("weight")
        if not isinstance(weight, T7Tensor) or not weight.shape:
            raise ValueError("it has no weights")
        return weight

    def has_bias(self) -> bool:
        bias = self.module.get("bias")
        return isinstance(bias, T7Tensor) and bool(bias.shape)

    def channels(self) -> int:
        if len(self.shape) != 4:
            raise ValueError(f"it reads maps of channels x height x width, the input has {len(self.shape) - 1} axes")
        return self.shape[1]

    def axis(self, name: str, inputs: str = "nInputDims") -> int:
        """The axis that a setting names, which counts from 1, and not the batch if the number of axes is told."""
        axis, axes = self.whole(name, 0, -_DEEPEST), self.whole(inputs, 0)
        given = self.table[0] if isinstance(self.given, list) and self.given else self.given
        rank = len(self.walk.graph.shapes[given]) if isinstance(given, str) else 0
        place = rank + axis if axis < 0 else axis if axes and axes == rank - 1 else axis - 1
        if not 0 < place < rank:
            raise ValueError(f"its {name} is {axis}, the batch or no axis of an input of {rank} axes with the batch")
        return place

    def add(self, op: Op) -> str:
        """Add the layer itself, with its tensors in the file. Raises ValueError where they are not the op's."""
        parameters = []
        for leaf, shape in op.parameters().items():
            held = self.module.get(leaf)
            if not isinstance(held, T7Tensor) or prod(held.shape) != prod(shape) or leaf not in PARAMETERS:
                raise ValueError(f"its {leaf} is not of the shape {'x'.join(map(str, shape))}")
            own = Parameter(f"{self.path}.{leaf}" if self.path else leaf, shape)
            key = (held.storage.key if held.storage else "", held.offset, held.shape)
            parameters.append(self.walk.shared.setdefault(key, own))
        path = self.path or self.module.name.lower()
        return self.walk.graph.add(path, op, [self.source], parameters, is_named=True)

    def function(self, op: Op, sources: Sequence[str], leaf: str = "") -> str:
        """Add a function, or a step of the layer."""
        path = f"{self.path or self.module.name.lower()}{leaf}"
        return self.walk.graph.add(path, op, sources, (), is_module=False)


# containers


def _sequential(call: _T7Call) -> _Value:
    value, parts = call.given, call.parts()
    for place, part in enumerate(parts):
        value = call.run(part, value, is_last=call.is_last and place == len(parts) - 1)
    return value


def _concat_table(call: _T7Call) -> _Value:
    return [call.run(part, call.given) for part in call.parts()]


def _parallel_table(call: _T7Call) -> _Value:
    parts, table = call.parts(), call.table
    if len(table) < len(parts):
        raise ValueError(f"it has {len(parts)} modules for a table of {len(table)}")
    return [call.run(part, value) for part, value in zip(parts, table)]


def _concat(call: _T7Call) -> _Value:
    """The outputs of its parts along an axis, which counts from 1 with the batch."""
    axis = call.whole("dimension", 0, 1) - 1
    sources = [call.run(part, call.given) for part in call.parts()]
    return _joined(call, sources, axis)


def _joined(call: _T7Call, sources: Sequence[_Value], axis: int) -> str:
    if axis < 1:
        raise ValueError("it joins along the batch")
    return call.function(Concatenation(axis), _tensors_of(sources))


def _tensors_of(values: Sequence[_Value]) -> list[str]:
    """The tensors of a table. Raises ValueError for one without any, and for one of tables."""
    names = [value for value in values if isinstance(value, str)]
    if len(names) != len(values) or not names:
        raise ValueError("it reads tensors, and gets a table without any or one of tables")
    return names


def _first_replica(call: _T7Call) -> _Value:
    """A DataParallelTable, whose modules are equal."""
    return call.run(call.parts()[0], call.given, is_last=call.is_last)


def _sum(function: str) -> Callable[[_T7Call], _Value]:
    def rule(call: _T7Call) -> _Value:
        result, *rest = _tensors_of(call.table)
        for other in rest:
            result = call.function(Elementwise(function), [result, other])
        return result

    return rule


def _flattened_table(call: _T7Call) -> _Value:
    return list(_names(call.given))


def _selected(call: _T7Call) -> _Value:
    place, table = call.whole("index", 0, -len(call.table)), call.table
    return table[place - 1 if place > 0 else place]


# layers


def _convolution(call: _T7Call) -> _Value:
    outputs, inputs = call.whole("nOutputPlane", 0, 1), call.whole("nInputPlane", 0, 1)
    groups = call.whole("groups", 1, 1)
    padding = call.whole("padding", 0)
    weight = weight_shape(call.module) or call.weight().shape
    kernel = call.pair("k", 0, 1)
    if weight != (outputs, inputs // groups, *kernel):
        raise ValueError(f"its weights are {'x'.join(map(str, weight))}")
    call.channels()
    return call.add(
        Convolution(
            inputs,
            outputs,
            kernel,
            call.pair("d", 1, 1),
            call.pair("pad", padding),
            call.pair("dilation", 1, 1),
            groups,
            call.has_bias(),
        )
    )


def _transposed(call: _T7Call) -> _Value:
    outputs, inputs = call.whole("nOutputPlane", 0, 1), call.whole("nInputPlane", 0, 1)
    call.channels()
    return call.add(
        TransposedConvolution(
            inputs,
            outputs,
            call.pair("k", 0, 1),
            call.pair("d", 1, 1),
            call.pair("pad", 0),
            (1, 1),
            1,
            call.has_bias(),
            output_padding=call.pair("adj", 0),
        )
    )


def _linear(call: _T7Call) -> _Value:
    weight = call.weight().shape
    if len(weight) != 2:
        raise ValueError(f"its weights have {len(weight)} axes")
    return call.add(Linear(weight[1], weight[0], call.has_bias()))


def _maximum_pool(call: _T7Call) -> _Value:
    call.channels()
    kernel, padding = call.pair("k", 0, 1), call.pair("pad", 0)
    # inn's pool rounds up, and has no setting for it.
    ceil_mode = call.is_set("ceil_mode") or call.module.kind.startswith("inn.")
    return call.add(MaxPool2d(kernel, _strides(call, kernel), padding, ceil_mode=ceil_mode))


def _mean_pool(call: _T7Call) -> _Value:
    call.channels()
    kernel, padding = call.pair("k", 0, 1), call.pair("pad", 0)
    is_whole = call.module.get("count_include_pad") is not False
    ceil_mode = call.is_set("ceil_mode")
    result = call.add(
        AvgPool2d(kernel, _strides(call, kernel), padding, ceil_mode=ceil_mode, count_include_pad=is_whole)
    )
    if call.module.kind.startswith("nn.") and not call.is_set("divide"):
        # The sums of windows: files before `divide` came have them.
        result = call.function(Elementwise("mul", (None, float(prod(kernel)))), [result], ".mul")
    return result


def _strides(call: _T7Call, kernel: tuple[int, int]) -> tuple[int, int]:
    return call.whole("dH", kernel[0], 1), call.whole("dW", kernel[1], 1)


def _adaptive(make: Callable[[tuple[int, int]], Op]) -> Callable[[_T7Call], _Value]:
    def rule(call: _T7Call) -> _Value:
        call.channels()
        return call.add(make((call.whole("H", 0, 1), call.whole("W", 0, 1))))

    return rule


def _batch_norm(make: type[BatchNorm2d], rank: int) -> Callable[[_T7Call], _Value]:
    def rule(call: _T7Call) -> _Value:
        mean = call.module.get("running_mean")
        if len(call.shape) != rank:
            raise ValueError(f"it reads {rank} axes with the batch, the input has {len(call.shape)}")
        if not isinstance(mean, T7Tensor) or len(mean.shape) != 1:
            raise ValueError("it has no running mean")
        affine = isinstance(call.module.get("weight"), T7Tensor)
        return call.add(make(mean.shape[0], call.number("eps", 1e-5), call.number("momentum", 0.1), affine))

    return rule


def _lrn(call: _T7Call) -> _Value:
    call.channels()
    size = call.whole("size", 5, 1)
    return call.add(
        LocalResponseNorm(size, call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("k", 1.0))
    )


def _threshold(call: _T7Call) -> _Value:
    if (call.number("threshold"), call.number("val")) != (0, 0):
        raise ValueError("there is no rule for a threshold other than 0")
    return _relu(call)


def _relu(call: _T7Call) -> _Value:
    return call.add(activation.ReLU(inplace=call.is_set("inplace")))


def _leaky_relu(call: _T7Call) -> _Value:
    return call.add(activation.LeakyReLU(call.number("negval", 0.01), inplace=call.is_set("inplace")))


def _prelu(call: _T7Call) -> _Value:
    return call.add(activation.PReLU(call.whole("nOutputPlane", 0) or 1))


def _hard_tanh(call: _T7Call) -> _Value:
    low, high = call.number("min_val", -1.0), call.number("max_val", 1.0)
    return call.add(activation.Hardtanh(low, high, inplace=call.is_set("inplace")))


def _softmax(make: Callable[[int], Op]) -> Callable[[_T7Call], _Value]:
    return lambda call: call.add(make(1))


def _dropout(call: _T7Call) -> _Value:
    ratio = call.number("p", 0.5)
    if not 0 <= ratio < 1:
        raise ValueError(f"its p is {ratio:g}")
    kind = Dropout2d if call.module.name == "SpatialDropout" else Dropout
    result = call.add(kind(ratio, inplace=call.is_set("inplace")))
    if kind is Dropout and not call.is_set("v2") and ratio:
        # The first version scales the output at evaluation, and not in training.
        result = call.function(Elementwise("mul", (None, 1 - ratio)), [result], ".mul")
    return result


# shapes


def _sizes(call: _T7Call) -> tuple[int, ...]:
    size = call.module.get("size")
    if not isinstance(size, T7Storage) or len(size.numbers) != size.count or not size.count:
        raise ValueError("its size is not in the file")
    return size.numbers


def _view(call: _T7Call) -> _Value:
    """The sizes, one of which may be -1, for each sample: `View:updateOutput`, for a batch of more than one."""
    sizes, sample = _sizes(call), prod(call.shape[1:])
    known = prod(side for side in sizes if side != -1)
    is_told = call.whole("numInputDims", 0) == len(call.shape) - 1
    if -1 in sizes and not is_told and len(sizes) > 1:
        # The side of -1 is then the batch's.
        sizes, known = sizes[1:] if sizes[0] == -1 else sizes, prod(sizes[1:])
    elif -1 in sizes and known > 0:
        if not is_told:
            name = call.path or call.module.name
            call.walk.notes.append(f"{name} joins the samples of a batch; the figures are those of one sample")
        sizes = tuple(sample // known if side == -1 else side for side in sizes)
    if prod(sizes) != sample or min(sizes) < 1:
        raise ValueError(f"its size {'x'.join(map(str, sizes))} is not that of its input, {shape_text(call.shape)}")
    return call.add(_as_sides(sizes))


def _reshape(call: _T7Call) -> _Value:
    sizes = _sizes(call)
    if call.module.get("batchMode") is False or prod(sizes) != prod(call.shape[1:]):
        raise ValueError(f"its size {'x'.join(map(str, sizes))} is not that of one sample, {shape_text(call.shape)}")
    return call.add(_as_sides(sizes))


def _as_sides(sizes: Shape) -> Op:
    return Flatten() if len(sizes) == 1 else Reshape((-1, *sizes))


def _zero_padding(mode: str) -> Callable[[_T7Call], _Value]:
    def rule(call: _T7Call) -> _Value:
        call.channels()
        sides = tuple(call.whole(f"pad_{side}", 0) for side in "lrtb")
        return call.function(Pad(sides, mode, 0.0 if mode == "constant" else None), [call.source])

    return rule


def _padding(call: _T7Call) -> _Value:
    """`pad` numbers before an axis, or after it; the axis counts from 1."""
    count = call.whole("pad", 0, -(2**31))
    if call.number("index", 1) != 1:
        raise ValueError("there is no rule for a padding within an axis")
    after = len(call.shape) - 1 - call.axis("dim", "nInputDim")
    own = (-count, 0) if count < 0 else (0, count)
    return call.function(Pad((*(0, 0) * after, *own), "constant", call.number("value", 0.0)), [call.source])


def _joined_table(call: _T7Call) -> _Value:
    return _joined(call, call.table, call.axis("dimension"))


def _upsample(call: _T7Call) -> _Value:
    call.channels()
    scale = float(call.whole("scale_factor", 0, 1))
    return call.add(Upsample(None, (scale, scale)))


def _constant(function: str, name: str) -> Callable[[_T7Call], _Value]:
    return lambda call: call.function(Elementwise(function, (None, call.number(name))), [call.source])


def _function(name: str) -> Callable[[_T7Call], _Value]:
    return lambda call: call.function(Elementwise(name), [call.source])


def _plain(make: Callable[[], Op]) -> Callable[[_T7Call], _Value]:
    return lambda call: call.add(make())


def _same(call: _T7Call) -> _Value:
    return call.given


def _identity(call: _T7Call) -> _Value:
    return call.add(Identity()) if isinstance(call.given, str) else call.given


_RULES: Mapping[str, Callable[[_T7Call], _Value]] = {
    "Abs": _function("abs"),
    "AddConstant": _constant("add", "constant_scalar"),
    "BatchNormalization": _batch_norm(BatchNorm1d, 2),
    "CAddTable": _sum("add"),
    "CMaxTable": _sum("maximum"),
    "CMulTable": _sum("mul"),
    "CSubTable": _sum("sub"),
    "Concat": _concat,
    "ConcatTable": _concat_table,
    "Contiguous": _same,
    "Copy": _same,
    "DataParallelTable": _first_replica,
    "DepthConcat": _concat,
    "Dropout": _dropout,
    "ELU": lambda call: call.add(activation.ELU(call.number("alpha", 1.0), inplace=call.is_set("inplace"))),
    "FlattenTable": _flattened_table,
    "HardTanh": _hard_tanh,
    "Identity": _identity,
    "JoinTable": _joined_table,
    "LeakyReLU": _leaky_relu,
    "Linear": _linear,
    "LogSoftMax": _softmax(activation.LogSoftmax),
    "MulConstant": _constant("mul", "constant_scalar"),
    "PReLU": _prelu,
    "Padding": _padding,
    "ParallelTable": _parallel_table,
    "ReLU": _relu,
    "ReLU6": lambda call: call.add(activation.ReLU6(inplace=call.is_set("inplace"))),
    "Reshape": _reshape,
    "SelectTable": _selected,
    "Sequential": _sequential,
    "Sigmoid": _plain(activation.Sigmoid),
    "SoftMax": _softmax(activation.Softmax),
    "SoftPlus": lambda call: call.add(activation.Softplus(call.number("beta", 1.0))),
    "SpatialAdaptiveAveragePooling": _adaptive(AdaptiveAvgPool2d),
    "SpatialAdaptiveMaxPooling": _adaptive(AdaptiveMaxPool2d),
    "SpatialAveragePooling": _mean_pool,
    "SpatialBatchNormalization": _batch_norm(BatchNorm2d, 4),
    "SpatialConvolution": _convolution,
    "SpatialConvolutionMM": _convolution,
    "SpatialCrossMapLRN": _lrn,
    "SpatialCrossResponseNormalization": _lrn,
    "SpatialDilatedConvolution": _convolution,
    "SpatialDropout": _dropout,
    "SpatialFullConvolution": _transposed,
    "SpatialLogSoftMax": _softmax(activation.LogSoftmax),
    "SpatialMaxPooling": _maximum_pool,
    "SpatialReflectionPadding": _zero_padding("reflect"),
    "SpatialReplicationPadding": _zero_padding("replicate"),
    "SpatialSoftMax": _softmax(activation.Softmax),
    "SpatialUpSamplingNearest": _upsample,
    "SpatialZeroPadding": _zero_padding("constant"),
    "Square": _function("square"),
    "Sqrt": _function("sqrt"),
    "Tanh": _plain(activation.Tanh),
    "Threshold": _threshold,
    "View": _view,
}
"""The rule of each class, by its name without the package. A rule adds its nodes and returns what the module does."""
