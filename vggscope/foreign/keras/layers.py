"""The rules of Keras's layers: which ops of torch each is, with the channels first.

A padding `same` makes ceil(size / stride) outputs and pads one pixel more after a side than before it where the total
is odd. Where torch's layer cannot, a Pad comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from vggscope.errors import printable
from vggscope.foreign.keras.step import CONVOLUTION, DENSE, DEPTHWISE, TRANSPOSED, KerasStep, KerasTensor
from vggscope.graph import Parameter, SamePadding
from vggscope.ops import activation, pooling
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithConstants
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.embedding import Embedding
from vggscope.ops.linear import Linear
from vggscope.ops.merge import Concatenation
from vggscope.ops.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupNorm, LayerNorm
from vggscope.ops.recorded import Recorded
from vggscope.ops.reduction import Reduction
from vggscope.ops.regularization import AlphaDropout, Dropout, Dropout2d, Identity
from vggscope.ops.sampling import Upsample
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Pad, Permute, Reshape, Slice

Pairs = tuple[tuple[int, int], ...]


def run(step: KerasStep) -> None:
    """Add a call's nodes, and note its result. Raises Incomplete where that is not known."""
    rule = None if step.call.is_function else _RULES.get(step.call.type)
    if step.call.is_function:
        rule = _FUNCTIONS.get(step.call.type)
    try:
        result = _without_rule(step) if rule is None else rule(step)
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise step.fail(printable(str(error))) from None
    step.finish(result)


def _without_rule(step: KerasStep) -> KerasTensor:
    """A layer without a rule, whose output has the shape that the file tells."""
    stated = step.call.stated
    if stated is None or any(size is None for size in stated[1:]):
        kind = printable(step.call.type, 60)
        raise step.fail(f"there is no rule for a layer {kind}, and the file does not tell its output's shape")
    shape = (1, *(size for size in stated[1:] if size is not None))
    is_first = len(shape) >= 4 and not step.walk.channels_first
    here = (1, shape[-1], *shape[1:-1]) if is_first else shape
    is_function = step.call.is_function or step.call.type in _WITHOUT_PARAMETERS
    if not is_function:
        step.walk.uncounted.append(step.name)
    return step.unknown(step.inputs, here, is_first=is_first, is_function=is_function)


def _numbers(step: KerasStep, key: str, count: int, otherwise: object = None) -> tuple[int, ...]:
    """A setting with a number for each side, or one for all. Raises ValueError for any other."""
    value = step.config.get(key, otherwise)
    value = otherwise if value is None else value
    numbers = value if isinstance(value, (list, tuple)) else [value] * count
    if len(numbers) != count or not all(type(number) is int and 0 < number < 2**31 for number in numbers):
        raise ValueError(f"its {key} is {printable(str(value), 40)}")
    return tuple(numbers)


def _count(step: KerasStep, key: str, otherwise: int | None = None) -> int:
    value = step.config.get(key, otherwise)
    if type(value) is not int or value < 1:
        raise ValueError(f"its {key} is {printable(str(value), 40)}")
    return value


def _number(step: KerasStep, key: str, otherwise: float) -> float:
    """A setting that is a number; Keras writes one of NumPy as an object."""
    value = step.config.get(key, otherwise)
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, Mapping) else value.get("value")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"its {key} is {printable(str(value), 40)}")
    return float(value)


