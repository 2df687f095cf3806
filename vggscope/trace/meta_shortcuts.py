"""Results of common functions at evaluation, computed without torch's meta kernels.

torch takes up to milliseconds for a simple shape on the meta device, because it decomposes the function. Each rule here
must agree with torch in shape, strides and dtype: tests/test_trace.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vggscope.ops.base import Shape, numel
from vggscope.trace.tensors import Function, empty_like_on_meta

if TYPE_CHECKING:
    from torch import Tensor


def shortcut_result(function: Function, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor | None:
    """Return an empty tensor like the function's result; None if no rule covers the call or torch would raise."""
    import torch

    name, rule = _rule_of(function)
    if rule is None or not args or not isinstance(args[0], torch.Tensor):
        return None
    values = args[0]
    try:
        shape = rule(*args, **kwargs)
    except (AttributeError, TypeError):
        return None
    if shape is None:
        return None
    if name in _ELEMENTWISE:
        return empty_like_on_meta(values)
    return torch.empty(shape, dtype=values.dtype, device=values.device)


def has_rule(function: Function) -> bool:
    """Return whether a rule may cover the calls of a function."""
    return _rule_of(function)[1] is not None


@lru_cache(maxsize=4096)
def _rule_of(function: Function) -> tuple[str, Callable[..., Shape | None] | None]:
    """Return a function's name and its rule, None if it has none."""
    name = getattr(function, "__name__", "")
    return name, _RULES.get(name)


def _batch_norm(values: Tensor, mean: Tensor, *others: object, training: bool = True, **more: object) -> Shape | None:
    return _same(values) if not training and values.shape[1:2] == mean.shape and values.dtype == mean.dtype else None


def _layer_norm(
    values: Tensor, normalized_shape: Shape, weight: Tensor | None = None, *others: object, **more: object
) -> Shape | None:
    fits = tuple(values.shape[-len(normalized_shape) :]) == tuple(normalized_shape)
    return _same(values) if fits and (weight is None or weight.dtype == values.dtype) else None


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Shape | None:
    is_plain = values.is_contiguous() and values.dim() > 0 and values.dtype == weight.dtype
    return (*values.shape[:-1], weight.shape[0]) if is_plain and values.shape[-1] == weight.shape[1] else None


def _convolution(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
    /,
) -> Shape | None:
    sides: Any = (stride, padding, dilation)
    if {*map(type, sides)} != {tuple} or {*map(len, sides)} != {len("HW")} or type(groups) is not int:
        return None
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        return None
    if not values.is_floating_point() or values.dtype != weight.dtype or not weight.is_contiguous():
        return None
    return _convolved(values.shape, values.stride(), weight.shape, *sides, groups)


@lru_cache(maxsize=4096)
def _convolved(
    given: Shape, given_strides: Shape, weight: Shape, strides: Shape, paddings: Shape, dilations: Shape, groups: int
) -> Shape | None:
    """Return the shape of a convolution; None if torch would raise, or may choose another memory layout."""
    if len(given) != len("NCHW") or len(weight) != len("NCHW") or not all((*given, *weight)):
        return None
    # The strides of axes with one element decide whether torch takes the channels for the last axis.
    if given_strides != (numel(given[1:]), numel(given[2:]), given[3], 1) or min(*strides, *dilations, groups) < 1:
        return None
    if min(paddings) < 0 or given[1] != weight[1] * groups or weight[0] % groups:
        return None
    spans = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(weight[2:], dilations)]
    rooms = [size + 2 * padding - span for size, padding, span in zip(given[2:], paddings, spans)]
    return (
        (given[0], weight[0], *[room // stride + 1 for room, stride in zip(rooms, strides)])
        if min(rooms) >= 0
        else None
    )


def _adaptive_average(values: Tensor, output_size: object) -> Shape | None:
    if values.dim() != len("NCHW") or not values.is_contiguous() or not values.is_floating_point():
        return None
    sides = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    height, width = (own if side is None else int(side) for own, side in zip(values.shape[2:], sides))
    return (*values.shape[:2], height, width) if min(height, width) > 0 and len(sides) == len("HW") else None


def _mean(values: Tensor, dim: object = None, keepdim: bool = False) -> Shape | None:
    axes = dim if isinstance(dim, (tuple, list)) else (dim,)
    if not values.is_contiguous() or not values.is_floating_point() or not axes or {*map(type, axes)} != {int}:
        return None
    gone = {axis % values.dim() for axis in axes if -values.dim() <= axis < values.dim()}
    if len(gone) < len(axes):
        return None
    return tuple(1 if axis in gone else size for axis, size in enumerate(values.shape) if keepdim or axis not in gone)


def _gelu(values: Tensor, approximate: str = "none") -> Shape | None:
    return _unary(values)


def _unary(values: Tensor, inplace: bool = False) -> Shape | None:
    import torch

    return None if inplace or values.layout != torch.strided or not values.is_floating_point() else _same(values)


def _clamp(values: Tensor, min: float | None = None, max: float | None = None) -> Shape | None:
    bounds = [bound for bound in (min, max) if bound is not None]
    return _unary(values) if bounds and all(type(bound) in (int, float) for bound in bounds) else None


def _binary(values: Tensor, other: Tensor | float) -> Shape | None:
    if isinstance(other, (int, float)):
        return _unary(values)
    is_alike = (values.shape, values.stride(), values.dtype) == (other.shape, other.stride(), other.dtype)
    return _unary(values) if is_alike and type(values) is type(other) else None


def _same(values: Tensor) -> Shape:
    return tuple(values.shape)


_ELEMENTWISE: Mapping[str, Callable[..., Shape | None]] = {
    "batch_norm": _batch_norm,
    "relu": _unary,
    "gelu": _gelu,
    **dict.fromkeys(("silu", "hardswish", "hardsigmoid", "sigmoid", "neg", "exp"), _unary),
    "clamp": _clamp,
    **dict.fromkeys(("add", "sub", "mul"), _binary),
}
"""Functions whose result has the shape, strides and dtype of their first argument."""

_RULES: Mapping[str, Callable[..., Shape | None]] = {
    **_ELEMENTWISE,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "conv2d": _convolution,
    "adaptive_avg_pool2d": _adaptive_average,
    "mean": _mean,
}
"""The functions above, and those whose result is contiguous."""
