"""Makes a module without allocating its weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from vggscope.trace.devices import keep_on_device
from vggscope.trace.functions import Function
from vggscope.trace.recorder import on_meta
from vggscope.trace.tensors import tensors_in

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

    with torch.random.fork_rng(devices=[]), _unpublished(), Mode():
        return build()


@contextmanager
def _unpublished() -> Iterator[None]:
    """Published weights are not fetched: they come as an empty dict, and to load that leaves a module as it is.

    A function that fetches them is known by its name in many modules, to all of which its code is common.
    """
    from torch import hub, nn

    timm = sys.modules.get("timm.models._builder")
    fetching = (hub.load_state_dict_from_url, *((timm.load_pretrained,) if timm else ()))
    codes, load = [function.__code__ for function in fetching], nn.Module.load_state_dict

    def loaded(module: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return load(module, state_dict or module.state_dict(), *args, **kwargs)

    nn.Module.load_state_dict = loaded  # type: ignore[assignment,method-assign]
    try:
        for function in fetching:
            function.__code__ = _nothing.__code__
        yield
    finally:
        for function, code in zip(fetching, codes):
            function.__code__ = code
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def _nothing(*_args: object, **_kwargs: object) -> dict[str, object]:
    return {}


def _call(function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    function, args, kwargs = keep_on_device(function, args, kwargs, "cpu")
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
