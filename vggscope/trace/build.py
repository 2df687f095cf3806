"""Makes a module without allocating its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from vggscope.tensors import tensors_in
from vggscope.trace.functions import Function
from vggscope.trace.recorder import on_meta

if TYPE_CHECKING:
    from torch import nn

Module = TypeVar("Module", bound="nn.Module")

LARGE = 4096
"""From this many elements on, a new tensor gets no data. Smaller ones are real: a model may read its own settings
from them while it is built.
"""

_INITIALISERS = frozenset({"normal_", "uniform_", "fill_", "zero_"})
"""What writes into a tensor: there is nothing to write, and torch takes half a millisecond for it."""

_FACTORIES = frozenset({"empty", "zeros", "ones", "full", "rand", "randn"})


def without_data(build: Callable[[], Module]) -> Module:
    """What `build` returns, its large tensors without data. The random numbers that it draws are put back."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
        ) -> object:
            return _call(func, args, kwargs or {})

    with torch.random.fork_rng(devices=[]), Mode():
        return build()


def _call(function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    name = getattr(function, "__name__", "")
    if name in _FACTORIES:
        made = function(*args, **{**kwargs, "device": "meta"})
        return made if _elements(made) >= LARGE else function(*args, **kwargs)
    tensors = tensors_in((args, kwargs))
    if name in _INITIALISERS and tensors and all(tensor.is_meta for tensor in tensors):
        return tensors[0]
    if any(tensor.is_meta for tensor in tensors):
        args, kwargs = tuple(map(on_meta, args)), {key: on_meta(value) for key, value in kwargs.items()}
    return function(*args, **kwargs)


def _elements(made: object) -> int:
    return sum(tensor.numel() for tensor in tensors_in(made))
