"""Restore a module after a forward pass.

A forward may store tensors in plain attributes, in lists and in helper objects: masks, anchors, caches. After a run on
tensors without data such an attribute would hold a meta tensor, and the module would fail on its next real input.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from vggscope.trace.parts import parts_of, tensors_of
from vggscope.trace.tensors import plain_kinds

if TYPE_CHECKING:
    from torch import Tensor, nn

_PLAIN = frozenset(
    {str, bytes, int, float, complex, bool, type(None), type, FunctionType, BuiltinFunctionType, ModuleType}
)
"""Types whose values cannot change."""

_CONTAINERS = frozenset({dict, OrderedDict, set, list})
"""The types of containers that a module of torch has, most of which are empty."""


@contextmanager
def preserved(module: nn.Module, *, with_data: bool) -> Iterator[Callable[[], None]]:
    """Restore every attribute and container reachable from `module` when the block ends, or the given function is
    called.

    `with_data` also restores the values of tensors in plain attributes, which a run on real data may overwrite.
    Parameters and buffers are not copied: a run replaces them by other tensors.
    """
    snapshot = _Snapshot(with_data)
    snapshot.add(module)
    try:
        yield snapshot.restore
    finally:
        snapshot.restore()


def copy_containers(module: nn.Module) -> None:
    """Replace the lists, dicts and sets in plain attributes of a module's parts by copies, to be called in `preserved`.

    `preserved` refers to the lists that it restores. A list that forward replaces could not free its tensors.
    Containers in other containers and in the user's helper objects are replaced too.
    """
    from torch import nn

    own, copies = vars(nn.Module()).keys(), dict[int, Any]()
    for part in parts_of(module):
        attributes = vars(part)
        for name in attributes.keys() - own:
            attributes[name] = _with_copies(attributes[name], copies)


def _with_copies(value: Any, copies: dict[int, Any]) -> Any:
    """Return a container as a copy, or a helper object with its containers as copies; any other value as it is."""
    if id(value) in copies:
        return copies[id(value)]
    if type(value) in (list, deque):
        copy = copies[id(value)] = value.copy()
        for place, item in enumerate(value):
            copy[place] = _with_copies(item, copies)
    elif type(value) is dict:
        copy = copies[id(value)] = {}
        copy.update((key, _with_copies(item, copies)) for key, item in value.items())
    elif type(value) is set:
        copy = copies[id(value)] = value.copy()
    elif is_helper(value):
        copies[id(value)] = copy = value
        for name, item in attributes_of(value).items():
            object.__setattr__(value, name, _with_copies(item, copies))
    else:
        return value
    return copy


def stored_tensors(module: nn.Module) -> list[Tensor]:
    """Return the tensors in plain attributes of a module's parts, in containers and in helper objects there."""
    from torch import Tensor

    values = map(vars, parts_of(module))
    pending = deque(
        value
        for own in values
        for name, value in own.items()
        if type(value) not in _PLAIN and name not in _REGISTERED and (type(value) not in _CONTAINERS or value)
    )
    tensors, visited = [], set[int]()
    while pending:
        value = pending.popleft()
        if type(value) in _PLAIN or id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif is_helper(value):
            pending.extend(attributes_of(value).values())
    return tensors


_REGISTERED = ("_parameters", "_buffers", "_modules")


def is_helper(value: object) -> bool:
    """Return whether a value is an instance of a user's class that is no module of torch."""
    from torch import Tensor, nn

    if type(value) in _PLAIN or isinstance(value, (type, nn.Module, Tensor, dict, list, set, tuple, frozenset)):
        return False
    library = type(value).__module__.partition(".")[0]
    return library != "torch" and library not in sys.stdlib_module_names


def attributes_of(value: object) -> dict[str, Any]:
    """Return the attributes that an instance holds, also those in slots."""
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {**slots, **getattr(value, "__dict__", {})}


@lru_cache(maxsize=4096)
def _has_slots(kind: type) -> bool:
    return any(map(_slots, kind.__mro__))


def _slots(kind: type) -> tuple[str, ...]:
    given = vars(kind).get("__slots__", ())
    names = (given,) if isinstance(given, str) else tuple(given)
    private = f"_{kind.__name__.lstrip('_')}"  # with which Python begins the name of a private slot
    return tuple(f"{private}{name}" if name.startswith("__") else name for name in names if not name.endswith("__"))


