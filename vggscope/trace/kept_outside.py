"""Restore what a forward changes outside its module: globals of its file, caches of functions, closures, other objects.

A forward may keep a table of positions for its next call, by functools.lru_cache or in a dict of its file. After a run
on tensors without data that is a meta tensor, on which the next real call fails. `preserved` restores what the module
refers to; this, what the files do in which its classes and the functions that they call are written.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from vggscope.trace.parts import parts_of
from vggscope.trace.preserve import is_helper, list_restorer, set_restorer, slots_restorer

if TYPE_CHECKING:
    from torch import Tensor, nn

DEEPEST = 8
"""How many steps lead from a file to what is saved: to a function, to its file, to a dict there, to what that holds."""

LARGEST = 1000
"""A container with more items is data rather than a cache. It is not saved."""

MOST = 20_000
"""The most values that are looked at, which takes 30 milliseconds."""

_LIBRARIES = {"torch", "torchvision", "timm", "numpy", "vggscope", *sys.stdlib_module_names} - {"__main__"}
"""Packages whose files are not saved: a forward of torchvision or timm keeps nothing in them."""

_CACHED = type(lru_cache(print))
_CALLABLES = (FunctionType, MethodType, partial, _CACHED)

_PLAIN = (str, bytes, int, float, complex, type(None))
"""Types whose values hold nothing that could change, and do not count among the MOST."""

_WATCHED: list[_Outside] = []
"""Those of the blocks of `restoring_outside` that are running, of which the last counts."""


@contextmanager
def restoring_outside(module: nn.Module, *, always: bool = False) -> Iterator[None]:
    """At the end of the block, restore what exists outside the module if a tensor of a run in the block is still alive.

    So it does if forward has got sizes that stand for those of any batch, of which it may keep one for its next call,
    and `always` if the tensors are not known.
    """
    outside = _Outside(module, restores=always)
    _WATCHED.append(outside)
    try:
        yield
    finally:
        _WATCHED.remove(outside)
        outside.restore()


def note_run(alive: Callable[[], Iterable[Tensor]]) -> None:
    """Note a run of forward, by a function that returns those of its tensors without data that are alive."""
    if _WATCHED:
        _WATCHED[-1].runs.append(alive)


def note_sizes() -> None:
    """Note that forward has got sizes that are no plain numbers."""
    if _WATCHED:
        _WATCHED[-1].restores = True


def restore_outside() -> None:
    """Restore what the runs before have changed: a step on other tensors may not meet a table of theirs."""
    if _WATCHED:
        _WATCHED[-1].restore()


class _Outside:
    """What the files and classes of a module's parts hold before it runs, and the tensors of its runs."""

    def __init__(self, module: nn.Module, *, restores: bool) -> None:
        self.runs: list[Callable[[], Iterable[Tensor]]] = []
        self.restores = restores
        self._restorers: list[Callable[[], None]] = []
        self._visited: dict[int, object] = {}  # keeps ids unique while the snapshot exists
        parts = parts_of(module)
        kinds = {kind for kind in {type(part) for part in parts} if _is_own(kind)}
        for kind in kinds:
            self._save(kind, 0)
            self._save(sys.modules.get(kind.__module__), 0)
        for part in parts:
            if type(part) in kinds:
                for value in vars(part).values():
                    if isinstance(value, _CALLABLES):
                        self._save(value, 0)
            if part._forward_hooks or part._forward_pre_hooks:
                for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values()):
                    self._save(hook, 0)

    def alive(self) -> list[Tensor]:
        """The tensors of the runs that something holds."""
        return [tensor for alive in self.runs for tensor in alive()]

    def restore(self) -> None:
        """Restore what was saved, and clear other caches of functions, if they hold tensors of the runs."""
        if self.alive():
            gc.collect()  # of new objects alone, where the others are frozen
        if not (self.restores or self.alive()):
            return
        for restore in self._restorers:
            with suppress(Exception):  # the user's own classes may refuse it
                restore()
        if tensors := self.alive():
            gc.unfreeze()  # a search passes over frozen objects
            _clear_caches(tensors)
            gc.freeze()

    def _save(self, value: Any, depth: int) -> None:
        """Save what a value holds, and what leads on from it."""
        if isinstance(value, _PLAIN) or id(value) in self._visited:
            return
        if depth > DEEPEST or len(self._visited) >= MOST:
            return
        self._visited[id(value)] = value
        with suppress(Exception):  # the user's own classes may refuse to be read
            for other in self._saved(value):
                self._save(other, depth + 1)

    def _saved(self, value: Any) -> Iterable[Any]:
        """Note how to restore a value; return what it refers to."""
        if isinstance(value, (ModuleType, type)):
            return self._saved_names(value) if _is_own(value) else ()
        if isinstance(value, _CALLABLES):
            return self._saved_function(value)
        if isinstance(value, (dict, list, deque, set, tuple)):
            return self._saved_items(value) if len(value) <= LARGEST else ()
        return self._saved_object(value)

    def _saved_names(self, owner: Any) -> Iterable[Any]:
        before = dict(vars(owner))
        self._restorers.append(partial(_restore_names, owner, before))
        return before.values()

    def _saved_function(self, function: Any) -> Iterable[Any]:
        if isinstance(function, MethodType):
            return function.__self__, function.__func__
        if isinstance(function, partial):
            return function.func, *function.args, *function.keywords.values()
        if isinstance(function, _CACHED):
            self._restorers.append(_cache_restorer(function))
            return (function.__wrapped__,)
        cells = [cell for cell in function.__closure__ or () if _content(cell) is not cell]
        self._restorers += [partial(setattr, cell, "cell_contents", cell.cell_contents) for cell in cells]
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        file: Any = sys.modules.get(function.__module__)
        if file is None or vars(file) is not function.__globals__:  # of code that was executed in a dict
            file = function.__globals__ if _is_own(function) else None
        return *map(_content, cells), *defaults, vars(function), file

    def _saved_items(self, value: Any) -> Iterable[Any]:
        if isinstance(value, dict):
            self._restorers.append(partial(_restore_items, value, dict(value)))
            return list(value.values())
        if not isinstance(value, tuple):
            self._restorers.append(set_restorer(value) if isinstance(value, set) else list_restorer(value))
        return tuple(value)

    def _saved_object(self, value: Any) -> Iterable[Any]:
        from torch import Tensor

        if isinstance(value, Tensor):
            return ()
        if is_helper(value):
            self._restorers.append(slots_restorer(value))
        attributes = getattr(value, "__dict__", None)
        return (attributes,) if isinstance(attributes, dict) else ()


