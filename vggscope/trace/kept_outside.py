"""Forget the tensors without data that forward keeps outside its module: in caches of functions, in globals.

A forward may keep a table of positions for its next call, by functools.lru_cache or in a dict of its file. After a run
on tensors without data that is a meta tensor, on which the next real call fails. `preserved` restores what the module
refers to. This finds the rest by a search of all objects, which takes a tenth of a second, but only where a tensor of
a run is alive after it.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import CellType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import ref

from vggscope.trace.parts import parts_of
from vggscope.trace.preserve import attributes_of, is_helper

if TYPE_CHECKING:
    from torch import Tensor, nn

_CACHED = type(lru_cache(print))

_WATCHED: list[_Outside] = []
"""Those of the blocks of `forgetting_kept` that are running, of which the last counts."""


@contextmanager
def forgetting_kept(module: nn.Module) -> Iterator[None]:
    """At the end of the block, take the tensors of runs in it out of what existed before.

    The block is to begin with most objects frozen, by gc.freeze: those that the garbage collector has besides are few.
    """
    outside = _Outside(module)
    _WATCHED.append(outside)
    try:
        yield
    finally:
        _WATCHED.remove(outside)
        outside.forget()


def note_run(alive: Callable[[], Iterable[Tensor]]) -> None:
    """Note a run of forward, by a function that returns those of its tensors without data that are alive."""
    if _WATCHED:
        _WATCHED[-1].runs.append(alive)


class _Outside:
    """What the files and classes of a module's parts hold before it runs, and the tensors of its runs."""

    def __init__(self, module: nn.Module) -> None:
        kinds = [kind for kind in {type(part) for part in parts_of(module)} if not kind.__module__.startswith("torch.")]
        files = map(sys.modules.get, dict.fromkeys(kind.__module__ for kind in kinds))
        owners: tuple[Any, ...] = (*kinds, *(file for file in files if isinstance(file, ModuleType)))
        self._owners = {id(_namespace(owner)): (owner, dict(vars(owner))) for owner in owners}
        self._before = frozenset(map(id, gc.get_objects()))  # what is not frozen: all since the caller froze objects
        self.runs: list[Callable[[], Iterable[Tensor]]] = []

    def alive(self) -> list[Tensor]:
        """The tensors of the runs that something holds."""
        return [tensor for alive in self.runs for tensor in alive()]

    def forget(self) -> None:
        """Take the tensors of the runs that are alive out of what holds them."""
        if not self.alive():
            return
        gc.collect()  # of new objects alone
        tensors: list[Any] = self.alive()
        if not tensors:
            return
        new = set(map(id, gc.get_objects())) - self._before
        gc.unfreeze()  # a search passes over frozen objects
        gone: dict[int, object] = {id(tensor): tensor for tensor in tensors}
        found = tensors
        while found:
            held = found
            found = []
            for holder in gc.get_referrers(*held):
                if holder is held or holder is tensors or holder is gone or isinstance(holder, FrameType):
                    continue
                if id(holder) not in new or not _is_container(holder):
                    with suppress(Exception):  # the user's own classes may refuse it
                        self._take_out(holder, gone)
                elif id(holder) not in gone:
                    gone[id(holder)] = holder
                    found.append(holder)
        gc.freeze()

    def _take_out(self, holder: Any, gone: Mapping[int, object]) -> None:
        """Take objects out of one that existed before: give its attributes what they held, and drop its items.

        What an attribute held is known of files and classes. Elsewhere it was most often None, until a first call.
        """
        if isinstance(holder, _CACHED):
            holder.cache_clear()
        elif id(holder) in self._owners:
            owner, before = self._owners[id(holder)]
            for name, value in _held(holder, gone):
                if value is before.get(name):
                    self._take_out(value, gone)
                else:
                    setattr(owner, name, before[name]) if name in before else delattr(owner, name)
        elif isinstance(holder, dict) and _is_namespace(holder):
            for name, value in _held(holder, gone):
                holder[name] = _emptied(value, gone)
        elif isinstance(holder, CellType):
            holder.cell_contents = _emptied(holder.cell_contents, gone)
        elif is_helper(holder):
            for name, value in _held(attributes_of(holder), gone):
                object.__setattr__(holder, name, _emptied(value, gone))
        else:
            _empty(holder, gone)


def _namespace(owner: Any) -> object:
    """The dict that holds the attributes of a class or a file, which `vars` of a class hides."""
    return gc.get_referents(vars(owner))[0] if isinstance(owner, type) else vars(owner)


def _is_namespace(value: dict[Any, Any]) -> bool:
    """Whether a dict holds the globals of a file, from which a name that is dropped would be missing."""
    file = sys.modules.get(str(value.get("__name__")))
    return isinstance(file, ModuleType) and vars(file) is value


def _held(items: Mapping[Any, object], gone: Mapping[int, object]) -> list[tuple[Any, object]]:
    """The items whose key or value is among these objects."""
    return [(key, value) for key, value in items.items() if id(value) in gone or id(key) in gone]


def _emptied(value: Any, gone: Mapping[int, object]) -> Any:
    """What takes the place of an object: an emptied dict, since a dict without items seems new; else None."""
    _empty(value, gone)
    return value if type(value) is dict else None


def _empty(value: Any, gone: Mapping[int, object]) -> None:
    """Drop the items of a container that are among these objects; a dict under a name stays, and is emptied.

    So does one under a weak reference: threading.local refers to those of its threads without owning them.
    """
    if isinstance(value, dict):
        for key, item in _held(value, gone):
            if type(item) is dict and isinstance(key, (str, ref)):
                _empty(item, gone)
            else:
                del value[key]
    elif isinstance(value, (list, deque, set)):
        kept = [item for item in value if id(item) not in gone]
        value.clear()
        (value.update if isinstance(value, set) else value.extend)(kept)
    elif isinstance(value, tuple):  # the defaults of a function
        for item in value:
            _empty(item, gone)
    elif isinstance(value, FunctionType):
        _empty(vars(value), gone)


def _is_container(value: object) -> bool:
    return not isinstance(value, (_CACHED, CellType, FunctionType, ModuleType, type))
