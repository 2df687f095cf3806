"""Tensors in the arguments and results of calls: collect them, and replace their device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from vggscope.errors import OptionError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Function = Callable[..., object]
Arguments = tuple[object, ...]
KeywordArguments = dict[str, object]

_PLAIN = frozenset({type(None), bool, int, float, str, slice})
"""Common types of arguments that hold no tensor."""

_AVAILABLE = ("cpu", "meta")


@cache
def plain_kinds() -> tuple[type[Tensor], type[nn.Parameter]]:
    """Return torch's own classes of tensors. A subclass may have code of its own."""
    from torch import Tensor
    from torch.nn import Parameter

    return Tensor, Parameter


def tensors_in(value: object) -> tuple[Tensor, ...]:
    """Return the tensors in nested arguments or results, from left to right."""
    kind, _ = plain_kinds()
    if isinstance(value, kind):
        return (value,)
    if type(value) in _PLAIN:
        return ()
    tensors: list[Tensor] = []
    _collect(value, kind, tensors)
    return tuple(tensors)


def _collect(value: object, kind: type[Tensor], tensors: list[Tensor]) -> None:
    for item in _items(value):
        if isinstance(item, kind):
            tensors.append(item)
        elif type(item) not in _PLAIN:
            _collect(item, kind, tensors)


def _items(value: Any) -> Iterable[object]:
    """Return what a value holds that may be or hold a tensor."""
    own = type(value)
    if own is tuple or own is list:
        items: Iterable[object] = value
    elif own is dict or isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (tuple, list)):
        items = value
    elif isinstance(value, (type, int, float, str)):
        items = ()
    else:
        items = (item for _, item in _fields(value))
    return items


def _fields(value: object) -> Iterable[tuple[str, object]]:
    """Return the fields of a dataclass or the attributes of a torch distribution; empty for other objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return [(item.name, getattr(value, item.name, None)) for item in fields(value)]
    if type(value).__module__.startswith("torch.distributions"):
        return list(vars(value).items())
    return ()


def named_tensors(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a nested value with their places: `x`, `images[0]`, `batch.mask`."""
    from torch import Tensor

    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping) or hasattr(value, "_asdict"):
        items = value.items() if isinstance(value, Mapping) else value._asdict().items()
        for key, item in items:
            yield from named_tensors(f"{name}.{key}", item)
    elif isinstance(value, (tuple, list)):
        for position, item in enumerate(value):
            yield from named_tensors(f"{name}[{position}]", item)
    elif value is not None and not isinstance(value, (type, int, float, str)):
        for key, item in _fields(value):
            yield from named_tensors(f"{name}.{key}", item)


def dtype_name(tensor: Tensor, own: str = "") -> str:
    """Return the name of a tensor's dtype, empty for `own`, which is a network's own dtype."""
    name = name_of_dtype(tensor.dtype)
    return "" if name == own else name


@lru_cache(maxsize=256)
def name_of_dtype(dtype: torch.dtype) -> str:
    """Return torch's name of a dtype: `float32`."""
    return str(dtype).removeprefix("torch.")


def dtype_named(name: str) -> torch.dtype:
    """Return torch's dtype of this name."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def converted_dtype(tensor: Tensor, floating: torch.dtype | None) -> torch.dtype:
    """Return a tensor's dtype after a conversion of floating-point tensors to `floating`; None keeps theirs."""
    return floating if floating is not None and tensor.is_floating_point() else tensor.dtype


