"""The op of each known torch function, by the function's name.

An entry of FUNCTIONS takes the function's arguments under torch's own names. It returns one op, or one op for each
result if each result is a node of its own. Elementwise functions are in `ops.elementwise.KEEPS`. To support another
function, add one entry here or there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vggscope.ops import activation
from vggscope.ops.attention import Einsum, MatrixProduct, ScaledDotProductAttention
from vggscope.ops.base import Op
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.elementwise import KEEPS, Elementwise
from vggscope.ops.embedding import Embedding
from vggscope.ops.linear import Bilinear, Linear
from vggscope.ops.merge import Concatenation, Stack
from vggscope.ops.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    Normalize,
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
    FractionalMaxPool2d,
    LPPool1d,
    LPPool2d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from vggscope.ops.reduction import REDUCTIONS, Reduction
from vggscope.ops.regularization import AlphaDropout, AlwaysDropout, Detach, Dropout
from vggscope.ops.sampling import Upsample
from vggscope.ops.shape import Flatten
from vggscope.ops.view import (
    Chunk,
    Expand,
    Item,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Roll,
    Select,
    Slice,
    Split,
    Squeeze,
    TensorSplit,
    Unsqueeze,
)
from vggscope.trace.layout import copied_by_einsum, is_copied
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

OneOrMoreOps = Op | tuple[Op, ...]

CONVOLUTIONS = frozenset(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))

MATRIX_PRODUCTS = CONVOLUTIONS | {
    *("matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "addr", "dot", "vdot", "inner", "tensordot"),
    *("einsum", "linear", "bilinear", "conv_tbc", "chain_matmul", "multi_dot", "linalg_multi_dot", "matrix_power"),
    *("linalg_matrix_power", "_grouped_mm", "_int_mm", "scaled_dot_product_attention"),
}
"""Functions that cost multiply-accumulates. They are nodes even if all their inputs are weights."""

WEIGHTED = CONVOLUTIONS | {"linear", "batch_norm", "layer_norm", "rms_norm", "group_norm", "prelu", "embedding"}
"""Functions whose tensors are the op's own weights, except the first."""

ATEN_ARGUMENTS = {
    "embedding": (1, 0),
    "batch_norm": (0, 3, 4, 1, 2, 5, 6, 7),
    "elu": (0, 1),
}
"""For operators of torch.ops.aten: the places of the arguments that the function of this name in torch.nn.functional
takes, in its order.
"""

SAME_DATA = frozenset({"requires_grad", "alias", "as_tensor", "as_subclass", "cpu", "cuda"})
"""Functions that return the values of their input. They are not nodes."""

CREATIONS = frozenset(
    (
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_empty", "new_full"),
    )
)
"""Functions that take only the shape of their input. No gradient passes them."""

WITHOUT_MACS = CREATIONS | {
    *("as_strided", "broadcast_tensors", "broadcast_to", "copy", "diagonal", "expand_as", "flip", "gather"),
    *("index_put", "index_select", "masked_select", "narrow", "repeat", "repeat_interleave", "reshape_as"),
    *("scatter", "setitem", "sort", "tile", "topk", "tril", "triu", "unfold", "view_as"),
}
"""Functions without an op that only create, copy or move values. Others have the cost of torch's counter."""


PROPERTIES = frozenset(
    (
        *("shape", "device", "dtype", "layout", "is_meta", "is_cuda", "ndim", "dim", "size", "numel", "stride"),
        *("data", "grad", "grad_fn", "is_floating_point", "is_contiguous", "requires_grad_", "to", "contiguous"),
    )
)
"""Attributes and methods of tensors that compute nothing."""


def _each(value: int | tuple[int, ...] | list[int], sides: int) -> tuple[int, ...]:
    """Return one number of a window for each side."""
    if isinstance(value, int):
        return (value,) * sides
    if len(value) not in (1, sides):
        raise ValueError(value)
    return tuple(value) if len(value) == sides else tuple(value) * sides


def _sizes(first: int | tuple[int, ...] | list[int], rest: tuple[int, ...]) -> tuple[int, ...]:
    """Return sizes or axes, passed in a tuple or as separate arguments, as one tuple."""
    return (first, *rest) if isinstance(first, int) else tuple(first)


