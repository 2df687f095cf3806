"""ONNX's ops as ours: for each op type, which op of vggscope it is, and which of its inputs are weights.

The rules are those of onnx/docs/Operators.md. An entry raises LookupError where it does not take the attributes of a
call, or a shape or axis that is no known constant. The node is then one whose cost is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from math import inf, prod
from types import MappingProxyType

from vggscope.checkpoint.formats.onnx_model import DTYPES, OnnxTensor, names_parameter
from vggscope.checkpoint.formats.onnx_recurrent import PER_LAYER, RecurrentWeight, recurrent_weights
from vggscope.foreign.onnx.constants import arguments_of
from vggscope.foreign.onnx.values import (
    INTEGERS,
    Number,
    OnnxCall,
    OnnxValue,
    piece_sizes,
    reshaped,
    slices,
    squeezed,
    unsqueezed,
)
from vggscope.graph import SamePadding
from vggscope.ops import activation
from vggscope.ops.attention import Einsum, MatrixProduct, ScaledDotProductAttention
from vggscope.ops.base import Op, Shape
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.elementwise import Elementwise, broadcast
from vggscope.ops.embedding import Embedding
from vggscope.ops.linear import Linear
from vggscope.ops.merge import Concatenation
from vggscope.ops.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from vggscope.ops.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from vggscope.ops.recorded import Recorded
from vggscope.ops.recurrent import Recurrent
from vggscope.ops.reduction import Reduction
from vggscope.ops.regularization import Dropout, Identity
from vggscope.ops.sampling import Upsample
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Expand, Item, Pad, Permute, PixelShuffle, Reshape, Slice, Split
from vggscope.record import record


@record
class OnnxLayer:
    """One node of a Network that an ONNX node becomes.

    - `inputs` are the places of the node's inputs that the op reads, and `weights` those of its own learned tensors.
    - `statistics` are the places of tensors that the op holds and that are not learned.
    - `is_product`: a constant among its inputs is a weight, however the file names it.
    - `dtype` is the output's, empty for that of the first input.
    - `same_padding` is the padding of the first input, if its size gives it.
    - `parts` are the op's own parameters, where the file has several of them in one tensor.
    - `is_turned`: the first weight is a matrix that the file has as inputs x outputs.
    - `before` is a layer that comes first; this one then reads its output in place of the first input.
    """

    op: Op
    inputs: tuple[int, ...] = (0,)
    weights: tuple[int, ...] = ()
    statistics: tuple[int, ...] = ()
    is_product: bool = False
    dtype: str = ""
    before: OnnxLayer | None = field(default=None)
    same_padding: SamePadding | None = field(default=None)
    parts: tuple[RecurrentWeight, ...] = ()
    is_turned: bool = False


Rule = Callable[[OnnxCall], "OnnxLayer | tuple[OnnxLayer, ...]"]
"""The layer of a node; several if each output is a layer of its own."""


def layers(call: OnnxCall) -> tuple[OnnxLayer, ...] | None:
    """The layers of a node of ONNX's own domain; None for an op without a rule, or attributes that it does not take."""
    rule = _RULES.get(call.node.op_type)
    if rule is None:
        return None
    try:
        made = rule(call)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None
    return made if isinstance(made, tuple) else (made,)


def _sides(call: OnnxCall, name: str, count: int) -> tuple[int, ...]:
    """An attribute with a number for each side, 1 if it is left out."""
    numbers = call.integers(name) or (1,) * count
    if len(numbers) != count or min(numbers) < 1:
        raise ValueError(name)
    return numbers


