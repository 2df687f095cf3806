"""The dtypes that torch's autocast gives on the CPU, for calls that run on the meta device, where it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from vggscope.trace.tensors import Arguments, Function, KeywordArguments, mapped_tensors, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def autocast_device() -> str:
    """Return the device on which autocast is on, empty if there is none."""
    if not _is_any_enabled()():
        return ""
    import torch

    enabled: Any = torch.is_autocast_enabled
    return "cuda" if enabled("cuda") else "cpu" if enabled("cpu") else ""


@cache
def _is_any_enabled() -> Callable[[], bool]:
    """Return torch's function that tells whether autocast is on for any device. A trace calls it for each function."""
    from torch._C import _is_any_autocast_enabled

    return _is_any_autocast_enabled


def result_dtypes(function: Function, args: Arguments, kwargs: KeywordArguments) -> tuple[torch.dtype, ...] | None:
    """Return the dtypes of what a call returns on the CPU; None if it fails there.

    The call runs on tensors without data that claim to be on the CPU, so that autocast chooses the dtypes.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    def on_cpu(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

    def on_cpu_if_device(value: object) -> object:
        return torch.device("cpu") if isinstance(value, torch.device) or value == "meta" else value

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            args, kwargs = mapped_tensors((args, kwargs), on_cpu)
            args, kwargs = tuple(map(on_cpu_if_device, args)), {k: on_cpu_if_device(v) for k, v in kwargs.items()}
            return tuple(tensor.dtype for tensor in tensors_in(function(*args, **kwargs)))
    except Exception:  # such as a call that reads values
        return None


def with_dtypes(dtypes: Sequence[torch.dtype], function: Function) -> Function:
    """Return the function with its results converted to these dtypes. It gets floating-point tensors of one dtype."""

    def call(*args: object, **kwargs: object) -> object:
        args, kwargs = _of_one_dtype(args, kwargs)
        result = function(*args, **kwargs)
        if len(dtypes) != len(tensors_in(result)):
            return result
        remaining = iter(dtypes)
        return mapped_tensors(result, lambda tensor: tensor.to(next(remaining)))

    return call


def _of_one_dtype(args: Arguments, kwargs: KeywordArguments) -> tuple[Arguments, KeywordArguments]:
    """Return a call's arguments with floating-point tensors of several dtypes converted to the widest."""
    import torch

    types = {tensor.dtype for tensor in tensors_in((args, kwargs)) if tensor.is_floating_point()}
    if len(types) < 2:
        return args, kwargs
    widest = reduce(torch.promote_types, types)
    converted = mapped_tensors((args, kwargs), lambda t: t.to(widest) if t.is_floating_point() else t)
    return converted[0], converted[1]


@contextmanager
def autocast_requests(note: Callable[[str], None]) -> Iterator[None]:
    """Call `note` with a device for which autocast is turned on within the block, though torch disables it here.

    Without CUDA torch disables autocast for it. One that is made before the block, as by a decorator, counts as on.
    """
    import torch
    from torch.amp.autocast_mode import autocast

    make, enter = autocast.__init__, autocast.__enter__
    off: WeakSet[autocast] = WeakSet()

    def made(
        self: autocast, device_type: str, dtype: Any = None, enabled: bool = True, *more: Any, **rest: Any
    ) -> None:
        make(self, device_type, dtype, enabled, *more, **rest)
        if not enabled:
            off.add(self)

    def entered(self: autocast) -> Any:
        if self.device == "cuda" and self not in off and not torch.cuda.is_available():
            note(self.device)
        return enter(self)  # type: ignore[no-untyped-call]

    autocast.__init__, autocast.__enter__ = made, entered  # type: ignore[method-assign]
    try:
        yield
    finally:
        autocast.__init__, autocast.__enter__ = make, enter  # type: ignore[method-assign]