def _is_own(owner: Any) -> bool:
    """Whether a file, a class or a function is none of the libraries', which keep nothing."""
    name = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    return str(name).partition(".")[0] not in _LIBRARIES


def _content(cell: CellType) -> Any:
    """What a cell of a closure holds; itself if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return cell


def _restore_names(owner: Any, before: dict[str, Any]) -> None:
    """Give the attributes of a class or a file the values that they had."""
    for name, value in [*vars(owner).items()]:
        if name not in before:
            delattr(owner, name)
        elif value is not before[name]:
            setattr(owner, name, before[name])
    for name in before.keys() - vars(owner).keys():
        setattr(owner, name, before[name])


def _restore_items(value: dict[Any, Any], before: dict[Any, Any]) -> None:
    if list(map(id, value.values())) != list(map(id, before.values())) or list(map(id, value)) != list(map(id, before)):
        value.clear()
        value.update(before)


def _cache_restorer(cached: Any) -> Callable[[], None]:
    misses = cached.cache_info().misses

    def restore() -> None:
        if cached.cache_info().misses != misses:
            cached.cache_clear()

    return restore


def _clear_caches(tensors: list[Any]) -> None:
    """Clear the caches of functions that hold these tensors, also in tuples, lists and dicts."""
    found = tensors
    for _ in range(3):
        holders = gc.get_referrers(*found)
        for holder in holders:
            if isinstance(holder, _CACHED):
                holder.cache_clear()
        found = [holder for holder in holders if type(holder) in (tuple, list, dict) and holder is not found]
        if not found:
            return
