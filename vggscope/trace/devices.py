"""An accelerator that a network's code names need not be there: where nothing is computed, nothing moves to it."""

from __future__ import annotations

from collections.abc import Callable

Function = Callable[..., object]
Arguments = tuple[object, ...]
Named = dict[str, object]

_HERE = ("cpu", "meta")


def keep_on_device(
    function: Function, args: Arguments, kwargs: Named, device: str
) -> tuple[Function, Arguments, Named]:
    """A call as it stands, or one that leaves its tensor where it is, or makes one on `device`, where it names an
    accelerator.
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
    moved = tuple(device if name == "to" and _is_elsewhere(value) else value for value in args)
    return function, moved, {k: device if k == "device" and _is_elsewhere(v) else v for k, v in kwargs.items()}


def _is_elsewhere(value: object) -> bool:
    """Whether it is a device, or the text of one, that is no CPU."""
    import torch

    if isinstance(value, torch.device):
        return value.type not in _HERE
    return isinstance(value, str) and value.partition(":")[0] not in _HERE
