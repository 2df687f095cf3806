"""Pass calls to the watch that no TorchFunctionMode gets: modules, torch.from_numpy, functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from threading import get_ident
from typing import TYPE_CHECKING, Any

from vggscope.trace.recorder import Recorder
from vggscope.trace.unseen import replaced

if TYPE_CHECKING:
    from torch import nn


def intercepted_modules(intercept: Callable[..., object]) -> AbstractContextManager[None]:
    """Pass calls of modules to `intercept`, with the function of torch that runs a module with its hooks."""
    from torch.nn import Module

    call: Any = Module._call_impl

    def intercepted(module: nn.Module, *args: object, **kwargs: object) -> object:
        return intercept(call, module, args, kwargs)

    return replaced(Module, "_call_impl", intercepted)


def intercepted_from_numpy(intercept: Callable[..., object]) -> AbstractContextManager[None]:
    """Pass calls of torch.from_numpy to `intercept`, because a TorchFunctionMode does not get them."""
    import torch

    from_numpy = torch.from_numpy
    return replaced(torch, "from_numpy", lambda array: intercept(from_numpy, (array,), {}))


def saved_tensors_hooks_noticed(note: Callable[[], None]) -> AbstractContextManager[None]:
    """Call `note` whenever hooks are set within the block for the tensors that autograd saves."""
    from torch.autograd.graph import saved_tensors_hooks

    enter = saved_tensors_hooks.__enter__

    def noted(hooks: saved_tensors_hooks) -> None:
        note()
        enter(hooks)

    return replaced(saved_tensors_hooks, "__enter__", noted)


def custom_functions(recorder: Recorder) -> AbstractContextManager[None]:
    """Record the calls inside a torch.autograd.Function as calls with a gradient, though torch turns gradients off."""
    from torch import is_grad_enabled
    from torch.autograd import Function as Custom

    apply, thread = vars(Custom)["apply"], get_ident()

    def apply_with_gradient(kind: Any, /, *args: object, **kwargs: object) -> Any:
        if get_ident() != thread:
            return apply.__get__(None, kind)(*args, **kwargs)
        before, recorder.has_own_backward = recorder.has_own_backward, recorder.has_own_backward or is_grad_enabled()
        try:
            return apply.__get__(None, kind)(*args, **kwargs)
        finally:
            recorder.has_own_backward = before

    return replaced(Custom, "apply", classmethod(apply_with_gradient))


def dispatch_modes() -> int:
    """Return the number of active dispatch modes."""
    return _mode_counters()[0]()


def modes_within() -> int:
    """Return the number of active modes, function modes included, as within a call that a function mode handles."""
    dispatch, function = _mode_counters()
    return dispatch() + function()


@cache
def _mode_counters() -> tuple[Callable[[], int], Callable[[], int]]:
    """Return torch's functions that count the active dispatch modes and function modes."""
    from torch._C import _len_torch_dispatch_stack, _len_torch_function_stack

    return _len_torch_dispatch_stack, _len_torch_function_stack