def _padding(call: OnnxCall, span: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The padding before and after each side: as given, or such that each side becomes input/stride, rounded up."""
    sides = len(span)
    mode = call.text("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = SamePadding("", tuple(span), tuple(stride)).totals(call.shape()[2:])
        halves = [(total // 2, total - total // 2) for total in totals]
        return tuple(halves if mode == "SAME_UPPER" else [half[::-1] for half in halves])
    pads = call.integers("pads") if mode == "NOTSET" else None
    pads = pads or (0,) * (2 * sides)
    if len(pads) != 2 * sides or min(pads) < 0:
        raise ValueError("pads")
    return tuple(zip(pads[:sides], pads[sides:]))


def _same_padding(call: OnnxCall, span: Sequence[int], stride: Sequence[int]) -> SamePadding | None:
    """The padding of the first input, if its size gives it."""
    value, mode = call.value(0), call.text("auto_pad", "NOTSET")
    is_same = value is not None and mode in ("SAME_UPPER", "SAME_LOWER")
    return SamePadding(value.node, tuple(span), tuple(stride)) if is_same and value is not None else None


def _padded(padding: tuple[tuple[int, int], ...], value: float) -> tuple[tuple[int, ...], OnnxLayer | None]:
    """The padding of each side as a number, and a layer that pads before if the two ends of a side differ."""
    if all(before == after for before, after in padding):
        return tuple(before for before, _ in padding), None
    amounts = tuple(amount for ends in reversed(padding) for amount in ends)
    return (0,) * len(padding), OnnxLayer(Pad(amounts, value=value, shares=False))


def _span(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]


def _convolution(call: OnnxCall) -> OnnxLayer:
    weight = call.shape(1)
    kernel = weight[2:]
    sides, groups = len(kernel), call.integer("group", 1)
    if not 1 <= sides <= 3 or (call.integers("kernel_shape") or kernel) != kernel or groups < 1:
        raise ValueError("kernel_shape")
    stride, dilation = _sides(call, "strides", sides), _sides(call, "dilations", sides)
    padding, before = _padded(_padding(call, _span(kernel, dilation), stride), 0.0)
    has_bias = call.value(2) is not None
    op = Convolution(weight[1] * groups, weight[0], kernel, stride, padding, dilation, groups, has_bias)
    same = _same_padding(call, _span(kernel, dilation), stride)
    return OnnxLayer(op, weights=(1, 2) if has_bias else (1,), before=before, same_padding=same)


def _transposed_convolution(call: OnnxCall) -> OnnxLayer:
    weight = call.shape(1)
    kernel = weight[2:]
    sides, groups = len(kernel), call.integer("group", 1)
    is_explicit = call.text("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not call.integers("output_shape")
    if not 1 <= sides <= 3 or not is_explicit:
        raise ValueError("output_shape")
    stride, dilation = _sides(call, "strides", sides), _sides(call, "dilations", sides)
    padding, before = _padded(_padding(call, kernel, stride), 0.0)
    if before is not None:
        raise ValueError("pads")
    has_bias = call.value(2) is not None
    more = call.integers("output_padding") or (0,) * sides
    channels = weight[0], weight[1] * groups
    op = TransposedConvolution(*channels, kernel, stride, padding, dilation, groups, has_bias, more)
    return OnnxLayer(op, weights=(1, 2) if has_bias else (1,))


def _gemm(call: OnnxCall) -> OnnxLayer:
    """A linear layer if the weight's rows are output features, as torch has them, else a product of matrices."""
    right, added = call.value(1), call.value(2)
    factors = call.float("beta", 1.0), call.float("alpha", 1.0)
    if right is None or len(right.shape) != 2 or call.integer("transA"):
        raise LookupError("transA")
    if call.integer("transB"):
        features = right.shape[0]
        if not right.is_constant or factors != (1, 1) or (added is not None and prod(added.shape) != features):
            raise LookupError("transB")
        op = Linear(right.shape[1], features, added is not None)
        return OnnxLayer(op, weights=(1,) if added is None else (1, 2))
    if is_turned_weight(right) and factors == (1, 1) and (added is None or is_row(added, right.shape[1])):
        op = Linear(right.shape[0], right.shape[1], added is not None)
        return OnnxLayer(op, weights=(1,) if added is None else (1, 2), is_turned=True)
    if added is None:
        if factors[1] != 1:
            raise LookupError("alpha")
        return OnnxLayer(MatrixProduct("mm"), (0, 1), is_product=True)
    return OnnxLayer(MatrixProduct("addmm", beta=factors[0], alpha=factors[1]), (2, 0, 1), is_product=True)


def is_turned_weight(value: OnnxValue | None) -> bool:
    """Whether a factor is the weight of a linear layer, which torch's exporters transpose and name anew."""
    if value is None or not value.is_constant or value.is_computed or len(value.shape) != 2 or len(value.tensors) != 1:
        return False
    (tensor,) = value.tensors
    return tensor.shape == value.shape and not names_parameter(tensor.name) and _is_floating(tensor.dtype)


def _is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def is_row(value: OnnxValue, features: int) -> bool:
    """Whether a constant is the bias of a linear layer: a tensor of the file with a number for each feature."""
    return value.is_constant and value.shape == (features,) and len(value.tensors) == 1 and not value.is_computed


def _product(call: OnnxCall) -> OnnxLayer:
    left, right = call.value(0), call.value(1)
    if right is not None and is_turned_weight(right) and left is not None and len(left.shape) > 1:
        return OnnxLayer(Linear(right.shape[0], right.shape[1], bias=False), weights=(1,), is_turned=True)
    return OnnxLayer(MatrixProduct("matmul"), (0, 1), is_product=True)


def _has_weights(call: OnnxCall) -> bool:
    """Whether the scale and the shift of a normalisation are learned.

    An exporter writes ones and zeros, under names that it makes up, for a module without weights.
    """
    return not all(is_made_up(value, number) for value, number in ((call.value(1), 1), (call.value(2), 0)))


def is_made_up(value: OnnxValue | None, number: float) -> bool:
    """Whether a constant is left out, or holds one number everywhere and no tensor of the state dict."""
    if value is None:
        return True
    # dynamo writes equal tensors once: a variance of ones stands for a scale.
    learned = (t for t in value.tensors if not t.name.endswith(("running_mean", "running_var")))
    is_named = any(names_parameter(tensor.name) for tensor in learned)
    return not is_named and value.numbers is not None and set(value.numbers) == {number}


def _batch_norm(call: OnnxCall) -> OnnxLayer:
    shape = call.shape()
    kind = {2: BatchNorm1d, 3: BatchNorm1d, 4: BatchNorm2d, 5: BatchNorm3d}[len(shape)]
    momentum = round(1 - call.float("momentum", 0.9), 6)
    trains = call.integer("training_mode") == 1
    affine = _has_weights(call)
    op = kind(shape[1], call.float("epsilon", 1e-5), momentum, affine=affine, batch_statistics=trains)
    return OnnxLayer(op, weights=(1, 2) if affine else (), statistics=(3, 4))


def _instance_norm(call: OnnxCall) -> OnnxLayer:
    affine = _has_weights(call)
    weights = (1, 2) if affine else ()
    if len(call.shape()) != 4:
        return replace(_moved(call, call.shape()), weights=weights)
    return OnnxLayer(InstanceNorm2d(call.shape()[1], call.float("epsilon", 1e-5), affine=affine), weights=weights)


def _group_norm(call: OnnxCall) -> OnnxLayer:
    channels, groups = call.shape()[1], call.integer("num_groups")
    if call.shape(1) != (channels,):
        raise LookupError("a scale for each group")  # opset 18
    return OnnxLayer(GroupNorm(groups, channels, call.float("epsilon", 1e-5)), weights=(1, 2))


def _layer_norm(call: OnnxCall) -> OnnxLayer:
    shape = call.shape()
    axis = call.integer("axis", -1) % len(shape)
    affine, has_bias = _has_weights(call), call.value(2) is not None
    op = LayerNorm(shape[axis:], call.float("epsilon", 1e-5), affine, affine and has_bias)
    return OnnxLayer(op, weights=() if not affine else (1, 2) if has_bias else (1,))


def _rms_norm(call: OnnxCall) -> OnnxLayer:
    shape = call.shape()
    op = RMSNorm(shape[call.integer("axis", -1) % len(shape) :], call.float("epsilon", 1e-5))
    return OnnxLayer(op, weights=(1,))


def _local_response_norm(call: OnnxCall) -> OnnxLayer:
    size = call.integer("size")
    constants = call.float("alpha", 1e-4), call.float("beta", 0.75), call.float("bias", 1.0)
    return OnnxLayer(LocalResponseNorm(size, *constants))


def _plain(op: Op) -> Rule:
    """The rule of an op without attributes."""
    return lambda call: OnnxLayer(op)


def _prelu(call: OnnxCall) -> OnnxLayer:
    slopes = call.shape(1)
    count, rank = prod(slopes), len(call.shape())
    if count > 1 and (rank < 2 or slopes[-(rank - 1) :][:1] != (count,)):
        raise LookupError("a slope for each value")
    return OnnxLayer(activation.PReLU(count), weights=(1,))


def _hard_sigmoid(call: OnnxCall) -> OnnxLayer:
    if abs(call.float("alpha", 0.2) - 1 / 6) > 1e-6 or call.float("beta", 0.5) != 0.5:
        return _same_shape(call)
    return OnnxLayer(activation.Hardsigmoid())


def _gelu(call: OnnxCall) -> OnnxLayer:
    return OnnxLayer(activation.GELU(call.text("approximate", "none")))


def _softmax(kind: type[activation.Softmax]) -> Rule:
    def rule(call: OnnxCall) -> OnnxLayer:
        shape = call.shape()
        axis = call.integer("axis", -1 if call.opset >= 13 else 1) % len(shape)
        if call.opset < 13 and prod(shape[axis:]) != shape[axis]:
            return _same_shape(call)  # before opset 13 the axes after `axis` are one row
        return OnnxLayer(kind(dim=axis))

    return rule


def _max_pool(call: OnnxCall) -> OnnxLayer:
    kernel, stride, dilation, padding = _window(call)
    amounts, before = _padded(padding, -inf)
    kind = (MaxPool1d, MaxPool2d, MaxPool3d)[len(kernel) - 1]
    same = _same_padding(call, _span(kernel, dilation), stride)
    op = kind(kernel, stride, amounts, dilation, bool(call.integer("ceil_mode")))
    return OnnxLayer(op, before=before, same_padding=same)


def _average_pool(call: OnnxCall) -> OnnxLayer:
    kernel, stride, dilation, padding = _window(call)
    counts_padding, ceil = bool(call.integer("count_include_pad")), bool(call.integer("ceil_mode"))
    amounts, before = _padded(padding, 0.0)
    if set(dilation) != {1} or (before is not None and not counts_padding):
        raise LookupError("no window of torch's")
    # Without padding both ways of counting give the same mean; torch's default is True.
    counts_padding = counts_padding or not (any(amounts) or ceil)
    kind = (AvgPool1d, AvgPool2d, AvgPool3d)[len(kernel) - 1]
    same = _same_padding(call, kernel, stride)
    return OnnxLayer(kind(kernel, stride, amounts, ceil, counts_padding), before=before, same_padding=same)


_Window = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]