def storage_of(tensor: Tensor) -> tuple[int | None, int]:
    """Return how many elements a tensor stores, None for as many as its shape has, and the bytes of its indices."""
    import torch

    if tensor.layout == torch.strided:
        per_byte = _ELEMENTS_PER_BYTE.get(dtype_name(tensor))
        return (None if per_byte is None else -(-tensor.numel() // per_byte)), 0
    if tensor.layout == torch.sparse_coo:
        indices: tuple[Tensor, ...] = (tensor._indices(),)
        return tensor._values().numel(), sum(i.numel() * i.element_size() for i in indices)
    names = ("crow", "col") if tensor.layout in (torch.sparse_csr, torch.sparse_bsr) else ("ccol", "row")
    indices = tuple(getattr(tensor, f"{name}_indices")() for name in names)
    return tensor.values().numel(), sum(i.numel() * i.element_size() for i in indices)


_ELEMENTS_PER_BYTE = {"quint4x2": 2, "quint2x4": 4}
"""The packed dtypes of which torch counts the elements one by one."""


def mapped_tensors(value: Any, function: Callable[[Tensor], object]) -> Any:
    """Return an argument with `function` applied to each tensor, also to those in tuples, lists, mappings and
    dataclasses, which are copied.
    """
    from torch import Tensor

    return _mapped(value, Tensor, function)


def with_tensors(value: Any) -> Any:
    """Return an argument with a tensor in place of each NumPy array, as torch.from_numpy makes it.

    Raises OptionError for an array that torch does not take.
    """
    numpy = sys.modules.get("numpy")
    return value if numpy is None else _mapped(value, numpy.ndarray, _from_array)


def _from_array(array: Any) -> Tensor:
    """Return the tensor of a NumPy array; a copy if the array is read-only or reversed."""
    from torch import from_numpy

    is_shareable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    try:
        return from_numpy(array if is_shareable else array.copy())
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"input_data holds a NumPy array of dtype {array.dtype}, which torch does not take",
            "convert it: x.astype('float32')",
        ) from error


def _mapped(value: Any, kind: type, function: Callable[[Any], object]) -> Any:
    """Return an argument with `function` applied to each value of a kind, also to those in containers."""
    if isinstance(value, kind):
        return function(value)
    if hasattr(value, "_fields"):
        return type(value)(*(_mapped(item, kind, function) for item in value))
    if type(value) in (tuple, list):
        return type(value)(_mapped(item, kind, function) for item in value)
    if isinstance(value, MutableMapping):
        copied = copy(value)
        copied.update({key: _mapped(item, kind, function) for key, item in value.items()})
        return copied
    if is_dataclass(value) and not isinstance(value, type):
        fresh = copy(value)
        for name, item in _fields(value):
            object.__setattr__(fresh, name, _mapped(item, kind, function))  # a frozen one too
        return fresh
    return value


def meta_weight(weight: Tensor) -> Tensor:
    """Return a parameter or a buffer on the meta device, with memory of its own and the strides that it has."""
    if not _is_dense(weight):
        return weight.detach().to("meta")
    import torch

    # On meta tensors, torch.empty_like takes ten times as long.
    return weight.detach().clone() if weight.is_meta else torch.empty_like(weight, device="meta")


def meta_copy(tensor: Tensor) -> Tensor:
    """Return a tensor on the meta device like this one, with memory of its own."""
    return empty_like_on_meta(tensor) if _is_dense(tensor) else tensor.detach().to("meta")


def _is_dense(tensor: Tensor) -> bool:
    import torch

    return type(tensor) in plain_kinds() and tensor.layout is torch.strided and not tensor.is_quantized


def empty_like_on_meta(tensor: Tensor) -> Tensor:
    """Return what torch.empty_like returns on the meta device, where that takes many times as long."""
    import torch

    if tensor.is_contiguous():
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return torch.empty_like(tensor, device="meta")


def on_meta(value: Any) -> Any:
    """Return an argument with its tensors moved to the meta device, also those in plain tuples and lists."""
    return mapped_tensors(value, lambda tensor: tensor if tensor.is_meta else tensor.to("meta"))


def with_values(value: Any, values: int) -> Any:
    """Return an argument with its meta tensors filled with a value on the CPU, and the meta device as the CPU."""
    from torch import device, full

    def filled(tensor: Tensor) -> Tensor:
        return full(tensor.shape, values, dtype=tensor.dtype) if tensor.is_meta else tensor

    return "cpu" if isinstance(value, device) or value == "meta" else mapped_tensors(value, filled)


def keep_on_device(
    function: Function, args: Arguments, kwargs: KeywordArguments, device: str
) -> tuple[Function, Arguments, KeywordArguments]:
    """Return a call with each accelerator in its arguments replaced.

    A method's tensor stays on its own device, and a new tensor is created on `device`. A model whose code names an
    accelerator thus runs on a machine without one.
    """
    name = getattr(function, "__name__", "")
    if name not in ("cuda", "to") and "device" not in kwargs:
        return function, args, kwargs
    from torch import Tensor

    first = args[0] if args else None
    if isinstance(first, Tensor):
        device = str(first.device)
    if name == "cuda":
        return Tensor.to, (first, device), {}
    args = tuple(device if name == "to" and _is_accelerator(value) else value for value in args)
    return function, args, {k: device if k == "device" and _is_accelerator(v) else v for k, v in kwargs.items()}


def _is_accelerator(value: object) -> bool:
    """Return whether a value is a device, or a device's name, other than the CPU and meta."""
    import torch

    if isinstance(value, torch.device):
        return value.type not in _AVAILABLE
    return isinstance(value, str) and value.partition(":")[0] not in _AVAILABLE
