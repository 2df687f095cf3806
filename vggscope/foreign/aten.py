"""Calls of ATen's operators as calls of the functions in `trace.function_table`.

torch.export and TorchScript write operators of `torch.ops.aten`. Most have the name and the arguments of a function of
torch; an entry of OPERATORS translates one that has not.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from vggscope.foreign.values import ProgramValue, can_view, values_in
from vggscope.ops.attention import Einsum, MatrixProduct
from vggscope.ops.base import Op
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.normalization import InstanceNorm2d
from vggscope.ops.recurrent import Recurrent
from vggscope.ops.regularization import Dropout2d
from vggscope.record import record
from vggscope.trace.function_table import ATEN_ARGUMENTS

FULL = 2**63 - 1
"""The end of a slice that has none."""

FREE = frozenset(
    {
        *("cumsum", "cumprod", "argmax", "argmin", "topk", "sort", "argsort", "max", "min", "any", "all", "var_mean"),
        *("std_mean", "index", "index_add", "index_fill", "masked_scatter", "scatter_add", "bucketize", "one_hot"),
        *("full_like", "copy", "arange", "nonzero", "unique", "bincount", "count_nonzero", "meshgrid"),
        *(
            "select_scatter",
            "slice_scatter",
            "diff",
            "dist",
            "polar",
            "view_as_real",
            "view_as_complex",
            "sgn",
            "erfinv",
            "bernoulli",
        ),
        *("rand_like", "randn_like", "normal", "uniform", "median", "mode", "quantile", "logcumsumexp", "sgn"),
        *("grid_sampler_2d", "grid_sampler", "im2col", "col2im", "channel_shuffle", "pdist", "max_unpool2d"),
        *("log_sigmoid_forward", "celu", "hardshrink", "cross", "trace", "diag_embed", "rot90", "triu", "tril"),
    }
)
"""Operators without an op that dispatch no matrix product: their multiply-accumulates are 0, as by torch's counter."""

KEEP_SHAPE = frozenset(
    {
        *("cumsum", "cumprod", "sort", "argsort", "full_like", "rand_like", "randn_like", "zeros_like", "ones_like"),
        *("empty_like", "triu", "tril", "bernoulli", "masked_fill", "flip", "roll", "copy", "erfinv", "logcumsumexp"),
    }
)
"""Operators without an op whose results have the shape of their first input."""

SAME = frozenset({"lift_fresh", "lift_fresh_copy", "lift", "alias_copy", "detach_copy", "pin_memory", "_assert_tensor"})
"""Operators that return the values of their first argument. They are not nodes."""


