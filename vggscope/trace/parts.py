"""The parts of a module and their tensors, as torch's own methods list them, in one pass without nested generators.

A trace lists them twenty times. `nn.Module.named_modules` passes each part through a generator for each level above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


RegisteredTensor = tuple[str, "Tensor", dict[str, Any], str]
"""The path of a tensor in a module, the tensor, the dict of a part that holds it, and its name there."""


class _Listing:
    """The parts of a module with their paths, and their tensors, each once.

    `is_usual`: none of the parts' classes lists its parts and tensors in a way of its own.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.parts = _parts(module)
        kinds: set[Any] = {type(part) for _, part in self.parts}
        self.is_usual = all(map(_has_methods_of_torch, kinds))
        if not self.is_usual:
            self.parts = list(module.named_modules())

    @cached_property
    def registered_parameters(self) -> list[RegisteredTensor]:
        """The registrations of parameters, of which several may be of one tensor."""
        return _registrations([(path, part._parameters) for path, part in self.parts if part._parameters])

    @cached_property
    def registered_buffers(self) -> list[RegisteredTensor]:
        """The registrations of buffers."""
        return _registrations([(path, part._buffers) for path, part in self.parts if part._buffers])

    @cached_property
    def parameters(self) -> list[tuple[str, Tensor]]:
        """The parameters by name."""
        return _named(self.registered_parameters) if self.is_usual else list(self._module.named_parameters())

    @cached_property
    def buffers(self) -> list[tuple[str, Tensor]]:
        """The buffers by name."""
        return _named(self.registered_buffers) if self.is_usual else list(self._module.named_buffers())


_KNOWN: dict[int, _Listing] = {}
"""What is listed of the modules in a block of `listed_once`, by their ids."""


@contextmanager
def listed_once(module: nn.Module) -> Iterator[None]:
    """List the parts of a module and their tensors once within the block, in which they are the same between runs.

    A run of forward replaces the tensors, and puts them back: nothing is to be listed while it runs.
    """
    is_first = id(module) not in _KNOWN
    if is_first:
        _KNOWN[id(module)] = _Listing(module)
    try:
        yield
    finally:
        if is_first:
            del _KNOWN[id(module)]


def _listed(module: nn.Module) -> _Listing:
    return _KNOWN.get(id(module)) or _Listing(module)


def named_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a module and its parts with their paths, each once, as `named_modules` does.

    >>> from torch import nn
    >>> relu = nn.ReLU()
    >>> [path for path, _ in named_parts(nn.Sequential(nn.Sequential(relu), relu))]
    ['', '0', '0.0']
    """
    return list(_listed(module).parts)


def parts_of(module: nn.Module) -> list[nn.Module]:
    """Return a module and its parts, each once, as `modules` does."""
    return [part for _, part in _listed(module).parts]


def has_usual_parts(module: nn.Module) -> bool:
    """Return whether none of the classes of a module's parts lists its parts and tensors in a way of its own."""
    return _listed(module).is_usual


def parameters_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters of a module and its parts by name, each once, as `named_parameters` does.

    >>> from torch import nn
    >>> linear = nn.Linear(2, 3)
    >>> [name for name, _ in parameters_of(nn.Sequential(linear, linear))]
    ['0.weight', '0.bias']
    """
    return list(_listed(module).parameters)


def buffers_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the buffers of a module and its parts by name, each once, as `named_buffers` does."""
    return list(_listed(module).buffers)


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return the parameters of a module and its parts, then their buffers."""
    listed = _listed(module)
    return [tensor for named in (listed.parameters, listed.buffers) for _, tensor in named]


def registered_tensors(module: nn.Module) -> list[RegisteredTensor]:
    """Return the registrations of a module's parameters, then those of its buffers."""
    listed = _listed(module)
    return [*listed.registered_parameters, *listed.registered_buffers]


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a module and its parts with their paths, each once, as the methods of nn.Module list them."""
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
    return found


def _registrations(holders: list[tuple[str, dict[str, Any]]]) -> list[RegisteredTensor]:
    """Return what is registered in the dicts of parts, which stand with the paths of the parts."""
    return [
        (f"{path}.{name}" if path else name, tensor, holder, name)
        for path, holder in holders
        for name, tensor in holder.items()
        if tensor is not None
    ]


def _named(registered: list[RegisteredTensor]) -> list[tuple[str, Tensor]]:
    """Return the tensors with their first names, each once."""
    visited: set[int] = set()
    found: list[tuple[str, Tensor]] = []
    for path, tensor, *_ in registered:
        if id(tensor) not in visited:
            visited.add(id(tensor))
            found.append((path, tensor))
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