def _window(call: OnnxCall) -> _Window:
    """The kernel, stride, dilation and padding of a pool."""
    sides = len(call.shape()) - 2
    kernel = call.integers("kernel_shape") or ()
    if not 1 <= sides <= 3 or len(kernel) != sides or min(kernel) < 1:
        raise ValueError("kernel_shape")
    stride, dilation = _sides(call, "strides", sides), _sides(call, "dilations", sides)
    return kernel, stride, dilation, _padding(call, _span(kernel, dilation), stride)


def _global_pool(*kinds: type[AdaptiveAvgPool2d]) -> Rule:
    def rule(call: OnnxCall) -> OnnxLayer:
        sides = len(call.shape()) - 2
        return OnnxLayer(kinds[sides - 1]((1,) * sides))

    return rule


def _is_flat(shape: Shape, target: Shape) -> bool:
    """Whether a shape is another with its last axes as one."""
    start = len(target) - 1
    return 0 < start < len(shape) - 1 and shape[:start] == target[:start]


def _layout(call: OnnxCall, target: Sequence[int], result: Shape) -> OnnxLayer:
    """The op that gives the input the shape `result`, a Flatten if it joins the last axes."""
    value = call.value(0)
    assert value is not None
    if value.is_whole and _is_flat(value.shape, result) and prod(result) == prod(value.shape):
        return OnnxLayer(Flatten(len(result) - 1))
    return OnnxLayer(Reshape(tuple(target), shares=value.is_whole))


