"""Results of common functions at evaluation, computed without torch's meta kernels.

torch takes up to milliseconds for a simple shape on the meta device, because it decomposes the function. Each rule here
must agree with torch in shape, strides and dtype: tests/test_trace.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vggscope.ops.base import Shape
from vggscope.trace.tensors import Function

if TYPE_CHECKING:
    from torch import Tensor


def shortcut_result(function: Function, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor | None:
    """Return an empty tensor like the function's result; None if no rule covers the call or torch would raise."""
    from torch import Tensor, empty

    rule = _RULES.get(getattr(function, "__name__", ""))
    if rule is None or not args or not isinstance(args[0], Tensor) or not args[0].is_contiguous():
        return None
    try:
        shape = rule(*args, **kwargs)
    except (AttributeError, TypeError):
        return None
    return None if shape is None else empty(shape, dtype=args[0].dtype, device=args[0].device)


def _batch_norm(values: Tensor, mean: Tensor, *others: object, training: bool = True, **more: object) -> Shape | None:
    return _same(values) if not training and values.shape[1:2] == mean.shape and values.dtype == mean.dtype else None


def _layer_norm(
    values: Tensor, normalized_shape: Shape, weight: Tensor | None = None, *others: object, **more: object
) -> Shape | None:
    fits = tuple(values.shape[-len(normalized_shape) :]) == tuple(normalized_shape)
    return _same(values) if fits and (weight is None or weight.dtype == values.dtype) else None


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Shape | None:
    fits = values.dim() > 0 and values.shape[-1] == weight.shape[1] and values.dtype == weight.dtype
    return (*values.shape[:-1], weight.shape[0]) if fits else None


def _relu(values: Tensor, inplace: bool = False) -> Shape | None:
    return None if inplace else _same(values)


def _gelu(values: Tensor, approximate: str = "none") -> Shape:
    return _same(values)


def _same(values: Tensor) -> Shape:
    return tuple(values.shape)


_RULES: Mapping[str, Callable[..., Shape | None]] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "relu": _relu,
    "gelu": _gelu,
}
