"""The tensors among the arguments of a call, or in what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


_PLAIN = (int, float, str, type, slice)


def tensors_in(value: object) -> tuple[Tensor, ...]:
    """The tensors in nested arguments or results, from left to right."""
    from torch import Tensor

    found: list[Tensor] = []
    _collect(value, Tensor, found)
    return tuple(found)


def _collect(value: object, kind: type[Tensor], found: list[Tensor]) -> None:
    if isinstance(value, kind):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, kind, found)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, kind, found)
    elif value is not None and not isinstance(value, _PLAIN):
        for item in _parts(value):
            _collect(item, kind, found)


def _parts(value: object) -> Iterable[object]:
    """What an object with fields holds: a dataclass's fields, a distribution's parameters."""
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, item.name, None) for item in fields(value)]
    if type(value).__module__.startswith("torch.distributions"):
        return list(vars(value).values())
    return ()