def _flatten(call: OnnxCall) -> OnnxLayer:
    shape = call.shape()
    axis = call.integer("axis", 1)
    axis += len(shape) if axis < 0 else 0
    result = prod(shape[:axis]), prod(shape[axis:])
    return _layout(call, result, result)


def _reshape(call: OnnxCall) -> OnnxLayer:
    target = call.listed("shape", 1)
    if target is None:
        raise LookupError("shape")
    result = reshaped(call.shape(), target, keeps_zero=bool(call.integer("allowzero")))
    return _layout(call, [-1 if size == -1 else have for size, have in zip(target, result)], result)


def _unsqueeze(call: OnnxCall) -> OnnxLayer:
    result = unsqueezed(call.shape(), call.listed("axes", 1) or ())
    return OnnxLayer(Reshape(result))


def _squeeze(call: OnnxCall) -> OnnxLayer:
    result = squeezed(call.shape(), call.listed("axes", 1))
    return OnnxLayer(Reshape(result))


def _expand(call: OnnxCall) -> OnnxLayer:
    sides = call.listed("shape", 1)
    if sides is None:
        raise LookupError("shape")
    return OnnxLayer(Expand(broadcast((call.shape(), sides))))


def _transpose(call: OnnxCall) -> OnnxLayer:
    axes = call.integers("perm") or tuple(reversed(range(len(call.shape()))))
    if sorted(axes) != list(range(len(call.shape()))):
        raise ValueError("perm")
    return OnnxLayer(Permute(axes))


def _slice(call: OnnxCall) -> OnnxLayer:
    cuts = slices(call)
    if cuts is None:
        raise LookupError("starts")
    index: list[Item] = []
    for axis, size in enumerate(call.shape()):
        start, stop, step = cuts.get(axis, (0, size, 1))
        positions = range(*slice(start, stop, step).indices(size))
        end = None if positions.step < 0 and positions.stop < 0 else positions.stop
        is_full = positions == range(size)
        index.append((None, None, None) if is_full else (positions.start, end, step))
    while index and index[-1] == (None, None, None):
        index.pop()
    return OnnxLayer(Slice(tuple(index)))


def _split(call: OnnxCall) -> tuple[OnnxLayer, ...]:
    sizes = piece_sizes(call)
    if sizes is None or len(sizes) != len(call.node.outputs):
        raise LookupError("split")
    return tuple(OnnxLayer(Split(call.integer("axis"), place, sizes)) for place in range(len(sizes)))


def _gather(call: OnnxCall) -> OnnxLayer:
    """A position of an axis, the rows of a table of weights, or rows of an activation."""
    data, index = call.value(0), call.value(1)
    if data is None or index is None:
        raise LookupError("indices")
    axis = call.integer("axis") % len(data.shape)
    place = call.number(1)
    if place is not None and not index.shape:
        return OnnxLayer(Slice((*((None, None, None),) * axis, int(place))))
    if data.is_constant and axis == 0 and len(data.shape) == 2 and not index.is_constant:
        return OnnxLayer(Embedding(*data.shape), (1,), weights=(0,), dtype=data.dtype)
    return _moved(call, (*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]), (0, 1))


def _moved(call: OnnxCall, output: Shape, inputs: tuple[int, ...] = (0,), dtype: str = "", cost: int = 0) -> OnnxLayer:
    """A layer of an op that has no class of ours: its shapes for this input, and its multiply-accumulates."""
    shapes = tuple(call.shape(place) for place in inputs)
    given = arguments_of(call, inputs)
    return OnnxLayer(Recorded(call.node.op_type, shapes, output, cost=cost, arguments_given=given), inputs, dtype=dtype)