@record
class FunctionCall:
    """A call of a function by its name in `trace.function_table`. `in_place` calls write to their first argument."""

    name: str
    in_place: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def translated(operator: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FunctionCall:
    """The call of an operator, which is named without its namespace and its overload.

    >>> given = ProgramValue((1, 3))
    >>> translated("relu_", (given,), {}).name, translated("_softmax", (given, 1, False), {}).name
    ('relu', 'softmax')
    """
    plain = operator if operator.startswith("__") else operator.removesuffix("_")
    in_place = plain != operator
    if plain in OPERATORS:
        name, args, kwargs = OPERATORS[plain](args, kwargs)
        return FunctionCall(name, in_place, args, kwargs)
    plain = _RENAMED.get(plain, plain)
    places = ATEN_ARGUMENTS.get(plain)
    if places is not None:
        args = tuple(args[place] for place in places if place < len(args))
    return FunctionCall(plain, in_place, args[: _TAKEN.get(plain)], kwargs)


_Arguments = tuple[Any, ...]
_Translated = tuple[str, _Arguments, dict[str, Any]]
_Translation = Callable[[_Arguments, dict[str, Any]], _Translated]


def _convolution(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    given, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    kind, sides = "_transpose" if transposed else "", weight.dim() - 2
    window = (stride, padding, output_padding, groups, dilation) if transposed else (stride, padding, dilation, groups)
    return f"conv{kind}{sides}d", (given, weight, bias, *window), {}


def _addmm(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    bias, given, weight = args[:3]
    if not kwargs and _is_turned(weight) and bias.dim() == 1:
        return "linear", (given, weight.turned, bias), {}
    return "addmm", args, kwargs


def _mm(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    given, weight = args[:2]
    return ("linear", (given, weight.turned), {}) if _is_turned(weight) else ("mm", args, kwargs)


def _is_turned(weight: Any) -> bool:
    return isinstance(weight, ProgramValue) and weight.turned is not None


def _picked(name: str, *places: int, **named: object) -> _Translation:
    """The function `name` with the arguments at these places, in its order."""

    def translate(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
        return name, tuple(args[place] if place < len(args) else None for place in places), dict(named)

    return translate


def _batch_norm(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    given, weight, bias, mean, variance, momentum, eps = args[:7]
    return "batch_norm", (given, mean, variance, weight, bias, False, momentum, eps), {}


def _batch_norm_of_batch(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    if len(args) == 6:  # without running statistics
        args = (*args[:3], None, None, *args[3:])
    given, weight, bias, mean, variance, training, momentum, eps = args[:8]
    return "batch_norm", (given, mean, variance, weight, bias, training, momentum, eps), {}


def _layer_norm(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    return "layer_norm", (*args, None, None, 1e-5)[:2] + (*args, *(None,) * 3)[2:4] + args[4:5], {}


def _upsample(mode: str, aligns: bool) -> _Translation:
    """An upsampling as interpolate: size, align_corners if the mode has it, then the scales."""

    def translate(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
        given, size, *rest = args
        corners = rest.pop(0) if aligns and rest else None
        scales = rest[0] if rest and isinstance(rest[0], (list, tuple)) else [x for x in rest if x is not None] or None
        size, scales = (size, None) if size is not None else (None, scales)
        return "interpolate", (given, size, scales, mode, corners), {}

    return translate


def _slice(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    given, dim, start, end, step = (*args, *(0, None, None, 1)[len(args) - 1 :])[:5]
    axis = dim % given.dim()
    start = None if start == 0 else start
    end = None if isinstance(end, int) and (end >= FULL or end == given.shape[axis]) else end
    if start is None and end is None and step == 1:
        return "alias", (given,), {}
    return "getitem", (given, (*(slice(None),) * axis, slice(start, end, None if step == 1 else step))), {}


def _padded(mode: str) -> _Translation:
    def translate(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
        return "pad", (args[0], args[1], mode, *args[2:3]), {}

    return translate


def _hardtanh(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    is_relu6 = tuple(args[1:3]) == (0, 6)
    return ("relu6", args[:1], {}) if is_relu6 else ("hardtanh", args, kwargs)


def _index(args: _Arguments, kwargs: dict[str, Any]) -> _Translated:
    given, index = args[0], args[1]
    parts = tuple(slice(None) if part is None else part for part in index)
    return "getitem", (given, parts[0] if len(parts) == 1 else parts), {}


OPERATORS: dict[str, _Translation] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    "addmm": _addmm,
    "mm": _mm,
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "_batch_norm_no_update"), _batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit", "native_batch_norm", "_batch_norm_with_update"), _batch_norm_of_batch),
    **dict.fromkeys(("native_layer_norm", "layer_norm"), _layer_norm),
    "native_group_norm": _picked("group_norm", 0, 6, 1, 2, 7),
    "native_dropout": _picked("dropout", 0, 1, 2),
    "upsample_linear1d": _upsample("linear", True),
    "upsample_bilinear2d": _upsample("bilinear", True),
    "upsample_bicubic2d": _upsample("bicubic", True),
    "upsample_trilinear3d": _upsample("trilinear", True),
    **{f"upsample_nearest{sides}d": _upsample("nearest", False) for sides in (1, 2, 3)},
    **{f"_upsample_nearest_exact{sides}d": _upsample("nearest-exact", False) for sides in (1, 2, 3)},
    "slice": _slice,
    "constant_pad_nd": _padded("constant"),
    **{f"reflection_pad{sides}d": _padded("reflect") for sides in (1, 2, 3)},
    **{f"replication_pad{sides}d": _padded("replicate") for sides in (1, 2, 3)},
    "hardtanh": _hardtanh,
    "index": _index,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
        ),
        _picked("scaled_dot_product_attention", 0, 1, 2),
    ),
}
"""The operators whose arguments differ from those of the function that computes the same."""

_RENAMED = {
    **{"_softmax": "softmax", "_log_softmax": "log_softmax", "_unsafe_view": "view", "view_copy": "view"},
    **{"_adaptive_avg_pool2d": "adaptive_avg_pool2d", "_adaptive_avg_pool3d": "adaptive_avg_pool3d"},
    **{"split_with_sizes": "split", "split_with_sizes_copy": "split", "expand_copy": "expand", "_to_copy": "to"},
    **{"permute_copy": "permute", "transpose_copy": "transpose", "squeeze_copy": "squeeze", "alias_copy": "alias"},
    **{"unsqueeze_copy": "unsqueeze", "select_copy": "select", "t_copy": "t", "linalg_vector_norm": "vector_norm"},
    **{"feature_dropout": "dropout2d", "numpy_T": "T", "matrix_H": "mT", "reshape_alias": "reshape"},
    **{"__and__": "and", "__or__": "or", "__xor__": "xor", "multiply": "mul", "divide": "div", "subtract": "sub"},
    **{f"{kind}max_pool{n}d_with_indices": f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **{"swapaxes": "transpose", "swapdims": "transpose", "moveaxis": "movedim"},
    **{"clip": "clamp", "concat": "cat", "concatenate": "cat", "true_divide": "div", "negative": "neg"},
}
"""Operators that another name computes, with the same arguments."""

_TAKEN = {
    "instance_norm": 8,
    "group_norm": 5,
    "scaled_dot_product_attention": 7,
    "softmax": 2,
    "log_softmax": 2,
    "expand": 2,
    "bmm": 2,
}
"""The number of arguments of an operator that its function takes; the others choose how it is computed."""


def _is_whole(value: ProgramValue, last_axes: int) -> bool:
    """Whether all but the last axes of a factor fold into one without a copy."""
    return value.dim() < 3 or can_view(value, (prod(value.shape[:-last_axes]), *value.shape[-last_axes:]))


def _matmul(given: ProgramValue, other: ProgramValue) -> Op:
    axes = given.dim(), other.dim()
    if min(axes) == 0 or max(axes) < 3:
        return MatrixProduct()
    last_axes = 1 if min(axes) < 3 else 2
    return MatrixProduct(copied=(not _is_whole(given, last_axes), not _is_whole(other, last_axes)))


def _extreme(function: str) -> Callable[..., Op]:
    def make(given: ProgramValue, other: object) -> Op:
        if not isinstance(other, ProgramValue):
            raise TypeError(function)  # a reduction
        return Elementwise(function)

    return make


def _instance_norm(
    given: ProgramValue, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, momentum: float, eps: float
) -> Op:
    return InstanceNorm2d(given.shape[1], eps, momentum, weight is not None, mean is not None)


MAKERS: dict[str, Callable[..., Op]] = {
    "matmul": _matmul,
    "einsum": lambda equation, *_, **__: Einsum(equation, ()),
    "max": _extreme("maximum"),
    "min": _extreme("minimum"),
    "instance_norm": _instance_norm,
    "dropout2d": lambda given, p=0.5, training=False: Dropout2d(p),
}
"""The op of each function whose entry in `trace.function_table` needs torch's tensors, or that has none there."""


def recurrent(call: FunctionCall) -> tuple[Op, tuple[ProgramValue, ...], tuple[ProgramValue, ...]] | None:
    """The op of a recurrent layer, its inputs and its weights; None for any other call, and for packed sequences."""
    if call.name not in ("lstm", "gru", "rnn_tanh", "rnn_relu") or len(call.args) != 9:
        return None
    given, states, weights, bias, layers, dropout, _, bidirectional, batch_first = call.args
    if not isinstance(bias, bool) or len(weights) < 2 or not all(isinstance(value, ProgramValue) for value in weights):
        return None
    gates = {"lstm": 4, "gru": 3}.get(call.name, 1)
    hidden, fed_back = weights[0].shape[0] // gates, weights[1].shape[1]
    op = Recurrent(
        call.name.upper() if "_" not in call.name else "RNN",
        weights[0].shape[1],
        hidden,
        layers,
        bias,
        batch_first,
        float(dropout),
        bidirectional,
        fed_back if fed_back != hidden else 0,
        call.name.partition("_")[2] or "tanh",
    )
    return op, (given, *(value for value in values_in(states) if not value.is_constant)), tuple(weights)
