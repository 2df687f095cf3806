"""Refuse calls that mix dtypes as the CPU's and the GPU's kernels do; the meta device's kernels do not check them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vggscope.trace.tensors import Function

if TYPE_CHECKING:
    from torch import Tensor

_PRODUCTS = frozenset(
    {
        *("linear", "matmul", "mm", "addmm", "mv", "addmv", "dot", "vdot", "inner", "bmm", "baddbmm", "addbmm"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    }
)
"""Functions whose tensors have one dtype."""

_NORMALIZATIONS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm"})
"""Functions whose weights have the dtype of the first tensor, or float32 beside a tensor of 16 bits."""

_QUERY_AND_WEIGHT = (0, 5)
"""The arguments of `multi_head_attention_forward` that are multiplied by each other."""


def require_one_dtype(function: Function, args: Sequence[object], tensors: Sequence[Tensor]) -> None:
    """Raise RuntimeError for a call whose tensors mix dtypes that torch's kernels do not promote.

    `tensors` are all tensors among the arguments. Autocast converts them, so that any mix is accepted within it.
    """
    name = getattr(function, "__name__", "").strip("_").replace("rmatmul", "matmul")
    if name == "multi_head_attention_forward":
        tensors = _tensors_at(args, _QUERY_AND_WEIGHT)
    elif name not in _PRODUCTS and name not in _NORMALIZATIONS:
        return
    other = next((tensor for tensor in tensors[1:] if tensor.dtype != tensors[0].dtype), None)
    if other is None or not all(map(_is_plain, tensors)) or autocast_device():
        return
    if name in _NORMALIZATIONS and (tensors[0].element_size() == 2 and str(other.dtype) == "torch.float32"):
        return
    names = [str(tensor.dtype).removeprefix("torch.") for tensor in (tensors[0], other)]
    raise RuntimeError(f"the tensors must have the same dtype, but are {names[0]} and {names[1]}")


def _tensors_at(args: Sequence[object], places: Sequence[int]) -> list[Tensor]:
    """Return the tensors at these places of the arguments."""
    from torch import Tensor

    return [value for place, value in enumerate(args) if place in places and isinstance(value, Tensor)]


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has no class of its own, such as one that converts itself."""
    from torch import Tensor, nn

    return type(tensor) in (Tensor, nn.Parameter)


def autocast_device() -> str:
    """Return the device on which autocast is on, empty if there is none."""
    import torch

    enabled: Any = torch.is_autocast_enabled
    return next((device for device in ("cuda", "cpu") if enabled(device)), "")