def _same_shape(call: OnnxCall) -> OnnxLayer:
    """An op whose output has the shape of its first input, and which multiplies no matrices."""
    return _moved(call, call.shape(), tuple(place for place, value in enumerate(call.inputs) if value is not None))


def _gather_nd(call: OnnxCall) -> OnnxLayer:
    data, index, batched = call.shape(), call.shape(1), call.integer("batch_dims")
    return _moved(call, (*index[:-1], *data[batched + index[-1] :]), (0, 1))


def _tile(call: OnnxCall) -> OnnxLayer:
    repeats = call.listed("repeats", 1) or ()
    if len(repeats) != len(call.shape()):
        raise LookupError("repeats")
    return _moved(call, tuple(size * count for size, count in zip(call.shape(), repeats)))


def _top_k(call: OnnxCall) -> OnnxLayer:
    shape, axis = call.shape(), call.integer("axis", -1) % len(call.shape())
    count = call.number(1) if call.value(1) is not None else call.integer("k")
    if count is None:
        raise LookupError("k")
    return _moved(call, (*shape[:axis], int(count), *shape[axis + 1 :]))


def _concatenation(call: OnnxCall) -> OnnxLayer:
    return OnnxLayer(Concatenation(call.integer("axis") % len(call.shape())), tuple(range(len(call.inputs))))


def _pad(call: OnnxCall) -> OnnxLayer:
    rank, pads = len(call.shape()), call.listed("pads", 1) or call.integers("paddings") or ()
    axes = call.listed("", 3) or tuple(range(rank))
    if len(pads) != 2 * len(axes):
        raise ValueError("pads")
    amounts = dict(zip((axis % rank for axis in axes), zip(pads[: len(axes)], pads[len(axes) :])))
    given = [amounts.get(axis, (0, 0)) for axis in reversed(range(rank))]
    while given and given[-1] == (0, 0):
        given.pop()
    mode = {"edge": "replicate", "wrap": "circular"}.get(call.text("mode", "constant"), call.text("mode", "constant"))
    value = call.number(2) if call.value(2) is not None else call.float("value")
    if value is None:
        raise LookupError("value")
    return OnnxLayer(Pad(tuple(end for ends in given for end in ends), mode, float(value), shares=False))


_NEAREST, _LINEAR = "asymmetric", ("half_pixel", "pytorch_half_pixel", "align_corners")


def _resize(call: OnnxCall) -> OnnxLayer:
    """The interpolation of torch where it computes the same, else an op with the same shapes."""
    shape, scales, sizes = call.shape(), call.numbers(2), call.numbers(3)
    if sizes:
        output = tuple(map(int, sizes))
    elif scales:
        output = tuple(int(size * scale) for size, scale in zip(shape, scales))
    else:
        raise LookupError("sizes")
    if len(output) != len(shape) or call.attributes.get("axes"):
        raise LookupError("axes")
    mode, place = call.text("mode", "nearest"), call.text("coordinate_transformation_mode", "half_pixel")
    names = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}.get(len(shape), ""), "cubic": "bicubic"}
    is_nearest = mode == "nearest" and place == _NEAREST and call.text("nearest_mode") == "floor"
    is_smooth = place in _LINEAR and bool(names.get(mode)) and len(shape) >= 3
    is_smooth = is_smooth and (mode == "linear" or call.float("cubic_coeff_a", -0.75) == -0.75)
    if output[:2] != shape[:2] or not (is_nearest or is_smooth):
        return _moved(call, output)
    if is_nearest:
        return OnnxLayer(Upsample(output[2:]))
    antialias = bool(call.integer("antialias"))
    return OnnxLayer(
        Upsample(output[2:], mode=names[mode], align_corners=place == "align_corners", antialias=antialias)
    )


def _upsample(call: OnnxCall) -> OnnxLayer:
    """The op before opset 10: `scales` is an attribute, then an input."""
    scales = call.numbers(1) or call.attributes.get("scales")
    if not isinstance(scales, tuple) or call.text("mode", "nearest") != "nearest" or scales[:2] != (1, 1):
        raise LookupError("scales")
    return OnnxLayer(Upsample(tuple(int(size * scale) for size, scale in zip(call.shape()[2:], scales[2:]))))


def _reduction(function: str, dtype: str = "") -> Rule:
    def rule(call: OnnxCall) -> OnnxLayer:
        axes = call.listed("axes", 1)
        if not axes and call.integer("noop_with_empty_axes"):
            return OnnxLayer(Identity())
        return OnnxLayer(Reduction(function, axes or None, bool(call.integer("keepdims", 1))), dtype=dtype)

    return rule


