"""Run compiled functions as the Python code that they were compiled from, so that their calls can be intercepted."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vggscope.trace.unseen import unwatched

Intercept = Callable[[Callable[..., object], tuple[object, ...], dict[str, object]], object]


@contextmanager
def as_plain_python(intercept: Intercept) -> Iterator[None]:
    """Run compiled functions and modules as plain Python within the block.

    A function of torch.jit.script or torch.jit.trace that was loaded from a file has no Python code. It is passed to
    `intercept` with its arguments.
    """
    with without_compiler(), _script_functions(intercept):
        yield


@contextmanager
def without_compiler() -> Iterator[None]:
    """Run what torch.compile has compiled, or is asked to compile, as plain Python within the block.

    On tensors without data, compiled code would end the process.
    """
    import torch

    # Without torch._dynamo, which takes seconds to import, nothing is compiled yet.
    if "torch._dynamo" not in sys.modules:
        with _replaced_compiler():
            yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*there are global hooks on modules", category=UserWarning)
        yield


@contextmanager
def _replaced_compiler() -> Iterator[None]:
    """Let torch.compile return what it is given, as a forward that calls it would compile for minutes."""
    import torch

    compiler = torch.compile

    def plain(model: Any = None, **options: object) -> Any:
        return plain if model is None else model

    torch.compile = plain
    try:
        yield
    finally:
        torch.compile = compiler


@contextmanager
def _script_functions(intercept: Intercept) -> Iterator[None]:
    from torch.jit import ScriptFunction

    kind: Any = ScriptFunction
    run_compiled = kind.__call__

    def run(function: Any, *args: object, **kwargs: object) -> object:
        source = getattr(function, "_torchdynamo_inline", None)
        if source is not None:
            return source(*args, **kwargs)

        def compiled(*args: object, **kwargs: object) -> object:
            with unwatched():  # its operators are one call
                return run_compiled(function, *args, **kwargs)

        compiled.__name__ = "ScriptFunction"
        return intercept(compiled, args, kwargs)

    kind.__call__ = run
    try:
        yield
    finally:
        kind.__call__ = run_compiled