def _activation(kind: type[Op], *names: str) -> Callable[..., Op]:
    """Return the entry of an activation. `names` are its function's arguments after the input, in order."""

    def make(input: Tensor, *args: object, **kwargs: object) -> Op:
        arguments = {**dict(zip(names, args)), **kwargs}
        return kind(**{name: value for name, value in arguments.items() if name in names})

    return make


def _softmax(kind: type[activation.Softmax | activation.LogSoftmax]) -> Callable[..., Op]:
    def make(input: Tensor, dim: int | None = None, *_: object, **__: object) -> Op:
        # torch's default: the first axis of a tensor with 0, 1 or 3 axes, else the second.
        return kind(dim=dim if dim is not None else int(input.dim() not in (0, 1, 3)))

    return make


def convolution_padding(
    padding: str | int | tuple[int, ...], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], bool]:
    """Return the padding of each axis, and whether the end of an axis gets one pixel more.

    "same" adds dilation*(kernel-1) pixels, half of them on each side.
    """
    if padding == "valid":
        return (0,) * len(kernel), False
    if padding == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, kernel)]
        return tuple(total // 2 for total in whole), any(total % 2 for total in whole)
    assert not isinstance(padding, str)
    return _each(padding, len(kernel)), False


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Op:
    kernel = tuple(weight.shape[2:])
    dilations = _each(dilation, len(kernel))
    numbers, same = convolution_padding(padding, kernel, dilations)
    return Convolution(
        in_channels=weight.shape[1] * groups,
        out_channels=weight.shape[0],
        kernel_size=kernel,
        stride=_each(stride, len(kernel)),
        padding=numbers,
        dilation=dilations,
        groups=groups,
        bias=bias is not None,
        same=same,
    )


def _conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Op:
    kernel = tuple(weight.shape[2:])
    return TransposedConvolution(
        in_channels=weight.shape[0],
        out_channels=weight.shape[1] * groups,
        kernel_size=kernel,
        stride=_each(stride, len(kernel)),
        padding=_each(padding, len(kernel)),
        output_padding=_each(output_padding, len(kernel)),
        groups=groups,
        bias=bias is not None,
        dilation=_each(dilation, len(kernel)),
    )


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Op:
    return Linear(weight.shape[1], weight.shape[0], bias is not None)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *_: object,
    **__: object,
) -> Op:
    return Embedding(weight.shape[0], weight.shape[1], max_norm, norm_type)


def _prelu(input: Tensor, weight: Tensor) -> Op:
    return activation.PReLU(weight.numel())


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Op:
    kind = {4: BatchNorm2d, 5: BatchNorm3d}.get(input.dim(), BatchNorm1d)
    is_tracked = running_mean is not None
    return kind(input.shape[1], eps, momentum, weight is not None, is_tracked, batch_statistics=training and is_tracked)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Op:
    return LayerNorm(tuple(normalized_shape), eps, weight is not None, bias is not None)


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Op:
    return RMSNorm(tuple(normalized_shape), eps, weight is not None)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Op:
    return GroupNorm(num_groups, input.shape[1], eps, weight is not None)


def _local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Op:
    return LocalResponseNorm(size, alpha, beta, k)


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Op:
    if p != 2 or not isinstance(dim, int):
        raise ValueError(p, dim)
    return Normalize(0 if dim == -input.dim() else dim, eps)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Op:
    return (AlwaysDropout if training else Dropout)(p, inplace)


def _alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Op:
    if training:
        raise ValueError(training)  # without a rule for its memory
    return AlphaDropout(p, inplace)


def _detach(input: Tensor) -> Op:
    return Detach()


def _is_left_out(stride: Any) -> bool:
    """Whether a stride is left out, which TorchScript writes as an empty list."""
    return stride is None or (not isinstance(stride, int) and not len(stride))


