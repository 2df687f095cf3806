"""The parts of a module and their tensors, as torch's own methods list them, in one pass without nested generators.

A trace lists them twenty times. `nn.Module.named_modules` passes each part through a generator for each level above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def named_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a module and its parts with their paths, each once, as `named_modules` does.

    >>> from torch import nn
    >>> relu = nn.ReLU()
    >>> [path for path, _ in named_parts(nn.Sequential(nn.Sequential(relu), relu))]
    ['', '0', '0.0']
    """
    parts, is_usual = _listed(module)
    return list(parts) if is_usual else list(module.named_modules())


@contextmanager
def listed_once(module: nn.Module) -> Iterator[None]:
    """List the parts of a module once within the block, between whose runs of forward they are the same."""
    known = _KNOWN.get(id(module))
    _KNOWN[id(module)] = known or _list(module)
    try:
        yield
    finally:
        if known is None:
            del _KNOWN[id(module)]


_KNOWN: dict[int, tuple[list[tuple[str, nn.Module]], bool]] = {}
"""The parts of the modules in a block of `listed_once`, by their ids."""


def _listed(module: nn.Module) -> tuple[list[tuple[str, nn.Module]], bool]:
    """Return a module and its parts with their paths, and whether none of their classes lists others than its own."""
    return _KNOWN.get(id(module)) or _list(module)


def _list(module: nn.Module) -> tuple[list[tuple[str, nn.Module]], bool]:
    found: list[tuple[str, nn.Module]] = []
    visited: set[nn.Module] = set()
    pending = [("", module)]
    while pending:
        path, part = pending.pop()
        if part in visited:
            continue
        visited.add(part)
        found.append((path, part))
        if part._modules:
            prefix = f"{path}." if path else ""
            inside = [(f"{prefix}{name}", child) for name, child in part._modules.items() if child is not None]
            pending += reversed(inside)
    kinds: set[Any] = {type(part) for part in visited}
    return found, all(map(_has_methods_of_torch, kinds))


def parts_of(module: nn.Module) -> list[nn.Module]:
    """Return a module and its parts, each once, as `modules` does."""
    return [part for _, part in named_parts(module)]


def has_usual_parts(module: nn.Module) -> bool:
    """Return whether none of the classes of a module's parts lists its parts and tensors in a way of its own."""
    return _listed(module)[1]


def parameters_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters of a module and its parts by name, each once, as `named_parameters` does.

    >>> from torch import nn
    >>> linear = nn.Linear(2, 3)
    >>> [name for name, _ in parameters_of(nn.Sequential(linear, linear))]
    ['0.weight', '0.bias']
    """
    parts, is_usual = _listed(module)
    if not is_usual:
        return list(module.named_parameters())
    return _named([(path, part._parameters) for path, part in parts if part._parameters])


def buffers_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the buffers of a module and its parts by name, each once, as `named_buffers` does."""
    parts, is_usual = _listed(module)
    if not is_usual:
        return list(module.named_buffers())
    return _named([(path, part._buffers) for path, part in parts if part._buffers])


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return the parameters of a module and its parts, then their buffers."""
    parts, is_usual = _listed(module)
    if not is_usual:
        return [*module.parameters(), *module.buffers()]
    registered: list[tuple[str, Any]] = [(path, part._parameters) for path, part in parts if part._parameters]
    registered += [(path, part._buffers) for path, part in parts if part._buffers]
    return [tensor for _, tensor in _named(registered)]


def _named(registered: list[tuple[str, Any]]) -> list[tuple[str, Tensor]]:
    """Return the tensors of parts with their names, each once."""
    visited: set[int] = set()
    found: list[tuple[str, Tensor]] = []
    for path, tensors in registered:
        prefix = f"{path}." if path else ""
        for name, tensor in tensors.items():
            if tensor is not None and id(tensor) not in visited:
                visited.add(id(tensor))
                found.append((prefix + name, tensor))
    return found


@lru_cache(maxsize=4096)
def _has_methods_of_torch(kind: type) -> bool:
    """Return whether a class lists its parts and tensors by the methods of nn.Module, as nearly all do."""
    from torch import nn

    return all(getattr(kind, name) is getattr(nn.Module, name) for name in _METHODS)


_METHODS = (
    *("modules", "named_modules", "children", "named_children"),
    *("parameters", "named_parameters", "buffers", "named_buffers", "_named_members"),
)