def _same_padding(step: KerasStep, tensor: KerasTensor, span: Shape, stride: Shape) -> Pairs:
    """The padding before and after each side that makes ceil(size / stride) outputs. It is noted, since it depends on
    the size: 0 and 1 for 3x3 windows at stride 2 on 224 pixels, 1 and 1 on 225.
    """
    padding = SamePadding(tensor.source, span, stride)
    step.walk.graph.same_paddings.append(padding)
    totals = padding.totals(step.walk.shape(tensor)[2:])
    return tuple((total // 2, total - total // 2) for total in totals)


def _span(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))


def _padded(step: KerasStep, tensor: KerasTensor, padding: Pairs, value: float = 0.0) -> KerasTensor:
    amounts = tuple(amount for ends in reversed(padding) for amount in ends)
    return step.step(Pad(amounts, value=value, shares=False), tensor)


def _own_padding(
    step: KerasStep, tensor: KerasTensor, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[KerasTensor, Shape]:
    """The tensor, padded before the layer where torch's cannot, and the padding of the layer itself."""
    kind, sides = step.config.get("padding", "valid"), len(kernel)
    span = _span(kernel, dilation)
    if kind == "valid":
        return tensor, (0,) * sides
    if kind == "causal" and sides == 1:
        return _padded(step, tensor, ((span[0] - 1, 0),)), (0,)
    if kind != "same":
        raise ValueError(f"its padding is {printable(str(kind), 40)}")
    padding = _same_padding(step, tensor, span, stride)
    if all(before == after for before, after in padding):
        return tensor, tuple(before for before, _ in padding)
    return _padded(step, tensor, padding), (0,) * sides


def _convolution(sides: int, *, is_depthwise: bool = False) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        channels = step.walk.shape(tensor)[1]
        if is_depthwise:
            groups, count = channels, channels * _count(step, "depth_multiplier", 1)
        else:
            groups, count = _count(step, "groups", 1), _count(step, "filters")
        if channels % groups or count % groups:
            raise ValueError(f"{groups} groups do not divide its {channels} input and {count} output channels")
        step.walk.kernels[DEPTHWISE if is_depthwise else CONVOLUTION[sides]] = None
        return step.activated(_kernels(step, tensor, count, groups, sides), step.config.get("activation"))

    return rule


def _kernels(
    step: KerasStep, tensor: KerasTensor, count: int, groups: int, sides: int, leaf: str = "", bias: bool | None = None
) -> KerasTensor:
    kernel = _numbers(step, "kernel_size", sides)
    stride, dilation = _numbers(step, "strides", sides, 1), _numbers(step, "dilation_rate", sides, 1)
    channels = step.walk.shape(tensor)[1]
    tensor, padding = _own_padding(step, tensor, kernel, stride, dilation)
    has_bias = bool(step.config.get("use_bias", True)) if bias is None else bias
    op = Convolution(channels, count, kernel, stride, padding, dilation, groups, has_bias)
    return step.add(op, tensor, leaf=leaf)


def _separable(sides: int) -> Callable[[KerasStep], KerasTensor]:
    """A depthwise convolution, then one of 1x1 kernels."""

    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        channels = step.walk.shape(tensor)[1]
        inner = channels * _count(step, "depth_multiplier", 1)
        step.walk.kernels.update({DEPTHWISE: None, CONVOLUTION[sides]: None})
        tensor = _kernels(step, tensor, inner, channels, sides, "depthwise", False)
        ones = (1,) * sides
        zeros = (0,) * sides
        op = Convolution(
            inner, _count(step, "filters"), ones, ones, zeros, ones, 1, bool(step.config.get("use_bias", True))
        )
        return step.activated(step.add(op, tensor, leaf="pointwise"), step.config.get("activation"))

    return rule


def _transposed(sides: int) -> Callable[[KerasStep], KerasTensor]:
    """A transposed convolution, whose output is cut where `same` takes more off the end than off the start."""

    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        kernel, stride = _numbers(step, "kernel_size", sides), _numbers(step, "strides", sides, 1)
        if _numbers(step, "dilation_rate", sides, 1) != (1,) * sides or step.config.get("output_padding") is not None:
            raise ValueError("there is no rule for its dilation or output padding")
        is_same = step.config.get("padding", "valid") == "same"
        totals = [max(k - s, 0) if is_same else 0 for k, s in zip(kernel, stride)]
        padding = tuple(total // 2 for total in totals)
        more = tuple(max(s - k, 0) for k, s in zip(kernel, stride))
        channels = step.walk.shape(tensor)[1]
        has_bias = bool(step.config.get("use_bias", True))
        ones = (1,) * sides
        op = TransposedConvolution(
            channels, _count(step, "filters"), kernel, stride, padding, ones, 1, has_bias, output_padding=more
        )
        step.walk.kernels[TRANSPOSED[sides]] = None
        tensor = step.add(op, tensor)
        if any(total % 2 for total in totals):
            ends = tuple((None, -1 if total % 2 else None, None) for total in totals)
            tensor = step.step(Slice(((None, None, None), (None, None, None), *ends)), tensor)
        return step.activated(tensor, step.config.get("activation"))

    return rule


_MAX = {1: pooling.MaxPool1d, 2: pooling.MaxPool2d, 3: pooling.MaxPool3d}
_MEAN = {1: pooling.AvgPool1d, 2: pooling.AvgPool2d, 3: pooling.AvgPool3d}


def _pool(sides: int, *, is_mean: bool) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        kernel = _numbers(step, "pool_size", sides, 2)
        stride = _numbers(step, "strides", sides, kernel)
        kind, size = step.config.get("padding", "valid"), step.walk.shape(tensor)[2:]
        if kind == "valid":
            return step.add(_pool_op(kernel, stride, (0,) * sides, is_mean=is_mean), tensor)
        if kind != "same":
            raise ValueError(f"its padding is {printable(str(kind), 40)}")
        padding = _same_padding(step, tensor, kernel, stride)
        before = tuple(start for start, _ in padding)
        is_even = all(start == end for start, end in padding)
        op = _pool_op(kernel, stride, before, is_mean=is_mean, rounds_up=not is_even)
        wanted = tuple(-(-w // s) for w, s in zip(size, stride))
        window = op.window(size)
        assert window is not None
        if all(2 * start <= k for start, k in zip(before, kernel)) and window.output_size(size) == wanted:
            # Windows that reach beyond the padding read what is there, which is what Keras does.
            return step.add(op, tensor)
        if is_mean:
            raise ValueError("there is no rule for a mean over windows that are padded so")
        tensor = _padded(step, tensor, padding, float("-inf"))
        return step.add(_pool_op(kernel, stride, (0,) * sides, is_mean=False), tensor)

    return rule


def _pool_op(kernel: Shape, stride: Shape, padding: Shape, *, is_mean: bool, rounds_up: bool = False) -> Op:
    sides = len(kernel)
    if is_mean:
        # Keras takes the mean of the values inside the map alone.
        return _MEAN[sides](kernel, stride, padding, ceil_mode=rounds_up, count_include_pad=not any(padding))
    return _MAX[sides](kernel, stride, padding, (1,) * sides, ceil_mode=rounds_up)


def _global_pool(sides: int, *, is_mean: bool) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        keeps = bool(step.config.get("keepdims", False))
        op = Reduction("mean" if is_mean else "amax", tuple(range(2, 2 + sides)), keeps)
        source = step.add(op, tensor).source
        return KerasTensor(source, tensor.is_first and keeps)

    return rule


def _zero_padding(sides: int) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        return _padded_layer(step, step.map(sides), _ends(step, "padding", sides))

    return rule


def _padded_layer(step: KerasStep, tensor: KerasTensor, padding: Pairs) -> KerasTensor:
    amounts = tuple(amount for ends in reversed(padding) for amount in ends)
    return step.add(Pad(amounts, value=0.0, shares=False), tensor)


def _cropping(sides: int) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        size = step.walk.shape(tensor)[2:]
        ends = _ends(step, "cropping", sides)
        if any(start + end >= side for (start, end), side in zip(ends, size)):
            raise ValueError("it cuts off more than there is")
        whole = (None, None, None)
        index = (whole, whole, *((start, side - end, None) for (start, end), side in zip(ends, size)))
        return step.add(Slice(index), tensor)

    return rule


def _ends(step: KerasStep, key: str, sides: int) -> Pairs:
    """A setting with a number for all ends, one for each side, or one for each end."""
    value = step.config.get(key, 1)
    rows = value if isinstance(value, (list, tuple)) else [value] * sides
    if sides == 1 and len(rows) == 2 and not isinstance(rows[0], (list, tuple)):
        rows = [rows]
    pairs = [row if isinstance(row, (list, tuple)) else [row, row] for row in rows]
    is_whole = len(pairs) == sides and all(len(pair) == 2 for pair in pairs)
    if not is_whole or not all(type(end) is int and 0 <= end < 2**31 for pair in pairs for end in pair):
        raise ValueError(f"its {key} is {printable(str(value), 40)}")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _upsampling(sides: int) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        tensor = step.map(sides)
        kind = step.config.get("interpolation", "nearest")
        if kind not in ("nearest", "bilinear"):
            raise ValueError(f"its interpolation is {printable(str(kind), 40)}")
        scale = tuple(map(float, _numbers(step, "size", sides, 2)))
        smooth = kind == "bilinear"
        return step.add(Upsample(None, scale, "bilinear" if smooth else "nearest", False if smooth else None), tensor)

    return rule


def _flatten(step: KerasStep) -> KerasTensor:
    """The axes after the batch as one. A map stays channel by channel until a layer reads it that minds the order."""
    walk = step.walk
    tensor = walk.unflattened(step.name, step.tensor)
    if len(walk.shape(tensor)) < 2:
        raise ValueError("its input has no axes beside the batch")
    if step.is_channels_first and tensor.is_first:
        # Keras takes the first axis for the channels, and moves it to the end.
        tensor = walk.plain(step.name, tensor)
    shape = walk.shape(tensor)
    # With the channels first, Keras moves them to the end before it flattens.
    goes_by_pixel = (tensor.is_first or step.is_channels_first) and len(shape) > 2
    is_other = goes_by_pixel and shape[1] > 1 and prod(shape[2:]) > 1
    return KerasTensor(step.add(Flatten(), tensor).source, map=shape[1:] if is_other else ())


def _dense(step: KerasStep) -> KerasTensor:
    walk, units = step.walk, _count(step, "units")
    tensor = step.tensor
    if tensor.map:
        walk.reordered[step.name] = (tensor.map, units)
    else:
        tensor = walk.plain(step.name, tensor)
    walk.kernels[DENSE] = None
    features = walk.shape(tensor)[-1]
    own = KerasTensor(tensor.source)  # its weights take up the order of the features
    result = step.add(Linear(features, units, bool(step.config.get("use_bias", True))), own)
    return step.activated(result, step.config.get("activation"))


def _batch_norm(step: KerasStep) -> KerasTensor:
    walk, tensor = step.walk, step.tensor
    if tensor.map:
        tensor = walk.unflattened(step.name, tensor)
    rank = len(walk.shape(tensor))
    axis = step.axis(tensor, step.config.get("axis", -1))
    if axis != 1 and axis == rank - 1 and rank > 2:
        tensor = walk.first(step.name, tensor)
        axis = 1
    kinds = {2: BatchNorm1d, 3: BatchNorm1d, 4: BatchNorm2d, 5: BatchNorm3d}
    if axis != 1 or rank not in kinds:
        raise ValueError(f"there is no rule for the statistics of axis {step.config.get('axis')} of {rank}")
    scales, centers = (step.config.get(key, True) is not False for key in ("scale", "center"))
    channels = walk.shape(tensor)[1]
    eps, momentum = _number(step, "epsilon", 1e-3), 1 - _number(step, "momentum", 0.99)
    op = kinds[rank](channels, eps, round(momentum, 12), affine=scales and centers)
    result = step.add(op, tensor)
    if scales == centers:
        return result
    function, leaf = ("mul", "weight") if scales else ("add", "bias")
    shape = (channels, *(1,) * (rank - 2))
    is_trained = step.config.get("trainable", True) is not False
    own = Parameter(f"{step.name}.{leaf}", shape, trainable=is_trained)
    return step.step(WithConstants(Elementwise(function), (None, shape)), result, parameters=(own,))


def _layer_norm(step: KerasStep) -> KerasTensor:
    tensor = step.walk.plain(step.name, step.tensor)
    shape = step.walk.shape(tensor)
    if step.axis(tensor, step.config.get("axis", -1)) != len(shape) - 1:
        raise ValueError("it normalises another axis than the last one")
    scales, centers = (step.config.get(key, True) is not False for key in ("scale", "center"))
    result = step.add(LayerNorm(shape[-1:], _number(step, "epsilon", 1e-3), scales, scales and centers), tensor)
    if scales or not centers:
        return result
    is_trained = step.config.get("trainable", True) is not False
    own = Parameter(f"{step.name}.bias", shape[-1:], trainable=is_trained)
    return step.step(WithConstants(Elementwise("add"), (None, shape[-1:])), result, parameters=(own,))


def _group_norm(step: KerasStep) -> KerasTensor:
    """Norms of equal groups of channels, of each channel for -1 groups."""
    tensor = step.walk.first(step.name, step.tensor)
    channels, groups = step.walk.shape(tensor)[1], step.config.get("groups", 32)
    if step.axis(tensor, step.config.get("axis", -1)) != 1 or type(groups) is not int:
        raise ValueError("it normalises another axis than that of the channels")
    groups = channels if groups == -1 else groups
    scales, centers = (step.config.get(key, True) is not False for key in ("scale", "center"))
    if scales != centers or groups < 1 or channels % groups:
        raise ValueError("there is no rule for a scale or a shift alone, or for groups of unequal size")
    return step.add(GroupNorm(groups, channels, _number(step, "epsilon", 1e-3), affine=scales), tensor)


def _relu(step: KerasStep) -> KerasTensor:
    key = "negative_slope" if "negative_slope" in step.config else "alpha"
    slope = _number(step, key, 0.0) if step.config.get(key) is not None else 0.0
    limit = _number(step, "max_value", 0.0) if step.config.get("max_value") is not None else None
    if (step.config.get("threshold") is not None and _number(step, "threshold", 0.0)) or (limit is not None and slope):
        raise ValueError("there is no rule for its threshold, or for a slope with a limit")
    if limit is None:
        return step.add(activation.LeakyReLU(slope) if slope else activation.ReLU(), step.tensor)
    return step.add(activation.ReLU6() if limit == 6 else activation.Hardtanh(0.0, limit), step.tensor)


def _leaky_relu(step: KerasStep) -> KerasTensor:
    key = "negative_slope" if "negative_slope" in step.config else "alpha"
    return step.add(activation.LeakyReLU(_number(step, key, 0.3)), step.tensor)


def _prelu(step: KerasStep) -> KerasTensor:
    tensor, shared = step.tensor, step.config.get("shared_axes")
    shape = step.walk.keras_shape(tensor)
    rank = len(shape)
    axes = {axis % rank for axis in shared or () if type(axis) is int}
    if rank == 4 and tensor.is_first and axes >= {1, 2}:
        return step.add(activation.PReLU(1 if 3 in axes else shape[-1]), tensor)
    if rank == 2 and not tensor.map:
        return step.add(activation.PReLU(shape[-1]), tensor)
    raise ValueError("there is no rule for a slope of each position")


def _dropout(make: Callable[[float], Op]) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        rate = _number(step, "rate", 0.5)
        if not 0 <= rate < 1:
            raise ValueError(f"its rate is {rate}")
        return step.add(make(rate), step.tensor)

    return rule


def _spatial_dropout(step: KerasStep) -> KerasTensor:
    rank = len(step.walk.shape(step.tensor))
    tensor = step.map(rank - 2)
    return step.add(Dropout2d(_number(step, "rate", 0.5)), tensor)


def _same(step: KerasStep) -> KerasTensor:
    """A layer that does nothing at evaluation."""
    return step.add(Identity(), step.tensor)


def _activation_layer(step: KerasStep) -> KerasTensor:
    return step.activated(step.tensor, step.config.get("activation"), is_layer=True)


def _softmax(step: KerasStep) -> KerasTensor:
    axis = step.config.get("axis", -1)
    if type(axis) is not int:
        raise ValueError(f"its axis is {printable(str(axis), 40)}")
    return step.softmax(step.tensor, axis, is_layer=True)


def _merge(function: str, *, is_mean: bool = False) -> Callable[[KerasStep], KerasTensor]:
    def rule(step: KerasStep) -> KerasTensor:
        if step.call.numbers and step.call.is_function:
            return _with_number(step, function)
        tensors = step.alike()
        if len(tensors) < 2 or (function == "sub" and len(tensors) != 2):
            raise ValueError(f"it reads {len(tensors)} tensor{'s' * (len(tensors) != 1)}")
        ranks = {len(step.walk.shape(tensor)) for tensor in tensors}
        if len(ranks) > 1:
            raise ValueError("its inputs have not the same number of axes")
        result = tensors[0]
        for tensor in tensors[1:]:
            graph = step.walk.graph
            source = graph.add(step.name, Elementwise(function), [result.source, tensor.source], (), is_module=False)
            result = step.like(result, source)
        return step.step(Elementwise("div", (None, float(len(tensors)))), result) if is_mean else result

    return rule


def _with_number(step: KerasStep, function: str) -> KerasTensor:
    """A function of one tensor and one number, in their order."""
    if len(step.inputs) != 1 or len(step.call.numbers) != 1:
        raise ValueError("there is no rule for its arguments")
    ((place, number),) = step.call.numbers
    given = (number, None) if place == 0 else (None, number)
    source = step.walk.graph.add(step.name, Elementwise(function, given), [step.tensor.source], (), is_module=False)
    return step.like(step.tensor, source)


def _concatenation(step: KerasStep) -> KerasTensor:
    tensors = [step.walk.unflattened(step.name, tensor) for tensor in step.alike()]
    if not tensors:
        raise ValueError("it reads nothing")
    axis = step.axis(tensors[0], step.config.get("axis", -1))
    if axis == 0:
        raise ValueError("it joins the samples of a batch")
    sources = [tensor.source for tensor in tensors]
    source = step.walk.graph.add(step.name, Concatenation(axis), sources, (), is_module=False)
    return step.like(tensors[0], source)


def _reshape(step: KerasStep) -> KerasTensor:
    target = step.config.get("target_shape")
    if not isinstance(target, (list, tuple)) or not all(type(size) is int and size >= -1 for size in target):
        raise ValueError(f"its target_shape is {printable(str(target), 40)}")
    walk = step.walk
    shape = walk.keras_shape(step.tensor)
    sizes = list(target)
    if sizes.count(-1) == 1:
        known = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = prod(shape[1:]) // known if known else 0
    if prod(sizes) != prod(shape[1:]) or any(size < 1 for size in sizes):
        raise ValueError("its target_shape does not have the elements of its input")
    is_point = len(sizes) == 3 and sizes[0] == sizes[1] == 1 and not walk.channels_first
    tensor = walk.plain(step.name, step.tensor)
    here = (sizes[2], 1, 1) if is_point else tuple(sizes)
    return KerasTensor(step.add(Reshape((-1, *here)), tensor).source, is_first=is_point)


def _permute(step: KerasStep) -> KerasTensor:
    dims = step.config.get("dims")
    tensor = step.walk.plain(step.name, step.tensor)
    rank = len(step.walk.shape(tensor))
    if not isinstance(dims, (list, tuple)) or sorted(map(str, dims)) != sorted(map(str, range(1, rank))):
        raise ValueError(f"its dims are {printable(str(dims), 40)}")
    return KerasTensor(step.add(Permute((0, *dims)), tensor).source)


def _rescaling(step: KerasStep) -> KerasTensor:
    tensor = step.step(Elementwise("mul", (None, _number(step, "scale", 1.0))), step.tensor)
    shift = _number(step, "offset", 0.0)
    return step.step(Elementwise("add", (None, shift)), tensor) if shift else tensor


def _embedding(step: KerasStep) -> KerasTensor:
    op = Embedding(_count(step, "input_dim"), _count(step, "output_dim"))
    return step.add(op, step.walk.plain(step.name, step.tensor))


def _recurrent(step: KerasStep) -> KerasTensor:
    """A layer that multiplies the input and its state by the matrices of its gates at each step."""
    return _directions(step, {"": (step.call.type, step.config)}, 1)


def _bidirectional(step: KerasStep) -> KerasTensor:
    """A recurrent layer forwards and one backwards, whose outputs are joined along the features or merged."""
    directions = {}
    for end in ("forward", "backward"):
        layer = step.config.get("layer" if end == "forward" else "backward_layer") or step.config.get("layer")
        config = layer.get("config") if isinstance(layer, Mapping) else None
        if layer is None or not isinstance(config, Mapping):
            raise LookupError("it names no layer")
        directions[f"{end}_layer."] = (str(layer["class_name"]), config)
    mode = step.config.get("merge_mode", "concat")
    if mode not in ("concat", "sum", "ave", "mul"):
        raise ValueError(f"there is no rule for its merge_mode {printable(str(mode), 40)}")
    return _directions(step, directions, 2 if mode == "concat" else 1)


def _directions(step: KerasStep, directions: Mapping[str, tuple[str, Mapping[str, Any]]], joined: int) -> KerasTensor:
    """One or two recurrent layers over a sequence, by the beginning of their weights' names.

    The output has the features of `joined` of them. MACs: the products of each gate of each at each step.
    """
    tensor = step.walk.plain(step.name, step.tensor)
    shape = step.walk.shape(tensor)
    settings = [config for _, config in directions.values()]
    if len(shape) != 3 or len(step.inputs) > 1 or any(config.get("return_state") for config in settings):
        raise ValueError("there is no rule for its states, or for an input without an axis of steps")
    steps, features = shape[1:]
    is_trained = all(config.get("trainable", True) is not False for config in (step.config, *settings))
    parameters: list[Parameter] = []
    cost = units = 0
    for name, (kind, config) in directions.items():
        if kind not in _GATES:
            raise ValueError(f"there is no rule for a layer {printable(kind, 60)} in it")
        weights, units = _recurrent_weights(step, kind, config, features)
        cost += steps * sum(prod(sides) for leaf, sides in weights.items() if leaf != "bias")
        parameters += [Parameter(f"{step.name}.{name}{leaf}", sides, is_trained) for leaf, sides in weights.items()]
    wide = units * joined
    output = (1, steps, wide) if settings[0].get("return_sequences") else (1, wide)
    op = Recorded(step.call.type, (shape,), output, cost=cost, backward_cost=None)
    return KerasTensor(step.walk.graph.add(step.name, op, [tensor.source], parameters, is_named=True))


def _recurrent_weights(
    step: KerasStep, kind: str, config: Mapping[str, Any], features: int
) -> tuple[dict[str, Shape], int]:
    """The weights of a recurrent layer, and its units. Raises ValueError for settings that are none."""
    gates, units = _GATES[kind], config.get("units")
    if type(units) is not int or units < 1:
        raise ValueError(f"its units is {printable(str(units), 40)}")
    width = gates * units
    has_two = kind == "GRU" and config.get("reset_after", step.call.dialect == 3)
    weights: dict[str, Shape] = {"kernel": (features, width), "recurrent_kernel": (units, width)}
    if config.get("use_bias", True):
        weights["bias"] = (2, width) if has_two else (width,)
    return weights, units


def _multi_head_attention(step: KerasStep) -> KerasTensor:
    """Attention of a query to the steps of a value, in heads. (Vaswani et al. 2017, section 3.2.2)

    MACs: the four projections, each query with each key, and each weight with each value.
    """
    tensors = [step.walk.plain(step.name, tensor) for tensor in step.inputs]
    shapes = [step.walk.shape(tensor) for tensor in tensors]
    is_usual = step.config.get("attention_axes") in (None, 1, [1], [-2])
    if len(shapes) not in (2, 3) or any(len(shape) != 3 for shape in shapes) or not is_usual:
        raise ValueError(f"there is no rule for {len(shapes)} inputs, or for several axes of steps")
    query, value, key = (*shapes, shapes[1])[:3]
    heads, size = _count(step, "num_heads"), _count(step, "key_dim")
    wide = size if step.config.get("value_dim") is None else _count(step, "value_dim")
    own = step.config.get("output_shape")
    if own is not None and not (isinstance(own, (list, tuple)) and len(own) == 1) and type(own) is not int:
        raise ValueError(f"its output_shape is {printable(str(own), 40)}")
    features = query[2] if own is None else own if isinstance(own, int) else own[0]
    kernels: dict[str, tuple[Shape, Shape, int]] = {
        "query": ((query[2], heads, size), (heads, size), query[1]),
        "key": ((key[2], heads, size), (heads, size), key[1]),
        "value": ((value[2], heads, wide), (heads, wide), value[1]),
        "attention_output": ((heads, wide, features), (features,), query[1]),
    }
    is_trained = step.config.get("trainable", True) is not False
    parameters = []
    for name, (kernel, bias, _) in kernels.items():
        leaves = {"kernel": kernel, **({"bias": bias} if step.config.get("use_bias", True) else {})}
        parameters += [Parameter(f"{step.name}.{name}.{leaf}", sides, is_trained) for leaf, sides in leaves.items()]
    cost = sum(steps * prod(kernel) for kernel, _, steps in kernels.values())
    cost += query[1] * key[1] * heads * (size + wide)
    op = Recorded(step.call.type, tuple(shapes), (1, query[1], features), cost=cost, backward_cost=None)
    sources = [tensor.source for tensor in tensors]
    return KerasTensor(step.walk.graph.add(step.name, op, sources, parameters, is_named=True))


def _normalization(step: KerasStep) -> KerasTensor:
    """Values less a mean, by a deviation: constants that Keras keeps beside the weights."""
    tensor = step.walk.unflattened(step.name, step.tensor)
    return step.unknown([tensor], step.walk.shape(tensor), is_first=tensor.is_first, is_free=True)


_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
"""The gates of recurrent layers."""

_WITHOUT_PARAMETERS = frozenset(
    {
        *("CategoryEncoding", "CenterCrop", "Discretization", "Dot", "Hashing", "Identity", "Lambda", "Masking"),
        *("RandomBrightness", "RandomCrop", "RandomHeight", "RandomWidth", "RepeatVector", "Resizing"),
        *("StringLookup", "TFOpLambda", "ThresholdedReLU", "UnitNormalization"),
    }
)
"""Layers without a rule that have no parameters."""

_RULES: Mapping[str, Callable[[KerasStep], KerasTensor]] = {
    "Activation": _activation_layer,
    "ActivityRegularization": _same,
    "Add": _merge("add"),
    "AlphaDropout": _dropout(AlphaDropout),
    "Average": _merge("add", is_mean=True),
    "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "Concatenate": _concatenation,
    "Dense": _dense,
    "DepthwiseConv1D": _convolution(1, is_depthwise=True),
    "DepthwiseConv2D": _convolution(2, is_depthwise=True),
    "Dropout": _dropout(Dropout),
    "ELU": lambda step: step.add(activation.ELU(_number(step, "alpha", 1.0)), step.tensor),
    "Embedding": _embedding,
    "Flatten": _flatten,
    "GaussianDropout": _same,
    "GaussianNoise": _same,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "LeakyReLU": _leaky_relu,
    "Maximum": _merge("maximum"),
    "Minimum": _merge("minimum"),
    "Multiply": _merge("mul"),
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": _permute,
    "RandomContrast": _same,
    "RandomFlip": _same,
    "RandomRotation": _same,
    "RandomTranslation": _same,
    "RandomZoom": _same,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "SpatialDropout1D": _spatial_dropout,
    "SpatialDropout2D": _spatial_dropout,
    "SpatialDropout3D": _spatial_dropout,
    "Subtract": _merge("sub"),
    **dict.fromkeys(_GATES, _recurrent),
    "Bidirectional": _bidirectional,
    "MultiHeadAttention": _multi_head_attention,
    **{f"Conv{n}D": _convolution(n) for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _transposed(n) for n in (1, 2, 3)},
    **{f"Cropping{n}D": _cropping(n) for n in (1, 2, 3)},
    **{f"MaxPooling{n}D": _pool(n, is_mean=False) for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": _pool(n, is_mean=True) for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _global_pool(n, is_mean=False) for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": _global_pool(n, is_mean=True) for n in (1, 2, 3)},
    **{f"SeparableConv{n}D": _separable(n) for n in (1, 2)},
    **{f"UpSampling{n}D": _upsampling(n) for n in (1, 2, 3)},
    **{f"ZeroPadding{n}D": _zero_padding(n) for n in (1, 2, 3)},
}
"""The rule of each class of layers. A rule adds its nodes and returns the layer's result."""

_FUNCTIONS: Mapping[str, Callable[[KerasStep], KerasTensor]] = {
    "Add": _merge("add"),
    "Maximum": _merge("maximum"),
    "Minimum": _merge("minimum"),
    "Multiply": _merge("mul"),
    "Subtract": _merge("sub"),
    "Relu": lambda step: step.add(activation.ReLU(), step.tensor),
    "Sigmoid": lambda step: step.add(activation.Sigmoid(), step.tensor),
    "Tanh": lambda step: step.add(activation.Tanh(), step.tensor),
}
"""The rules of functions of keras.ops that stand among a model's layers."""