def _arg_extreme(function: str) -> Rule:
    def rule(call: OnnxCall) -> OnnxLayer:
        return OnnxLayer(Reduction(function, (call.integer("axis"),), bool(call.integer("keepdims", 1))), dtype="int64")

    return rule


def _dropout(call: OnnxCall) -> OnnxLayer:
    ratio = call.number(1) if call.value(1) is not None else call.float("ratio", 0.5)
    return OnnxLayer(Dropout(0.5 if ratio is None else float(ratio)))


_CASTS = {
    **{"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bfloat16"},
    **{"int64": "long", "int32": "int", "bool": "bool"},
}
"""torch's methods that cast to a dtype; to others, `to` does."""


def _cast(call: OnnxCall) -> OnnxLayer:
    dtype = DTYPES[call.integer("to")]
    value = call.value(0)
    if value is not None and value.dtype == dtype:
        return OnnxLayer(Identity())
    named = dtype in _CASTS
    return OnnxLayer(Elementwise(_CASTS[dtype] if named else "to", () if named else (None, dtype)), dtype=dtype)


def _clip(call: OnnxCall) -> OnnxLayer:
    low, high = (_bound(call, name, place) for name, place in (("min", 1), ("max", 2)))
    if (low, high) == (0, 6):
        return OnnxLayer(activation.ReLU6())
    if low is None and high is None:
        return OnnxLayer(Identity())
    if low is None or high is None:
        return OnnxLayer(Elementwise("clamp_max" if low is None else "clamp_min", (None, high if low is None else low)))
    return OnnxLayer(Elementwise("clamp", (None, low, high)))


def _bound(call: OnnxCall, name: str, place: int) -> Number | None:
    """A bound of Clip, None if it is left out. Before opset 11 it is an attribute."""
    if call.value(place) is None:
        return call.float(name) if name in call.attributes else None
    number = call.number(place)
    if number is None:
        raise LookupError(name)
    return number


def _unary(function: str, dtype: str = "") -> Rule:
    return lambda call: OnnxLayer(Elementwise(function), dtype=dtype)


_REVERSED = {"sub": "rsub", "div": "rdiv", "pow": "rpow"}
"""The functions of a number and a tensor, in this order, as Python's operators call them."""


def _binary(function: str, dtype: str = "") -> Rule:
    def rule(call: OnnxCall) -> OnnxLayer:
        left, right = (_scalar(call, place) for place in (0, 1))
        if right is not None:
            return OnnxLayer(Elementwise(function, (None, right)), dtype=dtype)
        if left is not None and function in _REVERSED:
            return OnnxLayer(Elementwise(_REVERSED[function], (None, left)), (1,), dtype=dtype)
        if left is not None:
            either = function in ("add", "mul", "maximum", "minimum")
            return OnnxLayer(Elementwise(function, (None, left) if either else (left, None)), (1,), dtype=dtype)
        return OnnxLayer(Elementwise(function), (0, 1), dtype=dtype)

    return rule


def is_number(call: OnnxCall, place: int) -> bool:
    """Whether an input is a number of the code: one known element that no tensor of the state dict holds."""
    value = call.value(place)
    if value is None or not value.is_constant or prod(value.shape) != 1 or call.number(place) is None:
        return False
    is_named = any(names_parameter(tensor.name) for tensor in value.tensors) and value.dtype not in INTEGERS
    others = [other.shape for other in call.inputs if other is not None and other is not value]
    return not is_named and all(len(value.shape) <= len(shape) for shape in others)


def _scalar(call: OnnxCall, place: int) -> Number | None:
    return call.number(place) if is_number(call, place) else None


def _where(call: OnnxCall) -> OnnxLayer:
    numbers = [_scalar(call, place) for place in range(3)]
    numbers[0] = None
    inputs = tuple(place for place, number in enumerate(numbers) if number is None)
    dtype = next((value.dtype for value in call.inputs[1:] if value is not None), "")
    return OnnxLayer(Elementwise("where", tuple(numbers) if len(inputs) < 3 else ()), inputs, dtype=dtype)


