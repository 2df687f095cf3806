"""Build a module without allocating its weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from vggscope.trace.constants import ConstantValues, described_when_built
from vggscope.trace.functions import function_name
from vggscope.trace.tensors import Function, keep_on_device, on_meta, tensors_in, with_values

if TYPE_CHECKING:
    from torch import nn

Module = TypeVar("Module", bound="nn.Module")

LARGE = 4096
"""A new tensor with at least this many elements is created on the meta device. Smaller tensors keep their data: a
constructor may read settings from them.
"""

_INITIALISERS = frozenset(
    {"normal_", "uniform_", "fill_", "zero_", "clamp_", "erfinv_", "add_", "sub_", "mul_", "div_", "log_", "neg_"}
)
"""Functions that change the values of a tensor. They are skipped on the meta device, where each takes milliseconds."""

_FACTORIES = frozenset({"empty", "zeros", "ones", "full", "rand", "randn"})


def without_data(build: Callable[[], Module]) -> Module:
    """Return the module that `build` returns, with its large tensors on the meta device.

    Restores the state of the random number generator.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class MetaMode(TorchFunctionMode):
        def __torch_function__(
            self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
        ) -> object:
            result = _call(func, args, kwargs or {})
            results = tensors_in(result)
            if results and results[0].is_meta:
                name, in_place = function_name(func)
                constants.computed(name, func, args, kwargs or {}, results, in_place)
            return result

    constants = ConstantValues(described_when_built(), {})
    with torch.random.fork_rng(devices=[]), _without_downloads(), MetaMode():
        return build()


@contextmanager
def _without_downloads() -> Iterator[None]:
    """Skip the download of pretrained weights: it returns an empty dict, which loads as the module's own state.

    Replaces the code of the functions that download, because many modules import them by name.
    """
    from torch import hub, nn

    timm = sys.modules.get("timm.models._builder")
    downloads = (hub.load_state_dict_from_url, *((timm.load_pretrained,) if timm else ()))
    codes, load = [function.__code__ for function in downloads], nn.Module.load_state_dict

    def load_if_any(module: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return load(module, state_dict or module.state_dict(), *args, **kwargs)

    nn.Module.load_state_dict = load_if_any  # type: ignore[assignment,method-assign]
    try:
        for function in downloads:
            function.__code__ = _empty_state.__code__
        yield
    finally:
        for function, code in zip(downloads, codes):
            function.__code__ = code
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def _empty_state(*_args: object, **_kwargs: object) -> dict[str, object]:
    return {}


def _call(function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    function, args, kwargs = keep_on_device(function, args, kwargs, "cpu")
    name = getattr(function, "__name__", "")
    if name in _FACTORIES:
        result = function(*args, **{**kwargs, "device": "meta"})
        return result if sum(t.numel() for t in tensors_in(result)) >= LARGE else function(*args, **kwargs)
    tensors = tensors_in((args, kwargs))
    if name in _INITIALISERS and len(tensors) == 1 and tensors[0].is_meta:
        return tensors[0]
    if any(tensor.is_meta for tensor in tensors):
        args, kwargs = tuple(map(on_meta, args)), {key: on_meta(value) for key, value in kwargs.items()}
        try:
            return function(*args, **kwargs)
        except NotImplementedError:
            # torch has no meta kernel for some decompositions. Their values are those of a matrix of ones.
            return on_meta(function(*with_values(args, 1), **with_values(kwargs, 1)))
    return function(*args, **kwargs)