def _max_pool(kind: type[MaxPool2d]) -> Callable[..., Op]:
    def make(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Op:
        step = kernel_size if _is_left_out(stride) else stride
        sides = kind.sides
        return kind(
            _each(kernel_size, sides), _each(step, sides), _each(padding, sides), _each(dilation, sides), ceil_mode
        )

    return make


def _avg_pool(kind: type[AvgPool2d]) -> Callable[..., Op]:
    def make(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Op:
        step = kernel_size if _is_left_out(stride) else stride
        sides = kind.sides
        window = _each(kernel_size, sides), _each(step, sides), _each(padding, sides)
        return kind(*window, ceil_mode, count_include_pad, divisor_override)

    return make


def _adaptive(kind: type[AdaptiveAvgPool2d]) -> Callable[..., Op]:
    def make(input: Tensor, output_size: Any, return_indices: bool = False) -> Op:
        return kind((output_size,) * kind.sides if output_size is None else _each(output_size, kind.sides))

    return make


def _lp_pool(kind: type[LPPool2d]) -> Callable[..., Op]:
    def make(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Op:
        if norm_type in (0, math.inf, -math.inf):
            raise ValueError(norm_type)  # torch takes a maximum or fails
        step = kernel_size if _is_left_out(stride) else stride
        return kind(float(norm_type), _each(kernel_size, kind.sides), _each(step, kind.sides), ceil_mode)

    return make


def _fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, *_: object, **__: object
) -> Op:
    size = None if output_size is None else _each(output_size, 2)
    ratio = (output_ratio,) * 2 if isinstance(output_ratio, float) else output_ratio
    return FractionalMaxPool2d(_each(kernel_size, 2), size, None if size or ratio is None else tuple(ratio))


def _interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Op:
    sides = input.dim() - 2
    scale = (scale_factor,) * sides if isinstance(scale_factor, (int, float)) else scale_factor
    return Upsample(
        None if size is None else _each(size, sides),
        None if scale is None else tuple(scale),
        mode,
        align_corners,
        recompute_scale_factor,
        antialias,
    )


def _flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Op:
    return Flatten(start_dim, end_dim)


def _reshape(input: Tensor, shape: Any, *rest: int) -> Op:
    return Reshape(_sizes(shape, rest))


def _unflatten(input: Tensor, dim: int, sizes: Any) -> Op:
    axis, before = dim % input.dim(), tuple(input.shape)
    return Reshape((*before[:axis], *sizes, *before[axis + 1 :]))


def _permute(input: Tensor, dims: Any, *rest: int) -> Op:
    return Permute(tuple(axis % input.dim() for axis in _sizes(dims, rest)))


def _transpose(input: Tensor, dim0: int, dim1: int) -> Op:
    dims = list(range(input.dim()))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return Permute(tuple(dims))


def _transposed(input: Tensor) -> Op:
    """`x.T`, `x.mT`, `x.t()`."""
    return _transpose(input, -2, -1)


def _movedim(input: Tensor, source: Any, destination: Any) -> Op:
    axes = input.dim()
    target = {d % axes: s % axes for s, d in zip(_sizes(source, ()), _sizes(destination, ()))}
    rest = iter(axis for axis in range(axes) if axis not in target.values())
    return Permute(tuple(target[i] if i in target else next(rest) for i in range(axes)))


def _squeeze(input: Tensor, dim: Any = None) -> Op:
    return Squeeze(None if dim is None else _sizes(dim, ()))


def _unsqueeze(input: Tensor, dim: int) -> Op:
    return Unsqueeze(dim)


def _expand(input: Tensor, size: Any, *rest: int) -> Op:
    return Expand(_sizes(size, rest))


def _getitem(input: Tensor, index: object) -> Op:
    return Slice(tuple(_item(part) for part in (index if isinstance(index, tuple) else (index,))))


def _item(part: object) -> Item:
    """Return one part of an index as the op stores it. Raises TypeError for a mask, a list or a tensor of positions."""
    if isinstance(part, slice):
        return (part.start, part.stop, part.step)
    if part is Ellipsis:
        return "..."
    if part is None or (isinstance(part, int) and not isinstance(part, bool)):
        return part
    raise TypeError(part)


def _chunk(input: Tensor, chunks: int, dim: int = 0) -> OneOrMoreOps:
    size = -(-input.shape[dim] // chunks)
    return tuple(Chunk(dim, position, chunks) for position in range(-(-input.shape[dim] // size)))


def _split(tensor: Tensor, split_size_or_sections: Any = None, dim: int = 0, **named: Any) -> OneOrMoreOps:
    size = named.get("split_size", split_size_or_sections)
    pieces = -(-tensor.shape[dim] // size) if isinstance(size, int) else len(size)
    return tuple(Split(dim, position, size if isinstance(size, int) else tuple(size)) for position in range(pieces))


def _tensor_split(input: Tensor, cuts: Any = None, dim: int = 0, **named: Any) -> OneOrMoreOps:
    cuts = named.get("indices", named.get("sections", named.get("indices_or_sections", cuts)))
    length = input.shape[dim]
    if isinstance(cuts, int):
        sizes = tuple(length // cuts + (place < length % cuts) for place in range(cuts))
    else:
        ends = [min(max(cut + length * (cut < 0), 0), length) for cut in cuts]
        sizes = tuple(end - start for start, end in zip((0, *ends), (*ends, length)))
    if min(sizes) < 0:
        raise ValueError(cuts)  # torch returns empty pieces for cuts out of order
    return tuple(TensorSplit(dim, position, sizes) for position in range(len(sizes)))


def _unbind(input: Tensor, dim: int = 0) -> OneOrMoreOps:
    return tuple(Select(dim, position) for position in range(input.shape[dim]))


def _select(input: Tensor, dim: int, index: int) -> Op:
    return Select(dim, index % input.shape[dim])


def _pad(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Op:
    return Pad(tuple(pad), mode, value)


def _roll(input: Tensor, shifts: Any, dims: Any = ()) -> Op:
    return Roll(_sizes(shifts, ()), _sizes(dims, ()))


def _pixel_shuffle(input: Tensor, upscale_factor: int) -> Op:
    return PixelShuffle(upscale_factor)


def _pixel_unshuffle(input: Tensor, downscale_factor: int) -> Op:
    return PixelUnshuffle(downscale_factor)


def _cat(tensors: object, dim: int = 0, *, axis: int | None = None) -> Op:
    return Concatenation(dim if axis is None else axis)


def _stack(tensors: object, dim: int = 0) -> Op:
    return Stack(dim)


def _reduction(function: str) -> Callable[..., Op]:
    def make(input: Tensor, dim: Any = None, keepdim: bool = False, **numpys: Any) -> Op:
        dim, keepdim = numpys.get("axis", dim), numpys.get("keepdims", keepdim)
        axes = None if dim is None or dim == () else _sizes(dim, ())
        options = {name: value for name, value in numpys.items() if name not in ("axis", "keepdims", "out")}
        return Reduction(function, axes, keepdim, tuple(f"{name}={value}" for name, value in sorted(options.items())))

    return make


def _reduction_with_options(function: str) -> Callable[..., Op]:
    """As `_reduction`, for a function whose next positional argument is not `dim` alone."""
    make = _reduction(function)

    def checked(input: Tensor, *args: Any, **named: Any) -> Op:
        is_dim = function in ("std", "var") and len(args) == 1 and not isinstance(args[0], bool)
        if args and not is_dim:
            raise ValueError(args)  # the correction or the order of the norm
        return make(input, *args, **named)

    return checked


def _product(function: str) -> Callable[..., Op]:
    def make(*_: object, beta: float = 1, alpha: float = 1, **__: object) -> Op:
        return MatrixProduct(function, beta=beta, alpha=alpha)

    return make


def _extreme(function: str) -> Callable[..., Op]:
    def make(input: Tensor, other: object) -> Op:
        if not tensors_in(other):
            raise ValueError("a reduction")
        return Elementwise(function)

    return make


def _inner(input: Tensor, other: Tensor) -> Op:
    if (input.dim(), other.dim()) != (1, 1):
        raise ValueError("the product of two matrices, one of them transposed")
    return MatrixProduct("inner")


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Op:
    return Bilinear()


def _matmul(input: Tensor, other: Tensor) -> Op:
    axes = (input.dim(), other.dim())
    if min(axes) == 0 or max(axes) < 3:
        return MatrixProduct()
    # A single matrix or vector multiplies all rows of the other at once; else the leading axes of both fold into one.
    last_axes = 1 if min(axes) < 3 else 2
    return MatrixProduct(copied=(is_copied(input, last_axes), is_copied(other, last_axes)))


def _einsum(equation: str, *operands: object) -> Op:
    return Einsum(equation, copied_by_einsum(equation, tensors_in(operands)))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: object,
) -> Op:
    return ScaledDotProductAttention(dropout_p, is_causal, scale)


FUNCTIONS: dict[str, Callable[..., OneOrMoreOps]] = {
    **{f"conv{n}d": _conv for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _conv_transpose for n in (1, 2, 3)},
    "linear": _linear,
    "embedding": _embedding,
    "matmul": _matmul,
    **{name: _product(name) for name in ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot")},
    "inner": _inner,
    "max": _extreme("maximum"),
    "min": _extreme("minimum"),
    "bilinear": _bilinear,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "local_response_norm": _local_response_norm,
    "normalize": _normalize,
    "dropout": _dropout,
    "alpha_dropout": _alpha_dropout,
    **dict.fromkeys(("detach", "data"), _detach),
    "relu": _activation(activation.ReLU, "inplace"),
    "relu6": _activation(activation.ReLU6, "inplace"),
    "hardtanh": _activation(activation.Hardtanh, "min_val", "max_val", "inplace"),
    "leaky_relu": _activation(activation.LeakyReLU, "negative_slope", "inplace"),
    "elu": _activation(activation.ELU, "alpha", "inplace"),
    "selu": _activation(activation.SELU, "inplace"),
    "silu": _activation(activation.SiLU, "inplace"),
    "mish": _activation(activation.Mish, "inplace"),
    "hardswish": _activation(activation.Hardswish, "inplace"),
    "hardsigmoid": _activation(activation.Hardsigmoid, "inplace"),
    "gelu": _activation(activation.GELU, "approximate"),
    "softplus": _activation(activation.Softplus, "beta", "threshold"),
    "sigmoid": _activation(activation.Sigmoid),
    "tanh": _activation(activation.Tanh),
    "softmax": _softmax(activation.Softmax),
    "log_softmax": _softmax(activation.LogSoftmax),
    "glu": _activation(activation.GLU, "dim"),
    "prelu": _prelu,
    **{f"max_pool{kind.sides}d": _max_pool(kind) for kind in (MaxPool1d, MaxPool2d, MaxPool3d)},
    **{f"avg_pool{kind.sides}d": _avg_pool(kind) for kind in (AvgPool1d, AvgPool2d, AvgPool3d)},
    **{
        f"adaptive_avg_pool{kind.sides}d": _adaptive(kind)
        for kind in (AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d)
    },
    **{
        f"adaptive_max_pool{kind.sides}d": _adaptive(kind)
        for kind in (AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d)
    },
    "lp_pool1d": _lp_pool(LPPool1d),
    "lp_pool2d": _lp_pool(LPPool2d),
    **dict.fromkeys(("fractional_max_pool2d", "fractional_max_pool2d_with_indices"), _fractional_max_pool2d),
    "interpolate": _interpolate,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("flatten", "ravel"), _flatten),
    **dict.fromkeys(("reshape", "view"), _reshape),
    "unflatten": _unflatten,
    "permute": _permute,
    "transpose": _transpose,
    **dict.fromkeys(("T", "mT", "t"), _transposed),
    "movedim": _movedim,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "getitem": _getitem,
    "chunk": _chunk,
    "split": _split,
    "tensor_split": _tensor_split,
    "unbind": _unbind,
    "select": _select,
    "pad": _pad,
    "roll": _roll,
    "cat": _cat,
    "stack": _stack,
    **{name: _reduction(name) for name in REDUCTIONS},
    **{name: _reduction_with_options(name) for name in ("std", "var", "norm", "vector_norm")},
}

NO_PRODUCTS = frozenset({*KEEPS, *WITHOUT_MACS, *SAME_DATA, *PROPERTIES, *FUNCTIONS}) - MATRIX_PRODUCTS
"""Functions that dispatch no matrix product. torch's operators are not counted for them."""