def _depth_to_space(call: OnnxCall) -> OnnxLayer:
    if call.text("mode", "DCR") != "CRD":
        size, shape = call.integer("blocksize", 1), call.shape()
        return _moved(call, (shape[0], shape[1] // size**2, shape[2] * size, shape[3] * size))
    return OnnxLayer(PixelShuffle(call.integer("blocksize"), shares=False))


def _space_to_depth(call: OnnxCall) -> OnnxLayer:
    size, shape = call.integer("blocksize", 1), call.shape()
    return _moved(call, (shape[0], shape[1] * size**2, shape[2] // size, shape[3] // size))


def _einsum(call: OnnxCall) -> OnnxLayer:
    return OnnxLayer(Einsum(call.text("equation")), tuple(range(len(call.inputs))), is_product=True)


def _attention(call: OnnxCall) -> OnnxLayer:
    """The plain case of the op of opset 23: queries, keys and values in heads, and no mask."""
    given = [place for place, value in enumerate(call.inputs) if value is not None]
    if given != [0, 1, 2] or len(call.shape()) != 4 or call.shape()[1] != call.shape(1)[1] or call.integer("is_causal"):
        raise LookupError("masks")
    if len(list(filter(None, call.node.outputs))) > 1 or call.float("softcap"):
        raise LookupError("outputs")
    scale = call.float("scale") if "scale" in call.attributes else None
    return OnnxLayer(ScaledDotProductAttention(scale=scale), (0, 1, 2))


_RECURRENT_WEIGHTS = (1, 2, 3, 7)
"""The inputs of a recurrent layer that are its weights; the others are the sequence, its length and its states."""

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _recurrent(call: OnnxCall) -> OnnxLayer:
    """A recurrent layer, whose output has an axis for the direction. MACs: the products of each gate at each step."""
    steps, batch, width = call.shape()
    directions, _, hidden = call.shape(2)
    gates = _GATES[call.node.op_type]
    if call.integer("layout") or call.shape(1) != (directions, gates * hidden, width):
        raise LookupError("layout")
    cost = steps * batch * directions * gates * hidden * (width + hidden)
    given = [place for place, value in enumerate(call.inputs) if value is not None]
    weights = tuple(place for place in given if place in _RECURRENT_WEIGHTS)
    read = tuple(place for place in given if place not in weights)
    shapes = tuple(call.shape(place) for place in read)
    op = Recorded(call.node.op_type, shapes, (steps, directions, batch, hidden), cost=cost, backward_cost=None)
    return OnnxLayer(op, read, weights=weights)


def torch_recurrent(call: OnnxCall, initializers: Mapping[str, OnnxTensor]) -> OnnxLayer:
    """The layer of torch.nn that a joined node is. Its first states are inputs unless they are zero."""
    node = call.node
    layers = call.integer("num_layers", 1)
    parts = tuple(recurrent_weights(node, initializers))
    directions, _, hidden = call.shape(2)
    places = [start + 3 for start in range(1, PER_LAYER * layers, PER_LAYER)]
    states = tuple(place + state for place in places for state in (0, 1) if call.value(place + state) is not None)
    is_relu = "Relu" in (node.attributes.get("activations") or ())
    op = Recurrent(
        node.op_type.removeprefix("nn."),
        call.shape(1)[2],
        hidden,
        layers,
        call.value(3) is not None,
        bool(call.integer("batch_first")),
        bidirectional=directions == 2,
        nonlinearity="relu" if is_relu else "tanh",
    )
    weights = tuple(place for place in range(1, PER_LAYER * layers + 1) if (place - 1) % PER_LAYER < 3)
    return OnnxLayer(op, (0, *states), weights=tuple(p for p in weights if call.value(p) is not None), parts=parts)


_QUANTIZED = MappingProxyType({"QuantizeLinear": 2, "DequantizeLinear": 1})


def _quantize(call: OnnxCall) -> OnnxLayer:
    """A change between numbers and the integers that stand for them; the zero point or the scale tells the dtype."""
    kind = call.node.op_type
    value = call.value(_QUANTIZED[kind])
    dtype = value.dtype if value is not None else "uint8"
    return _moved(call, call.shape(), dtype=dtype)


def _quantized_convolution(call: OnnxCall) -> OnnxLayer:
    """A convolution of integers, among whose inputs are the scales and zero points of the others."""
    is_scaled = call.node.op_type == "QLinearConv"
    weight, bias, zero = (3, 8, 7) if is_scaled else (1, 9, 9)
    plain = _convolution(replace(call, inputs=(call.value(0), call.value(weight), call.value(bias))))
    given = call.value(zero)
    weights = (weight, bias) if call.value(bias) is not None else (weight,)
    return replace(plain, weights=weights, dtype="int32" if given is None else given.dtype)


def _quantized_product(call: OnnxCall) -> OnnxLayer:
    is_scaled = call.node.op_type == "QLinearMatMul"
    given = call.value(7) if is_scaled else None
    places = (0, 3) if is_scaled else (0, 1)
    return OnnxLayer(MatrixProduct("matmul"), places, is_product=True, dtype="int32" if given is None else given.dtype)


def _dynamic_quantization(call: OnnxCall) -> tuple[OnnxLayer, ...]:
    """The integers that stand for numbers, their scale and their zero point."""
    shapes = call.shape(), (), ()
    return tuple(_moved(call, shape, dtype=dtype) for shape, dtype in zip(shapes, ("uint8", "float32", "uint8")))


_BINARY = {
    **{"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Max": "maximum", "Min": "minimum"},
    **{"BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "Sum": "add"},
}
_COMPARISONS = {
    **{"Equal": "eq", "Less": "lt", "Greater": "gt", "LessOrEqual": "le", "GreaterOrEqual": "ge"},
    **{"And": "logical_and", "Or": "logical_or", "Xor": "logical_xor"},
}
_UNARY = {
    **{"Neg": "neg", "Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Erf": "erf", "Floor": "floor"},
    **{"Ceil": "ceil", "Round": "round", "Sign": "sign", "Reciprocal": "reciprocal", "Sin": "sin", "Cos": "cos"},
    **{"Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Softsign": "softsign"},
}
_REDUCTIONS = {
    **{"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceProd": "prod"},
    **{"ReduceLogSumExp": "logsumexp", "ReduceL2": "norm"},
}
_SAME_SHAPE = (
    *("Shrink", "ThresholdedRelu", "Celu", "Hardmax", "LpNormalization", "MeanVarianceNormalization"),
    *("CumSum", "Trilu", "ScatterND", "ScatterElements", "Scatter", "ReverseSequence", "BitShift", "BitwiseNot"),
    *("Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
)
"""Ops without a class of ours whose output has the shape of the first input, and which multiply no matrices."""

_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_SAME_SHAPE, _same_shape),
        **{kind: _unary(function) for kind, function in _UNARY.items()},
        **{kind: _binary(function) for kind, function in _BINARY.items()},
        **{kind: _binary(function, "bool") for kind, function in _COMPARISONS.items()},
        **{kind: _reduction(function) for kind, function in _REDUCTIONS.items()},
        **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent),
        **dict.fromkeys(_QUANTIZED, _quantize),
        **dict.fromkeys(("QLinearConv", "ConvInteger"), _quantized_convolution),
        **dict.fromkeys(("QLinearMatMul", "MatMulInteger"), _quantized_product),
        "DynamicQuantizeLinear": _dynamic_quantization,
        "Conv": _convolution,
        "ConvTranspose": _transposed_convolution,
        "Gemm": _gemm,
        "MatMul": _product,
        "Einsum": _einsum,
        "Attention": _attention,
        "BatchNormalization": _batch_norm,
        "InstanceNormalization": _instance_norm,
        "GroupNormalization": _group_norm,
        "LayerNormalization": _layer_norm,
        "RMSNormalization": _rms_norm,
        "LRN": _local_response_norm,
        "Relu": _plain(activation.ReLU()),
        "Selu": _plain(activation.SELU()),
        "Sigmoid": _plain(activation.Sigmoid()),
        "Tanh": _plain(activation.Tanh()),
        "Softplus": _plain(activation.Softplus()),
        "HardSwish": _plain(activation.Hardswish()),
        "Mish": _plain(activation.Mish()),
        "LeakyRelu": lambda call: OnnxLayer(activation.LeakyReLU(call.float("alpha", 0.01))),
        "Elu": lambda call: OnnxLayer(activation.ELU(call.float("alpha", 1.0))),
        "HardSigmoid": _hard_sigmoid,
        "PRelu": _prelu,
        "Gelu": _gelu,
        "Softmax": _softmax(activation.Softmax),
        "LogSoftmax": _softmax(activation.LogSoftmax),
        "MaxPool": _max_pool,
        "AveragePool": _average_pool,
        "GlobalAveragePool": _global_pool(AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d),
        "GlobalMaxPool": _global_pool(AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d),
        "Flatten": _flatten,
        "Reshape": _reshape,
        "Unsqueeze": _unsqueeze,
        "Squeeze": _squeeze,
        "Expand": _expand,
        "Transpose": _transpose,
        "Slice": _slice,
        "Split": _split,
        "Gather": _gather,
        "GatherND": _gather_nd,
        "GatherElements": lambda call: _moved(call, call.shape(1), (0, 1)),
        "Tile": _tile,
        "TopK": _top_k,
        "Concat": _concatenation,
        "Pad": _pad,
        "Resize": _resize,
        "Upsample": _upsample,
        "ArgMax": _arg_extreme("argmax"),
        "ArgMin": _arg_extreme("argmin"),
        "Dropout": _dropout,
        "Identity": _plain(Identity()),
        "Cast": _cast,
        "Clip": _clip,
        "IsNaN": _unary("isnan", "bool"),
        "IsInf": _unary("isinf", "bool"),
        "Not": _unary("logical_not", "bool"),
        "Where": _where,
        "DepthToSpace": _depth_to_space,
        "SpaceToDepth": _space_to_depth,
    }
)
"""The rule of each op of ONNX's own domain."""


WITHOUT_MACS = frozenset(
    {
        *_RULES.keys()
        - {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention", "RNN", "GRU", "LSTM"}
        - {"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"},
        *("OneHot", "Compress", "NonZero", "NonMaxSuppression", "Unique", "EyeLike", "RandomNormalLike"),
        *("RandomUniformLike", "Bernoulli", "Multinomial", "DynamicQuantizeLinear", "CastLike", "Det"),
        *("ReduceL1", "ReduceLogSum", "ReduceSumSquare", "LpPool", "GlobalLpPool", "MaxRoiPool", "MaxUnpool"),
        *("ConstantOfShape", "Range", "RoiAlign", "GridSample", "Col2Im", "CenterCropPad", "Shape", "Size"),
    }
)
"""Ops of ONNX's own domain that multiply no matrices. They have no MACs, whatever their attributes."""
