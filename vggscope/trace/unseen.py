"""See calls of torch that a TorchFunctionMode would miss, and notice where forward may read a size unseen.

The mode sees the calls of its own thread. What is handed to a ThreadPoolExecutor is run at once in that thread, so it
is seen. Another thread is only noticed. DisableTorchFunction, under which no mode is called, is replaced.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

from vggscope.trace.tensors import tensors_in


@cache
def _disabled() -> Any:
    """Torch's own class, under whose name forward may find another one."""
    from torch._C import DisableTorchFunction

    return DisableTorchFunction


def unwatched() -> AbstractContextManager[None]:
    """Do not intercept functions within the block, because the watch itself calls them."""
    context: AbstractContextManager[None] = _disabled()()
    return context


@contextmanager
def noticing(may_read: Callable[[], None], in_thread: Callable[[str], None]) -> Iterator[None]:
    """Call `may_read` within the block where forward may read a size unseen, and `in_thread` with the name of each
    function that computes a tensor in a thread of forward's own. The block is inside one of `without_disabling`.
    """
    with ExitStack() as stack:
        if has_foreign_modes() or has_global_hooks():
            may_read()
        stack.enter_context(_noticed_threads(may_read, in_thread))
        stack.enter_context(in_own_thread())
        yield


@contextmanager
def in_own_thread() -> Iterator[None]:
    """Run what this thread submits to a ThreadPoolExecutor at once, within the block."""
    own, submit = threading.get_ident(), ThreadPoolExecutor.submit

    def run(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if threading.get_ident() != own:
            return submit(pool, function, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    with replaced(ThreadPoolExecutor, "submit", run):
        yield


@contextmanager
def _noticed_threads(may_read: Callable[[], None], in_thread: Callable[[str], None]) -> Iterator[None]:
    """Notice each thread that starts, and each wait for another thread, which may be a worker from before."""
    own = threading.get_ident()
    start: Any = threading.Thread.start
    wait: Any = threading.Condition.wait

    def start_noticed(thread: threading.Thread) -> None:
        if threading.get_ident() == own:
            may_read()
            run = thread.run

            def run_noticed() -> None:
                with _thread_mode(in_thread):
                    run()

            thread.run = run_noticed  # type: ignore[method-assign]
        start(thread)

    def wait_noticed(condition: threading.Condition, timeout: float | None = None) -> bool:
        if threading.get_ident() == own:
            may_read()
        return bool(wait(condition, timeout))

    with replaced(threading.Thread, "start", start_noticed), replaced(threading.Condition, "wait", wait_noticed):
        yield


def _thread_mode(in_thread: Callable[[str], None]) -> AbstractContextManager[object]:
    """Return a mode that calls `in_thread` with the name of each function that computes a tensor."""
    from torch.overrides import TorchFunctionMode

    class ThreadMode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if tensors_in(result):
                in_thread(getattr(func, "__name__", "a function"))
            return result

    return ThreadMode()


@contextmanager
def without_disabling() -> Iterator[None]:
    """Let DisableTorchFunction disable functions of subclasses alone within the block, so that modes are called.

    It is replaced in every module that has imported it.
    """
    from torch._C import DisableTorchFunctionSubclass

    name = _disabled().__name__
    with ExitStack() as stack:
        for path in _watched_modules():
            module = sys.modules.get(path)
            if _attributes_of(module).get(name) is _disabled():
                stack.enter_context(replaced(module, name, DisableTorchFunctionSubclass))
        yield


def _watched_modules() -> frozenset[str]:
    """Return the modules that have imported DisableTorchFunction, and those of the user, who may import it at any time.

    The thousands of libraries import what they use when they are imported, and are looked at once.
    """
    newest = len(sys.modules), next(reversed(sys.modules.values()))  # a new one is the last
    if newest not in _NEWEST:
        name = _disabled().__name__
        for path in sys.modules.keys() - _SEEN:
            attributes = _attributes_of(sys.modules.get(path))
            if name in attributes or not _is_library(path, attributes):
                _WATCHED.add(path)
            _SEEN.add(path)
        _NEWEST[:] = [newest]
    return frozenset(_WATCHED)


def _is_library(path: str, attributes: Mapping[str, object]) -> bool:
    file = str(attributes.get("__file__"))
    return path.partition(".")[0] in _LIBRARIES or "site-packages" in file or "dist-packages" in file


def _attributes_of(module: object) -> Mapping[str, object]:
    """Return the attributes of an entry of sys.modules, which may be anything. A lookup could import something."""
    attributes: Mapping[str, object] = getattr(module, "__dict__", _NOTHING)
    return attributes


_LIBRARIES = frozenset({"torch", "vggscope", *sys.stdlib_module_names}) - {"__main__"}
"""Packages of which some modules have no file, or lie outside the folders of installed packages."""

_SEEN: set[str] = set()
"""The modules that have been looked at."""

_NEWEST: list[tuple[int, object]] = []
"""How many modules there were then, and the last that was imported."""

_WATCHED: set[str] = set()
"""Those of them that are looked at in each run."""

_NOTHING: Mapping[str, object] = MappingProxyType({})


def has_foreign_modes() -> bool:
    """Return whether the caller runs a mode of its own, whose code reads sizes inside of a call."""
    from torch import overrides
    from torch.utils._device import DeviceContext

    stack: Any = overrides
    return not all(isinstance(mode, DeviceContext) for mode in stack._get_current_function_mode_stack())


def has_global_hooks() -> bool:
    """Return whether the caller has hooks on every module, whose code reads sizes inside of a layer."""
    from torch.nn.modules import module

    return bool(module._global_forward_pre_hooks or module._global_forward_hooks)


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Give a class or a module another attribute within the block."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
