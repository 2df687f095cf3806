"""The tensors among the arguments of a call, or in what it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, kind, found)