class _Snapshot:
    """The contents of every container and object reachable from a module.

    A module has some twenty containers, nearly all of them empty: of those, nothing is copied or compared. Each other
    dict is kept as one copy, since thousands of small objects cost more in garbage collection than in comparisons.
    """

    def __init__(self, with_data: bool) -> None:
        self._with_data = with_data
        self._visited: dict[int, object] = {}  # keeps ids unique while the snapshot exists
        self._dicts: list[dict[Any, Any]] = []
        self._copies: list[dict[Any, Any]] = []
        self._empty: list[Any] = []
        self._restorers: list[Callable[[], None]] = []
        self._gradients: list[tuple[Tensor, Tensor | None]] = []
        self._own: set[int] = set()

    def add(self, module: nn.Module) -> None:
        """Save the contents of a module and of everything that it refers to."""
        if self._with_data:
            self._own = set(map(id, tensors_of(module)))
        pending: list[Any] = [module]
        visited, tensors = self._visited, plain_kinds()
        while pending:
            value = pending.pop()
            kind: Any = type(value)
            if kind in _PLAIN or id(value) in visited:
                continue
            visited[id(value)] = value
            if kind is tuple:
                pending += value
            elif kind in tensors:
                self._save_tensor(value)
            elif isinstance(value, dict):
                self._save_dict(value, pending)
            elif _is_plain_module(kind):
                self._save_dict(vars(value), pending)
            else:
                pending += self._save(value)

    def restore(self) -> None:
        """Restore everything that has changed."""
        if any(self._empty):
            for value in self._empty:
                value.clear()
        for value, before in zip(self._dicts, self._copies):
            if len(value) != len(before) or not (
                all(map(is_, value.values(), before.values())) and all(map(is_, value, before))
            ):
                value.clear()
                value.update(before)
        for restore in self._restorers:
            restore()
        for tensor, gradient in self._gradients:
            # A torch.autograd.Function may run a module of its own again in the backward pass.
            if tensor.grad is not gradient:
                tensor.grad = gradient

    def _save_dict(self, value: dict[Any, Any], pending: list[Any]) -> None:
        """Save the contents of a dict; add those that may change to `pending`, unless they are empty."""
        self._dicts.append(value)
        self._copies.append(value.copy() if type(value) is dict else dict(value))
        for item in value.values():
            kind = type(item)
            if kind in _CONTAINERS and not item:
                self._empty.append(item)
            elif kind not in _PLAIN:
                pending.append(item)

    def _save(self, value: Any) -> Iterable[object]:
        """Save the contents of any other value; return the objects that it refers to."""
        import torch

        if isinstance(value, type):
            return ()
        if isinstance(value, torch.Tensor):
            self._save_tensor(value)
            return ()
        if isinstance(value, (list, deque)):
            self._restorers.append(list_restorer(value))
            return value
        if isinstance(value, set):
            self._restorers.append(set_restorer(value))
            return ()
        kind: Any = type(value)
        if _has_slots(kind) and is_helper(value):
            self._restorers.append(slots_restorer(value))
            return attributes_of(value).values()
        return _references(value)

    def _save_tensor(self, tensor: Tensor) -> None:
        """Save the gradient of a tensor, and its values if forward may change them."""
        if tensor.is_leaf and tensor.requires_grad:
            self._gradients.append((tensor, tensor.grad))
        if self._with_data and id(tensor) not in self._own:
            self._restorers.append(_values_restorer(tensor))


@lru_cache(maxsize=4096)
def _is_plain_module(kind: Any) -> bool:
    """Return whether all that an instance of a class refers to is in its attributes, as with torch's own layers."""
    from torch import jit, nn

    is_module = issubclass(kind, nn.Module) and not issubclass(kind, jit.ScriptModule)
    return is_module and not issubclass(kind, (dict, list, set, tuple)) and not _has_slots(kind)


def _references(value: object) -> tuple[object, ...]:
    """Return the objects that a tuple, frozenset, bound method or instance refers to."""
    import torch

    if isinstance(value, (tuple, frozenset)):
        return tuple(value)
    if isinstance(value, MethodType):
        return (value.__self__,)
    attributes = getattr(value, "__dict__", None)
    # TorchScript keeps its state outside Python.
    return (attributes,) if isinstance(attributes, dict) and not isinstance(value, torch.jit.ScriptModule) else ()


def _values_restorer(tensor: Tensor) -> Callable[[], None]:
    values = tensor.detach().clone()

    def restore() -> None:
        from torch import no_grad

        with no_grad():
            tensor.copy_(values)

    return restore


def list_restorer(value: list[Any] | deque[Any]) -> Callable[[], None]:
    before = tuple(value)

    def restore() -> None:
        if len(value) != len(before) or any(item is not other for item, other in zip(value, before)):
            value.clear()
            value.extend(before)

    return restore


def slots_restorer(value: object) -> Callable[[], None]:
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    before = attributes_of(value)

    def restore() -> None:
        now = attributes_of(value)
        for name in names:
            if name in before and now.get(name) is not before[name]:
                object.__setattr__(value, name, before[name])
            elif name in now and name not in before:
                object.__delattr__(value, name)

    return restore


def set_restorer(value: set[Any]) -> Callable[[], None]:
    before = frozenset(value)

    def restore() -> None:
        if value != before:
            value.clear()
            value.update(before)

    return restore
