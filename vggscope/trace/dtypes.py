"""Refuse dtypes and offsets that the CPU's and the GPU's kernels refuse; those of the meta device do not check them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vggscope.trace.autocast import autocast_device
from vggscope.trace.tensors import Function, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

_PRODUCTS = frozenset(
    {
        *("linear", "matmul", "mm", "addmm", "mv", "addmv", "dot", "vdot", "inner", "bmm", "baddbmm", "addbmm"),
        *(f"{name}{n}d" for name in ("conv", "conv_transpose") for n in (1, 2, 3)),
        *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    }
)
"""Functions whose tensors have one dtype."""

_NORMALIZATIONS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm"})
"""Functions whose weights have the dtype of the first tensor, or float32 beside a tensor of 16 bits."""

_FLOATING = frozenset(
    {
        *("gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "celu", "log_sigmoid", "softshrink"),
        *("hardshrink", "rrelu", "glu", "std", "var", "grid_sample", "unfold", "fold"),
        *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
    }
)
"""Functions without a kernel for integers."""

_SOFTMAX = frozenset({"softmax", "log_softmax", "softmin"})
"""Functions without a kernel for integers that convert their input if they are given a dtype."""

_LOOKUPS = {"embedding": 0, "index_select": 2}
"""The argument that is an index, of functions that take no other kind of tensor there."""

_QUERY_AND_WEIGHT = (0, 5)
"""The arguments of `multi_head_attention_forward` that are multiplied by each other."""


def require_dtypes(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object], tensors: Sequence[Tensor]
) -> None:
    """Raise RuntimeError for a call with dtypes that torch's kernels neither accept nor promote, or with offsets of
    bags that do not fit the indices.

    `tensors` are all tensors among the arguments. Autocast converts them, so that any mix is accepted within it.
    """
    name = checked_name(function)
    if not name:
        return
    if name in _LOOKUPS:
        _require_index(name, args, kwargs)
    elif name in _FLOATING or (name in _SOFTMAX and kwargs.get("dtype") is None):
        _require_floating(tensors[:1])
    elif name == "interpolate":
        _require_floating([tensor for tensor in tensors[:1] if dtype_name(tensor) != "uint8"])
    elif name == "multi_head_attention_forward":
        _require_one(name, _tensors_at(args, _QUERY_AND_WEIGHT))
    elif name == "embedding_bag":
        _require_indices(tensors[0], args[2] if len(args) > 2 else kwargs.get("offsets"))
    elif name in _PRODUCTS or name in _NORMALIZATIONS:
        _require_one(name, tensors)


@lru_cache(maxsize=4096)
def checked_name(function: Function) -> str:
    """Return the name of a function whose dtypes are checked, empty for any other."""
    name: str = getattr(function, "__name__", "").strip("_").replace("rmatmul", "matmul")
    others = (*_LOOKUPS, "interpolate", "multi_head_attention_forward", "embedding_bag")
    return name if name in _PRODUCTS | _NORMALIZATIONS | _FLOATING | _SOFTMAX or name in others else ""


def _require_one(name: str, tensors: Sequence[Tensor]) -> None:
    """Raise RuntimeError if the tensors mix dtypes."""
    other = next((tensor for tensor in tensors[1:] if tensor.dtype != tensors[0].dtype), None)
    if other is None or not all(map(_is_plain, tensors)) or autocast_device():
        return
    if name in _NORMALIZATIONS and (tensors[0].element_size() == 2 and dtype_name(other) == "float32"):
        return
    names = " and ".join(map(dtype_name, (tensors[0], other)))
    raise RuntimeError(f"the tensors must have the same dtype, but are {names}")


def _require_floating(tensors: Sequence[Tensor]) -> None:
    """Raise RuntimeError if a tensor holds integers."""
    for tensor in tensors:
        if _is_plain(tensor) and not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized):
            raise RuntimeError(f"the dtype must be a floating-point one, not {dtype_name(tensor)}")


def _require_index(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Raise RuntimeError if what a table is looked up with is no tensor of integers."""
    place = _LOOKUPS[name]
    index: Any = args[place] if place < len(args) else kwargs.get("index", kwargs.get("input"))
    if index is not None and dtype_name(index) not in ("int64", "int32"):
        raise RuntimeError(f"the dtype of the indices must be int64 or int32, not {dtype_name(index)}")


def _require_indices(indices: Tensor, offsets: Any) -> None:
    """Raise RuntimeError if a single index is cut at several offsets, as the first of a flat batch of bags is."""
    if offsets is not None and indices.dim() == 1 and indices.numel() == 1 < offsets.numel():
        raise RuntimeError(f"{offsets.numel()} offsets are too many for one index")


def _tensors_at(args: Sequence[object], places: Sequence[int]) -> list[Tensor]:
    """Return the tensors at these places of the arguments."""
    from torch import Tensor

    return [value for place, value in enumerate(args) if place in places and isinstance(value, Tensor)]


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has no class of its own, such as one that converts itself."""
    from torch import Tensor, nn

    return type(tensor) in (Tensor, nn.Parameter)
